"""One tiny run with an adapter, one with whole weights and one on finished prompts, made once; and their exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from exported_runs import Questions, Runs, run_on_finished_prompts
from tiny_pipeline import Tiny

from tract.apps.export.exporting import Exported, export
from tract.apps.export.options import ExportOptions
from tract.artifacts.judges import find_judge
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import DIRECT, Prompt
from tract.models.loading import load_judge
from tract.models.saving import save_judge
from tract.models.tokenizers import load_tokenizer
from tract.pipeline.backends import hf_judge
from tract.pipeline.stages.examples import examples_of
from tract.pipeline.stages.predict import read_predictions


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The runs; tests change none of them."""
    tiny = Tiny(tmp_path_factory.mktemp("exported"))
    products, _ = tiny.run("compare_to=null", "data.max_val_items=2", "evaluation.max_items=4")
    whole, _ = tiny.run("adapter=full", "stages=[stage1]", "optimizer.lr=0.001", "run.name=whole")
    return Runs(tiny, products, whole["stage1"].path, run_on_finished_prompts(tiny))


@pytest.fixture(scope="session")
def merged(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The run with an adapter, exported as whole weights."""
    return export(runs.folder, tmp_path_factory.mktemp("merged") / "judge", ExportOptions())


@pytest.fixture(scope="session")
def base(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model of the runs as a folder."""
    folder = tmp_path_factory.mktemp("base") / "tiny-base"
    model = runs.cfg.model
    save_judge(load_judge(model, None, four_bit=False, seed=0), load_tokenizer(model), folder)
    return folder


@pytest.fixture(scope="session")
def adapter(runs: Runs, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same run, exported as the adapter alone."""
    return export(runs.folder, tmp_path_factory.mktemp("adapter") / "judge", ExportOptions(adapter=True, base=str(base)))


@pytest.fixture(scope="session")
def questions(runs: Runs) -> Questions:
    """The items of the test split with the CoTs that the run's judge wrote for them."""
    cfg = runs.cfg
    judge = find_judge(str(runs.products["stage2"].path), cfg)
    store = examples_of(cfg, judge.layout.grid)
    prompts, cots = [], []
    items, judgements = read_predictions(runs.products["predict"])["test"]
    for item in items:
        ids = judge.layout.prompt_ids(judge.template.render(store.example(item.row), judge.layout.grid))
        prompts.append(Prompt(item.id, item.row, tuple(ids)))
        cots.append([(DIRECT, ()), *[(j.sample, j.cot_ids) for j in judgements if j.row == item.row and j.sample != DIRECT]])
    assert len(prompts) > 3
    assert all(len(given) == 3 for given in cots)
    return Questions(prompts, cots)


@pytest.fixture(scope="session")
def own_judge(runs: Runs) -> Callable[[Path], HFJudge]:
    """The judge of a stage as the run itself loads it."""
    return lambda stage: hf_judge(find_judge(str(stage), runs.cfg), runs.cfg)
