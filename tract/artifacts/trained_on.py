"""Which responses a judge was trained or chosen on, as hashes of their texts beside an exported judge: no text leaves the machine."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tract.artifacts.products import read_manifest
from tract.artifacts.recorded_paths import places_of
from tract.common.errors import TractError
from tract.data.readers.fields import short_hash
from tract.data.splits import split_questions
from tract.data.store import ExampleStore, cached_store

TRAINED_ON_FILE = "trained_on.txt"
_LENGTH = 16  # hex characters of a hash
log = logging.getLogger(__name__)


def response_hash(instruction: str, response: str) -> str:
    """The hash of what is graded; blanks around the texts do not count."""
    return short_hash(instruction.strip(), response.strip(), length=_LENGTH)


def training_hashes(stage: Path, cache: Path | None) -> set[str] | None:
    """Of the training and validation splits of a fit stage's data; None where its examples are not in a cache on this machine.

    Args:
        stage: its folder. cache: where examples are looked for beside the run's own cache.
    """
    try:
        manifest, _ = read_manifest(stage)
        config: Any = OmegaConf.to_container(OmegaConf.load(stage / "config.yaml"))
        kept = (config.get("paths") or {}).get("cache")
        caches = [*([cache] if cache else []), *(places_of(str(kept), stage, manifest) if kept else [])]
        found = (cached_store(str(manifest["data"]["source"]), place) for place in caches)
        store = next((each for each in found if each is not None), None)
        return None if store is None else _hashes(store, config["data"])
    except (TractError, OSError, KeyError, TypeError, AttributeError) as error:
        log.debug("%s: %s", stage, error)
        return None


def _hashes(store: ExampleStore, data: dict[str, Any]) -> set[str] | None:
    splits = split_questions(
        store.questions(),
        store.fixed_splits(),
        seed=data["split_seed"],
        val_fraction=data["val_fraction"],
        test_fraction=data["test_fraction"],
    )
    examples = [store.example(row) for split in ("train", "val") for row in splits[split]]
    if not any(example.response for example in examples):  # finished prompts alone, in which no response can be told from the rest
        return None
    return {response_hash(example.instruction, example.response) for example in examples}


def write_trained_on(folder: Path, hashes: Collection[str]) -> None:
    """Writes the hashes, sorted, a line each."""
    (folder / TRAINED_ON_FILE).write_text("".join(f"{each}\n" for each in sorted(hashes)), encoding="utf-8")


def read_trained_on(folder: Path) -> frozenset[str] | None:
    """The hashes beside a judge; None where there are none, so that nothing is known."""
    try:
        return frozenset((folder / TRAINED_ON_FILE).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return None
