"""The pipeline: what runs, what is reused, what is rebuilt and why, and how it is steered."""

from __future__ import annotations

import gc
import json
import os
import platform
import re
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny_pipeline import SMALL, Tiny, made, metrics, records, reused
from transformers import PreTrainedModel

from tract.common.errors import ConfigError
from tract.config.vocabulary import STAGES
from tract.pipeline import pipeline

ROOT = Path(__file__).resolve().parents[2]
ALL_MADE = ["stage1", "generate", "stage2", "predict", "predict", "evaluate"]


def modification_times(root: Path) -> dict[str, int]:
    """Of all files but locks and the records of runs, which say when it ran last."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix not in (".lock", ".holder"))
    return {str(path): path.stat().st_mtime_ns for path in files if path.parent.name != "records"}


def key_of(whole: Any, stage: str) -> str:
    return str(whole.products[stage].manifest["key"])


# What the first run leaves.


def test_all_stages_run_in_order_and_are_linked(whole: Any) -> None:
    assert list(whole.products) == list(STAGES)
    assert made(whole.lines) == ALL_MADE
    for stage, product in whole.products.items():
        assert product.path.name == f"{stage}-{key_of(whole, stage)}"
        link = whole.tiny.root / "runs" / "tiny" / "seed0" / product.path.name
        assert link.is_symlink()
        assert link.resolve() == product.path.resolve()
        assert product.manifest["stage"] == stage
    assert any("results:" in line and str(whole.products["evaluate"].path) in line for line in whole.lines)
    assert not list((whole.tiny.root / "runs" / "stages").glob("*.partial"))


def test_each_stage_names_its_parents(whole: Any) -> None:
    products = whole.products
    assert products["generate"].manifest["parents"] == {"judge": str(products["stage1"].path)}
    assert products["stage2"].manifest["parents"] == {"generate": str(products["generate"].path)}
    assert products["predict"].manifest["judge"]["weights"] == str(products["stage2"].path)
    assert products["evaluate"].manifest["parents"]["predict"] == str(products["predict"].path)


def test_the_same_command_reuses_everything_and_touches_no_file(whole: Any) -> None:
    before = modification_times(whole.tiny.root / "runs")
    products, lines = whole.tiny.run()
    assert made(lines) == []
    assert reused(lines) == ALL_MADE
    assert modification_times(whole.tiny.root / "runs") == before
    assert {name: product.path for name, product in products.items()} == {name: product.path for name, product in whole.products.items()}


# What a change makes anew; plans alone where the stages need not run.


@pytest.mark.kills
def test_a_changed_lambda_makes_stage1_and_all_after_it_anew(whole: Any) -> None:
    # Other tests of this store may have made further products of the run: the newest of the most similar ones is named.
    before = {path.name for path in (whole.tiny.root / "runs" / "stages").iterdir()}
    _, lines = whole.tiny.run("objective.lambda=3", "compare_to=null")
    assert made(lines) == ["stage1", "generate", "stage2", "predict", "evaluate"]
    judge, weight = "parent judge changed", r"objective.lambda: 1(\.0)? -> 3(\.0)?"
    for stage, why in {"stage1": weight, "generate": judge, "predict": judge}.items():
        (found,) = filter(None, (re.fullmatch(rf"{stage}: rebuilding, since {why} \(was ({stage}-\w+)\)", line) for line in lines))
        assert found[found.lastindex] in before
    assert any(re.match(r"stage2: rebuilding, since .*parent generate changed", line) for line in lines), lines


@pytest.mark.kills
def test_a_changed_temperature_makes_generate_and_all_after_it_anew(whole: Any) -> None:
    _, lines = whole.tiny.run("generation.temperature=0.5", "compare_to=null")
    assert reused(lines) == ["stage1"]
    assert made(lines) == ["generate", "stage2", "predict", "evaluate"]
    changed = r"generate: rebuilding, since generation.temperature: 1(\.0)? -> 0.5 \(was generate-"
    assert any(re.match(changed, line) for line in lines), lines


def test_changed_resamples_make_only_evaluate_anew(whole: Any) -> None:
    _, lines = whole.tiny.run("evaluation.resamples=10")
    assert reused(lines) == ALL_MADE[:-1]
    assert made(lines) == ["evaluate"]


def test_batch_and_shard_size_make_nothing_anew(whole: Any) -> None:
    _, lines = whole.tiny.run("generation.batch_size=3", "generation.shard_size=7", "run.tags=[x]", "data.num_workers=0")
    assert made(lines) == []


def test_two_runs_share_stage1_and_the_generated_cots(whole: Any) -> None:
    products, lines = whole.tiny.run("run.name=other", "stage2.filter.keep_closest=1", "compare_to=null")
    assert reused(lines) == ["stage1", "generate"]
    assert products["generate"].path == whole.products["generate"].path
    assert {"stage1-" + key_of(whole, "stage1"), "generate-" + key_of(whole, "generate")} <= whole.tiny.links("other")
    counts = products["stage2"].manifest["data"]["counts"]["cots"]
    assert counts["dropped_not_closest"] * 2 == counts["kept"] + counts["dropped_not_closest"]


# Steering.


def test_a_stage_whose_parent_is_missing_is_refused_in_one_line(tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    with pytest.raises(ConfigError, match=r"stages: stage1 is needed, but it is not complete .*stages=\[stage1,\.\.\.\]"):
        tiny.run("stages=[generate]")
    with pytest.raises(ConfigError, match="stages: stage1 is needed"):
        tiny.run("from=stage2")
    assert tiny.store == set()


@pytest.mark.kills
def test_stages_and_from_run_their_part(whole: Any, tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    products, lines = tiny.run("stages=[stage1,generate]")
    assert list(products) == made(lines) == ["stage1", "generate"]
    assert {path.name for path in (product.path for product in products.values())} == tiny.store
    # Content and configuration are the same as elsewhere, so are the folders' names.
    assert products["generate"].path.name == whole.products["generate"].path.name
    assert products["generate"].fingerprint == whole.products["generate"].fingerprint
    products, lines = tiny.run("from=stage2", "compare_to=null")
    assert reused(lines) == ["stage1", "generate"]
    assert made(lines) == ["stage2", "predict", "evaluate"]
    assert products["predict"].fingerprint == whole.products["predict"].fingerprint


@pytest.mark.kills
def test_force_makes_anew_what_it_names(tmp_path: Path) -> None:
    """It gives the same again, so that what follows is reused."""
    tiny = Tiny(tmp_path)
    short = ["pipeline=[stage1,predict,evaluate]", "compare_to=null"]
    tiny.run(*short)
    before = tiny.store
    _, lines = tiny.run(*short, "force=[predict]")
    assert made(lines) == ["predict"]
    assert "predict: rebuilding, since it is named in force (predict)" in lines
    assert reused(lines) == ["stage1", "evaluate"]
    _, lines = tiny.run(*short, "force=[all]")
    assert made(lines) == ["stage1", "predict", "evaluate"]
    assert tiny.store == before


# Other versions of libraries.


@pytest.fixture
def older(tmp_path: Path) -> Tiny:
    """A short pipeline whose stage 1 was made with an older torch and an older peft."""
    tiny = Tiny(tmp_path)
    products, _ = tiny.run(*SHORT)
    rewrite_versions(products["stage1"].path, torch="1.0.0+cu129", peft="0.1.0")
    return tiny


SHORT = ("pipeline=[stage1,predict,evaluate]", "compare_to=null", "evaluation.n_cot=1", "evaluation.benchmarks=[test]")


def rewrite_versions(product: Path, **versions: str) -> None:
    manifest = json.loads((product / "manifest.json").read_text())
    manifest["versions"].update(versions)
    (product / "manifest.json").write_text(json.dumps(manifest))


def versions_told(lines: list[str]) -> list[str]:
    return [line for line in lines if ": versions differ" in line]


def test_what_other_versions_made_is_reused_with_one_line(older: Tiny) -> None:
    _, lines = older.run(*SHORT)
    assert reused(lines) == ["stage1", "predict", "evaluate"]
    assert made(lines) == []
    told = rf"stage1: versions differ from those that it was made with: torch 1\.0\.0\+cu129 -> {re.escape(version('torch'))}, "
    told += rf"peft 0\.1\.0 -> {re.escape(version('peft'))}; reused \(run\.on_version_change=reuse\)"
    (line,) = versions_told(lines)
    assert re.fullmatch(told, line), line


def test_what_other_versions_made_is_redone_on_request(older: Tiny) -> None:
    before = older.store
    products, lines = older.run(*SHORT, "run.on_version_change=redo")
    assert made(lines) == ["stage1"]
    assert reused(lines) == ["predict", "evaluate"]  # it gives the same again
    (line,) = versions_told(lines)
    assert line.endswith("; rebuilt (run.on_version_change=redo)")
    assert older.store == before
    assert products["stage1"].manifest["versions"]["torch"] == version("torch")
    _, lines = older.run(*SHORT, "run.on_version_change=redo")
    assert (made(lines), versions_told(lines)) == ([], [])


def test_what_this_run_may_not_make_is_refused_where_it_is_to_be_redone(older: Tiny) -> None:
    message = r"run.on_version_change: stage1 is to be redone, since it .*torch 1.0.0.*stages=\[stage1,\.\.\.\], or set .*=reuse$"
    for part in (["stages=[predict]"], ["from=predict"]):
        with pytest.raises(ConfigError, match=message) as refused:
            older.run(*SHORT, *part, "run.on_version_change=redo")
        assert "\n" not in str(refused.value)
        _, lines = older.run(*SHORT, *part)
        assert len(versions_told(lines)) == 1
        assert made(lines) == []


def test_force_says_nothing_of_versions(older: Tiny) -> None:
    _, lines = older.run(*SHORT, "force=[stage1]", "run.on_version_change=redo")
    assert made(lines) == ["stage1"]
    assert versions_told(lines) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages=[fit]"], r"stages: 'fit' is no stage of this pipeline; accepted are stage1, generate"),
        (["from=stage2", "stages=[stage1]"], r"from: 'stage2' goes not with stages"),
        (["pipeline=[stage1,predict,evaluate]", "stages=[generate]"], r"stages: 'generate' is no stage of this pipeline"),
        (["pipeline=[generate,stage2]"], r"pipeline: generate needs stage1"),
        (["force=[everything]"], r"force: 'everything' is no stage of this pipeline; accepted are .*all"),
        (["evaluation.benchmarks=[nowhere]"], r"evaluation.benchmarks: 'nowhere' is neither a split .* nor a file or folder"),
        (["evaluation.prompt=finished"], r"has no finished prompt"),
        (["+stage2.objective.ce_weight=-1"], r"with the changes of stage2: objective.ce_weight"),
        (["compare_to=./nowhere"], r"there is no folder './nowhere'"),
        (["pipeline=[predict,evaluate]", "compare_to=stage1"], r"compare_to: 'stage1' is no stage of this pipeline"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(overrides: list[str], message: str, tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    with pytest.raises(Exception, match=message) as refused:
        tiny.run(*overrides)
    assert "\n" not in str(refused.value)
    assert tiny.store == set()


# Other pipelines.


def test_stage1_alone_is_evaluated(whole: Any) -> None:
    products, lines = whole.tiny.run("pipeline=[stage1,predict,evaluate]", "run.name=stage1_only")
    assert list(products) == ["stage1", "predict", "evaluate"]
    assert made(lines) == ["predict", "evaluate"]
    assert metrics(products["evaluate"])["judge"] == "stage1"


def test_the_seed_model_alone_is_evaluated(whole: Any) -> None:
    products, lines = whole.tiny.run("pipeline=[predict,evaluate]", "run.name=zero_shot")
    assert reused(lines) == ["predict"]  # the whole pipeline compares with the base model
    found = metrics(products["evaluate"])
    assert found["judge"] == "base"
    assert found["others"] == {}


def test_stage2_can_go_on_from_stage1(whole: Any) -> None:
    products, lines = whole.tiny.run("stage2.init_from=stage1", "+stage2.optimizer.lr=0.003", "stages=[stage1,generate,stage2]")
    assert made(lines) == ["stage2"]
    assert products["stage2"].manifest["parents"] == {
        "generate": str(whole.products["generate"].path),
        "start": str(whole.products["stage1"].path),
    }
    assert products["stage2"].fingerprint != whole.products["stage2"].fingerprint


def test_stage2_can_mix_annotated_and_generated_cots(whole: Any) -> None:
    products, lines = whole.tiny.run("stage2.cots=mixed", "from=stage2", "pipeline=[stage1,generate,stage2]")
    assert made(lines) == ["stage2"]
    assert any("3 continuation(s)" in line for line in lines), lines  # one annotated, two generated


@pytest.mark.kills
def test_stage2_can_have_another_objective(whole: Any) -> None:
    changed = ["+stage2.objective.ce_on_score=true", "+stage2.objective.lambda=0"]
    products, lines = whole.tiny.run(*changed, "from=stage2", "pipeline=[stage1,generate,stage2]")
    assert made(lines) == ["stage2"]
    objective = products["stage2"].manifest["identity"]["config"]["objective"]
    assert objective["ce_on_score"] is True
    assert objective["lambda"] == 0
    assert products["stage1"].manifest["identity"]["config"]["objective"]["lambda"] == 1


# Comparing.


def test_the_seed_model_is_compared_to(whole: Any) -> None:
    found = metrics(whole.products["evaluate"])
    assert found["judge"] == "stage2"
    assert list(found["others"]) == ["base"]
    assert found["benchmarks"]["test"]["compared_to"] == "base"


@pytest.mark.kills
def test_stage1_a_folder_or_nothing_is_compared_to(whole: Any) -> None:
    by_name, lines = whole.tiny.run("compare_to=stage1")
    assert list(metrics(by_name["evaluate"])["others"]) == ["stage1"]
    by_folder, lines = whole.tiny.run(f"compare_to={whole.products['stage1'].path}")
    assert made(lines) == []
    assert by_folder["evaluate"].path == by_name["evaluate"].path
    alone, _ = whole.tiny.run("compare_to=null")
    assert metrics(alone["evaluate"])["others"] == {}
    itself, _ = whole.tiny.run(f"judge={whole.products['stage2'].path}", f"compare_to={whole.products['stage2'].path}", config="evaluate")
    assert itself["evaluate"].path == alone["evaluate"].path


# A judge that is given.


def test_a_run_folder_is_evaluated_and_generates(whole: Any) -> None:
    link = whole.tiny.root / "runs" / "tiny" / "seed0" / whole.products["stage1"].path.name
    products, lines = whole.tiny.run(f"judge={link}", config="generate_cot")
    assert list(products) == ["generate"]
    assert made(lines) == []
    assert products["generate"].path == whole.products["generate"].path
    products, lines = whole.tiny.run(f"judge={whole.products['stage2'].path}", "compare_to=base", config="evaluate")
    assert made(lines) == []
    assert products["evaluate"].path == whole.products["evaluate"].path


def test_another_seed_does_not_change_the_weights_that_a_trained_judge_was_trained_on(whole: Any) -> None:
    """The tiny model's weights are drawn by the seed; greedy sampling leaves the seed nothing else."""
    chosen = ["generation.temperature=0", "stages=[predict]", "evaluation.max_items=2", f"judge={whole.products['stage1'].path}"]
    products = [whole.tiny.run(*chosen, f"seed={seed}", config="evaluate")[0]["predict"] for seed in (0, 1)]
    first, second = (records(product.path / "judgements-test.jsonl") for product in products)
    assert products[0].path != products[1].path
    assert [record["probabilities"] for record in first] == [record["probabilities"] for record in second]


@pytest.fixture(scope="module")
def hugging_face_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_config: Any, tiny_tokenizer: Any) -> Path:
    """The base model of another seed, as ``save_pretrained`` writes it."""
    from tract.models.loading import load_judge

    folder = tmp_path_factory.mktemp("hub") / "someone-judge"
    load_judge(tiny_model_config, None, four_bit=False, seed=5).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_a_hugging_face_model_is_evaluated_and_generates(whole: Any, hugging_face_folder: Path) -> None:
    products, _ = whole.tiny.run(f"judge={hugging_face_folder}", "evaluation.benchmarks=[test]", "compare_to=base", config="evaluate")
    found = metrics(products["evaluate"])
    assert found["judge"] == "someone-judge"
    assert list(found["others"]) == ["base"]
    assert found["facts"]["model"] == str(hugging_face_folder)
    products, lines = whole.tiny.run(f"judge={hugging_face_folder}", config="generate_cot")
    assert made(lines) == ["generate"]
    assert products["generate"].manifest["parents"] == {"judge": str(hugging_face_folder)}


def test_stage2_follows_a_judge_that_is_given(whole: Any) -> None:
    """``generate`` and all after it, with the given judge in place of stage 1."""
    products, lines = whole.tiny.run(f"judge={whole.products['stage1'].path}")
    assert list(products) == ["generate", "stage2", "predict", "evaluate"]
    assert made(lines) == []
    assert products["evaluate"].path == whole.products["evaluate"].path


# In one process, and in processes of their own.


def test_messages_say_what_happens_to_this_run(whole: Any, tmp_path: Path) -> None:
    """Of a run that is the first, nothing is rebuilt; of the judge that it is compared to, nothing ever is for another one's sake."""
    begun = [line for line in whole.lines if "making it" in line or "rebuilding" in line or "new;" in line]
    compared = "predict (the compared judge, base)"
    assert begun == [f"{what}: making it (nothing to reuse)" for what in (*STAGES[:-1], compared, STAGES[-1])]
    _, lines = whole.tiny.run("run.name=second", "train.max_steps=1", "pipeline=[stage1]", "stages=[stage1]")
    assert "stage1: making it (nothing to reuse)" in lines, "products of other runs are not mentioned"
    _, lines = Tiny(tmp_path).run("stages=[stage1]", "force=[all]")
    assert "stage1: making it (nothing to reuse)" in lines, lines


def test_a_stage_in_this_process_leaves_neither_a_model_nor_a_filter_of_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage begins as the first one does."""
    seen: list[tuple[str, int, int]] = []
    run_stage = pipeline.run_stage
    before = len(models())

    def noting(stage: Any, *arguments: Any, **options: Any) -> Any:
        seen.append((stage.name, len(models()) - before, len(warnings.filters)))
        return run_stage(stage, *arguments, **options)

    monkeypatch.setattr(pipeline, "run_stage", noting)
    Tiny(tmp_path).run("run.subprocess_stages=auto", "compare_to=null")
    assert [name for name, _, _ in seen] == list(STAGES)
    assert [left for _, left, _ in seen] == [0] * len(STAGES)
    assert len({filters for _, _, filters in seen}) == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries give pages back, or not, by themselves")
def test_memory_that_a_stage_has_freed_is_given_back() -> None:
    """Blocks as small as most tensors, between others that live on."""
    blocks, kept = [], []
    for _ in range(1500):
        blocks.append(b"x" * 100_000)
        kept.append(b"y" * 1_000)
    resident = psutil.Process().memory_info().rss
    del blocks
    pipeline._free_memory()
    assert len(kept) == 1500
    assert psutil.Process().memory_info().rss < resident - 100_000_000


def models() -> list[Any]:
    return [found for found in gc.get_objects() if issubclass(type(found), PreTrainedModel)]


def test_a_warning_in_a_stage_goes_to_the_log_whatever_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tract.pipeline.stages.generate import GenerateStage

    make = GenerateStage.make

    def warning(*arguments: Any) -> Any:
        warnings.filterwarnings("ignore", message="of this stage")
        warnings.warn("of this stage alone", stacklevel=1)
        warnings.warn("worth reading", stacklevel=1)
        return make(*arguments)

    monkeypatch.setattr(GenerateStage, "make", warning)
    Tiny(tmp_path).run("run.subprocess_stages=auto", "stages=[stage1,generate]")
    said = [record.getMessage() for record in caplog.records if record.name == "py.warnings"]
    assert len([line for line in said if "worth reading" in line]) == 1
    assert not [line for line in said if "of this stage" in line]
    with pytest.warns(UserWarning, match="of this stage"):
        warnings.warn("of this stage, behind it", stacklevel=1)


# Runs the script, and says at its end which models are left and whether DeepSpeed was imported.
_TOLD = """
import atexit, gc, runpy, sys
def tell():
    from transformers import PreTrainedModel
    print('models left:', sum(issubclass(type(found), PreTrainedModel) for found in gc.get_objects()))
    print('deepspeed:', 'deepspeed' in sys.modules)
atexit.register(tell)
sys.argv[0] = 'train.py'
runpy.run_path('train.py', run_name='__main__')
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolate", ["auto", pytest.param("true", marks=pytest.mark.kills)])
def test_one_process_or_one_for_each_heavy_stage_make_the_same_bytes(isolate: str, tmp_path: Path, whole: Any) -> None:
    """On a CPU all stages have one process unless it is wished otherwise. No model is left in the command's own."""
    overrides = [o for o in SMALL if not o.startswith("run.subprocess_stages")]
    given = [] if isolate == "auto" else [f"run.subprocess_stages={isolate}"]
    command = [sys.executable, "-c", _TOLD, *overrides, *given, f"paths.runs={tmp_path}/runs", f"paths.cache={whole.tiny.root}/cache"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # as in this process
    done = subprocess.run([*command, "compare_to=null"], cwd=ROOT, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "stages").glob("*/manifest.json")]
    pids = {manifest["stage"]: manifest["pid"] for manifest in manifests}
    assert sorted(pids) == sorted(STAGES)
    assert len(set(pids.values())) == (1 if isolate == "auto" else len(STAGES))
    assert "models left: 0" in done.stdout
    assert "deepspeed: False" in done.stdout
    assert "accelerator" not in (done.stdout + done.stderr).replace("since trainer.accelerator=cpu", "").lower()  # DeepSpeed's warning
    for manifest in manifests:
        if (stage := manifest["stage"]) != "evaluate":  # whose table of another judge ``whole`` has too
            assert weights_of(manifest) == weights_of(whole.products[stage].manifest), stage


def weights_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The files of a product with their hashes, but for the configuration, whose places differ."""
    return {name: facts for name, facts in manifest["files"].items() if re.search(r"safetensors$|cots\.parquet$|jsonl$", name)}
