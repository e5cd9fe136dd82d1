"""One prompt with its continuations as a tree of token segments, flattened for attention that lets each token see its own path. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate


class TokenKind(IntEnum):
    """What a supervised token is."""

    COT = 0
    CUE = 1
    SCORE = 2
    END = 3


@dataclass(frozen=True, slots=True)
class SegmentRun:
    """Tokens of a token tree that are contiguous both in the flattened tree and on one path.

    Attributes:
        start, end: its places in the flattened tree, ``end`` not included.
        ancestors: (start, end) of the spans of tokens that come before it on its path, in the order of the path.
    """

    start: int
    end: int
    ancestors: tuple[tuple[int, int], ...]

    def shifted(self, offset: int) -> SegmentRun:
        """The same run where the tree begins at ``offset``."""
        return SegmentRun(self.start + offset, self.end + offset, tuple((start + offset, end + offset) for start, end in self.ancestors))


@dataclass(frozen=True, slots=True)
class PathRows:
    """The paths of packed token trees, each as a row of its own.

    Attributes:
        places: R lists: for each row, the places of its tokens in the packed row, in the order of the path.
        found: [T] for each place in the packed row, the (row, column) of its token; of a token on several paths, one of them.
    """

    places: list[list[int]]
    found: list[tuple[int, int]]

    @classmethod
    def of(cls, runs: Sequence[SegmentRun]) -> PathRows:
        """From the runs of a packed row, in ascending order: one path for each run that is not an ancestor of another."""
        ancestors = {span for run in runs for span in run.ancestors}
        places: list[list[int]] = []
        found: dict[int, tuple[int, int]] = {}
        for run in runs:
            if (run.start, run.end) in ancestors:
                continue
            path = [place for start, end in (*run.ancestors, (run.start, run.end)) for place in range(start, end)]
            found |= {place: (len(places), column) for column, place in enumerate(path)}
            places.append(path)
        return cls(places, [found[place] for place in range(len(found))])


@dataclass(frozen=True, slots=True)
class TokenTree:
    r"""One prompt with one or more continuations as a tree of token segments, flattened.

    A token attends to the tokens before it in its own segment and to all tokens of the segments above. With a single
    continuation and a grid of one-token scores the tree is a chain, and that is plain causal attention.

        prompt -- CoT + cue -- score + end
              \            \- branch: other tokens whose successors decide between scores ("1" beside "10")
               \- CoT + cue -- ...

    Attributes:
        input_ids: [T] token ids.
        position_ids: [T] depth of each token: its distance in tokens from the start of the prompt along its own path.
        segment_ids: [T] the segment of each token.
        parents: [S] the segment above each segment; -1 for the prompt.
        target_from: [N] for each supervised token, the position whose logits predict it.
        target_ids: [N] its id. target_kinds: [N] its ``TokenKind``. target_continuations: [N] its continuation.
        score_reads: [C][K] for each continuation and each node of the score trie, the position whose logits are read.
        score_index: [C] the place of each continuation's score in the grid.
        is_rating: [C] whether a continuation is a score without a CoT where CoTs are learned, which the cross-entropy leaves out.
    """

    input_ids: list[int]
    position_ids: list[int]
    segment_ids: list[int]
    parents: list[int]
    target_from: list[int]
    target_ids: list[int]
    target_kinds: list[int]
    target_continuations: list[int]
    score_reads: list[list[int]]
    score_index: list[int]
    is_rating: list[bool]

    @property
    def is_chain(self) -> bool:
        """Whether plain causal attention is exact."""
        return len(self.runs) == 1

    @property
    def runs(self) -> list[SegmentRun]:
        """The tree as the fewest possible runs: a segment right after its parent extends the parent's run."""
        sizes = [0] * len(self.parents)
        for segment in self.segment_ids:
            sizes[segment] += 1
        ends = list(accumulate(sizes))
        runs: list[SegmentRun] = []
        for segment, end in enumerate(ends):
            if not sizes[segment]:
                continue
            ancestors = self._ancestor_spans(segment, sizes, ends)
            start = end - sizes[segment]
            if runs and ancestors and ancestors[-1][1] == start == runs[-1].end:
                runs[-1] = SegmentRun(runs[-1].start, end, runs[-1].ancestors)
            else:
                runs.append(SegmentRun(start, end, tuple(ancestors)))
        return runs

    def _ancestor_spans(self, segment: int, sizes: list[int], ends: list[int]) -> list[tuple[int, int]]:
        """(start, end) of the segments above one, in the order of the path; adjacent ones are merged."""
        path = []
        while (segment := self.parents[segment]) >= 0:
            if sizes[segment]:
                path.append((ends[segment] - sizes[segment], ends[segment]))
        spans: list[tuple[int, int]] = []
        for start, end in reversed(path):
            if spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        return spans


class TreeBuilder:
    """Appends segments to a token tree and records which position predicts which token.

    Attributes:
        out: the tree so far. continuation: number of the continuation that supervised tokens are added to.
    """

    def __init__(self) -> None:
        self.out = TokenTree([], [], [], [], [], [], [], [], [], [], [])
        self.continuation = 0
        self._last: list[int] = []  # the last position of each segment
        self._first: list[int] = []

    def add_segment(self, parent: int, ids: list[int], kinds: list[TokenKind] | None = None) -> int:
        """Appends a segment and returns its number.

        Args:
            parent: number of the segment above, -1 for the root. ids: token ids; there may be none.
            kinds: of the tokens, which are supervised then; None for tokens that are not.
        """
        out, segment = self.out, len(self.out.parents)
        before = self._last[parent] if parent >= 0 else -1
        depth = out.position_ids[before] + 1 if before >= 0 else 0
        start = len(out.input_ids)
        out.parents.append(parent)
        self._first.append(start)
        self._last.append(start + len(ids) - 1 if ids else before)
        out.input_ids.extend(ids)
        out.position_ids.extend(range(depth, depth + len(ids)))
        out.segment_ids.extend([segment] * len(ids))
        if kinds:
            out.target_from.extend([before, *range(start, start + len(ids) - 1)][: len(ids)])
            out.target_ids.extend(ids)
            out.target_kinds.extend(int(kind) for kind in kinds)
            out.target_continuations.extend([self.continuation] * len(ids))
        return segment

    def read_scores(self, paths: Sequence[tuple[int, ...]], stem: int, leaf: int, score: tuple[int, ...]) -> None:
        """Records where each node of the score trie is read; adds branches for nodes that are not on the true score's path.

        Args:
            paths: of the trie's nodes, token ids each. stem: segment of CoT and cue. leaf: segment of the true score, which has
            the token ids ``score``.
        """
        place = {score[:n]: self._first[leaf] + n - 1 for n in range(1, len(score) + 1)}
        place[()] = self._last[stem]
        for path in sorted((p for p in paths if p not in place), key=len, reverse=True):
            if path in place:  # lies on a longer branch
                continue
            start = self._first[self.add_segment(stem, list(path))]
            for n in range(1, len(path) + 1):
                place.setdefault(path[:n], start + n - 1)
        self.out.score_reads.append([place[path] for path in paths])
