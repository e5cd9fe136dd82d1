"""The entry scripts: one line for each fault of the user's, a traceback for ours, and a quick --help."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError

from tract.common.errors import DataError, TrainingError
from tract.config.comments import leaves
from tract.pipeline.config_help import help_text, in_one_line, sentence
from tract.pipeline.entry import ALLOCATOR, launch, show_masked
from tract.pipeline.validation import validate

ROOT = Path(__file__).resolve().parents[2]
Launch = Callable[..., str]


def check_only(cfg: DictConfig) -> None:
    """A task that does all that precedes the stage."""
    validate(cfg)


@pytest.fixture
def launch_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Launch:
    """Runs the entry with arguments; returns the error line after checking status, stream and form."""

    def run(*arguments: str, task: Callable[[DictConfig], None] = check_only) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as ended:
            launch(task, "train")
        output = capsys.readouterr()
        assert ended.value.code == 2
        lines = output.err.splitlines()
        assert len(lines) == 1, output.err
        assert lines[0].startswith("error: ")
        assert "error: " not in output.out
        assert "Traceback" not in output.err + output.out
        return lines[0].removeprefix("error: ")

    return run


def write_experiment(folder: Path, text: str) -> list[str]:
    """Arguments that choose a user's own experiment file."""
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    return ["experiment=mine", "--config-dir", str(folder)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "objective.score_loss_weight=2",
            "objective.score_loss_weight: unknown key (did you mean lambda?); accepted are ce_weight, score_loss, lambda,",
        ),
        ("train.max_step=2", "train.max_step: unknown key (did you mean max_steps?); accepted are max_epochs, max_steps,"),
        (
            "objektive=tract",
            "objektive: unknown key (did you mean objective?); accepted are seed, pipeline, stages, from, force, dry_run, stage,",
        ),
        ("temperature=0.5", "temperature: unknown key (did you mean generation.temperature?); accepted are seed, pipeline,"),
        ("max_steps=3", "max_steps: unknown key (did you mean train.max_steps?); accepted are seed,"),
        ("n_cot=4", "n_cot: unknown key (did you mean generation.n_cot or evaluation.n_cot?); accepted are seed,"),
        ("rank=8", "rank: unknown key (did you mean adapter.rank?); accepted are seed,"),  # "train" is spelt much like it
        ("filter.keep_closest=1", "filter: unknown key (did you mean stage2.filter?); accepted are seed,"),
        ("train.seed=1", "train.seed: unknown key (did you mean seed?); accepted are max_epochs,"),
        ("lr=0.1", "lr: unknown key (did you mean optimizer.lr?); accepted are seed,"),
        ("devices=4", "devices: unknown key (did you mean trainer.devices?); accepted are seed,"),
        ("+temperature=0.5", "temperature: unknown key (did you mean generation.temperature?); accepted are seed,"),
        ("a.b.c=1", "a: unknown key; accepted are seed, pipeline, stages, from, force, dry_run, stage,"),
        ("objective.use_cot.x=1", "objective.use_cot.x: cannot be set (Key 'x' is not in struct)"),
        (
            "trainer.bogus=1",
            "trainer.bogus: unknown key of trainer; keys of it that the configuration does not hold yet are added with a plus",
        ),
        (
            "data=columns data.source.columns.raters=who",
            "data.source.columns.raters: unknown key (did you mean data.source.columns.rater?)",
        ),
        ("data=columns data.source.columns.scores=s", "data.source.columns.scores: unknown key (did you mean data.source.columns.score?)"),
        ("data=columns data.source.colums.score=s", "data.source.colums.score: unknown key (did you mean data.source.columns.score?)"),
        ("data=columns data.sorce.rubrik=s", "data.sorce.rubrik: unknown key (did you mean data.source.rubric?)"),
        ("data=feedback_jsonl data.source.columns.score=s", "data.source.columns.score: is a key of data=columns, for files of your own;"),
        (
            "data=columns data.source.columns.zzz=s",
            "data.source.columns.zzz: unknown; accepted are instruction, response, reference_answer,",
        ),
        (
            "data=columns data.source.columns.score_descriptions.1=s",
            "data.source.columns.score_descriptions.1: unknown key of data.source;",
        ),
        ("data=columns data.source.bogus=1", "data.source.bogus: unknown key of data.source; keys of it that the configuration does not"),
        ("model=mistrl", "model: there is no option 'mistrl' (did you mean mistral_7b_instruct?); accepted are gemma3_12b,"),
        ("experiment=tract_quikstart", "experiment: there is no option 'tract_quikstart' (did you mean tract_quickstart"),
        ("+ablation=ce_ony", "ablation: there is no option 'ce_ony' (did you mean ce_only?); accepted are"),
        ("modle=tiny", "modle: unknown key (did you mean model?); accepted are seed,"),
        ("ablaton=ce_only", "ablaton: unknown group (did you mean +ablation?); groups that are chosen with a plus are ablation,"),
        ("+ablaton=ce_only", "ablaton: unknown"),
        ("model=foo", "model: there is no option 'foo'; accepted are gemma3_12b, gemma3_1b,"),
        ("experiment=foo", "experiment: there is no option 'foo'; accepted are ce_both_mistral,"),
        ("+ablation=foo", "ablation: there is no option 'foo'; accepted are ce_both, ce_only,"),
        ("ablation=ce_both", "ablation: no option of this group is chosen yet; add one with a plus, +ablation=ce_both"),
        ("--config-name=foo", "foo: there is no such configuration file or group in conf"),
        ("seed", "override 'seed': cannot be read (missing EQUAL at '<EOF>'); write KEY=VALUE"),
        ("run.tags=[a", "override 'run.tags=[a': cannot be read (no viable alternative at input '[a'); write KEY=VALUE"),
        ("model.pad_token=<unk>", "override 'model.pad_token=<unk>': cannot be read (LexerNoViableAltException: "),
        ("seed=abc", "seed: found 'abc'; a whole number is accepted"),
        ("optimizer.lr=abc", "optimizer.lr: found 'abc'; a number is accepted"),
        ("optimizer.betas=[0.9]", "optimizer.betas: found [0.9]; a list of 2 numbers, e.g. [0.9, 0.999], is accepted"),
        ("optimizer.weight_decay=true", "optimizer.weight_decay: found True; a number is accepted"),
        ("trainer.num_nodes=1.5", "trainer.num_nodes: found 1.5; a whole number is accepted"),
        ("trainer.benchmark=perhaps", "trainer.benchmark: found 'perhaps'; true or false is accepted"),
        ("+scheduler.kwargs.num_cycles=x", "scheduler.kwargs.num_cycles: found 'x'; a number is accepted"),
        ("data=feedback_jsonl", "data.path: a value is missing; give data.path=..."),
        ("~data", "data: the whole section is missing"),
        ("seed=${nope}", "seed: Interpolation key 'nope' not found"),
    ],
)
def test_one_line_and_status_2(arguments: str, message: str, launch_with: Launch) -> None:
    assert launch_with(*arguments.split()).startswith(message)


def test_options_that_start_with_an_underscore_are_not_offered(launch_with: Launch) -> None:
    assert "_base" not in launch_with("model=foo")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("- a\n- b\n", ["experiment/mine", "Cannot merge DictConfig with ListConfig"]),
        ("seed: [1\nstage: x\n", ["YAML: ", "mine.yaml", "line 2"]),
        ("seed: 1\n\tstage: x\n", ["YAML: ", "mine.yaml", "line 3"]),
        ("objective: 3\n", ["objective: found 3; a section with the keys ce_weight"]),
        ("objective:\n  tract:\n    ce_weight: 1\n", ["objective.tract: unknown key", "accepted are ce_weight"]),
        ("runn:\n  name: x\n", ["runn: unknown key (did you mean run?)"]),
        ("defaults:\n  - override /objektive: tract\n", ["objektive"]),
        ("defaults:\n  - override /objective: nope\n  - _self_\n", ["objective: there is no option 'nope'; accepted are ce_only"]),
    ],
)
def test_own_yaml_of_the_wrong_shape(text: str, pieces: list[str], launch_with: Launch, tmp_path: Path) -> None:
    message = launch_with(*write_experiment(tmp_path, text))
    assert [piece for piece in pieces if piece not in message] == [], message


def test_several_problems_in_one_line(launch_with: Launch) -> None:
    message = launch_with("seed=abc", "train.max_steps=many", "+extra=1")
    assert [key for key in ("seed: ", "train.max_steps: ", "extra: ") if key not in message] == []


def test_message_of_a_stage_is_joined_to_one_line(launch_with: Launch) -> None:
    def task(cfg: DictConfig) -> None:
        raise DataError("file.jsonl:3: not\n  JSON")

    assert launch_with(task=task) == "file.jsonl:3: not JSON"


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError, AssertionError])
def test_an_error_of_ours_is_not_hidden(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def task(cfg: DictConfig) -> None:
        raise kind("a bug")

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(kind, match="a bug"):
        launch(task, "train")


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_large_tensors_get_huge_pages(given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "before")  # so that it is put back
    os.environ.pop("THP_MEM_ALLOC_ENABLE")
    if given is not None:
        os.environ["THP_MEM_ALLOC_ENABLE"] = given
    seen = []
    monkeypatch.setattr(sys, "argv", ["train.py"])
    GlobalHydra.instance().clear()
    launch(lambda cfg: seen.append(os.environ["THP_MEM_ALLOC_ENABLE"]), "train")
    assert seen == [expected]


def test_torch_knows_the_variable() -> None:
    """Else the name is no longer right: then memory goes back to what it was, silently."""
    told = "import mmap, torch; print(sum(torch.empty(2**22 + 4096 * k, dtype=torch.uint8).data_ptr() % mmap.PAGESIZE for k in range(9)))"
    beyond_a_page = [
        int(subprocess.run([sys.executable, "-c", told], env={**os.environ, **extra}, capture_output=True, text=True, check=True).stdout)
        for extra in (ALLOCATOR, dict.fromkeys(ALLOCATOR, "0"))
    ]
    assert beyond_a_page[0] == 0 < beyond_a_page[1]


NO_SPACE, OVER_QUOTA = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


def full() -> OSError:
    """What the system raises where a file does not fit."""
    return OSError(errno.ENOSPC, NO_SPACE, "runs/last.ckpt")


def raised(error: Exception, *, cause: Exception | None = None, context: Exception | None = None) -> Callable[[DictConfig], None]:
    """A task that raises the error, from a cause or while another one is handled."""

    def task(cfg: DictConfig) -> None:
        if cause is not None:
            raise error from cause
        try:
            if context is not None:
                raise context
        finally:
            raise error

    return task


@pytest.mark.parametrize(
    ("task", "what"),
    [
        (raised(full()), "runs/last.ckpt"),
        (raised(OSError(errno.EDQUOT, OVER_QUOTA, b"runs/a.json")), "runs/a.json"),
        (raised(OSError(errno.ENOSPC, NO_SPACE)), f"[Errno {errno.ENOSPC}] {NO_SPACE}"),
        (raised(OSError(errno.ENOSPC, NO_SPACE, 7)), f"[Errno {errno.ENOSPC}] {NO_SPACE}: 7"),
        (raised(OSError(f"Cannot write: {NO_SPACE}")), f"Cannot write: {NO_SPACE}"),
        (raised(RuntimeError("unexpected pos 768 vs 662"), context=full()), "runs/last.ckpt"),
        (raised(ValueError("cannot save"), cause=full()), "runs/last.ckpt"),
        (raised(DataError("a.json: cannot be read"), cause=full()), "runs/last.ckpt"),
        (raised(RuntimeError(f"write failed: {OVER_QUOTA}")), f"write failed: {OVER_QUOTA}"),
        (
            raised(SafetensorError(f"Error while serializing: I/O error: {NO_SPACE} (os error 28)")),
            f"Error while serializing: I/O error: {NO_SPACE} (os error 28)",
        ),
        (raised(full(), cause=FileNotFoundError(errno.ENOENT, "absent", "other")), "runs/last.ckpt"),
        (
            raised(OSError(errno.ENOSPC, NO_SPACE), context=FileNotFoundError(errno.ENOENT, "absent", "other")),
            f"[Errno {errno.ENOSPC}] {NO_SPACE}",
        ),
    ],
)
def test_a_full_disk_is_one_line(task: Callable[[DictConfig], None], what: str, launch_with: Launch) -> None:
    message = launch_with(task=task)
    assert message == f"disk full: {what}; free space and run the same command again: it goes on where it stopped"


def test_a_disk_that_is_really_full(launch_with: Launch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a device without space")

    def task(cfg: DictConfig) -> None:
        with open("/dev/full", "w") as file:
            file.write("x")

    assert launch_with(task=task).startswith(f"disk full: [Errno {errno.ENOSPC}] {NO_SPACE}; free space")


def test_a_message_that_quotes_the_words_of_a_full_disk_is_shown_as_it_is(launch_with: Launch) -> None:
    message = f"a.jsonl:3: score: found {NO_SPACE!r}; a finite number is accepted"
    assert launch_with(task=raised(DataError(message))) == message
    assert launch_with(task=raised(TrainingError(message))) == message


def ring() -> Exception:
    """Two errors, each of which came from the other."""
    first, second = RuntimeError("a bug"), RuntimeError("another")
    first.__cause__, second.__cause__ = second, first
    return first


def from_none() -> Exception:
    """An error that declares what came before it to be of no matter."""
    error = RuntimeError("a bug")
    error.__context__, error.__suppress_context__ = full(), True
    return error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "a bug", NO_SPACE),
        PermissionError(errno.EACCES, "a bug", "runs/last.ckpt"),
        OSError(errno.EIO, "a bug"),
        OSError("a bug"),
        ValueError(f"a bug: {NO_SPACE}"),
        ring(),
        from_none(),
    ],
    ids=repr,
)
def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(cfg: DictConfig) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(type(error), match="a bug"):
        launch(task, "train")


def test_a_configuration_error_after_validation_is_ours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(cfg: DictConfig) -> None:
        OmegaConf.set_struct(cfg, True)
        cfg.no_such_key  # noqa: B018

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(Exception, match="no_such_key"):
        launch(task, "train")


def test_the_task_gets_the_composed_configuration_and_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr(sys, "argv", ["train.py", "model=tiny", "seed=5"])
    monkeypatch.chdir(tmp_path)
    launch(lambda cfg: seen.append((cfg.model.name_or_path, cfg.seed)), "train")
    assert seen == [("assets/tiny", 5)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kills
def test_multirun_runs_each_job_and_its_folder_has_no_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    arguments = ["-m", "model=tiny", "objective=tract,ce_only", "seed=0,1", f"paths.runs={tmp_path}/runs", "run.name=sweep"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    launch(lambda cfg: seen.append((cfg.objective.ce_on_score, cfg.seed)), "train")
    assert seen == [(False, 0), (False, 1), (True, 0), (True, 1)]
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "runs/sweep/multirun/multirun.yaml"
    ]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_real_script_prints_one_line_and_exits_with_2() -> None:
    done = python("train.py", "model=foo")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: model: there is no option 'foo'; accepted are ")


def test_the_real_script_shows_a_traceback_for_a_bug() -> None:
    program = "import sys; sys.argv = ['train.py']; from tract.pipeline.entry import launch\ndef task(cfg): 1 / 0\nlaunch(task, 'train')"
    done = python("-c", program)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def groups_shown(text: str) -> set[str]:
    """The groups that the help lists, each at the beginning of a line, two blanks in."""
    return set(re.findall(r"^  (\w+)  +\S", text.partition("\nGroups,")[2].partition("\nKeys,")[0], re.MULTILINE))


def test_help_lists_groups_and_keys() -> None:
    done = python("train.py", "--help")
    assert done.returncode == 0
    assert {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"hydra"} == groups_shown(done.stdout)
    assert "python train.py experiment=tract_quickstart" in done.stdout
    assert "  objective.lambda = 1.0            weight of score_loss\n" in done.stdout
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        keys = [key for key, _ in leaves(OmegaConf.to_container(compose("train"))) if not key.endswith(("_target_", "_partial_"))]
    assert [key for key in keys if f"\n  {key} = " not in done.stdout] == []


@pytest.mark.parametrize("columns", [40, 80, 90, 300])
def test_help_keeps_to_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_text(ROOT / "conf", "train", [], "python train.py").splitlines()
    most = min(max(columns, 80), 100)
    assert [line for line in lines if len(line) > most] == []
    assert len(lines) < 400


@pytest.mark.parametrize("script", ["generate_cot", "evaluate"])
def test_no_example_of_the_other_scripts_is_wider_than_the_terminal(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in help_text(ROOT / "conf", script, [], f"python {script}.py").splitlines() if len(line) > 80] == []


def test_help_shows_the_values_of_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "mine.yaml").write_text('labels: ["0", "1"]\n')
    given = [f"--config-dir={tmp_path}", "-m", "grid=mine", "seed=3", "objective=tract,ce_only", "--help"]
    text = help_text(ROOT / "conf", "train", given, "tract train")
    assert re.search(r"^  seed = 3$|^  seed = 3  ", text, re.MULTILINE)
    assert "  grid.labels = [0,1]\n" in text
    assert re.search(r"^  grid .*\*mine", text, re.MULTILINE)
    assert "usage: tract train " in text
    assert "python train.py" not in text


def test_help_with_a_mistake_is_one_line(launch_with: Launch) -> None:
    assert launch_with("--help", "model=tinny").startswith("model: there is no option 'tinny'")
    assert launch_with("--help", "--config-dir=nowhere").startswith("--config-dir: there is no folder 'nowhere'")


def test_hydras_own_help_is_left_to_it() -> None:
    assert "== Flags ==" in python("train.py", "--hydra-help").stdout


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("Of the intervals.", 40, "Of the intervals."),
        ("Steps of it; -1: no limit but epochs.", 20, "Steps of it"),
        ("A sentence without any clause to cut at.", 20, "A sentence ..."),
    ],
)
def test_a_meaning_is_cut_at_a_clause(text: str, most: int, expected: str) -> None:
    assert in_one_line(text, most) == expected


def test_the_first_sentence_of_a_comment() -> None:
    assert sentence("Weight, e.g. 0.5 of it. Another\n one.") == "Weight, e.g. 0.5 of it."


@pytest.mark.parametrize(("script", "stages"), [("generate_cot", "[generate]"), ("evaluate", "[predict,evaluate]")])
def test_help_of_a_stage_alone(script: str, stages: str) -> None:
    done = python(f"{script}.py", "--help")
    assert done.returncode == 0
    assert f"python {script}.py " in done.stdout
    assert f"\n  stages = {stages}" in done.stdout
    assert "\n  ablation    ce_both, ce_only," in done.stdout


def test_without_the_configuration_files_one_line_says_so(launch_with: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tract.pipeline.entry.CONFIG_DIR", tmp_path)
    assert re.match(r"conf: there is no .*train.yaml: .*train from a checkout", launch_with())


@pytest.mark.slow
@pytest.mark.kills
def test_a_real_multirun_trains_both_jobs_into_folders_of_their_own(tmp_path: Path) -> None:
    small = [
        "data.source.n_questions=12",
        "data.source.n_ood_questions=0",
        "logger=csv",
        "trainer.enable_progress_bar=false",
        "batch.global_batch_size=2",
        "batch.micro_batch_size=2",
    ]
    places = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"]
    done = python(
        "train.py",
        "-m",
        "experiment=tract_quickstart",
        "model=tiny",
        "objective=tract,ce_only",
        "train.max_steps=2",
        "stages=[stage1]",
        *small,
        *places,
    )
    assert done.returncode == 0, done.stderr
    manifests = sorted((tmp_path / "runs" / "tract_quickstart").glob("objective=*/seed0/*/manifest.json"))
    assert len(manifests) == 2
    assert {json.loads(path.read_text())["training"]["optimizer_steps"] for path in manifests} == {2}
    assert not list((tmp_path / "runs").rglob("*.partial"))
    lines = done.stdout.splitlines()
    assert [re.sub(r" after \d+ s", "", line.partition(";")[0]) for line in lines[1:]] == [
        "job #0: objective=tract, seed 0: done", "job #1: objective=ce_only, seed 0: done",
    ], "a line for each job"  # fmt: skip
    assert lines[0].startswith("the log of each job: ")
    logs = sorted((tmp_path / "runs" / "tract_quickstart" / "multirun" / "logs").iterdir())
    assert [log.read_text().count("stage1: finished, ") for log in logs] == [1, 1]


def test_a_traceback_shows_no_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "c0rrect-h0rse")
    error = ValueError("http://me:b4ttery@host does not know c0rrect-h0rse")
    show_masked(type(error), error, None)
    assert capsys.readouterr().err == "ValueError: http://***@host does not know ***\n"
