"""Calibration: fits against known answers, what is refused, and the way through ``judge_config.json``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_settings import made_settings

from tract.artifacts.judge_settings import read_settings
from tract.common.errors import ConfigError, DataError
from tract.evaluation.calibration import Calibration, fit_isotonic, fit_margin, fit_temperature

VALUES = (1.0, 2.0, 3.0, 4.0, 5.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    """Targets are the expectations at that temperature, of one to three CoTs an item."""
    rng = np.random.default_rng(0)
    logits = [rng.normal(0, 2, (1 + number % 3, 5)) for number in range(40)]
    readings = [softmax(item).tolist() for item in logits]
    targets = [float(np.mean(softmax(item / temperature) @ np.asarray(VALUES))) for item in logits]
    assert fit_temperature(readings, VALUES, targets) == pytest.approx(temperature, rel=1e-3)


def test_a_temperature_does_not_depend_on_the_score_mass() -> None:
    """It is normalised over the grid, so that a judge which puts half of its mass elsewhere gets the same."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20, 1, 5))
    targets = (softmax(logits / 3)[:, 0] @ np.asarray(VALUES)).tolist()
    whole, half = softmax(logits), softmax(logits) / 2
    assert fit_temperature(half.tolist(), VALUES, targets) == pytest.approx(fit_temperature(whole.tolist(), VALUES, targets), rel=1e-6)


def test_isotonic_by_hand() -> None:
    """Ten scores; the targets of 2 and 3 (4, 2) are out of order and pooled to 3, those of 5 and 6 (5, 4, two items) to 13 / 3."""
    scores = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0, 7.0, 8.0, 9.0]
    targets = [1.0, 4.0, 2.0, 3.5, 5.0, 3.0, 5.0, 6.0, 6.0, 6.0]
    raw, calibrated = fit_isotonic(scores, targets)
    expected = {1.0: 1.0, 2.0: 3.0, 3.0: 3.0, 4.0: 3.5, 5.0: 13 / 3, 6.0: 13 / 3, 7.0: 6.0, 9.0: 6.0}
    assert dict(zip(raw, calibrated, strict=True)) == pytest.approx(expected)  # 8.0 lies inside a flat stretch


def test_an_isotonic_map_is_straight_between_knots_and_flat_outside() -> None:
    found = Calibration("isotonic", None, (1.0, 3.0), (2.0, 4.0), {})
    assert [found.score(score) for score in (0.0, 1.0, 2.0, 3.0, 9.0)] == [2.0, 2.0, 3.0, 4.0, 4.0]
    assert found.distribution([0.1, 0.2]).tolist() == [0.1, 0.2]


def test_a_temperature_of_one_only_normalises() -> None:
    found = Calibration("temperature", 1.0, (), (), {})
    assert found.distribution([0.1, 0.3, 0.0]).tolist() == pytest.approx([0.25, 0.75, 0.0])
    assert found.score(3.3) == 3.3


def test_few_items_are_refused() -> None:
    with pytest.raises(DataError, match="9 items with a score and a target; at least 10 are needed"):
        fit_isotonic([1.0] * 9, [1.0] * 9)
    with pytest.raises(DataError, match="at least 10"):
        fit_temperature([[[0.5, 0.5]]] * 3, (1.0, 2.0), [1.0] * 3)
    with pytest.raises(ValueError, match="10 items with 9 targets"):
        fit_isotonic([1.0] * 10, [1.0] * 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("platt", None, (), ()), "'platt' is not one of temperature, isotonic"),
        (("temperature", None, (), ()), "None is not a number > 0"),
        (("temperature", -1.0, (), ()), "-1.0 is not a number > 0"),
        (("temperature", float("nan"), (), ()), "is not a number > 0"),
        (("isotonic", None, (), ()), "two lists of equal length"),
        (("isotonic", None, (2.0, 1.0), (1.0, 2.0)), "both ascending"),
        (("isotonic", None, (1.0, 2.0), (2.0, 1.0)), "both ascending"),
        (("isotonic", None, (1.0, 2.0), (1.0,)), "equal length"),
    ],
)
def test_what_is_no_calibration_is_refused(arguments: tuple[str, float | None, tuple[float, ...], tuple[float, ...]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Calibration(*arguments, {})


@pytest.mark.parametrize(
    "calibration",
    [
        None,
        Calibration("temperature", 0.1 + 0.2, (), (), {"file": "val.jsonl", "items": 40}),
        Calibration("isotonic", None, (1.1, 2.7), (1.0, 3.3), {"rmse_after": {"value": 0.5, "low": None, "high": None}}, margin=0.1 + 0.2),
    ],
)
def test_a_calibration_goes_through_the_settings_file_to_the_last_bit(calibration: Calibration | None, tmp_path: Path) -> None:
    settings = made_settings(calibration=calibration)
    assert read_settings(settings.write(tmp_path)) == settings


def test_the_margin_is_the_least_that_holds_nine_of_ten() -> None:
    intervals = [(2.0, 3.0)] * 19
    targets = [2.5] * 15 + [3.25, 1.5, 4.0, 5.0]  # missed by 0.25, 0.5, 1 and 2
    assert fit_margin(intervals, targets, 0.9) == 1.0  # the 18th of 20 places
    assert fit_margin(intervals, targets, 0.8) == 0.25  # the 16th
    assert fit_margin(intervals, [2.5] * 19, 0.9) == 0.0  # never narrower
    assert fit_margin(intervals, targets, 0.999) == 2.0


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="calibration.fitted_on.rmse is nan"):
        made_settings(calibration=Calibration("temperature", 1.0, (), (), {"rmse": float("nan")})).write(tmp_path)
    assert list(tmp_path.iterdir()) == []
