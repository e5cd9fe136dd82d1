"""Some rows of the data that a judge was trained on: from the cache of the training, or from local files. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tract.common.errors import DataError, TractError
from tract.data.readers.rows import RowProblem
from tract.data.sources.feedback_collection import FeedbackCollection
from tract.data.sources.mapped_columns import MappedColumns
from tract.data.sources.prometheus_eval import PrometheusEval
from tract.data.sources.source import Source
from tract.data.store import cached_store
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

# Enough to find a wording and to trust it.
ROWS = 64
# A folder from elsewhere may name any class of Python; only these are built.
_SOURCES: dict[str, Callable[..., Source]] = {each.__name__: each for each in (FeedbackCollection, PrometheusEval, MappedColumns)}


def training_rows(
    config: Mapping[str, Any],
    fingerprint: str,
    grid: ScoreGrid,
    *,
    caches: Sequence[Path],
    data: Path | None,
    places: Callable[[str], list[Path]],
) -> list[JudgeExample]:
    """At most ``ROWS`` examples of a stage's training data; empty if they are not on this machine.

    Args:
        config: of the stage, resolved. fingerprint: of its examples, by its manifest. grid: its scores.
        caches: folders where the training may have kept its examples.
        data: file or folder with such rows, which is read instead; None for where the training read them.
        places: where a path of the run's configuration may lead today.

    Raises:
        DataError: if ``data`` is given and cannot be read as the training data was.
    """
    for cache in caches if data is None else ():
        if (store := cached_store(fingerprint, cache)) is not None:
            return [store.example(row) for row in range(min(ROWS, len(store)))]
    try:
        return list(islice(_examples(config["data"]["source"], data, grid, places), ROWS))
    except (TractError, TypeError, KeyError, OSError) as error:
        if data is None:
            return []
        raise DataError(f"--data: {data} cannot be read as the training data was: {' '.join(str(error).split())}") from error


def _examples(node: Mapping[str, Any], data: Path | None, grid: ScoreGrid, places: Callable[[str], list[Path]]) -> Iterator[JudgeExample]:
    name = str(node["_target_"]).rpartition(".")[2]
    written = str(node.get("path"))
    path = str(data if data is not None else next(iter(places(written)), written))
    if name not in _SOURCES or not Path(path).exists():
        raise DataError(f"{name}: no rows at {path}; one of {', '.join(_SOURCES)} with local files is accepted")
    source = _SOURCES[name](**{**{key: value for key, value in node.items() if key != "_target_"}, "path": path})
    for row in source.rows():
        try:
            if not isinstance(row.data, RowProblem):
                yield source.to_example(row, grid)
        except TractError:
            raise
        except ValueError:  # a row that the training left out too, or ended at
            continue
