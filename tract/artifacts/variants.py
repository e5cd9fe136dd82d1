"""Which runs differ in nothing but their seed, what the others differ in, and what they are called. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tract.artifacts.runs import LeftOut, RecordedRun
from tract.common.containers import canonical
from tract.config.ignored_fields import OF_COMPARISONS
from tract.evaluation.cells import printable

# Keys that a comparison keeps, whatever the patterns of ``OF_COMPARISONS`` say.
MATERIAL = ("run.name", "run.ablation", "trainer.precision")
# Keys that only name a run.
NAMES = ("run.name", "run.ablation")
_SHOWN_KEYS, _SHOWN_CHARACTERS = 3, 24
_ABSENT = "absent"


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: what it is called in tables; one line, no two variants have the same.
        settings: dotted key -> value, of all that moves a number, names of the run included. runs: seed -> run, ascending.
    """

    label: str
    settings: Mapping[str, Any]
    runs: Mapping[int, RecordedRun]

    @property
    def name(self) -> str:
        """What the runs are called."""
        return str(self.settings.get("run.name") or "")

    @property
    def ablation(self) -> str:
        """What they differ by from the experiment that they are named after; empty for nothing."""
        return str(self.settings.get("run.ablation") or "")

    @property
    def is_untrained(self) -> bool:
        """Whether its judge is a base model as it is."""
        judge, stages = self.settings.get("judge"), self.settings.get("pipeline") or ()
        return judge == "base" or (judge is None and not {"stage1", "stage2"} & set(stages))


def variants_of(runs: Sequence[RecordedRun]) -> tuple[tuple[Variant, ...], tuple[LeftOut, ...]]:
    """(variants in the order of their first runs, runs that a newer one with the same settings and seed stands for)."""
    settings_of = _settings_of(runs)
    groups: dict[str, dict[int, RecordedRun]] = {}
    left_out = []
    for run in runs:
        seeds = groups.setdefault(as_text(settings_of(run)), {})
        if (other := seeds.get(run.seed)) is not None:
            run, older = (run, other) if run.finished > other.finished else (other, run)
            if older.product.resolve() != run.product.resolve():
                left_out.append(LeftOut(f"{older.name} seed={older.seed}", f"{run.product} is newer and has the same configuration"))
        seeds[run.seed] = run
    found = sorted(groups.values(), key=lambda seeds: _order([settings_of(run) for run in seeds.values()], seeds.values()))
    settings = [settings_of(next(iter(seeds.values()))) for seeds in found]
    labels = labels_of(settings)
    return (
        tuple(Variant(label, own, dict(sorted(seeds.items()))) for label, own, seeds in zip(labels, settings, found, strict=True)),
        tuple(left_out),
    )


def _order(settings: Sequence[Mapping[str, Any]], runs: Iterable[RecordedRun]) -> tuple[Any, ...]:
    """The place of the first run; variants of one place by their values, numbers by their size."""
    values = [(key, _sortable(value)) for key, value in sorted(settings[0].items()) if key not in NAMES]
    name = str(settings[0].get("run.name", ""))
    return min(run.place for run in runs), str(settings[0].get("run.ablation") or name), name, values


def _sortable(value: Any) -> tuple[bool, float, str]:
    return (False, float(value), "") if is_number(value) else (True, 0.0, as_text(value))


def is_number(value: Any) -> bool:
    """Whether a value of a configuration is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_text(value: Any) -> str:
    """JSON in which equal values are equal: 1 and 1.0 are."""
    return json.dumps(canonical(value), sort_keys=True, default=str, ensure_ascii=False)


def _settings_of(runs: Sequence[RecordedRun]) -> Callable[[RecordedRun], dict[str, Any]]:
    """Run -> all that moves a number, but for what follows the seed: in all runs, or in those of its name and ablation."""
    alike: dict[str, list[RecordedRun]] = {}
    for run in runs:
        alike.setdefault(_name_and_ablation(run), []).append(run)
    everywhere = _follow_the_seed(runs)
    following = {called: everywhere | _follow_the_seed(own) for called, own in alike.items()}
    return lambda run: {
        key: value for key, value in run.config.items() if _is_material(key) and key not in following[_name_and_ablation(run)]
    }


def _name_and_ablation(run: RecordedRun) -> str:
    return as_text([run.config.get(key) for key in NAMES])


def _is_material(key: str) -> bool:
    return key in MATERIAL or not any(fnmatchcase(key, pattern) for pattern in OF_COMPARISONS)


def _follow_the_seed(runs: Sequence[RecordedRun]) -> set[str]:
    """Keys that equal the seed in every run, as an interpolation of it does; none where all seeds are the same."""
    if len({run.seed for run in runs}) < 2:
        return set()
    keys = set[str]().union(*(run.config for run in runs))
    return {key for key in keys if all(is_number(run.config.get(key)) and run.config[key] == run.seed for run in runs)}


def differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that do not have the same value everywhere, sorted."""
    keys = sorted(set[str]().union(*settings))
    return [key for key in keys if len({as_text(own.get(key, _ABSENT)) for own in settings}) > 1]


def labels_of(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short texts that tell settings apart.

    The ablation or the name where these do; else, behind it, a few keys that differ among those who share it, each where its value is not
    the one that most of them have. An ablation or name that all share stands only where there is nothing else to say.
    """
    ablations = [str(own.get("run.ablation") or own.get("run.name", "")) for own in settings]
    names = [str(own.get("run.name", "")) for own in settings]
    bases = next((part for part in (ablations, names) if len(set(part)) == len(settings)), ablations)
    labels: list[str] = []
    for own, base in zip(settings, bases, strict=True):
        alike = [other for other, name in zip(settings, bases, strict=True) if name == base]
        told = [setting(key, own) for key in _telling(alike) if setting(key, own) != _usual(key, alike)]
        label = text = printable(" ".join(told if told and len(alike) == len(settings) else [base, *told])) or "run"
        number = 1
        while label in labels:
            number += 1
            label = f"{text} #{number}"
        labels.append(label)
    return labels


def _usual(key: str, settings: Sequence[Mapping[str, Any]]) -> str | None:
    """``key=value`` of the value that is more common than any other; None where there is none."""
    (first, count), *others = Counter(setting(key, own) for own in settings).most_common(2)
    return first if not others or count > others[0][1] else None


def setting(key: str, settings: Mapping[str, Any]) -> str:
    """``key=value`` as one short text."""
    if key not in settings:
        return f"{key}={_ABSENT}"
    value = settings[key]
    text = f"{value:g}" if is_number(value) and not isinstance(value, int) else value if isinstance(value, str) else as_text(value)
    line = printable(text)
    # Of a long path the end tells more.
    return f"{key}={line if len(line) <= _SHOWN_CHARACTERS else f'{line[:4]}...{line[7 - _SHOWN_CHARACTERS :]}'}"


def _telling(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A few keys that tell the settings apart, those with the most values first; numbers before texts."""

    def worth(key: str) -> tuple[int, bool, str]:
        values = [own.get(key) for own in settings]
        return -len(set(map(as_text, values))), not all(map(is_number, values)), key

    chosen: list[str] = []
    parts = 1
    for key in sorted(differing_keys(settings), key=worth):
        told = len({tuple(setting(name, own) for name in (*chosen, key)) for own in settings})
        if told > parts and len(chosen) < _SHOWN_KEYS:
            chosen, parts = [*chosen, key], told
    return sorted(chosen)
