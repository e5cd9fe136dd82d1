"""What tells a job of a multirun from the others of its sweep, as the name of a folder: its ablation, or the overrides that are swept.

A launcher may run the job in a process of its own, which knows the job's overrides but not which of them all jobs share; the keys of
those are handed over in an environment variable. Without it all overrides count: a longer name, and still one of the job's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

FIXED_KEYS = "TRACT_FIXED_KEYS"  # environment variable: the keys that have one value in all jobs of the multirun
# Levels of the run folder beside the variant's.
_OWN_LEVEL = ("seed", "run.name", "run.variant", "paths.runs")
# Groups whose choice names a job by itself.
_NAMED_BY_VALUE = ("ablation", "experiment")
# Folders in that of a run's name which are no variants.
TAKEN = ("multirun", "comparison", "records")
_SEED = re.compile(r"seed\d+")
# No comma, which Hydra would read as two values in judge=FOLDER.
_JOIN = "+"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"-?\d+\.\d{5,}(e[+-]?\d+)?", re.IGNORECASE)
_MOST_CHARACTERS = 72


def fixed_keys(overrides: Sequence[str]) -> str:
    """The keys of a multirun's overrides that are not swept, for ``FIXED_KEYS``."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return " ".join(_key(override.get_key_element()) for override in parsed if not override.is_sweep_override())


def set_variant(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Sets ``run.variant`` of a job's configuration where the user has not.

    Args:
        cfg: of the job. overrides: of it, one value each.
    """
    if cfg.run.variant is None:
        cfg.run.variant = variant_of(overrides, os.environ.get(FIXED_KEYS, "").split(), str(cfg.run.name))


def variant_of(overrides: Sequence[str], fixed: Sequence[str], run_name: str) -> str | None:
    """The name of a job among those of its sweep; None where nothing but its seed or its run's name tells it from them.

    Equal for the same job however its overrides are ordered, and another for every other job: what had to be shortened or replaced for
    the sake of a short folder name is followed by a hash of the whole.

    Args:
        overrides: of the job, as "key=value". fixed: keys that all jobs share. run_name: the level above.
    """
    swept = {_key(text.partition("=")[0]): text.partition("=")[2] for text in overrides}
    parts = {key: value for key, value in swept.items() if key not in (*fixed, *_OWN_LEVEL)}
    if parts.get("experiment") == run_name:  # experiments are mostly called so, and the level above says it
        del parts["experiment"]
    if not parts:
        return None
    ordered = sorted(parts.items(), key=lambda part: (part[0] not in _NAMED_BY_VALUE, part[0]))
    whole = _JOIN.join(_part(key, value) for key, value in ordered)
    shown = _JOIN.join(_part(_safe(key), _short(value)) for key, value in ordered)[:_MOST_CHARACTERS]
    return shown if shown == whole else f"{shown}-{hashlib.sha256(json.dumps(ordered).encode()).hexdigest()[:6]}"


def is_taken(variant: str) -> bool:
    """Whether a folder of that name is something else than a variant's."""
    return variant in TAKEN or _SEED.fullmatch(variant) is not None


def _part(key: str, value: str) -> str:
    return value if key in _NAMED_BY_VALUE and not is_taken(value) else f"{key}={value}"


def _short(value: str) -> str:
    """The value without what a folder's name cannot hold, and without digits that nobody reads."""
    if _NUMBER.fullmatch(value):
        return (f"{float(value):.4g}" if _LONG_NUMBER.fullmatch(value) else value).replace("e+", "e")
    return _safe(value)


def _safe(text: str) -> str:
    return _UNSAFE.sub("-", text).strip("-") if _UNSAFE.search(text) else text


def _key(given: str) -> str:
    """The key of an override, without what adds or forces it."""
    return given.lstrip("+~")
