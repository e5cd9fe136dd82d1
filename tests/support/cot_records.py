"""Records of generated CoTs: shared by the tests of their file, their filter and the items made of them."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from tract.data.generated_cots.file import COT_FEATURES


def cot(row: int, sample: int, text: str = "It is right.", **changes: Any) -> dict[str, Any]:
    """A record of the file; the CoT's ids are the places of its characters in the alphabet."""
    record = {
        "row": row, "id": f"ex-{row}", "split": "train", "sample": sample, "cot_ids": [20 + ord(c) % 60 for c in text], "cot": text,
        "finish": "cue", "score": 4.0, "score_index": 3, "probabilities": [0.0, 0.0, 0.25, 0.75, 0.0], "rail": 3.75, "score_mass": 1.0,
    }  # fmt: skip
    return {**record, **changes}


def dataset(*records: dict[str, Any]) -> Dataset:
    return Dataset.from_list(list(records), features=COT_FEATURES)
