"""What a judge needs beside weights and tokenizer, as it is kept in ``judge_config.json``: how it asks, reads and was trained. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tract.common.containers import not_finite_in
from tract.common.durable import write_atomically
from tract.common.errors import ConfigError, DataError
from tract.common.model_name import model_name
from tract.config.vocabulary import DTYPES
from tract.evaluation.calibration import Calibration
from tract.evaluation.predictors import OF_COTS
from tract.inference.sampling import Sampling
from tract.text.chat_template import TEMPLATE_DATE
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid
from tract.text.truncation import SHORTENABLE

SETTINGS_FILE = "judge_config.json"
# Raise it when a key changes its meaning; readers refuse what is newer than they are.
FORMAT = 1
OVERLONG = ("refuse", "shorten")
# Where the whole grid has less probability than this, the judge expected something else than a score.
LEAST_SCORE_MASS = 0.5


@dataclass(frozen=True)
class BaseModel:
    """The LLM that the judge was made from.

    Attributes:
        name_or_path: hub id or folder; with ``package``, a pattern inside that Python package. revision: on the hub.
    """

    name_or_path: str
    package: str | None = None
    revision: str | None = None

    @property
    def shown(self) -> str:
        """Its name for people."""
        return model_name(self.name_or_path, self.package)


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge works; ``judge_config.json`` holds exactly this.

    Attributes:
        name: what the judge is called.
        prompt: wording and cue, the fields of ``PromptTemplate``.
        layout: ``SequenceLayout.to_dict()``: scaffold of the chat template, cue, grid, their token ids.
        use_cot: whether it writes feedback before the score.
        predictor: how a score is read from a CoT, one of ``OF_COTS``. n_cot: CoTs of each response, averaged.
        sampling: how CoTs are drawn. seed: with the content of a request it fixes every draw.
        max_length: the most tokens of prompt, CoT, cue and score together: the context of a trained judge's model; None for any number.
        overlong: what becomes of a prompt that does not fit: "refuse" or "shorten" the fields in ``shorten``, first one first.
        least_score_mass: below so much probability of the whole grid, a reading is no score ("low_score_mass").
        dtype: of the arithmetic, e.g. "float32". adapter: whether the folder holds a LoRA adapter rather than whole weights.
        base_model: what it was made from. fixed_grid: whether it was trained on this grid; else rubrics may bring their own.
        calibration: fitted on validation data, applied on request; None for none.
        training: facts for people: data, its fingerprint, counts, stage, commit, versions, licences.
        template_date: the day that its chat template prints, where a new layout is made for another wording.
        metrics: benchmark -> predictor -> metric -> {value, low, high}, with "n" and "confidence" beside; may be empty.
    """

    name: str
    prompt: PromptTemplate
    layout: Mapping[str, Any]
    use_cot: bool
    predictor: str
    n_cot: int
    sampling: Sampling
    seed: int
    max_length: int | None
    overlong: str
    shorten: tuple[str, ...]
    least_score_mass: float
    dtype: str
    adapter: bool
    base_model: BaseModel
    fixed_grid: bool = True
    calibration: Calibration | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    template_date: str = TEMPLATE_DATE

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        yield from self._wrong_types()
        if self.predictor not in OF_COTS:
            yield f"predictor: {self.predictor!r} is not one of {', '.join(OF_COTS)}"
        if self.dtype not in DTYPES:
            yield f"dtype: {self.dtype!r} is not one of {', '.join(DTYPES)}"
        if self.overlong not in OVERLONG:
            yield f"overlong: {self.overlong!r} is not one of {', '.join(OVERLONG)}"
        for name in self.shorten:
            if name not in SHORTENABLE:
                yield f"shorten: {name!r} cannot be shortened; accepted are {', '.join(SHORTENABLE)}"

    def _wrong_types(self) -> Iterator[str]:
        """Of values that people give; all others come from files that were written here."""
        for name, least in (("n_cot", 1), ("max_length", 1), ("seed", None)):
            value = getattr(self, name)
            if value is None and name == "max_length":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
                yield f"{name}: {value!r} is not a whole number{'' if least is None else f' >= {least}'}"
        mass = self.least_score_mass
        if isinstance(mass, bool) or not isinstance(mass, (int, float)) or not 0 <= mass <= 1:
            yield f"least_score_mass: {mass!r} is not a number in [0, 1]"

    @property
    def grid(self) -> ScoreGrid:
        """The scores that it gives."""
        return ScoreGrid(tuple(self.layout["grid"]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; ``from_dict`` gives it back."""
        content = {**asdict(self), "calibration": self.calibration.to_dict() if self.calibration else None}
        return {"format": FORMAT, **content}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> JudgeSettings:
        """The settings of a JSON object.

        Raises:
            ConfigError: if a key is unknown, missing, or its value cannot be used; or the format is newer than this version.
        """
        found = dict(content)
        version = found.pop("format", None)
        if version != FORMAT:
            raise ConfigError(f"format: {version!r} is not {FORMAT}; use the version of tract that wrote it")
        known = {each.name for each in fields(cls)}
        if unknown := sorted(found.keys() - known):
            raise ConfigError(f"{unknown[0]}: unknown key; accepted are {', '.join(sorted(known))}")
        try:
            prompt = {"reword_output_format": False, **found["prompt"], "blocks": tuple(found["prompt"]["blocks"])}
            calibration = found.get("calibration")
            return cls(
                **{
                    **found,
                    "prompt": PromptTemplate(**prompt),
                    "sampling": Sampling(**found["sampling"]),
                    "base_model": BaseModel(**found["base_model"]),
                    "shorten": tuple(found["shorten"]),
                    "calibration": Calibration.from_dict(calibration) if calibration else None,
                }
            )
        except KeyError as error:
            raise ConfigError(f"{error.args[0]}: the key is missing") from error
        except TypeError as error:
            raise ConfigError(" ".join(str(error).split())) from error

    def write(self, folder: Path) -> Path:
        """Writes ``judge_config.json`` into the folder, whole or not at all.

        Raises:
            DataError: if a number in it is not finite.
        """
        content = self.to_dict()
        for key, number in not_finite_in(content):
            raise DataError(f"{folder / SETTINGS_FILE}: {key} is {number}, which is no number; nothing was written")
        path = folder / SETTINGS_FILE
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        return path


def read_settings(path: Path) -> JudgeSettings:
    """The settings in a ``judge_config.json``.

    Raises:
        ConfigError: if they cannot be used, naming file and key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ConfigError(f"holds a {type(content).__name__}; an object is accepted")
        return JudgeSettings.from_dict(content)
    except (OSError, ValueError) as error:  # ConfigError is a ValueError
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; export the judge again, or correct the file") from error
