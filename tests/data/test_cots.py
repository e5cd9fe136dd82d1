"""Generated CoTs: a file that is checked, the true scores attached to them, and their splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cot_records import cot, dataset

import tract.data.generated_cots.file as cots_module
from tract.common.errors import DataError
from tract.data.generated_cots.checks import check_splits, check_training, cot_at
from tract.data.generated_cots.file import COT_FEATURES, attached_score, cots_fingerprint, read_cots, write_cots

# The true score


def test_attached_scores_are_used_evenly() -> None:
    found = Counter(attached_score([10, 20, 30], f"ex-{number}", sample) for number in range(900) for sample in range(2))
    assert found.total() == 1800
    assert all(abs(count - 600) < 60 for count in found.values())
    assert sorted(attached_score([1, 2, 2], "ex-7", sample) for sample in range(6)) == [1, 1, 2, 2, 2, 2]
    # Pinned: another machine or version must attach the same.
    assert [attached_score([0, 1, 2, 3, 4], "vicuna-12", sample) for sample in range(6)] == [2, 3, 4, 0, 1, 2]
    assert attached_score([4], "ex-1", 3) == 4


def test_an_example_without_annotation_has_no_true_score() -> None:
    with pytest.raises(DataError, match="example ex-1: has no annotation, so its CoTs have no true score"):
        attached_score([], "ex-1", 0)


# The file


def test_what_is_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cots_module, "BATCH_COTS", 2)
    records = [cot(0, 0), cot(0, 1, "", finish="end"), cot(2, 0, "é\n界"), cot(3, 0, finish="length"), cot(3, 2)]
    path = tmp_path / "cots.parquet"
    write_cots(path, iter(records))
    found = read_cots(path, tmp_path / "cache")
    assert found.features == COT_FEATURES
    assert list(found) == records
    assert found.cache_files == [{"filename": str(tmp_path / "cache" / f"cots-{cots_fingerprint(path)[:16]}.arrow")}]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "cots.parquet"]
    assert list(read_cots(path, tmp_path / "cache")) == records
    # Other content at the same place is another data set.
    write_cots(path, records[:1])
    assert list(read_cots(path, tmp_path / "cache")) == records[:1]


def test_a_file_without_rows_is_read(tmp_path: Path) -> None:
    write_cots(tmp_path / "cots.parquet", [])
    found = read_cots(tmp_path / "cots.parquet", tmp_path)
    assert len(found) == 0
    check_splits(found, {"train": [0]})


def test_columns_of_equal_meaning_are_read(tmp_path: Path) -> None:
    """Rows were taken out with another program, which wrote other widths and another order of the columns."""
    table = dataset(cot(0, 0), cot(1, 0)).with_format("arrow")[:]
    table = table.set_column(0, "row", table["row"].cast(pa.int64())).set_column(5, "cot", table["cot"].cast(pa.string()))
    pq.write_table(table.select(table.column_names[::-1]), tmp_path / "cots.parquet")
    found = read_cots(tmp_path / "cots.parquet", tmp_path)
    assert (found.features, list(found)) == (COT_FEATURES, [cot(0, 0), cot(1, 0)])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([cot(0, 0), cot(0, 0)], r"row 1 \(row=0, sample=0\) follows \(row=0, sample=0\); one row per \(row, sample\), ascending"),
        ([cot(0, 0), cot(1, 1), cot(1, 0)], r"row 2 \(row=1, sample=0\) follows \(row=1, sample=1\)"),
        ([cot(1, 0), cot(2, 0), cot(0, 5)], r"row 2 \(row=0, sample=5\) follows \(row=2, sample=0\)"),
        ([cot(0, -1)], r"row 0 \(row=0, sample=-1\)"),
        ([cot(0, 0), cot(1, 0), cot(2, 0, finish="stop")], "finish of row 2 is 'stop'; accepted are cue, score, end, length"),
        ([cot(0, 0), cot(1, 0), cot(2, 0), cot(3, 0, rail=None)], "rail of row 3 has no value; a value of type float is accepted"),
    ],
)
def test_wrong_records_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[Any], message: str) -> None:
    monkeypatch.setattr(cots_module, "BATCH_COTS", 2)
    with pytest.raises(DataError, match=rf"cots.parquet: {message}"):
        write_cots(tmp_path / "cots.parquet", records)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_lacks_a_column_is_not_written(tmp_path: Path) -> None:
    record = cot(0, 0)
    del record["score"]
    with pytest.raises(DataError, match=r"cots.parquet: score of row 0 has no value"):
        write_cots(tmp_path / "cots.parquet", [record])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["rail", "cot"]), "lacks the columns cot, rail; it has row, id, "),
        (lambda table: table.append_column("note", pa.array(["a", "b"])), "has unknown columns note; accepted are row, id, "),
        (lambda table: table.set_column(5, "cot", pa.array([[1], [2]])), "column cot has the type list.*; large_string is accepted"),
        (lambda table: table.set_column(0, "row", pa.array([0, 2**40])), "column row has the type int64; int32 is accepted"),
        (lambda table: table.take([1, 0]), r"row 1 \(row=0, sample=0\) follows \(row=1, sample=0\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "cots.parquet"
    pq.write_table(change(dataset(cot(0, 0), cot(1, 0)).with_format("arrow")[:]), path)
    with pytest.raises(DataError, match=message) as raised:
        read_cots(path, tmp_path / "cache")
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache").glob("*.arrow"))


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cots.parquet"
    with pytest.raises(DataError, match=r"cots.parquet: there is no such file; run the stage that generates CoTs first"):
        read_cots(path, tmp_path)
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"cots.parquet: is no readable Parquet file"):
        read_cots(path, tmp_path)


# Splits


def test_cots_of_a_question_that_changed_its_split_are_refused() -> None:
    found = dataset(cot(0, 0), cot(0, 1), cot(1, 0, split="val"), cot(2, 0))
    check_splits(found, {"train": [0, 2, 4], "val": [1, 3], "test": []})
    with pytest.raises(DataError, match=r"example ex-2 were generated for 'train', but it is in 'val' now; set data.split_seed"):
        check_splits(found, {"train": [0], "val": [1, 2], "test": []})
    with pytest.raises(DataError, match=r"example ex-1 were generated for 'val', but it is in 'train' now"):
        check_splits(found, {"train": [0, 1, 2], "val": []})
    with pytest.raises(DataError, match=r"example ex-0 were generated for 'train', but it is in no split now"):
        check_splits(found, {"train": [2], "val": [1]})


def test_cots_of_other_rows_than_those_of_the_training_split_are_refused() -> None:
    found = dataset(cot(0, 0), cot(0, 1), cot(1, 0, split="val"))
    check_training(found, [0, 2])
    with pytest.raises(DataError, match=r"example ex-1 were generated for 'val', but it is in 'train' now; set data.split_seed"):
        check_training(found, [0, 1])
    with pytest.raises(DataError, match=r"example ex-0 were generated for 'train', but it is not in 'train' now"):
        check_training(found, [2])


def test_a_cot_is_named_for_messages() -> None:
    assert cot_at(dataset(cot(0, 0), cot(4, 1, "Why not?")), 1) == {"id": "ex-4", "split": "train", "sample": 1, "cot": "Why not?"}
