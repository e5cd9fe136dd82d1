"""Overrides that make an experiment tiny: shared by the test files that go through all experiments."""

from __future__ import annotations

# The tiny model and a few generated tasks, whatever the experiment.
TINY = (
    "model=tiny",
    "data=rubric_check",
    "grid=one_to_five",
    "data.source.n_questions=12",
    "data.source.n_ood_questions=0",
    "trainer=cpu",
    "logger=none",
)
