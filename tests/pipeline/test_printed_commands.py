"""What a run prints to be run next composes, is valid and says something sensible, for every pipeline; however the run was started."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from composing import CONF, composed
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig
from tiny_overrides import TINY

from tract.common import command_line
from tract.common.command_line import SUBCOMMANDS, given_command, install_command, tract_command
from tract.config.schema import Config
from tract.pipeline.commands import is_job, next_commands
from tract.pipeline.entry import launch
from tract.pipeline.validation import validate

ROOT = CONF.parent
JUDGE = "runs (old)/it's/stage2-0123abcdef"
COLUMNS = ("data.path=my rows.csv", "data.source.columns={instruction: 'the question', response: answer, score: grade}")
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
ABLATIONS = sorted(path.stem for path in (CONF / "ablation").glob("*.yaml"))
# What a user gives beside an experiment: the pipelines that trained a judge, each by what its command line said.
GIVEN: dict[str, tuple[str, ...]] = {
    **{f"experiment {name}": (f"experiment={name}", *(TINY if not name.startswith("own") else (*COLUMNS, "model=tiny", "trainer=cpu")))
       for name in EXPERIMENTS},
    **{f"ablation {name}": ("experiment=tract_quickstart", *TINY, f"+ablation={name}") for name in ABLATIONS},
    "nothing": (),
    "two of its stages": ("pipeline=[stage1,predict,evaluate]", "stages=[stage1,evaluate]", "force=[all]", "dry_run=false"),
    "a debug run": ("experiment=tract_quickstart", *TINY, "debug=fdr"),
    "given CoTs": ("evaluation.cots=annotated", "evaluation.predictors=[rail,no_cot]"),
    "several CoTs": ("evaluation.n_cot=3",),
    "another to compare with": ("compare_to=stage1",),
    "odd texts": ("run.name='a=1,b'", "paths.runs='my runs, [1]'", "data.source.seed=3", "+trainer.detect_anomaly=true"),
}  # fmt: skip


def hydra_of(monkeypatch: pytest.MonkeyPatch, *overrides: str, mode: RunMode = RunMode.RUN) -> None:
    """Lets this process look like one that Hydra started."""
    content = SimpleNamespace(
        overrides=SimpleNamespace(task=list(overrides)), runtime=SimpleNamespace(config_sources=[]), 
        job=SimpleNamespace(config_name="train"), mode=mode,
    )  # fmt: skip
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: content)


def jobs_of(arguments: list[str]) -> list[list[str]]:
    """The overrides of each job of a command."""
    parsed = OverridesParser.create().parse_overrides(arguments)
    return [list(job) for job in product(*(
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()] if override.is_sweep_override()
        else [str(override.input_line)] for override in parsed
    ))]  # fmt: skip


def composed_of(line: str) -> list[tuple[str, Config]]:
    """(script, its configuration) of each job of a printed line, as the shell and Hydra read it."""
    words = shlex.split(line)
    script, rest = next((name, words[place + 1 :]) for place, name in enumerate(words) if name.endswith(".py"))
    flags = [word for word in rest if word.startswith("-")]
    name = Path(script).stem
    jobs = jobs_of([word for word in rest if not word.startswith("-")])
    assert (flags == ["-m"]) == (len(jobs) > 1)
    return [(name, validate(composed(job, name))) for job in jobs]


@pytest.mark.parametrize("what", GIVEN)
def test_what_is_printed_at_the_end_of_every_pipeline_is_a_valid_command(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = GIVEN[what]
    cfg = validate(composed(given))
    hydra_of(monkeypatch, *given)
    lines = next_commands(cfg, JUDGE)
    evaluated, trained, repeated = (dict(), dict(), [])  # type: ignore[var-annotated]
    for line in lines:
        jobs = composed_of(line)
        for script, found in jobs:
            assert (found.data, found.model, found.prompt, found.paths) == (cfg.data, cfg.model, cfg.prompt, cfg.paths), line
            assert (found.run.name, found.pipeline, found.force, found.dry_run) == (
                cfg.run.name,
                cfg.pipeline,
                cfg.force if "debug" in what else [],
                False,
            )
            if script == "evaluate":
                assert (found.judge, found.stages) == (JUDGE, ["predict", "evaluate"])
                assert found.compare_to not in (None, "stage1")
                evaluated[line] = found
            elif len(jobs) == 1:
                trained[line] = found
            else:
                repeated.append(found.seed)
    assert repeated == [cfg.seed, cfg.seed + 1, cfg.seed + 2]
    sensible(cfg, list(evaluated.values()), list(trained.values()))


def sensible(cfg: Config, evaluated: list[Config], trained: list[Config]) -> None:
    """That what is changed moves something, in this pipeline."""
    (changed,) = trained
    if cfg.objective.ce_weight and cfg.objective.score_loss_weight:
        assert changed.objective.score_loss_weight == pytest.approx(cfg.objective.score_loss_weight / 10)
    else:  # lambda weighs nothing against anything
        assert changed.objective == cfg.objective
        assert changed.optimizer["lr"] == pytest.approx(cfg.optimizer["lr"] / 3, rel=0.05)
    if not evaluated:
        assert cfg.evaluation.perturbations
        return
    (closer,) = evaluated
    if cfg.evaluation.n_cot == 0:
        assert (closer.evaluation.n_cot, closer.evaluation.perturbations) == (0, ["all"])
    elif cfg.evaluation.cots == "sampled":
        assert closer.evaluation.n_cot == 2 * cfg.evaluation.n_cot
    else:
        assert closer.evaluation.cots == "sampled"


OWN_DATA = """\
defaults: [columns, _self_]
path: judged.csv
val_fraction: 0.25
test_fraction: 0.25
source:
  columns: {question_id: qid, instruction: question, response: answer, cot: feedback, score: grade}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_own_rows_print_runs(tmp_path: Path) -> None:
    """A run and a multirun of them, with a folder of configurations that lies beside them; from that folder."""
    work, environment = tmp_path / "my work", {**os.environ, "OMP_NUM_THREADS": "1"}
    (work / "my conf" / "data").mkdir(parents=True)
    (work / "my conf" / "data" / "my_data.yaml").write_text(OWN_DATA)
    rows = [f"q{k},Question {k}?,Answer {k} {score}.,It says {k}.,{score}" for k in range(12) for score in (1, 4)]
    (work / "judged.csv").write_text("\n".join(["qid,question,answer,feedback,grade", *rows]) + "\n")
    small = [
        "experiment=own_data", "data=my_data", "model=tiny", "train.max_steps=1", "generation.max_cot_tokens=8", "logger=none",
        "evaluation.resamples=10", "evaluation.max_items=4", "trainer.enable_progress_bar=false", "run.name=own",
        f"paths.cache={tmp_path}/cache", "paths.runs='my runs, [1]'",
    ]  # fmt: skip

    def run(words: list[str]) -> str:
        done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    start = [sys.executable, str(ROOT / "train.py"), "--config-dir", "my conf"]
    lines = run([*start, *small]).split("what to try next:\n")[1].splitlines()[:3]
    assert "evaluate.py --config-dir 'my conf' experiment=own_data data=my_data" in lines[0]
    assert "what to try next" not in run(shlex.split(lines[0]))
    said = run(shlex.split(lines[2]))
    assert "what to try next" not in said
    assert "one variant, val/rmse in training: own (" in said
    (compare,) = [line.partition("compare: ")[2] for line in said.splitlines() if line.startswith("compare: ")]
    assert shlex.split(compare)[-1] == "my runs, [1]/own/multirun"
    assert "[95 % interval over seeds]" in run(shlex.split(compare)), "three, with the first run"


def test_a_job_of_a_multirun_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end says what to do next, not each of its jobs."""
    assert not is_job()
    hydra_of(monkeypatch)
    assert not is_job()
    hydra_of(monkeypatch, mode=RunMode.MULTIRUN)
    assert is_job()


def launched(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> list[tuple[Config, list[str]]]:
    """(configuration, what would be printed) of each job of a command, read by Hydra itself; no job runs."""
    found: list[tuple[Config, list[str]]] = []

    def task(cfg: DictConfig) -> None:
        found.append((validate(cfg), next_commands(validate(cfg), JUDGE)))

    place = next(k for k, word in enumerate(words) if word in SUBCOMMANDS.values() or word.endswith(".py"))
    name = next((Path(script).stem for script, alias in SUBCOMMANDS.items() if words[place] == alias), Path(words[place]).stem)
    monkeypatch.setattr(sys, "argv", words[place:])
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *words] if words[0] != sys.executable else words)
    GlobalHydra.instance().clear()
    launch(task, name)
    return found


@pytest.mark.parametrize("folder", ["mine", "{root}/my conf #1"])
@pytest.mark.parametrize("start", [("{root}/tract", "train"), ("train.py",)])
def test_a_folder_of_the_user_s_own_and_the_way_to_start_stay(
    folder: str, start: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder and an absolute one; with and without the command ``tract``."""
    monkeypatch.chdir(tmp_path)
    own = Path(folder.format(root=tmp_path))
    (own / "data").mkdir(parents=True)
    (own / "data" / "my_data.yaml").write_text(
        "defaults: [columns, _self_]\npath: judged.csv\nsource: {columns: {instruction: q, response: a}}\n"
    )
    program = [word.format(root=tmp_path) for word in start]
    if start == ("train.py",):
        program = [str(ROOT / "train.py")]
    given = [*program, "--config-dir", str(own), "experiment=own_data", "data=my_data", "model=tiny", f"paths.runs={tmp_path}/runs"]
    ((cfg, lines),) = launched(monkeypatch, given)
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)
        assert words[0] == (str(tmp_path / "tract") if len(start) == 2 else command_line.interpreter()), line
        jobs = launched(monkeypatch, words[1:] if len(start) == 1 else words)
        assert [job.data for job, _ in jobs] == [cfg.data] * (3 if "-m" in words else 1)
        assert [job.prompt for job, _ in jobs] == [cfg.prompt] * len(jobs)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["python", "train.py", "seed=1"], ["python", "train.py", "seed=1"]),
        (["python", "-X", "utf8", "-P", "train.py", "seed=1"], ["python", "-X", "utf8", "-P", "train.py", "seed=1"]),
        (["python", "{bin}/tract", "train", "-m", "seed=1,2"], ["tract", "train", "-m", "seed=1,2"]),
        (["python", "/elsewhere/tract", "evaluate"], ["/elsewhere/tract", "evaluate"]),
        (["python", "-P", "-m", "tract", "generate", "seed=1"], ["python", "-P", "-m", "tract", "generate", "seed=1"]),
        (["python", "{bin}/tract", "grade", "a b.csv"], ["tract", "grade", "a b.csv"]),
        (["python", "{bin}/tract"], ["python", "{bin}/tract"]),
        (["python", "-m", "pytest", "tract", "train"], ["python", "-m", "pytest", "tract", "train"]),
        (["python"], ["python"]),
    ],
)
def test_the_command_that_was_given_can_be_given_again(
    arguments: list[str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tract").write_text("#!/bin/sh\n")
    (tmp_path / "tract").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(command_line, "interpreter", lambda: "python")
    monkeypatch.setattr(sys, "orig_argv", [word.format(bin=tmp_path) for word in arguments])
    assert given_command() == [word.format(bin=tmp_path) for word in expected]


def test_extras_are_installed_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert install_command("slurm") == "pip install -c constraints.txt -e '.[slurm]'"
    assert install_command("", "deepspeed") == "pip install -c constraints.txt deepspeed"
    monkeypatch.chdir(tmp_path)
    assert install_command("slurm") == f"pip install -c {ROOT}/constraints.txt -e '{ROOT}[slurm]'"


def test_tract_is_found_beside_the_interpreter_or_started_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tract_command("compare", "my runs") == f"{tmp_path}/python -m tract compare 'my runs'"
    for name in ("python", "tract"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert tract_command("compare", "runs") == "tract compare runs"
    monkeypatch.setenv("PATH", "/bin")  # .venv is not activated
    assert tract_command("compare", "runs") == f"{tmp_path}/tract compare runs"


def test_the_printed_way_to_tract_starts_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [*shlex.split(tract_command("compare", "no such folder"))], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: tract compare: there is no file or folder no such folder; give graded files, or folders of runs\n",
    )
