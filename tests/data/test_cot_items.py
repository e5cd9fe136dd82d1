"""Items made of generated CoTs: their continuations are exactly the kept CoTs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cot_records import cot, dataset
from datasets import Dataset
from tokenizer_zoo import member

from tract.common.errors import ConfigError, DataError
from tract.data.generated_cots import items as cot_items
from tract.data.generated_cots.file import COT_FEATURES
from tract.data.generated_cots.items import _ContinuationJoiner, with_cots
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.sources.rubric_check.generator import RubricCheck
from tract.data.store import build_store
from tract.data.tokens import TOKEN_FEATURES, TokenizeOptions, TokenStore, tokenize
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3", "4", "5"))
MAX_LENGTH = 100_000
TEMPLATE = PromptTemplate(
    source="template",
    system="",
    blocks=("{cue} {response}",),
    cue=" Score: ",
    use_reference=True,
    require_cue_in_prompt=True,
    reword_output_format=False,
    escape_headings=True,
)


@pytest.fixture(scope="module")
def layout() -> SequenceLayout:
    return layout_of(GRID)


def layout_of(grid: ScoreGrid) -> SequenceLayout:
    return SequenceLayout.build(member("tiny").tokenizer, system=False, cue=" Score: ", grid=grid, chat_template_kwargs={})


@pytest.fixture(scope="module")
def tokens(layout: SequenceLayout, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Eight items with two annotated CoTs each."""
    return tokens_of(layout, tmp_path_factory.mktemp("cache"), n_questions=4)


def tokens_of(layout: SequenceLayout, cache: Path, n_questions: int, max_length: int = MAX_LENGTH) -> TokenStore:
    source = RubricCheck(
        n_questions=n_questions, responses_per_question=2, n_ood_questions=0, annotations_per_response=2, n_constraints=4, cot_noise=0.2,
        score_noise=0.2, seed=3, kinds=None, wording="varied",
    )  # fmt: skip
    options = TokenizeOptions(None, max_length, "drop", (), True, "drop", ratings=True)
    return tokenize(build_store(source, layout.grid, "raise", False, cache, cue=None), TEMPLATE, layout, options, cache)


def records_of(tokens: TokenStore) -> list[dict[str, Any]]:
    return list(tokens.dataset.with_format(None))


def cots_for(tokens: TokenStore, samples: dict[int, int], **changes: Any) -> Dataset:
    """So many CoTs of these rows, each of another length, with another score."""
    ids = tokens.dataset.with_format(None)["id"]
    return dataset(
        *(
            cot(row, sample, "x" * (1 + row + 3 * sample), id=ids[row], score_index=(row + sample) % 5, score=1.0 + (row + sample) % 5)
            | changes
            for row, count in samples.items()
            for sample in range(count)
        )
    )


def join(
    tokens: TokenStore, cots: Dataset, keep: list[bool], mode: str, layout: SequenceLayout, cache: Path, max_length: int = MAX_LENGTH
) -> TokenStore:
    splits = zip(cots["row"], cots["split"], strict=True)
    train = sorted({row for row, split in splits if split == "train"})
    return with_cots(tokens, cots, np.array(keep, dtype=bool), mode, layout, cache, repr(list(cots)), train, max_length=max_length)


def check_counts(record: dict[str, Any], layout: SequenceLayout) -> None:
    """Length and numbers of tokens are those of the token trees."""
    trees = [layout.tree(record["prompt_ids"], [pair]) for pair in zip(record["cot_ids"], record["score_index"], strict=True)]
    kinds = [kind for tree in trees for kind in tree.target_kinds]
    assert (record["ce_tokens"], record["score_tokens"]) == (sum(kind != 2 for kind in kinds), kinds.count(2))
    assert record["length"] == max(len(tree.input_ids) for tree in trees)


@pytest.mark.parametrize("batch_items", [1, 3, 256])
def test_items_get_their_kept_cots(
    tokens: TokenStore, layout: SequenceLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_items: int
) -> None:
    monkeypatch.setattr(cot_items, "BATCH_ITEMS", batch_items)
    cots = cots_for(tokens, {0: 3, 2: 2, 3: 1, 6: 4, 7: 2})
    keep = [True, False, True, False, False, True, *[True] * 4, False, True]
    found = join(tokens, cots, keep, "self", layout, tmp_path)
    before, after = records_of(tokens), records_of(found)
    assert found.dataset.features == TOKEN_FEATURES
    assert [record["status"] for record in after] == [
        "ok", "without_generated_cot", "dropped_no_cot", "ok", "without_generated_cot", "without_generated_cot", "ok", "ok",
    ]  # fmt: skip
    assert found.counts == {"ok": 4, "without_generated_cot": 3, "dropped_no_cot": 1}
    assert found.usable(list(range(8))) == [0, 3, 6, 7]
    for row, record in enumerate(after):
        mine = [c for c, kept in zip(cots, keep, strict=True) if kept and c["row"] == row]
        assert record["cot_ids"] == [c["cot_ids"] for c in mine]
        assert record["score_index"] == [c["score_index"] for c in mine]
        assert all(record[name] == before[row][name] for name in ("row", "id", "prompt_ids", "target"))
        if mine:
            check_counts(record, layout)
        else:
            assert (record["ce_tokens"], record["score_tokens"]) == (0, 0)


@pytest.mark.parametrize("mode", ["self", "mixed"])
def test_ratings_are_no_continuations_beside_the_cots_that_they_are_attached_to(mode: str, layout: SequenceLayout, tmp_path: Path) -> None:
    """Else each would count twice."""
    rows = [["q1", "5", "Good."], ["q1", "2", ""], ["q2", "4", ""], ["q2", "3", ""]]
    (tmp_path / "in.csv").write_text("q,s,c\n" + "\n".join(",".join(row) for row in rows) + "\n")
    source = MappedColumns(str(tmp_path / "in.csv"), {"instruction": "q", "response": "q", "score": "s", "cot": "c"})
    options = TokenizeOptions(None, None, "drop", (), True, "keep", ratings=True)
    tokens = tokenize(build_store(source, GRID, "raise", True, tmp_path, cue=None), TEMPLATE, layout, options, tmp_path)
    assert [record["rating_index"] for record in records_of(tokens)] == [[1], [3, 2]]
    found = records_of(join(tokens, cots_for(tokens, {0: 2, 1: 1}), [True] * 3, mode, layout, tmp_path))
    assert [record["rating_index"] for record in found] == [[], []]
    assert [len(record["score_index"]) for record in found] == [2 + (mode == "mixed"), 1]


def test_mixed_items_have_the_annotated_cots_first(tokens: TokenStore, layout: SequenceLayout, tmp_path: Path) -> None:
    cots = cots_for(tokens, {1: 2, 4: 1})
    found = join(tokens, cots, [False, True, False], "mixed", layout, tmp_path)
    assert found.counts == {"ok": 8}
    for row, (old, new) in enumerate(zip(records_of(tokens), records_of(found), strict=True)):
        own = [1] if row == 1 else []
        assert new["cot_ids"] == old["cot_ids"] + [cots[k]["cot_ids"] for k in own]
        assert new["score_index"] == old["score_index"] + [cots[k]["score_index"] for k in own]
        check_counts(new, layout)


def test_scores_of_several_tokens_are_counted(tokens: TokenStore, tmp_path: Path) -> None:
    layout = layout_of(ScoreGrid(tuple(str(score) for score in range(1, 11))))
    cots = cots_for(tokens, {0: 2}, score_index=9, score=10.0)
    record = records_of(join(tokens, cots, [True, True], "self", layout, tmp_path))[0]
    trees = [layout.tree(record["prompt_ids"], [(ids, 9)]) for ids in record["cot_ids"]]
    kinds = [kind for tree in trees for kind in tree.target_kinds]
    assert record["score_tokens"] == kinds.count(2) == 4
    assert record["ce_tokens"] == len(kinds) - 4
    assert max(len(tree.input_ids) for tree in trees) <= record["length"] <= max(len(tree.input_ids) for tree in trees) + 1


def test_items_that_are_too_long_with_their_cots_are_dropped(tokens: TokenStore, layout: SequenceLayout, tmp_path: Path) -> None:
    cots = cots_for(tokens, {0: 2, 1: 1})
    size = records_of(join(tokens, cots, [True] * 3, "self", layout, tmp_path))[0]["length"]
    longest = cots_for(tokens, {0: 2, 1: 1}, cot_ids=list(range(20, 80)))
    found = join(tokens, longest, [True] * 3, "self", layout, tmp_path, max_length=size)
    assert found.counts == {"dropped_overlong": 2, "without_generated_cot": 6}
    assert records_of(found)[0]["cot_ids"] == []
    # Another limit makes other items; the limit itself fits.
    assert records_of(join(tokens, cots, [True] * 3, "self", layout, tmp_path, max_length=size))[0]["status"] == "ok"
    assert records_of(join(tokens, cots, [True] * 3, "self", layout, tmp_path, max_length=size - 1))[0]["status"] == "dropped_overlong"


@pytest.mark.parametrize("mode", ["self", "mixed"])
def test_what_was_dropped_before_stays_dropped(tokens: TokenStore, layout: SequenceLayout, tmp_path: Path, mode: str) -> None:
    lengths = sorted(record["length"] for record in records_of(tokens))
    shorter = tokens_of(layout, tmp_path, n_questions=4, max_length=lengths[3])
    dropped = [record["row"] for record in records_of(shorter) if record["status"] == "dropped_overlong"]
    assert 0 < len(dropped) < 8
    found = join(shorter, cots_for(shorter, dict.fromkeys(range(8), 1)), [True] * 8, mode, layout, tmp_path)
    assert found.counts == {"dropped_overlong": len(dropped), "ok": 8 - len(dropped)}
    assert all(records_of(found)[row]["cot_ids"] == [] for row in dropped)


def test_the_cache_knows_tokens_cots_mode_and_what_is_kept(
    tokens: TokenStore, layout: SequenceLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = _ContinuationJoiner.__call__

    def spy(self: _ContinuationJoiner, items: pa.Table, indices: list[int]) -> pa.Table:
        calls.append(len(indices))
        return real(self, items, indices)

    monkeypatch.setattr(_ContinuationJoiner, "__call__", spy)
    cots = cots_for(tokens, {0: 2, 1: 1})
    first = join(tokens, cots, [True, True, True], "self", layout, tmp_path)
    made = len(calls)
    again = join(tokens, cots, [True, True, True], "self", layout, tmp_path)
    assert made > 0
    assert len(calls) == made
    assert (records_of(again), again.counts, again.fingerprint) == (records_of(first), first.counts, first.fingerprint)
    others = [
        join(tokens, cots, [True, True, False], "self", layout, tmp_path),
        join(tokens, cots, [True, True, True], "mixed", layout, tmp_path),
        with_cots(tokens, cots, np.array([True] * 3), "self", layout, tmp_path, "other content", [0, 1], max_length=MAX_LENGTH),
        join(tokens_of(layout, tmp_path, n_questions=5), cots, [True] * 3, "self", layout, tmp_path),
    ]
    assert len({found.fingerprint for found in [first, *others, tokens]}) == 6


def test_no_cot_enters_training_that_was_not_generated_for_it(tokens: TokenStore, layout: SequenceLayout, tmp_path: Path) -> None:
    cots = Dataset.from_list([*cots_for(tokens, {0: 1}), *cots_for(tokens, {3: 1}, split="val")], features=COT_FEATURES)
    keep = np.array([True, True])
    ids = tokens.dataset.with_format(None)["id"]
    found = with_cots(tokens, cots, keep, "self", layout, tmp_path, "cots", [0, 1, 2], max_length=MAX_LENGTH)
    assert found.usable([0, 1, 3]) == [0, 3]
    with pytest.raises(DataError, match=rf"example {ids[3]} were generated for 'val', but it is in 'train' now"):
        with_cots(tokens, cots, keep, "self", layout, tmp_path, "cots", [0, 3], max_length=MAX_LENGTH)
    with pytest.raises(DataError, match=rf"example {ids[0]} were generated for 'train', but it is not in 'train' now; set data.split_seed"):
        with_cots(tokens, cots, keep, "self", layout, tmp_path, "cots", np.array([1, 2]), max_length=MAX_LENGTH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "another"}, r"cots.parquet: row 1 is example another, but is example \S+ in the data now; set data.source"),
        ({"row": 8}, r"cots.parquet: row 8 is example \S+, but is beyond the 8 examples in the data now"),
        ({"score_index": 4, "score": 4.0}, r"the score 4 of example \S+ is not at place 4 of grid.labels \(1, 2, 3, 4, 5\); set the grid"),
        ({"score_index": 5, "score": 6.0}, r"the score 6 of example \S+ is not at place 5"),
        ({"score_index": -1, "score": 5.0}, r"the score 5 of example \S+ is not at place -1"),
    ],
)
def test_cots_of_other_data_are_refused(
    tokens: TokenStore, layout: SequenceLayout, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        join(tokens, cots_for(tokens, {1: 1}, **changes), [True], "self", layout, tmp_path)


def test_unknown_modes_and_masks_of_another_length_are_refused(tokens: TokenStore, layout: SequenceLayout, tmp_path: Path) -> None:
    cots = cots_for(tokens, {0: 1})
    with pytest.raises(ConfigError, match="stage2.cots: 'both' is not one of self, mixed"):
        join(tokens, cots, [True], "both", layout, tmp_path)
    with pytest.raises(ValueError, match=r"keep has the shape \(2,\); one value for each of the 1 CoTs is needed"):
        join(tokens, cots, [True, True], "self", layout, tmp_path)
