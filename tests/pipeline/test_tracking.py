"""The W&B run of a stage: what it is told, and that nothing that W&B does reaches the stage."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import wandb
from omegaconf import DictConfig
from tiny_pipeline import Tiny, captured
from wandb_file import RunFile, run_files

from tract.common.progress import EXAMPLES_AXIS, STEP_AXIS, TOKENS_AXIS
from tract.config.schema import Config
from tract.pipeline.tracking import tracker as tracking
from tract.pipeline.tracking.offline_runs import offline_runs, sync_command
from tract.pipeline.tracking.tracker import Tracker, tracked, wandb_mode
from tract.pipeline.validation import validate
from tract.training.callbacks.throughput import Throughput

Compose = Callable[..., DictConfig]
NODE = {"mode": "offline", "artifacts": "light", "table_rows": 5, "timeout_s": 20.0}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no W&B variable."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def write_netrc(home: Path, text: str) -> None:
    path = home / ".netrc"
    path.write_text(text)
    path.chmod(0o600)


def test_offline_without_key(home: Path) -> None:
    assert wandb_mode() == "offline"


def test_online_with_a_key_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode() == "online"


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_the_variable_wins_over_keys(mode: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_mode() == mode


@pytest.mark.parametrize(
    ("server", "entry", "expected"),
    [
        (None, "machine api.wandb.ai login user password key\n", "online"),
        (None, "machine github.com login user password key\n", "offline"),
        ("https://wandb.example.org:8080", "machine wandb.example.org login user password key\n", "online"),
        ("https://wandb.example.org:8080", "machine api.wandb.ai login user password key\n", "offline"),
        (None, "machine\n", "offline"),  # broken file
    ],
)
def test_netrc(server: str | None, entry: str, expected: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    write_netrc(home, entry)
    assert wandb_mode() == expected


class FakeRun:
    """Stands for a run; keeps what it is told, fails or hangs where it shall."""

    project, id, offline = "tract", "id", True

    def __init__(self, failing: str = "", hanging: str = "") -> None:
        self.calls: list[tuple[str, Any]] = []
        self.failing, self.hanging = failing, hanging
        self.summary = SimpleNamespace(update=lambda values: self._call("summary", values))

    def _call(self, name: str, value: Any) -> None:
        if name == self.hanging:
            threading.Event().wait(60)
        if name == self.failing:
            raise BrokenPipeError("W&B's process\nis gone")
        self.calls.append((name, value))

    def define_metric(self, name: str, **options: Any) -> None:
        self._call("define_metric", (name, options))

    def log(self, row: dict[str, Any]) -> None:
        self._call("log", row)

    def finish(self, exit_code: int) -> None:
        self._call("finish", exit_code)


def opened(monkeypatch: pytest.MonkeyPatch, cfg: Config, run: Any = None, config: Any = None) -> tuple[dict[str, Any], FakeRun]:
    """(what wandb.init is given, the run) of a stage that logs one row."""
    given: dict[str, Any] = {}
    run = run or FakeRun()

    def init(**arguments: Any) -> Any:
        given.update(arguments)
        return run

    monkeypatch.setattr(wandb, "init", init)
    with tracked(cfg, config or {"seed": cfg.seed}, "0123456789") as tracker:
        for logger in tracker.loggers():
            logger.log_metrics({"train/loss": 1.5}, step=3)
    return given, run


def typed(compose: Compose, *overrides: str) -> Config:
    return validate(compose("model=tiny", "logger=wandb", *overrides))


def test_a_job_of_a_multirun_is_called_by_its_variant(compose_config: Compose, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = typed(compose_config, "run.name=judge", "run.variant='ce_both+objective.lambda=1'", "+ablation=ce_both")
    given, _ = opened(monkeypatch, cfg)
    assert (given["group"], given["name"]) == ("judge", "judge-ce_both+objective.lambda=1-stage1-s0")
    assert given["config"]["variant"] == "ce_both+objective.lambda=1"
    # A name of the user's own stays, and so does the id, which another job may go on with.
    assert given["id"] == "judge-s0-stage1-0123456789"
    own = typed(compose_config, "run.variant=a", "logger.wandb.name=mine")
    assert opened(monkeypatch, own)[0]["name"] == "mine"


def test_a_stage_is_a_run_of_its_group(compose_config: Compose, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = typed(compose_config, "run.name=judge", "run.tags=[a,b]", "seed=3", "stage=stage2", "+ablation=from_stage1")
    given, run = opened(monkeypatch, cfg, config={"objective": {"_target_": "stays.Text"}, "optimizer": {"api_key": "secret"}})
    assert given == {
        "project": "tract",
        "group": "judge",
        "job_type": "stage2",
        "name": "judge-stage2-s3",
        "tags": ["stage2", "from_stage1", "a", "b"],
        "mode": "offline",
        "id": "judge-s3-stage2-0123456789",
        "resume": "allow",
        "reinit": "create_new",
        "config": {"objective": {"_target_": "stays.Text"}, "optimizer": {"api_key": "***"}, "variant": "from_stage1"},
        "dir": f"{tmp_path}/runs",
    }
    assert ("log", {"train/loss": 1.5, STEP_AXIS: 3}) in run.calls
    assert run.calls[-1] == ("finish", 0)
    axes = {value[0]: value[1] for name, value in run.calls if name == "define_metric"}
    assert {STEP_AXIS, EXAMPLES_AXIS, TOKENS_AXIS} <= axes.keys()
    assert axes["*"] == {"step_metric": STEP_AXIS, "step_sync": True}


def test_a_given_mode_is_kept_and_disabled_opens_nothing(compose_config: Compose, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert opened(monkeypatch, typed(compose_config))[0]["mode"] == "online"
    assert opened(monkeypatch, typed(compose_config, "logger.wandb.mode=offline"))[0]["mode"] == "offline"
    assert opened(monkeypatch, typed(compose_config, "logger.wandb.mode=disabled"))[0] == {}
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert opened(monkeypatch, typed(compose_config))[0] == {}
    assert opened(monkeypatch, validate(compose_config("model=tiny", "logger=csv")))[0] == {}


@pytest.mark.parametrize(
    ("run", "done", "line"),
    [
        (FakeRun(failing="log"), ["finish"], "could not log metrics (BrokenPipeError: W&B's process is gone)"),
        (FakeRun(failing="define_metric"), ["finish"], "could not start (BrokenPipeError: W&B's process is gone)"),
        (FakeRun(failing="finish"), ["log"], "could not finish (BrokenPipeError: W&B's process is gone)"),
        (FakeRun(hanging="log"), ["finish"], "could not log metrics (no answer within logger.wandb.timeout_s=0.2 s)"),
        (FakeRun(hanging="finish"), ["log"], "could not finish (no answer within logger.wandb.timeout_s=0.2 s)"),
    ],
    ids=["log", "start", "finish", "hanging log", "hanging finish"],
)
def test_a_failure_of_wandb_is_one_line(
    run: FakeRun, done: list[str], line: str, compose_config: Compose, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with captured() as lines:
        opened(monkeypatch, typed(compose_config, "logger.wandb.timeout_s=0.2"), run)
    assert lines == [f"W&B: {line}; this stage goes on without it"]
    assert [name for name, _ in run.calls if name not in ("define_metric", "summary")] == done


def test_the_end_of_a_failed_stage_does_not_wait_long(compose_config: Compose, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a batch system asked for the end, and kills soon."""
    monkeypatch.setattr(tracking, "_LAST_PATIENCE_S", 0.2)
    monkeypatch.setattr(wandb, "init", lambda **_: FakeRun(hanging="finish"))
    begun = time.monotonic()
    with pytest.raises(SystemExit), tracked(typed(compose_config, "logger.wandb.timeout_s=60"), {}, "k"):
        raise SystemExit(143)
    assert time.monotonic() - begun < 30


def test_the_stage_s_own_error_comes_through(compose_config: Compose, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    with pytest.raises(ZeroDivisionError), tracked(typed(compose_config), {}, "k"):
        raise ZeroDivisionError
    assert run.calls[-1] == ("finish", 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("logger.wandb.artifacts=some", "logger.wandb.artifacts: 'some' is not one of none, light, all"),
        ("logger.wandb.table_rows=-1", "logger.wandb.table_rows: -1 is not a whole number >= 0"),
        ("logger.wandb.timeout_s=0", "logger.wandb.timeout_s: 0 is not a number > 0"),
        ("logger.wandb.mode=on", "logger.wandb.mode: 'on' is not one of auto, online, offline, disabled"),
        ("+logger.wandb.projct=x", "logger.wandb.projct: unknown key"),
        ("run.name=wandb", "run.name: 'wandb' is the folder of W&B's files"),
    ],
)
def test_what_cannot_be_is_refused(override: str, message: str, compose_config: Compose) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        validate(compose_config("model=tiny", "logger=wandb", override))


def test_sums_go_on_where_a_run_is_resumed() -> None:
    first, second = Throughput(), Throughput()
    first._totals += 7
    second.load_state_dict(first.state_dict())
    assert second._axis_values() == {TOKENS_AXIS: 7, EXAMPLES_AXIS: 7}


def expanded(command: str) -> list[Path]:
    """The folders that a shell gives to the command."""
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {command.partition(' --yes ')[2]}"], capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def offline_folders(cfg: Config, *ids: str) -> list[Path]:
    """Folders as W&B leaves them, one for each id of a run."""
    folders = [Path(cfg.paths.runs) / "wandb" / f"offline-run-20260101_00000{k}-{name}" for k, name in enumerate(ids)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "run-x.wandb").touch()
    return folders


@pytest.mark.parametrize("runs", ["runs", "my runs (old) [1] it's #2"])
@pytest.mark.parametrize("others", [(), ("other-s0-stage1-k9",), ("tiny-s0-stage1-k9",), ("my-tiny-s0-stage1-k9",), ("tiny-s1-stage1-k1",)])
def test_what_uploads_a_run_names_its_folders_alone(runs: str, others: tuple[str, ...], compose_config: Compose, tmp_path: Path) -> None:
    """Whatever lies beside them: other runs, other seeds, what another configuration of the same name left."""
    cfg = replace(typed(compose_config, "run.name=tiny"), paths=SimpleNamespace(runs=str(tmp_path / runs)))  # type: ignore[arg-type]
    own = offline_folders(cfg, "tiny-s0-stage1-k1", "tiny-s0-predict-k2")
    own += offline_folders(cfg, *others, "shared-s7-stage1-k3")[-1:]  # that another run made and this one used
    done = offline_folders(cfg, "tiny-s0-evaluate-k4")
    (done[0] / "run-x.wandb.synced").touch()
    found = offline_runs(cfg, ["k1", "k2", "k3", "k4"])
    assert set(own) <= set(found)
    assert not any(path.name.endswith(f"-{name}") for path in found for name in (*others, "tiny-s0-evaluate-k4") if name[-2:] != "k1")
    assert not any("tiny-s1-" in path.name for path in found)
    assert sorted(expanded(sync_command(cfg, found))) == found


def test_what_uploads_a_run_is_short_where_a_pattern_is_enough(compose_config: Compose, tmp_path: Path) -> None:
    cfg = typed(compose_config, "run.name=tiny")
    own = offline_folders(cfg, "tiny-s0-stage1-k1", "tiny-s0-predict-k2")
    assert sync_command(cfg, own).endswith(f" sync --yes {tmp_path}/runs/wandb/offline-run-*-tiny-s0-*")
    other = offline_folders(cfg, "my-tiny-s0-stage1-k3")  # which the pattern would match too
    assert offline_runs(cfg, ["k1", "k2"]) == own
    assert sync_command(cfg, own).endswith(f"--yes {own[0]} {own[1]}")
    assert offline_runs(cfg, ["k3"]) == other
    assert offline_runs(cfg, ["k9"]) == []


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, dict[str, RunFile], list[str]]:
    """The whole pipeline with W&B offline: (where, job type -> run, log lines)."""
    tiny = Tiny(tmp_path_factory.mktemp("logged"))
    _, lines = tiny.run("logger=wandb", "evaluation.benchmarks=[test]", "+ablation=tract", "train.validate_every_steps=1")
    return tiny, run_files(tiny.root / "runs"), lines


@pytest.mark.slow
def test_every_stage_is_a_run_with_the_resolved_configuration(logged: tuple[Tiny, dict[str, RunFile], list[str]]) -> None:
    tiny, runs, lines = logged
    assert list(runs) == ["stage1", "generate", "stage2", "predict", "evaluate"]
    for stage, file in runs.items():
        assert (file.run.run_group, file.exit_code) == ("tiny", 0)
        assert list(file.run.tags) == [stage, "tract"]
        assert file.config["objective"]["lambda"] == 1.0
        assert (file.config["stage"], file.config["variant"]) == (stage, "tract")
        assert file.summary["product/path"] in tiny.store
    (said,) = [line for line in lines if line.startswith("W&B: ")]
    first, command = said.split("\n  ")
    assert first == "W&B: this run was logged offline; with a key, this uploads it:"
    assert command.endswith(f"wandb sync --yes {tiny.root}/runs/wandb/offline-run-*-tiny-s0-*")  # by wandb itself, or python -m wandb
    assert len(expanded(command)) == 6  # the base model's predictions too


@pytest.mark.slow
def test_metrics_have_their_axes(logged: tuple[Tiny, dict[str, RunFile], list[str]]) -> None:
    _, runs, _ = logged
    for stage in ("stage1", "stage2"):
        file = runs[stage]
        trained = [row for row in file.history if "train/loss" in row]
        assert [row[STEP_AXIS] for row in trained] == [0, 1]
        assert [row[EXAMPLES_AXIS] for row in trained] == [4, 8] if stage == "stage1" else [8, 16]
        assert 0 < trained[0][TOKENS_AXIS] < trained[1][TOKENS_AXIS]
        validated = [row for row in file.history if "val/rmse" in row]
        assert [row[TOKENS_AXIS] for row in validated] == [row[TOKENS_AXIS] for row in trained]
        assert file.metrics["*"].step_metric == STEP_AXIS
        assert {"train/ce_loss", "train/score_loss", "train/score_mass", "train/tokens_per_s"} <= trained[0].keys()


@pytest.mark.slow
def test_tables_and_plots(logged: tuple[Tiny, dict[str, RunFile], list[str]]) -> None:
    _, runs, _ = logged
    shown = {
        stage: {name.removesuffix("._type") for row in file.history for name in row if name.endswith("._type")}
        for stage, file in runs.items()
    }
    assert {"cots/sampled", "cots/by_finish", "cots/length_table"} <= shown["generate"]
    assert "data/counts" in shown["stage2"]
    plots = {f"plots/test/{plot}_table" for plot in ("predicted_vs_true", "scores", "reliability")}
    assert {"predictions", *plots} <= shown["evaluate"]
    sampled = next(row for row in runs["generate"].history if "cots/sampled.nrows" in row)
    assert sampled["cots/sampled.nrows"] == runs["generate"].summary["cots/count"] == 2 * 14
    assert runs["stage2"].summary["data/counts/cots/kept"] == 28
    assert 0 <= runs["evaluate"].summary["eval/test/score_mass"] <= 1
    assert runs["evaluate"].summary["eval/test/rmse"] == runs["evaluate"].summary["eval/test/rail/rmse"]


@pytest.mark.slow
def test_artifacts_have_the_lineage_of_the_stages(logged: tuple[Tiny, dict[str, RunFile], list[str]]) -> None:
    _, runs, _ = logged
    made, used = {}, {}
    for stage, file in runs.items():
        of_products = {name: artifact for name, artifact in file.artifacts.items() if artifact.type != "run_table"}
        made[stage] = {name for name, artifact in of_products.items() if not artifact.use_after_commit}
        used[stage] = {name.partition("-")[0] for name, artifact in of_products.items() if artifact.use_after_commit}
        assert all(Path(entry.local_path).is_file() for artifact in of_products.values() for entry in artifact.manifest.contents)
    assert used["stage1"] == set()
    assert used["generate"] == {"stage1"}
    assert used["stage2"] == {"generate"}
    assert used["evaluate"] == {"predict"}
    assert [file.summary["product/path"] for file in runs.values()] == [name for names in made.values() for name in names]
    digests = {
        name: artifact.digest for file in runs.values() for name, artifact in file.artifacts.items() if not artifact.use_after_commit
    }
    again = {name: artifact.digest for file in runs.values() for name, artifact in file.artifacts.items() if artifact.use_after_commit}
    assert {name: digests.get(name, digest) for name, digest in again.items()} == again, "what a stage used is what another one made"


@pytest.mark.slow
def test_training_goes_on_when_the_process_of_wandb_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Throughput.on_train_batch_start

    def kill(self: Throughput, trainer: Any, *rest: Any) -> None:
        counted(self, trainer, *rest)
        if trainer.global_step == 1:
            for process in psutil.Process().children(recursive=True):
                if "wandb" in process.name():
                    process.kill()

    monkeypatch.setattr(Throughput, "on_train_batch_start", kill)
    products, lines = Tiny(tmp_path).run(
        "logger=wandb", "stages=[stage1]", "train.max_steps=4", "train.max_epochs=2", "logger.wandb.timeout_s=10"
    )
    assert products["stage1"].manifest["training"]["optimizer_steps"] == 4
    assert [line for line in lines if line.startswith("W&B: could not ")], lines
    monkeypatch.undo()
    _, lines = Tiny(tmp_path).run("logger=wandb", "stages=[stage1]", "seed=1")
    assert not [line for line in lines if line.startswith("W&B: could not ")], "the next stage has a run again"


@pytest.mark.slow
def test_a_stage_that_goes_on_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Throughput.on_train_batch_start

    def fail(self: Throughput, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == 1:
            raise RuntimeError("cut off")
        counted(self, trainer, *rest)

    small = ("logger=wandb", "stages=[stage1]", "train.checkpoint_every_steps=1")
    monkeypatch.setattr(Throughput, "on_train_batch_start", fail)
    with pytest.raises(RuntimeError, match="cut off"):
        Tiny(tmp_path).run(*small)
    monkeypatch.setattr(Throughput, "on_train_batch_start", counted)
    products, _ = Tiny(tmp_path).run(*small)
    assert products["stage1"].manifest["training"]["resumed"]
    first, second = (RunFile(path) for path in sorted((tmp_path / "runs" / "wandb").glob("offline-run-*/run-*.wandb")))
    assert first.run.run_id == second.run.run_id
    assert (first.exit_code, second.exit_code) == (1, 0)
    steps = [[(row[STEP_AXIS], row[EXAMPLES_AXIS]) for row in file.history if "train/loss" in row] for file in (first, second)]
    assert steps == [[(0, 4)], [(1, 8)]], "the sums go on"


def test_no_tracker_does_nothing() -> None:
    tracker = Tracker(None, {})
    assert tracker.loggers() == []
    tracker.guard("fail", lambda: 1 / 0)
    tracker.close(failed=False)
