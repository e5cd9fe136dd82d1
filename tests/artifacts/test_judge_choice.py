"""Which judge of a folder of runs is taken, from folders as the pipeline leaves them but without weights."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tract.artifacts.judge_choice import Choice, chosen_judge, described
from tract.artifacts.judge_location import ADAPTER, BASE, EXPORTED, FIT, HUB, IN_PACKAGE, MODEL, locate_judge
from tract.artifacts.records import FAILED, RunRecord
from tract.common.errors import ConfigError, DataError

NONE = Choice()


@dataclass
class Made:
    """Runs with stages that hold nothing but what says what they are."""

    root: Path
    number: int = 0

    def stage(self, name: str, parents: dict[str, Path] | None = None, *, seed: int = 0, rmse: float | None = None, **config: Any) -> Path:
        """A complete stage in the store."""
        self.number += 1
        folder = self.root / "stages" / f"{name}-{self.number:010x}"
        folder.mkdir(parents=True)
        exported = {"weights": "best", "step": 1, **({} if rmse is None else {"val/rmse": rmse})}
        manifest = {
            "stage": name, "seed": seed, "key": f"{self.number:010x}", "finished": f"2026-01-{self.number:02d}",
            "training": {"exported": exported, "final_metrics": {"val/ce": 1.0}},
            "parents": {role: str(path) for role, path in (parents or {}).items()},
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "stage": name, "run": {"name": "sweep"}, **config}))
        return folder

    def pipeline(self, run: str, *, rmse: float | None = None, first: Path | None = None, **config: Any) -> Path:
        """Stage 2 of a run with all stages, which are linked in its folder; returns stage 2."""
        seed = int(run[-1])
        first = first or self.stage("stage1", seed=seed, rmse=9.0, **config)
        generated = self.stage("generate", {"judge": first}, seed=seed)
        second = self.stage("stage2", {"generate": generated}, seed=seed, rmse=rmse, **config)
        self.link(run, first, generated, second)
        return second

    def link(self, run: str, *stages: Path) -> Path:
        folder = self.root / run
        folder.mkdir(parents=True, exist_ok=True)
        for stage in stages:
            (folder / stage.name).symlink_to(f"{'../' * len(Path(run).parts)}stages/{stage.name}")
        return folder


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "runs")


@pytest.fixture
def sweep(made: Made) -> dict[str, Path]:
    """Two variants of two seeds each; returns run -> its stage 2."""
    runs = [f"sweep/objective.lambda={weight}/seed{seed}" for weight in (0.1, 1) for seed in (0, 1)]
    return {run: made.pipeline(run, rmse=rmse, objective={"lambda": run}) for run, rmse in zip(runs, (0.9, 0.5, 0.7, 0.8), strict=True)}


def refused(folder: Path, choice: Choice = NONE) -> str:
    with pytest.raises(ConfigError) as error:
        chosen_judge(folder, choice)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_stages_of_one_pipeline_are_one_judge(made: Made) -> None:
    second = made.pipeline("one/seed0")
    found = chosen_judge(made.root / "one" / "seed0", NONE)
    assert found.path.resolve() == second
    assert (found.name, found.variant, found.seed, found.stage) == ("one", None, 0, "stage2")
    # The only one below, too.
    assert chosen_judge(made.root / "one", NONE).path == found.path
    assert chosen_judge(made.root / "one" / "seed0", Choice(stage="stage1")).stage == "stage1"


def test_a_run_that_was_cut_off_is_judged_by_its_first_stage(made: Made) -> None:
    first = made.stage("stage1")
    folder = made.link("cut/seed0", first)
    (made.root / "stages" / "stage2-0.partial").mkdir()
    assert chosen_judge(folder, NONE).path.name == first.name
    # Where links are impossible, the record alone says it; one of a failed run does not count.
    (folder / first.name).unlink()
    RunRecord(FAILED, {"a": 1}, stages={"stage1": "../../../stages/gone"}).write(folder)
    RunRecord("complete", {"a": 2}, stages={"stage1": f"../../../stages/{first.name}"}).write(folder)
    assert chosen_judge(folder, NONE).path.resolve() == first


def test_each_job_of_a_sweep_has_its_own_judge(made: Made, sweep: dict[str, Path]) -> None:
    for run, second in sweep.items():
        found = chosen_judge(made.root / run, NONE)
        assert found.path.resolve() == second
        assert f"{found.variant}/seed{found.seed}" == run.removeprefix("sweep/")
        assert found.name == f"sweep-{found.variant}"
        assert described(found) == f"variant {found.variant}, seed {found.seed}, stage2-{found.key}"


@pytest.mark.parametrize("folder", ["sweep", ".", "sweep/objective.lambda=1"])
def test_several_judges_are_listed_and_none_is_taken(folder: str, made: Made, sweep: dict[str, Path]) -> None:
    said = refused(made.root / folder)
    below = [run for run in sweep if folder in (".", "sweep") or run.startswith(f"{folder}/")]
    assert said.startswith(f"judge: {made.root / folder} holds {len(below)} judges: ")
    for run in below:
        assert f"{made.root / run} (variant " in said
        assert f"stage2-{json.loads((sweep[run] / 'manifest.json').read_text())['key']}" in said
    assert ("val/rmse 0.9" in said) == (len(below) == 4)
    assert "; give one of these folders; the commands of tract choose by --variant NAME, --stage stage1, stage2 or KEY, and --best " in said


def test_a_long_list_is_cut(made: Made) -> None:
    for number in range(12):
        made.pipeline(f"many/a={number}/seed0", objective={"lambda": number})
    said = refused(made.root / "many")
    assert said.count(" (variant ") == 10
    assert "; and 2 more; give one" in said


def test_one_is_chosen(made: Made, sweep: dict[str, Path]) -> None:
    folder = made.root / "sweep"
    assert chosen_judge(folder, Choice(best="val/rmse")).path.resolve() == sweep["sweep/objective.lambda=0.1/seed1"]
    within = Choice(best="val/rmse", variant="objective.lambda=1")
    assert chosen_judge(folder, within).path.resolve() == sweep["sweep/objective.lambda=1/seed0"]
    second = sweep["sweep/objective.lambda=1/seed1"]
    for name in (second.name, second.name.partition("-")[2]):
        assert chosen_judge(folder, Choice(stage=name)).path.resolve() == second
    first = chosen_judge(folder / "objective.lambda=1" / "seed1", Choice(stage="stage1"))
    assert (first.stage, first.seed) == ("stage1", 1)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            Choice(variant="objective.lambda=2"),
            "variant: .* no judge of variant 'objective.lambda=2'; did you mean 'objective.lambda=",
        ),
        (
            Choice(stage="stage3"),
            "stage: .* no judge of stage 'stage3'; did you mean 'stage[12]'.* accepted are stage1, stage2, the key",
        ),
        (Choice(stage="0123456789"), "stage: .* holds no judge of stage '0123456789'; accepted are stage1, stage2, the key of one"),
        (Choice(best="val/rms"), "best: 'val/rms' is no metric of training; did you mean 'val/rmse'"),
        (Choice(best="rmse"), "best: 'rmse' is no metric of training; .*accepted are val/pearson_r, "),
        (Choice(best="val/ce"), r"best: val/ce of .* is not known \(nor that of 3 more\): .* known of all: val/rmse"),
        (Choice(variant=" "), "variant: ' ' names no variant; give text"),
        (Choice(stage=2), "stage: 2 names no stage; give text"),  # type: ignore[arg-type]
        (Choice(variant="objective.lambda=1"), "holds 2 judges: "),
    ],
)
@pytest.mark.usefixtures("sweep")
def test_a_choice_that_names_none_is_refused(choice: Choice, message: str, made: Made) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_judge(made.root / "sweep", choice)


def test_the_metric_of_weights_that_are_not_kept_is_not_theirs(made: Made) -> None:
    """The last step's metrics are those of the last weights alone."""
    made.pipeline("a/seed0", rmse=0.5)
    said = refused(made.root / "a", Choice(best="val/ce"))
    assert "val/ce of" in said
    (stage,) = (made.root / "stages").glob("stage2-*")
    content = json.loads((stage / "manifest.json").read_text())
    content["training"]["exported"] = {"weights": "last", "val/rmse": None}
    (stage / "manifest.json").write_text(json.dumps(content))
    assert chosen_judge(made.root / "a", Choice(best="val/ce")).path.resolve() == stage
    assert "val/rmse of" in refused(made.root / "a", Choice(best="val/rmse"))


def test_a_folder_that_old_sweeps_shared_is_listed_by_what_differs(made: Made) -> None:
    """Stages of ablations, and of two lambdas, in one seed's folder."""
    first = made.stage("stage1", objective={"lambda": 1.0})
    weights = [made.pipeline("old/seed0", first=first, objective={"lambda": 1.0})]
    (made.root / "old" / "seed0" / first.name).unlink()
    weights.append(made.pipeline("old/seed0", first=first, objective={"lambda": 0.1}))
    other = made.stage("stage1", run={"name": "old", "ablation": "ce_only"}, objective={"lambda": 0.0})
    folder = made.link("old/seed0", other)
    said = refused(folder)
    assert "holds 3 judges" in said
    assert f"{folder / other.name} (variant ce_only, seed 0, {other.name})" in said
    assert "(variant objective.lambda=0.1, seed 0, " in said
    assert chosen_judge(folder, Choice(variant="objective.lambda=0.1")).path.name == weights[1].name
    assert chosen_judge(folder, Choice(variant="ce_only")).path.name == other.name


def test_of_one_configuration_and_other_code_the_newest_is_taken_and_the_other_told(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = (made.pipeline("twice/seed0", objective={"lambda": 1.0}, evaluation={"n_cot": number}) for number in (1, 2))
    with caplog.at_level(logging.INFO, logger="tract"):
        assert chosen_judge(made.root / "twice" / "seed0", NONE).path.name == newer.name
    assert f"{newer.name} stands for the older {older.name}, made by the same configuration" in caplog.text


def test_a_judge_that_several_variants_share_is_one(made: Made) -> None:
    """As a sweep over the CoTs of an evaluation leaves it."""
    second = made.pipeline("n_cot/evaluation.n_cot=1/seed0")
    made.link("n_cot/evaluation.n_cot=4/seed0", second)
    assert chosen_judge(made.root / "n_cot", NONE).path.resolve() == second
    assert chosen_judge(made.root / "n_cot", Choice(variant="evaluation.n_cot=4")).variant == "evaluation.n_cot=4"


def test_stages_of_equal_weights_share_their_cots(made: Made) -> None:
    """The CoTs of one stage 1 are those of another that came out the same, which is no judge that a run ends with either."""
    first = made.stage("stage1", seed=0)
    second = made.pipeline("equal/seed0", first=first)
    other = made.stage("stage1", seed=0, optimizer={"lr": 1})
    for stage in (first, other):
        content = json.loads((stage / "manifest.json").read_text())
        (stage / "manifest.json").write_text(json.dumps({**content, "fingerprint": "the same"}))
    folder = made.link("equal/seed0", other)
    assert chosen_judge(folder, NONE).path.resolve() == second
    shutil.rmtree(next((made.root / "stages").glob("generate-*")))
    assert chosen_judge(folder, NONE).path.resolve() == second


def test_the_folder_of_a_multirun_lists_its_jobs(made: Made, sweep: dict[str, Path]) -> None:
    folder = made.root / "sweep" / "multirun"
    for number, (run, second) in enumerate(sweep.items()):
        _, variant, seed = Path(run).parts
        config = {"seed": int(seed[-1]), "run": {"name": "sweep", "variant": variant}}
        RunRecord("complete", config, stages={"stage2": f"../../../stages/{second.name}"}, job=number).write(folder)
    assert f"{made.root / 'sweep/objective.lambda=1/seed1'} (variant objective.lambda=1, seed 1, " in refused(folder)
    assert chosen_judge(folder, Choice(best="val/rmse")).path.resolve() == sweep["sweep/objective.lambda=0.1/seed1"]


def test_runs_that_were_moved_or_lost_their_store(made: Made, sweep: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere, a=b c"
    shutil.copytree(made.root, moved, symlinks=True)
    run = moved / "sweep" / "objective.lambda=1" / "seed0"
    found = chosen_judge(run, NONE)
    assert (found.name, found.variant) == ("sweep-objective.lambda=1", "objective.lambda=1")
    assert str(run) in refused(moved / "sweep")
    # A run without its links' targets, and one with the stages themselves.
    shutil.copytree(run, tmp_path / "alone" / "seed0", symlinks=True)
    said = refused(tmp_path / "alone" / "seed0")
    assert "holds no complete fit stage, but links that lead nowhere (stage" in said
    shutil.copytree(run, tmp_path / "copied" / "seed0")
    assert chosen_judge(tmp_path / "copied" / "seed0", NONE).name == "copied"
    whole = tmp_path / "other" / "sweep" / "objective.lambda=1"
    shutil.copytree(run, whole / "seed0")
    (manifest,) = (whole / "seed0").glob("stage2-*/manifest.json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "variant": "objective.lambda=1"}))
    assert chosen_judge(whole, NONE).name == "sweep-objective.lambda=1"


def test_a_manifest_that_cannot_be_read_is_told(made: Made) -> None:
    second = made.pipeline("one/seed0")
    (second / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest.json: cannot be read"):
        chosen_judge(made.root / "one" / "seed0", NONE)


@pytest.mark.parametrize(
    ("file", "kind"),
    [("judge_config.json", EXPORTED), ("adapter_config.json", ADAPTER), ("config.json", MODEL)],
)
def test_a_folder_is_told_by_what_is_in_it(file: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    assert locate_judge(str(tmp_path)).kind == kind
    with pytest.raises(ConfigError, match=f"variant: has no effect, since {tmp_path} is one judge and not a folder of runs"):
        locate_judge(str(tmp_path), Choice(variant="a"))


def test_what_is_no_folder(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate_judge("base").kind == BASE
    assert locate_judge("package:a/*.gguf").kind == IN_PACKAGE
    assert locate_judge("org/model").kind == HUB
    made.pipeline("one/seed0")
    monkeypatch.chdir(tmp_path)
    assert locate_judge("runs/one/seed0").kind == FIT
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    (tmp_path / "weights.gguf").write_text("")
    assert locate_judge("weights.gguf").kind == MODEL
    # The folder of a run by a link of another name, and as the working directory.
    (tmp_path / "my run").symlink_to("runs/one/seed0")
    found = locate_judge("my run").fit
    assert found is not None
    assert (found.name, found.stage) == ("my run", "stage2")
    monkeypatch.chdir("runs/one/seed0")
    found = locate_judge(".").fit
    assert found is not None
    assert (found.name, found.stage) == ("one", "stage2")
    monkeypatch.chdir(tmp_path)
    for spec, message in (
        ("link", "judge: link is a link to nowhere, which is not there; give the folder"),
        ("file", "judge: file is a file; give the folder"),
        ("runs/one/seed1", r"judge: there is no folder 'runs/one/seed1' \(there are runs/one/seed0\); give the folder"),
        ("./nowhere", r"judge: there is no folder './nowhere'; give the folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            locate_judge(spec)


def test_what_annotated_cots_validated_is_not_compared(made: Made) -> None:
    first = made.stage("stage1", rmse=0.3, objective={"use_cot": True})
    made.link("sweep/stage1_only/seed0", first)
    second = made.pipeline("sweep/tract/seed0", rmse=0.7)
    best = Choice(best="val/rmse")
    said = refused(made.root / "sweep", best)
    assert said.startswith("best: val/rmse cannot be compared, since training validated some of these judges on annotated CoTs, ")
    assert (
        f"{made.root}/sweep/stage1_only/seed0 (variant stage1_only, seed 0, stage1-{first.name[-10:]}, val/rmse 0.3) on annotated" in said
    )
    assert f"{made.root}/sweep/tract/seed0 (variant tract, " in said
    assert "'evaluation.benchmarks=[val,test]'" in said
    # Among those of one kind the best is taken, and a judge without CoTs is compared to one with its own.
    other = made.pipeline("sweep/tract/seed1", rmse=0.6)
    assert chosen_judge(made.root / "sweep", Choice(best="val/rmse", variant="tract")).path.resolve() == other
    plain = made.stage("stage1", rmse=0.5, objective={"use_cot": False})
    made.link("plain/no_cot/seed0", plain)
    made.link("plain/tract/seed0", second)
    assert chosen_judge(made.root / "plain", best).path.resolve() == plain


def test_judges_of_one_variant_are_told_apart_by_their_settings(made: Made) -> None:
    """A sweep that was repeated with another fixed override."""
    both = [made.pipeline("sweep/objective.lambda=1/seed0", optimizer={"lr": lr}) for lr in (0.001, 0.0002)]
    made.pipeline("sweep/objective.lambda=0/seed0", optimizer={"lr": 0.001}, objective={"lambda": 0})
    said = refused(made.root / "sweep")
    for stage, rate in zip(both, (0.001, 0.0002), strict=True):
        assert f"{stage.name} (variant objective.lambda=1, seed 0, optimizer.lr={rate}, {stage.name})" in said
    assert "(variant objective.lambda=0, seed 0, stage2-" in said
