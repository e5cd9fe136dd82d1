"""The record of a run says how it ended, whatever ended it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from tract.artifacts.products import Product
from tract.artifacts.records import records_below
from tract.common.errors import ConfigError, ReportedExit
from tract.common.signals import Interrupted
from tract.pipeline.run_record import recorded


def cfg(root: Path) -> Any:
    return SimpleNamespace(paths=SimpleNamespace(runs=str(root)), run=SimpleNamespace(name="a", variant=None), seed=3)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigError("data.path: absent"), "failed", "data.path: absent"),
        (ReportedExit(2, "seed: no"), "failed", "seed: no"),
        (ZeroDivisionError("by\nzero"), "failed", "ZeroDivisionError: by zero"),
        (Interrupted(15), "running", ""),
    ],
)
def test_how_it_ended(error: BaseException, status: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), recorded(OmegaConf.create({"seed": 3}), cfg(tmp_path), {}):
        raise error
    ((path, record),) = records_below(tmp_path)
    assert path.parent == tmp_path / "a" / "seed3" / "records"
    assert (record.status, record.message, record.stages) == (status, message, {})


def test_a_complete_run_names_its_products(tmp_path: Path) -> None:
    products: dict[str, Product] = {}
    with recorded(OmegaConf.create({"seed": 3}), cfg(tmp_path), products):
        products["stage1"] = Product(tmp_path / "stages" / "stage1-0", {}, "f")
    ((path, record),) = records_below(tmp_path)
    assert record.status == "complete"
    assert (path.parent / record.stages["stage1"]).resolve() == (tmp_path / "stages" / "stage1-0").resolve()
