"""A source of perturbed examples: those of a benchmark whose prompts show the perturbation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from tract.common.errors import DataError
from tract.data.readers.fields import short_hash
from tract.data.readers.rows import RawRow
from tract.data.sources.rubric_check.facts import one_more_met, rescored
from tract.data.sources.rubric_check.generator import GENERATOR_VERSION
from tract.data.store import ExampleStore
from tract.text.perturbations import ONE_MORE_MET, PERTURBATIONS, PERTURBATIONS_VERSION, Scale
from tract.text.prompts import PromptTemplate
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid


class Perturbed:
    """The examples of a benchmark under one perturbation; ids and question ids stay, so that the two can be paired.

    The true score changes with the response where it can be computed.

    Args:
        store: the benchmark's examples. rows: those to change.
        name: of the perturbation. scale: what attacks speak of.
        template: words the prompts; an example whose prompt does not show the change is left out.
    """

    def __init__(self, store: ExampleStore, rows: Sequence[int], name: str, scale: Scale, template: PromptTemplate) -> None:
        self._store, self._rows, self._name, self._scale, self._template = store, rows, name, scale, template

    @cached_property
    def examples(self) -> list[JudgeExample]:
        """The changed examples."""
        changed = (self._changed(self._store.example(row)) for row in self._rows)
        return [example for example in changed if example is not None]

    def rows(self) -> Iterator[RawRow]:
        """The same, as rows whose place is their id."""
        return (RawRow(place=example.id, data=example) for example in self.examples)

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        """The example that the row holds."""
        assert isinstance(row.data, JudgeExample)
        return row.data

    def fingerprint(self) -> str:
        """Changes with the examples, the perturbation and what decides whether it shows."""
        versions, scale = [PERTURBATIONS_VERSION, GENERATOR_VERSION], [self._scale.grid.labels, self._scale.cue]
        return short_hash(
            "perturbed", versions, self._store.fingerprint, list(self._rows), self._name, scale, repr(self._template), length=64
        )

    def describe(self) -> str:
        """The source in a few words."""
        return f"{len(self.examples)} examples changed by {self._name!r}"

    def _changed(self, original: JudgeExample) -> JudgeExample | None:
        change = PERTURBATIONS[self._name].change
        changed = one_more_met(original) if self._name == ONE_MORE_MET else change(original, self._scale) if change else None
        if changed is None:
            return None
        try:
            before, after = (self._template.render(example, self._scale.grid).user for example in (original, changed))
        except DataError:  # of a finished prompt that the change cannot be put into
            return None
        return None if before == after else rescored(changed, original)
