"""Types of the sections that are the arguments of a class: those of the values in conf, since importing the class takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tract.config.comments import read

CONF = Path(__file__).resolve().parents[2] / "conf"
_SECTIONS = ("optimizer", "trainer")
# What takes values of several types, and is checked by rules of its own or by the class.
_OF_SEVERAL_TYPES = ("trainer.devices", "trainer.precision", "trainer.strategy", "trainer.accelerator")
# Arguments of transformers' schedules, none of which has a value in conf.
_OF_SCHEDULES = {
    "num_cycles": 0.5, "lr_end": 1e-7, "power": 1.0, "min_lr": 1e-7, "min_lr_rate": 0.1, "timescale": 1, "num_decay_steps": 1,
    "num_stable_steps": 1, "warmup_type": "linear", "decay_type": "cosine",
}  # fmt: skip


def argument_problems(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Values of another type than the argument has, a line each.

    Args:
        cfg: the composed configuration, as plain containers; interpolations may stand in it.
    """
    for section in _SECTIONS:
        found = cfg.get(section)
        if isinstance(found, Mapping):
            yield from _problems(section, found, _values_of(section, str(found.get("_target_"))))
    kwargs = (cfg.get("scheduler") or {}).get("kwargs") if isinstance(cfg.get("scheduler"), Mapping) else None
    if isinstance(kwargs, Mapping):
        yield from _problems("scheduler.kwargs", kwargs, _OF_SCHEDULES)


def _values_of(section: str, target: str) -> dict[str, Any]:
    """Key -> a value of the right type, from the options of a group that build this class or leave it to the one they start from."""
    files = [read(path) for path in sorted((CONF / section).glob("*.yaml"))]
    own = [file.values for file in files if file.values.get("_target_", target) == target]
    return {key: value for values in own for key, value in values.items()}


def _problems(section: str, found: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        key, like = f"{section}.{name}", known.get(str(name))
        if key in _OF_SEVERAL_TYPES or like is None or value is None or (isinstance(value, str) and "${" in value):
            continue
        if isinstance(like, str) and "${" in like:
            continue
        if (accepted := _mismatch(value, like)) is not None:
            yield f"{key}: found {value!r}; {accepted} is accepted"


def _mismatch(value: Any, like: Any) -> str | None:
    """What is accepted in the place of a value; None if it is of the type of ``like``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(like, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(like, int):
        return None if is_number and float(value).is_integer() else "a whole number"
    if isinstance(like, float):
        return None if is_number else "a number"
    if isinstance(like, list) and like and all(isinstance(one, float) for one in like):
        fits = isinstance(value, list) and len(value) == len(like) and all(_mismatch(one, 0.5) is None for one in value)
        return None if fits else f"a list of {len(like)} numbers, e.g. {like},"
    return None
