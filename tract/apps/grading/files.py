"""Grading of a file: each row once, in order, through the journal, then the output whole or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tract.apps.grading.columns import Columns, columns_in
from tract.apps.grading.graded import PREFIX, columns_of, refused
from tract.apps.grading.journal import Journal
from tract.apps.grading.outputs import OUTPUTS, write_output
from tract.apps.grading.retry import Retry, retry_of
from tract.apps.grading.scan import FileFacts, numbered_rows, scan
from tract.apps.grading.summary import Summary
from tract.common.errors import DataError, GenerationError
from tract.data.readers.files import content_fingerprint
from tract.data.readers.formats import is_compressed
from tract.data.readers.rows import RawRow
from tract.judge.grades import ERROR, Grade
from tract.judge.requests import GradeRequest
from tract.text.schema import Rubric
from tract.text.score_grid import ScoreGrid

# Rows that fail one after the other before the judge is taken to be gone: a server that is down, a GPU without memory.
MOST_FAILURES = 32
# Rows that cannot be used and are held in memory, until the grades before them are there.
MOST_REFUSED = 1024


class Grader(Protocol):
    """What is needed of a ``tract.judge.judge.Judge``."""

    @property
    def grid(self) -> ScoreGrid:
        """The scores that it gives."""

    @property
    def fingerprint(self) -> str:
        """Changes with all that moves a score."""

    def grade_stream(self, requests: Iterable[GradeRequest], *, ahead: int | None = None) -> Iterator[Grade]:
        """The grades in the order of the requests."""


@dataclass(frozen=True)
class GradingPlan:
    """A file to be graded, checked before the judge is loaded.

    Attributes:
        facts: of the input. out: where the graded file goes. columns: what holds which field. rubric: for all rows, or None for
            those of the rows. limit: the most rows that are graded, None for all.
        retry: the graded file whose rows without a score are all that is graded, None for all rows.
    """

    facts: FileFacts
    out: Path
    columns: Columns
    rubric: Rubric | None
    limit: int | None
    retry: Retry | None = None

    @property
    def rows(self) -> int:
        """How many rows are to be graded."""
        return self.facts.rows if self.retry is None else self.retry.rows

    def numbered_rows(self) -> Iterator[tuple[int, RawRow]]:
        """(number from 0, row) of the rows that are to be graded."""
        if self.retry is None:
            return numbered_rows(self.facts.path, self.limit)
        return self.retry.rows_of(self.facts.path, self.limit)

    @property
    def journal_path(self) -> Path:
        """Where grades are kept until all are there."""
        return self.out.with_name(f"{self.out.name}.partial")

    def work(self, fingerprint: str) -> dict[str, Any]:
        """What the journal is for; ``fingerprint`` is the judge's."""
        rubric = None if self.rubric is None else [self.rubric.criteria, [list(pair) for pair in self.rubric.descriptions]]
        return {
            "content of the input": self.facts.sha256,
            "columns": self.columns.to_dict(),
            "rubric": rubric,
            "limit": self.limit,
            "the judge's fingerprint": fingerprint,
            **({} if self.retry is None else {"the graded file whose failed rows are graded again": self.retry.sha256}),
        }


def plan_of(
    source: Path,
    out: Path,
    given: Mapping[str, str],
    rubric: Rubric | None,
    limit: int | None,
    *,
    overwrite: bool,
    retry_failed: bool = False,
) -> GradingPlan:
    """The plan of a grading.

    Args:
        given: field -> column, for those columns that are not called as their fields. overwrite: whether ``out`` may be there.
        retry_failed: whether ``out`` is there, and only its rows without a score are to be graded.

    Raises:
        DataError: if the input cannot be used or the output not be written.
    """
    if out.suffix.lower() not in OUTPUTS:
        later = "; compress it when it is written" if is_compressed(out) else ""
        raise DataError(f"-o {out}: the suffix {out.suffix!r} is no known format of an output; {', '.join(OUTPUTS)} are accepted{later}")
    if not out.absolute().parent.is_dir():
        raise DataError(f"-o {out}: the folder {out.absolute().parent} does not exist; make it, or give another output")
    if out.exists() and source.exists() and out.samefile(source):
        raise DataError(f"-o {out}: is the input itself, which is never written to; give another output")
    if out.is_dir() or (out.exists() and not (overwrite or retry_failed)):
        kept = "it is left as it is; give --overwrite to replace it, --retry-failed for its rows without a score, or another output"
        hint = "give a file" if out.is_dir() else kept
        raise DataError(f"-o {out}: is there already; {hint}")
    facts = scan(source, limit)
    if taken := [name for name in facts.kinds if name.startswith(PREFIX)]:
        raise DataError(
            f"{source}: has a column {taken[0]!r}; names that begin with {PREFIX} are those of the graded columns, rename or remove it"
        )
    if rubric is not None and (twice := [field for field in ("rubric", "criteria") if field in given]):
        raise DataError(f"--rubric: is given beside --columns {twice[0]}=...; give one of them")
    columns = columns_in(list(facts.kinds), given, str(source))
    return GradingPlan(facts, out, columns, rubric, limit, retry_of(facts, limit, out, columns) if retry_failed else None)


def grade_rows(plan: GradingPlan, judge: Grader, journal: Journal, advance: Callable[[int], None], *, keep_going: bool = False) -> None:
    """Grades the rows that the journal does not hold yet.

    Args:
        advance: is told how many rows were added. keep_going: whether rows are graded however many fail one after the other.

    Raises:
        GenerationError: if ``MOST_FAILURES`` rows fail one after the other; these are not in the journal.
    """
    kept = _Kept(journal, advance, None if keep_going else MOST_FAILURES)
    order = _Order(plan, islice(plan.numbered_rows(), journal.done, None), kept)
    while not order.ended:
        for grade in judge.grade_stream(order.requests()):
            order.settle(grade)
    kept.write()
    if journal.done != plan.rows:
        raise DataError(f"{plan.facts.path}: {plan.rows} rows were found at first, {journal.done} were graded; it has changed")


class _Order:
    """Rows in their order: those that the judge is asked for, and between them those that it is not, which wait for the grades before.

    Attributes:
        ended: whether all rows were taken.
    """

    def __init__(self, plan: GradingPlan, rows: Iterator[tuple[int, RawRow]], kept: _Kept) -> None:
        self.ended = False
        self._plan, self._rows, self._kept = plan, rows, kept
        self._waiting: deque[tuple[int, str]] = deque()  # what is wrong with the row, "" where the judge is asked
        self._refused = 0

    def requests(self) -> Iterator[GradeRequest]:
        """The next requests; they end with the rows, or where ``MOST_REFUSED`` rows wait, so that the grades before them are waited for."""
        for number, row in self._rows:
            request, reason = self._plan.columns.request_or_reason(row, self._plan.rubric)
            if request is not None:
                self._waiting.append((number, ""))
                yield request
            elif not self._waiting:
                self._kept.add(number, refused(reason))
            else:
                self._waiting.append((number, reason))
                self._refused += 1
                if self._refused == MOST_REFUSED:
                    return
        self.ended = True

    def settle(self, grade: Grade) -> None:
        """Keeps the grade of the row that has waited longest, and the rows behind it that wait for no grade."""
        self._kept.add_grade(self._waiting.popleft()[0], grade)
        while self._waiting and self._waiting[0][1]:
            number, reason = self._waiting.popleft()
            self._refused -= 1
            self._kept.add(number, refused(reason))


class _Kept:
    """Puts records into the journal; those of failures only when something else follows, since a judge that is gone fails on all.

    Args:
        most: failures one after the other that end it; None for any number, which are then put there at once.
    """

    def __init__(self, journal: Journal, advance: Callable[[int], None], most: int | None) -> None:
        self._journal, self._advance, self._most = journal, advance, most
        self._held: list[tuple[int, Mapping[str, Any]]] = []
        self._failures = 0
        self._written = 0  # of these failures, because too many rows were held

    def add(self, number: int, record: Mapping[str, Any]) -> None:
        """Adds the record of a row that the judge was not asked for."""
        self._held.append((number, record))
        if not self._failures or self._most is None:
            self.write()
        elif len(self._held) >= MOST_REFUSED:
            self._written = self._failures
            self.write()

    def add_grade(self, number: int, grade: Grade) -> None:
        """Adds a grade."""
        self._failures = self._failures + 1 if grade.status == ERROR else 0
        self._written = min(self._written, self._failures)
        self.add(number, columns_of(grade))
        if self._most is not None and self._failures >= self._most:
            again = "them" if not self._written else f"the last {self._failures - self._written} of them"
            raise GenerationError(
                f"{self._failures} rows failed one after the other, the last with: {grade.error}; mend it and run the same command again, "
                f"it goes on before {again}; --keep-going gives them the status error instead"
            )

    def write(self) -> None:
        """Puts what is held into the journal."""
        for number, record in self._held:
            self._journal.append(number, record)
        if self._held:
            self._advance(len(self._held))
            self._held.clear()


def finish(plan: GradingPlan, journal: Journal, grid: ScoreGrid) -> Summary:
    """Writes the output from the input and a full journal, removes the journal, and says what the output holds.

    Raises:
        DataError: if the input is not the one that was graded.
    """
    for path, before in ((plan.facts.path, plan.facts.sha256), *([(plan.retry.path, plan.retry.sha256)] if plan.retry else [])):
        if content_fingerprint(path) != before:
            raise DataError(f"{path}: has changed while it was graded; nothing was written, run the command with --restart")
    summary = Summary(grid)
    write_output(plan.facts, plan.limit, plan.out, summary.counted(_records(plan, journal)), summary)
    journal.remove()
    return summary


def _records(plan: GradingPlan, journal: Journal) -> Iterator[dict[str, Any]]:
    """The graded columns of all rows, in order."""
    return journal.records() if plan.retry is None else plan.retry.merged(journal.records())
