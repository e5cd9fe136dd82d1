"""A small study: TRACT and an ablation over three seeds, a sweep over lambda, more CoTs of one seed, and a run that failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import HOSTILE, config_of, items_of, make_run

from tract.apps.compare.comparison import RunComparison, compare
from tract.apps.compare.options import DEFAULT_METRICS, CompareOptions
from tract.artifacts.records import FAILED, RunRecord
from tract.artifacts.runs import find_runs


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study's runs; tests do not change it."""
    root = tmp_path_factory.mktemp("study")
    both = {"test": items_of("test"), HOSTILE: items_of(HOSTILE, 9)}
    sweep = root / "runs" / "swept" / "multirun"
    for seed in (0, 1, 2):
        make_run(root, 0.5, seed=seed, run__ablation="tract", items=both)
        make_run(
            root, 0.9, seed=seed, run__ablation="ce_only", objective__lambda=0.0, objective__ce_on_score=True, items=both, flat=seed == 2
        )
        for job, weight in enumerate((0.0, 0.1, 10.0)):
            changes = {"seed": seed, "run__name": "swept", "run__ablation": "tract", "objective__lambda": weight}
            make_run(root, 0.6 + weight / 20, records=sweep, job=3 * job + seed, **changes)
    make_run(root, 0.3, run__ablation="tract", evaluation__n_cot=5)
    RunRecord(FAILED, config_of(seed=7, run__name=HOSTILE), ("seed=7",), message=f"out of memory {HOSTILE}").write(root / "runs" / "bad")
    return root / "runs"


@pytest.fixture(scope="session")
def comparison(study: Path) -> RunComparison:
    """All of the study, read by two predictors."""
    return compare(find_runs([study]), CompareOptions(None, ("rail", "decode_free"), DEFAULT_METRICS, 0.95, 60))
