"""What RUN may be, and what a judge's settings, metrics and facts are taken from."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from exported_runs import Runs
from omegaconf import OmegaConf

from tract.apps.export.eval_metrics import metrics_of
from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judge_choice import Choice
from tract.artifacts.judge_settings import BaseModel
from tract.artifacts.products import read_manifest, write_manifest
from tract.artifacts.run_judges import run_judge, shown_name
from tract.common.errors import ConfigError, DataError


def copied(stage: Path, folder: Path) -> Path:
    """The same stage elsewhere; its configuration may be changed, since no fingerprint holds it."""
    shutil.copytree(stage, folder)
    return folder


def changed(stage: Path, key: str, value: object) -> Path:
    config = OmegaConf.load(stage / "config.yaml")
    OmegaConf.update(config, key, value)
    OmegaConf.save(config, stage / "config.yaml")
    return stage


def test_a_run_is_judged_by_its_second_stage(runs: Runs) -> None:
    found = run_judge(runs.folder)
    assert found.stage.path.resolve() == runs.products["stage2"].path.resolve()
    assert (found.stage.run, found.settings.name) == (runs.folder, "tiny")


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_stage_is_taken_as_it_is_also_by_its_link(runs: Runs, stage: str) -> None:
    path = runs.products[stage].path
    for place in (path, runs.folder / path.name):
        found = run_judge(place)
        assert found.stage == FitFolder(place, None)
        assert found.settings.training["stage"] == stage
    assert run_judge(runs.folder, choice=Choice(stage=stage)).settings.training["stage"] == stage


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "judge: there is no folder"),
        ("stages/{predict}", r"the product of the stage 'predict', which trains no judge; its judge is .*stages/stage2-\w+, give that"),
        ("stages/{evaluate}", r"the product of the stage 'evaluate', which trains no judge; its judge is .*stages/stage2-\w+, give that"),
        ("stages/stage2-0.partial", "not complete yet"),
        ("exported", "is an exported judge and no run's; give the folder"),
        ("adapter", "is an adapter and no run's; give the folder"),
        ("empty", "holds no complete fit stage, it is empty; give the folder"),
        ("tiny/seed0/records", "holds no complete fit stage; it holds .*json; give the folder"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(runs: Runs, tmp_path: Path, name: str, message: str) -> None:
    root = tmp_path / "runs"
    shutil.copytree(runs.tiny.root / "runs" / "tiny", root / "tiny", symlinks=True)
    (root / "stages").symlink_to(runs.tiny.root / "runs" / "stages")
    for folder, file in (("exported", "judge_config.json"), ("adapter", "adapter_config.json"), ("empty", None)):
        (root / folder).mkdir()
        if file is not None:
            (root / folder / file).write_text("{}")
    if name.endswith(".partial"):
        root = tmp_path / "other"
        (root / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=message) as error:
        run_judge(root / name.format(**{stage: runs.products[stage].path.name for stage in ("predict", "evaluate")}))
    assert "\n" not in str(error.value)


def test_the_settings_are_those_of_the_run(runs: Runs) -> None:
    found, cfg = run_judge(runs.folder), runs.cfg
    settings = found.settings
    saved = json.loads((found.weights / "layout.json").read_text())
    assert {**settings.layout, "prompt": saved["prompt"]} == saved
    assert settings.prompt.blocks == tuple(cfg.prompt.blocks)
    assert vars(settings.sampling) == {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.03, "max_cot_tokens": 12}
    assert (settings.n_cot, settings.predictor, settings.use_cot, settings.seed) == (2, "rail", True, 0)
    # What bounds a prompt in the run's own stages: the model's context, and not what training sequences may have.
    assert (settings.max_length, settings.overlong, settings.shorten) == (8192, "shorten", ("reference_answer", "response"))
    assert (settings.dtype, settings.adapter, settings.fixed_grid) == ("float32", True, True)
    assert settings.base_model == BaseModel("assets/tiny", "tract", None)
    assert settings.grid.labels == tuple(cfg.grid.labels)
    manifest = runs.products["stage2"].manifest
    training = settings.training
    assert training["data"]["fingerprint"] == manifest["data"]["source"]
    assert training["data"]["counts"] == manifest["data"]["counts"]
    assert (training["commit"], training["versions"], training["product"]) == (
        manifest["commit"],
        manifest["versions"],
        manifest["fingerprint"],
    )
    assert training["self_generated_cots"] is True
    assert run_judge(runs.products["stage1"].path).settings.training["self_generated_cots"] is False
    assert not run_judge(runs.whole).settings.adapter


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("evaluation.main_predictor", "no_cot", "predictor", "rail"),
        ("evaluation.main_predictor", "median", "predictor", "median"),
        ("evaluation.n_cot", 0, "n_cot", 1),
        ("data.truncation", "drop", "overlong", "refuse"),
        ("data.truncation", "raise", "overlong", "refuse"),
        ("objective.use_cot", False, "use_cot", False),
    ],
)
def test_what_a_grade_cannot_be_is_replaced(runs: Runs, tmp_path: Path, key: str, value: object, field: str, expected: object) -> None:
    stage = changed(copied(runs.products["stage2"].path, tmp_path / "stage2-copy"), key, value)
    assert getattr(run_judge(stage).settings, field) == expected


def test_a_folder_cannot_allow_code_by_itself(runs: Runs, tmp_path: Path) -> None:
    stage = changed(copied(runs.products["stage2"].path, tmp_path / "stage2-copy"), "model.trust_remote_code", True)
    with pytest.raises(ConfigError, match="a folder cannot allow this by itself.*--trust-remote-code"):
        run_judge(stage)
    assert run_judge(stage, trust_remote_code=True).model.trust_remote_code


def test_a_folder_without_a_key_is_refused(runs: Runs, tmp_path: Path) -> None:
    stage = copied(runs.products["stage2"].path, tmp_path / "stage2-copy")
    config = OmegaConf.load(stage / "config.yaml")
    del config["generation"]
    OmegaConf.save(config, stage / "config.yaml")
    with pytest.raises(DataError, match="the key 'generation' is missing"):
        run_judge(stage)


def test_damaged_weights_are_refused(runs: Runs, tmp_path: Path) -> None:
    stage = copied(runs.products["stage2"].path, tmp_path / "stage2-copy")
    path = stage / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + bytes(4))
    with pytest.raises(DataError, match="the content is not what was written"):
        run_judge(stage)


@pytest.mark.parametrize("of", ["run", "stage"])
def test_the_metrics_are_those_of_the_evaluation_with_their_intervals(runs: Runs, of: str) -> None:
    found = metrics_of(run_judge(runs.folder if of == "run" else runs.products["stage2"].path))
    measured = json.loads((runs.products["evaluate"].path / "metrics.json").read_text())["benchmarks"]
    assert list(found) == list(measured) == ["test", "ood"]
    for name, content in measured.items():
        assert {key: found[name][key] for key in ("n", "questions", "n_cot", "cots", "confidence")} == {
            "n": content["items"], "questions": content["questions"], "n_cot": 2, "cots": "sampled", "confidence": 0.95,
        }  # fmt: skip
        assert {key: found[name][key] for key in content["predictors"]} == content["predictors"]
        assert found[name]["constant"] == content["baselines"]["constant"]


def test_a_judge_that_was_not_evaluated_has_no_metrics(runs: Runs) -> None:
    assert metrics_of(run_judge(runs.products["stage1"].path)) == {}
    assert metrics_of(run_judge(runs.whole)) == {}


def store_of(runs: Runs, folder: Path) -> Path:
    """A store with the judge and its evaluation alone."""
    for name in ("stage2", "predict", "evaluate"):
        shutil.copytree(runs.products[name].path, folder / runs.products[name].path.name)
    return folder / runs.products["stage2"].path.name


def test_of_several_evaluations_one_that_draws_as_the_judge_is_taken(runs: Runs, tmp_path: Path) -> None:
    stage = store_of(runs, tmp_path)
    predict, evaluate = (copied(runs.products[name].path, tmp_path / f"{name}-other") for name in ("predict", "evaluate"))
    (predict / "judge.json").write_text((predict / "judge.json").read_text() + " ")
    identity = read_manifest(predict)[1]
    identity.config["evaluation"]["n_cot"] = 1
    made = write_manifest(predict, {"stage": "predict"}, identity)
    metrics = json.loads((evaluate / "metrics.json").read_text())
    metrics["benchmarks"]["test"]["items"] = 7
    (evaluate / "metrics.json").write_text(json.dumps(metrics))
    identity = read_manifest(evaluate)[1]
    identity.parents["predict"] = made["fingerprint"]
    write_manifest(evaluate, {"stage": "evaluate"}, identity)
    assert metrics_of(run_judge(stage))["test"]["n_cot"] == 2  # though the other one is newer
    shutil.rmtree(tmp_path / runs.products["evaluate"].path.name)
    found = metrics_of(run_judge(stage))["test"]
    assert (found["n_cot"], found["n"]) == (1, 7)


def test_a_damaged_evaluation_is_no_missing_one(runs: Runs, tmp_path: Path) -> None:
    stage = store_of(runs, tmp_path)
    metrics = tmp_path / runs.products["evaluate"].path.name / "metrics.json"
    metrics.write_text(metrics.read_text().replace("0.95", "0.96") + " ")
    with pytest.raises(DataError, match=r"metrics\.json: the file has"):
        metrics_of(run_judge(stage))


def test_an_unreadable_manifest_beside_is_told_and_left_out(runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = store_of(runs, tmp_path)
    (tmp_path / "evaluate-0000000000").mkdir()
    (tmp_path / "evaluate-0000000000" / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING, logger="tract"):
        assert metrics_of(run_judge(stage))
    assert [record.message for record in caplog.records if "left out" in record.message]


def test_a_name_says_nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    shown = [shown_name(name) for name in ("org/model", str(tmp_path / "a"), "./x/y", "~/z", "a/b")]
    assert shown == ["org/model", "a", "y", "z", "b"]
    assert shown_name("https://user:secret-of-mine@host/data") == "https://***@host/data"
