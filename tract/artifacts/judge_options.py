"""What a user says in place of a judge's own settings: wording, scores and numbers, and what becomes of its settings then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tract.artifacts.chat_models import template_of
from tract.artifacts.judge_settings import JudgeSettings
from tract.common.errors import ConfigError
from tract.config.schema import ModelConfig
from tract.inference.sampling import Sampling
from tract.models.locating import context_of
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

DEFAULT_GRID = ("1", "2", "3", "4", "5")
_SAMPLING_OPTIONS = ("temperature", "top_p", "repetition_penalty", "max_cot_tokens")
_SETTING_OPTIONS = ("name", "predictor", "n_cot", "seed", "max_length", "overlong", "least_score_mass", "dtype")


@dataclass(frozen=True)
class JudgeOptions:
    """What a user says about how a judge works; see ``tract.artifacts.standalone_judges.open_judge_files``.

    Attributes:
        grid: the scores; None for its own. prompt: the wording; None for its own.
        chat_template_kwargs: of the chat template, where a layout is made. changed: settings by name; None leaves one as it is.

    Raises:
        ConfigError: if a setting in ``changed`` is unknown.
    """

    grid: Sequence[Any] | None = None
    prompt: str | Path | Mapping[str, Any] | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        accepted = (*_SETTING_OPTIONS, *_SAMPLING_OPTIONS)
        if unknown := [name for name in self.changed if name not in accepted]:
            raise ConfigError(f"{unknown[0]}: unknown option of a judge; accepted are {', '.join(accepted)}")

    def applied(
        self, saved: JudgeSettings, model: ModelConfig, tokenizer: Any, *, hosted: bool = False
    ) -> tuple[JudgeSettings, SequenceLayout, str | None]:
        """(the settings, the layout, the option that made the calibration one of other scores, so that it was left out, or None).

        Args:
            saved: the judge's own settings. model, tokenizer: the LLM. hosted: whether that only stands in for one that is not here.

        Raises:
            ConfigError: if an option cannot be used.
        """
        worded = saved if self.prompt is None else replace(saved, prompt=template_of(self.prompt))
        layout = self._layout(worded, tokenizer)
        length = saved.max_length if hosted else _longest_sequence(saved, model, self.changed.get("max_length"))
        fixed = worded.fixed_grid or self.grid is not None
        settings = self._changed(replace(worded, layout=layout.to_dict(), fixed_grid=fixed, max_length=length))
        uncalibrated_by = _option_of_other_scores(saved, settings)
        return settings if uncalibrated_by is None else replace(settings, calibration=None), layout, uncalibrated_by

    def _layout(self, settings: JudgeSettings, tokenizer: Any) -> SequenceLayout:
        """The saved layout, or a new one where wording or grid are the user's."""
        grid = None if self.grid is None else _grid_labels(self.grid)
        if settings.layout and self.prompt is None:
            layout = SequenceLayout.from_dict(tokenizer, dict(settings.layout))
            return layout if grid is None else with_grid(layout, grid)
        return SequenceLayout.build(
            tokenizer,
            system=bool(settings.prompt.system),
            cue=settings.prompt.cue,
            grid=ScoreGrid(grid if grid is not None else tuple(settings.layout.get("grid", DEFAULT_GRID))),
            chat_template_kwargs=dict(self.chat_template_kwargs),
            template_date=settings.template_date,
        )

    def _changed(self, settings: JudgeSettings) -> JudgeSettings:
        given = {name: value for name, value in self.changed.items() if value is not None}
        sampling = sampling_with(settings.sampling, {name: given[name] for name in _SAMPLING_OPTIONS if name in given})
        return replace(settings, sampling=sampling, **{name: given[name] for name in _SETTING_OPTIONS if name in given})


def _option_of_other_scores(saved: JudgeSettings, settings: JudgeSettings) -> str | None:
    """The option that makes scores others than those that the judge's calibration was fitted on; None if there is none."""
    if saved.calibration is None:
        return None
    changed = {
        "prompt": saved.prompt != settings.prompt,
        "grid": list(saved.layout["grid"]) != list(settings.layout["grid"]),
        "predictor": saved.predictor != settings.predictor,
    }
    return next((name for name, is_other in changed.items() if is_other), None)


def _longest_sequence(saved: JudgeSettings, model: ModelConfig, asked: object) -> int | None:
    """The longest sequence: the settings', as far as the model is made for it; None for any.

    Raises:
        ConfigError: if the user wants longer ones.
    """
    positions = context_of(model)
    if positions and isinstance(asked, int) and asked > positions:
        raise ConfigError(f"max_length: {asked} tokens are more than {model.name_or_path} is made for ({positions}); give fewer")
    return min((length for length in (saved.max_length, positions) if length is not None), default=None)


def with_grid(layout: SequenceLayout, labels: tuple[str, ...]) -> SequenceLayout:
    """The same layout for other scores.

    Raises:
        ConfigError: if the labels are no grid, or the tokenizer cannot tell them apart.
    """
    return SequenceLayout(layout.tokenizer, layout.scaffold, layout.end_id, layout.cue, ScoreGrid(labels))


def _grid_labels(grid: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(grid, str) or not isinstance(grid, (Sequence, range)):
        raise ConfigError(f"grid: found {grid!r}; a list of scores is accepted, e.g. [1, 2, 3]")
    return tuple(str(label) for label in grid)


def sampling_with(sampling: Sampling, changed: Mapping[str, Any]) -> Sampling:
    """The sampling with some of it changed.

    Raises:
        ConfigError: if a value is no number, or none that can be used.
    """
    for name, value in changed.items():
        whole = name == "max_cot_tokens"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise ConfigError(f"{name}: {value!r} is not a {'whole ' if whole else ''}number")
    return replace(sampling, **changed)
