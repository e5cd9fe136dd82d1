"""The predictions files of rated data: texts and ids as the user wrote them, and every rater's score with its comment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
from composing import composed
from tiny_pipeline import SMALL, records

from tract.pipeline.pipeline import run_pipeline
from tract.pipeline.stages.predict import Predictions

COLUMNS = {
    "question_id": "qid", "id": "id", "instruction": "question", "response": "answer", "score": "points", "cot": "comment",
    "rater": "rater",
}  # fmt: skip


def test_predictions_carry_texts_ids_and_the_scores_of_every_rater(tmp_path: Path) -> None:
    """As the user wrote them; a report and numbers say how far the raters agree."""
    rows = []
    for n in range(12):
        for answer in "xy":
            rows += [f"T-{n:02d},T-{n:02d}/{answer},Parcel {n}?,</script>{answer} {n},anna,{n % 5 + 1},Kind {answer}{n}.",
                     f"T-{n:02d},T-{n:02d}/{answer},Parcel {n}?,</script>{answer} {n},ben,{(n + (answer == 'y')) % 5 + 1},"]  # fmt: skip
    (tmp_path / "rated.csv").write_text("qid,id,question,answer,rater,points,comment\n" + "\n".join(rows) + "\n")
    mapped = [f"data.source.columns.{field}={column}" for field, column in COLUMNS.items()]
    without_data = [name for name in SMALL if not name.startswith("data.")]
    resolved = composed(
        [
            "data=columns", f"data.path={tmp_path}/rated.csv", *mapped, *without_data, f"paths.runs={tmp_path}/runs",
            f"paths.cache={tmp_path}/cache", "data.val_fraction=0.0", "data.test_fraction=0.9",
            "pipeline=[predict,evaluate]", "evaluation.benchmarks=[test]",
        ],
        "evaluate",
    )  # fmt: skip
    products = run_pipeline(resolved)
    folder = products["evaluate"].path
    found = records(folder / "predictions.jsonl")
    ids = {row["id"] for row in found}
    assert len(found) == 3 * len(ids) >= 3 * 20
    for row in found:
        n, answer = int(row["id"][2:4]), row["id"][-1]
        assert row["id"] == f"T-{n:02d}/{answer}"
        assert (row["question_id"], row["instruction"], row["response"]) == (f"T-{n:02d}", f"Parcel {n}?", f"</script>{answer} {n}")
        scores = (n % 5 + 1.0, (n + (answer == "y")) % 5 + 1.0)
        assert row["raters"] == [
            {"rater": "anna", "score": scores[0], "comment": f"Kind {answer}{n}."},
            {"rater": "ben", "score": scores[1], "comment": None},
        ]
        assert row["target"] == sum(scores) / 2
    assert {(row["reading"], row["cot_index"]) for row in found} == {("no_cot", None), ("cot", 0), ("cot", 1)}
    assert "sample" not in found[0]
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert [entry["raters"] for entry in table] == [row["raters"] for row in found]
    agreement = json.loads((folder / "metrics.json").read_text())["benchmarks"]["test"]["agreement"]
    assert (agreement["n_items"], agreement["n_raters"], agreement["exact"]) == (len(ids), 2, 0.5)
    report = (folder / "report.html").read_text()
    assert all(name in report for name in ids)
    assert "&lt;/script&gt;y" in report
    assert "</script>y" not in report
    # The product of the predict stage is enough for a report: neither data nor cache need be there.
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "rated.csv").unlink()
    items, _ = Predictions.read(products["predict"]).of["test"]
    assert {item.id: item.response for item in items} == {row["id"]: row["response"] for row in found}
