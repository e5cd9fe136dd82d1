"""Counts of rows, items, CoTs and grades as sentences, with a clause that explains the uncommon ones. Pure; only shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Status of an example -> in words.
EXAMPLES = {
    "ok": "usable",
    "shortened": "usable with a shortened prompt",
    "dropped_overlong_prompt": "left out, since the prompt is too long",
    "dropped_overlong": "left out, since the sequence is longer than data.max_length",
    "dropped_unannotated": "left out, since they have no annotation to learn from",
    "dropped_no_cot": "left out, since stage2.filter kept none of their CoTs",
    "without_generated_cot": "without a generated CoT (as those of test splits)",
}
# Why a CoT ended -> in words.
ENDINGS = {
    "cue": "ended at the answer cue",
    "score": "stated the score in other words than the cue",
    "end": "ended the turn without the cue, which is appended to read the score",
    "length": "were cut off at generation.max_cot_tokens and are scored as they are",
    "given": "were given",
    "none": "are empty: the cue follows the prompt",
}
# Why a generated CoT is left out of stage 2 -> in words.
FILTERED = {
    "truncated": "cut off at generation.max_cot_tokens",
    "empty": "empty",
    "without_cue": "without the answer cue or another statement of the score",
    "not_closest": "further from the true score than the stage2.filter.keep_closest best",
}
# Status of a grade -> in words; "ok" needs none.
GRADES = {
    "no_cue": "the judge ended without its answer cue, which was appended to read the score",
    "truncated_cot": "the feedback ran into the token limit; scored as it is",
    "low_score_mass": "the judge expected something else than a score; no score",
    "unreadable_score": "what was written in place of a score is none of the grid; no score",
    "over_length": "the prompt leaves no room for feedback; no score",
    "error": "the row cannot be used, or the model failed; no score",
}


def several(count: int, one: str, many: str = "") -> str:
    """The text "1 row" or "1,200 rows"."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def listed(counts: Mapping[str, int], words: Mapping[str, str], unit: str = "") -> str:
    """The text "6 usable, 2 left out, ...", without those that are 0; a name without words is shown as it is. The first has the unit."""
    ordered = [*(name for name in words if name in counts), *sorted(name for name in counts if name not in words)]
    found = [(counts[name], words.get(name, name)) for name in ordered if counts[name]]
    return ", ".join(f"{several(count, unit) if unit and not place else f'{count:,}'} {what}" for place, (count, what) in enumerate(found))


def splits(by_split: Mapping[str, int]) -> str:
    """The text "6 train, 1 val, 4 test", without empty splits."""
    return ", ".join(f"{count:,} {split}" for split, count in by_split.items() if count) or "none"


def rows(counts: Mapping[str, Any]) -> str:
    """What became of the rows of a source, from the counts of its store."""
    left_out = ", ".join(f"{reason}: {count:,}" for reason, count in counts["rejected_by_reason"].items())
    parts = [several(counts["rows_read"], "row") + " read", f"{counts['rows_rejected']:,} left out ({left_out})" if left_out else ""]
    parts.append(f"{several(counts['examples'], 'example')} with {several(counts['annotations'], 'annotation')}")
    if counts.get("ratings"):
        parts.append(f"{several(counts['ratings'], 'score')} without a text")
    if counts.get("equal_rows_kept"):
        parts.append(f"{several(counts['equal_rows_kept'], 'equal row')} kept as votes of other raters")
    if counts.get("duplicates_dropped"):
        parts.append(f"{several(counts['duplicates_dropped'], 'duplicate')} dropped")
    return ", ".join(filter(None, parts))


def filtered(counts: Mapping[str, int]) -> str:
    """How many of the generated CoTs are kept, and why the others are not, from the counts of the filter."""
    dropped = {name.removeprefix("dropped_"): count for name, count in counts.items() if name != "kept" and count}
    total = counts["kept"] + sum(dropped.values())
    if not dropped:
        return f"all {several(total, 'generated CoT')} kept"
    return f"{counts['kept']:,} of {several(total, 'generated CoT')} kept; left out: {listed(dropped, FILTERED)}"
