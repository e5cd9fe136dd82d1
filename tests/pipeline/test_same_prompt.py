"""A prompt has the same token ids in every stage and in the judge API, however long it is; only the model's context can cut it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from composing import composed
from omegaconf import DictConfig, OmegaConf
from tiny_pipeline import SMALL, captured

from tract.apps.export.exporting import export
from tract.apps.export.options import ExportOptions
from tract.artifacts.identity import StageIdentity
from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judges import find_judge
from tract.artifacts.products import write_manifest
from tract.artifacts.standalone_judges import open_judge_files
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.data.generated_cots.file import COTS_FILE, write_cots
from tract.judge.rendering import rendered_prompt
from tract.judge.requests import GradeRequest
from tract.models.locating import locate
from tract.pipeline.stages import generate, predict
from tract.pipeline.stages.examples import examples_of
from tract.pipeline.stages.fit import FitStage
from tract.pipeline.stages.generate import GenerateStage
from tract.pipeline.stages.predict import PredictStage
from tract.pipeline.stages.prepare import Prepared, prepare, prepare_generated
from tract.pipeline.validation import validate

MAX_LENGTH, MAX_COT = 3000, 1024
SHORTEST, LONGEST, STEP, FEW = 1000, 4000, 100, 250
COT = "It is right, but late."
Prompts = dict[int, list[int]]


class Overheard(Exception):  # noqa: N818
    """The judge was asked; what it would answer is not wanted."""


@dataclass(frozen=True)
class Place:
    """Data with prompts of many lengths, and a judge whose model takes sequences of so many tokens."""

    root: Path
    judge: str
    model: tuple[str, ...]

    def compose(self, *overrides: str) -> tuple[Config, DictConfig]:
        own = [
            "generation=hf", "data=columns", f"data.path={self.root}/rows.jsonl", "data.source.columns.instruction=instruction",
            "data.source.columns.response=response", "data.source.columns.cot=cot", "data.source.columns.score=score",
            "data.val_fraction=0", "data.test_fraction=0", "data.max_train_items=null", f"data.max_length={MAX_LENGTH}",
            f"generation.max_cot_tokens={MAX_COT}", "evaluation.benchmarks=[train]", f"paths.runs={self.root}/runs",
            f"paths.cache={self.root}/cache", *self.model,
        ]  # fmt: skip
        given = {override.partition("=")[0] for override in (*own, *overrides)}
        small = [each for each in SMALL if not each.startswith("data.source.") and each.partition("=")[0] not in given]
        changed = {override.partition("=")[0] for override in overrides}
        resolved = composed([*small, *[each for each in own if each.partition("=")[0] not in changed], *overrides])
        return validate(resolved), resolved

    def found_judge(self, *overrides: str) -> tuple[Config, DictConfig, JudgeFiles]:
        cfg, resolved = self.compose(*overrides)
        return cfg, resolved, find_judge(self.judge, cfg)


def rows_of(render: Callable[[str, str], list[int]], step: int, around: list[int]) -> Iterator[dict[str, Any]]:
    """Rows whose prompts have lengths from ``SHORTEST`` to ``LONGEST``, each around these among them; a mark is a token of its own."""
    base = len(render("Task 0000.", ""))
    wanted = {*range(SHORTEST, LONGEST + 1, step), *(length + off for length in around for off in (-1, 0, 1))}
    for number, length in enumerate(sorted(length for length in wanted if SHORTEST <= length <= LONGEST)):
        instruction, response = f"Task {number:04d}.", "~" * (length - base)
        assert len(render(instruction, response)) == length
        yield {"instruction": instruction, "response": response, "cot": COT, "score": 1 + number % 5}


@pytest.fixture(scope="module", params=[3000, 4500, 8192])
def place(request: pytest.FixtureRequest, whole: Any, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One with a context that cuts most prompts, one that cuts some, and one that cuts none."""
    return place_with(request.param, whole, tmp_path_factory.mktemp("place"), STEP)


def place_with(context: int, whole: Any, root: Path, step: int = FEW) -> Place:
    original = Path(locate(validate(whole.tiny.compose()).model).location)
    model = shutil.copytree(original, root / "model")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}), encoding="utf-8")
    judge = shutil.copytree(whole.products["stage1"].path, root / "stage1-judge")
    trained = OmegaConf.load(judge / "config.yaml")
    trained.model.update({"name_or_path": str(model), "package": None})
    trained.generation.max_cot_tokens = MAX_COT
    OmegaConf.save(trained, judge / "config.yaml")
    manifest = json.loads((judge / "manifest.json").read_text(encoding="utf-8"))
    kept = {name: manifest[name] for name in manifest if name not in ("files", "identity", "key")}
    write_manifest(judge, kept, StageIdentity.from_dict(manifest["identity"]))
    place = Place(root, str(judge), ("model=tiny", f"model.name_or_path={model}", "model.package=null"))
    own = find_judge(str(judge), validate(whole.tiny.compose()))

    def render(instruction: str, response: str) -> list[int]:
        request = GradeRequest.of({"instruction": instruction, "response": response})
        return own.layout.prompt_ids(own.template.render(request.example(), own.layout.grid))

    tail = own.layout.max_tail_tokens
    limits = [MAX_LENGTH - tail, MAX_LENGTH - tail - len(own.layout.cot_ids(COT)), MAX_LENGTH - tail - MAX_COT, context - tail - MAX_COT]
    limits += [limits[-1] - len(own.layout.cue_ids) - 5]  # less what generation needs: its own cue, and a score with what follows
    rows = rows_of(render, step, limits)
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place


def ids_of(prepared: Prepared) -> Prompts:
    rows = prepared.tokens.usable(list(range(len(prepared.store))))
    return {row: [int(token) for token in prepared.tokens.dataset[row]["prompt_ids"]] for row in rows}


@contextmanager
def overheard(module: Any, name: str) -> Iterator[Prompts]:
    """The prompts that a stage asks its judge about; no model is loaded."""
    heard: Prompts = {}

    def listen(judge: Any, prompts: Any, *_: Any, **__: Any) -> None:
        heard.update({prompt.row: list(prompt.prompt_ids) for prompt in prompts})
        raise Overheard

    @contextmanager
    def nobody(*_: Any) -> Iterator[None]:
        yield None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, listen)
        patch.setattr(module, "open_backend", nobody)
        yield heard


def asked_about(stage: Any, module: Any, name: str, folder: Path) -> Prompts:
    folder.mkdir(parents=True, exist_ok=True)
    with overheard(module, name) as heard, pytest.raises(Overheard):
        stage.make(SimpleNamespace(working=folder), None)
    return heard


@dataclass(frozen=True)
class Stages:
    """Row -> token ids of the prompt, in each stage that has any for the row; and the counts of the fit stages."""

    stage1: Prompts
    generate: Prompts
    stage2: Prompts
    predict: dict[str, Prompts]
    whole: Prompts
    counts: dict[str, dict[str, int]]
    judge: JudgeFiles
    lines: list[str]


@pytest.fixture(scope="module")
def stages(place: Place) -> Stages:
    cfg, resolved, judge = place.found_judge()
    with captured() as lines:
        first = prepare(cfg)
        first.report()
        generated = asked_about(GenerateStage(cfg, resolved, judge), generate, "sample_judgements", place.root / "generate")
    product = place.root / "runs" / "generated"
    product.mkdir(parents=True)
    write_cots(product / COTS_FILE, (record_of(first, row) for row in sorted(generated)))
    write_manifest(product, {"stage": "generate"}, StageIdentity("generate", {}, {}, {}))
    second = prepare_generated(cfg, product / COTS_FILE)
    predicted = {}
    for given, name in (("sampled", "sample_judgements"), ("annotated", "read_judgements"), (str(product), "read_judgements")):
        cfg, resolved, judge = place.found_judge(f"evaluation.cots={given}", "evaluation.predictors=[rail,no_cot]")
        stage = PredictStage(cfg, resolved, judge)
        predicted[given if given in ("sampled", "annotated") else "generated"] = asked_about(stage, predict, name, place.root / "predict")
    store = examples_of(cfg, judge.layout.grid)
    whole = {r: judge.layout.prompt_ids(judge.template.render(store.example(r), judge.layout.grid)) for r in range(len(store))}
    counts = {"stage1": first.tokens.counts, "stage2": second.tokens.counts}
    return Stages(ids_of(first), generated, ids_of(second), predicted, whole, counts, judge, lines)


def record_of(prepared: Prepared, row: int) -> dict[str, Any]:
    """A CoT that a judge generated for a row."""
    example = prepared.store.example(row)
    score = example.annotations[0].score
    return {
        "row": row, "id": example.id, "split": "train", "sample": 0, "cot_ids": prepared.layout.cot_ids("Good."), "cot": "Good.",
        "finish": "cue", "score": score, "score_index": prepared.layout.grid.index(score), "probabilities": [0.2] * 5, "rail": 3.0,
        "score_mass": 1.0,
    }  # fmt: skip


def test_every_row_has_one_prompt_in_all_stages(stages: Stages) -> None:
    everywhere = [stages.stage1, stages.generate, stages.stage2, *stages.predict.values()]
    assert {length for length in map(len, stages.whole.values())} >= set(range(SHORTEST, LONGEST + 1, STEP))
    for row in stages.whole:
        found = {tuple(prompts[row]) for prompts in everywhere if row in prompts}
        assert len(found) == 1, f"{len(stages.whole[row])} tokens: {sorted(map(len, found))}"
    # Prediction leaves nothing out, whatever can be trained on.
    assert stages.predict["sampled"].keys() == stages.predict["annotated"].keys() == stages.whole.keys()
    assert stages.predict["generated"].keys() == stages.generate.keys()


def test_only_the_context_cuts_a_prompt_and_what_is_cut_is_counted(stages: Stages, place: Place) -> None:
    config = json.loads((place.root / "model" / "config.json").read_text(encoding="utf-8"))
    judge, context = stages.judge, config["max_position_embeddings"]
    # What generation asks for is no longer than the context: the longest CoT, its cue and score, and the layout's behind it.
    room = context - MAX_COT - judge.layout.max_tail_tokens
    cut = {row for row, ids in stages.predict["sampled"].items() if ids != stages.whole[row]}
    assert all(len(ids) <= room for ids in stages.predict["sampled"].values())
    assert {row for row, ids in stages.whole.items() if len(ids) > room} <= cut
    assert all(len(stages.whole[row]) > room - 40 for row in cut)
    assert (len(cut) == 0) == (context == 8192)
    for prompts, counts in ((stages.stage1, stages.counts["stage1"]), (stages.stage2, stages.counts["stage2"])):
        assert counts.get("shortened", 0) == len(cut & prompts.keys())
        assert counts["ok"] == len(prompts.keys() - cut)
        assert counts.get("dropped_overlong", 0) == len(stages.whole.keys() - prompts.keys())
    assert any("prompts are longer than" in line for line in stages.lines) == bool(cut & stages.stage1.keys())
    assert any("cannot be trained on (data.max_length)" in line for line in stages.lines) == (len(stages.stage1) < len(stages.whole))


def test_what_is_left_out_of_training_is_what_is_too_long_with_its_cot(stages: Stages) -> None:
    """The shown prompt counts, cut or not: one whose own sequence fits is trained on, and no CoT is sampled for nothing."""
    layout, shown = stages.judge.layout, stages.predict["sampled"]
    tail = layout.max_tail_tokens

    def fitting(cot: str) -> set[int]:
        return {row for row, ids in shown.items() if len(ids) + len(layout.cot_ids(cot)) + tail <= MAX_LENGTH}

    assert stages.stage1.keys() == fitting(COT)
    assert stages.generate.keys() == fitting("")
    assert stages.stage2.keys() == fitting("Good.")
    assert stages.stage1.keys() <= stages.stage2.keys() <= stages.generate.keys()


@pytest.mark.parametrize("exported", [False, True])
def test_the_judge_api_asks_with_the_same_prompts(stages: Stages, place: Place, tmp_path: Path, exported: bool) -> None:
    folder = Path(place.judge)
    if exported:
        export(folder, tmp_path / "exported", ExportOptions())
        folder = tmp_path / "exported"
    files = open_judge_files(folder, cache_dir=tmp_path)
    rows = [json.loads(line) for line in (place.root / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    by_instruction = {row["instruction"]: row for row in rows}
    status: Counter[str] = Counter()
    store = examples_of(place.compose()[0], stages.judge.layout.grid)
    for row, expected in stages.predict["sampled"].items():
        given = by_instruction[store.example(row).instruction]
        request = GradeRequest.of({"instruction": given["instruction"], "response": given["response"]})
        found = rendered_prompt(request, files.layout, files.settings, files.settings.sampling)
        assert found.refusal is None
        assert list(found.ids) == expected
        status["shortened" if found.shortened else "ok"] += 1
    assert status["shortened"] == sum(ids != stages.whole[row] for row, ids in stages.predict["sampled"].items())


def test_a_cot_longer_than_the_context_leaves_no_prompt(whole: Any, tmp_path: Path) -> None:
    place = place_with(2000, whole, tmp_path)
    cfg, resolved, judge = place.found_judge("generation.max_cot_tokens=1999")
    message = r"generation.max_cot_tokens: a CoT of 1999 tokens, with \d+ for cue and score, leaves no room for a prompt in the context of "
    for make in (
        lambda: prepare(cfg),
        lambda: GenerateStage(cfg, resolved, judge).identity(),
        lambda: PredictStage(cfg, resolved, judge).make(SimpleNamespace(working=tmp_path), None),
    ):
        with pytest.raises(ConfigError, match=message + r"\S+ \(2000 tokens\); lower it, or take a model with a longer context"):
            make()


# --- what the keys hold


def keys(place: Place, *overrides: str) -> dict[str, str]:
    """The keys of the stages for the same judge."""
    cfg, resolved, judge = place.found_judge(*overrides)
    return {
        "stage1": FitStage(cfg, resolved).identity().key,
        "generate": GenerateStage(cfg, resolved, judge).identity().key,
        "predict": PredictStage(cfg, resolved, judge).identity().key,
    }


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


def test_the_length_of_cots_redoes_training_only_where_it_cuts_a_prompt(whole: Any, tmp_path: Path) -> None:
    place = place_with(8192, whole, tmp_path)
    base = keys(place)
    # All prompts fit beside CoTs of up to so many tokens, so training is the same; what is sampled is not.
    assert changed(base, keys(place, "generation.max_cot_tokens=2000")) == ["generate", "predict"]
    # Prompts are cut, but what is cut is too long to be trained on in any case.
    assert changed(base, keys(place, "generation.max_cot_tokens=5000")) == ["generate", "predict"]
    cut = [keys(place, f"generation.max_cot_tokens={number}") for number in (6000, 6001)]
    assert changed(base, cut[0]) == changed(*cut) == ["stage1", "generate", "predict"]


def test_the_longest_sequence_of_training_moves_no_prediction(whole: Any, tmp_path: Path) -> None:
    place = place_with(8192, whole, tmp_path)
    everything, more = keys(place, "data.max_length=6000"), keys(place, "data.max_length=7000")
    assert changed(everything, more) == []
    assert changed(everything, keys(place, "data.max_length=2500")) == ["stage1", "generate"]


def test_an_identity_says_which_limit_moved_it(whole: Any, tmp_path: Path) -> None:
    place = place_with(3000, whole, tmp_path)
    found = []
    for overrides in (("data.max_length=2500",), ("generation.max_cot_tokens=900",)):
        cfg, resolved = place.compose(*overrides)
        found.append(FitStage(cfg, resolved).identity().config["data"])
    # Prompts that are cut to less than data.max_length leave none out.
    assert ["max_length" in data for data in found] == [False, False]
    behind = [3000 - data["prompt_budget"] for data in found]
    assert behind[0] - behind[1] == MAX_COT - 900
    assert behind[0] > MAX_COT
    cfg, resolved = place.compose("data.max_length=1500")
    assert FitStage(cfg, resolved).identity().config["data"]["max_length"] == 1500
