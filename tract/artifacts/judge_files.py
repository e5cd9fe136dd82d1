"""A judge that is not loaded yet: its files, and how its prompts are worded and its scores are written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judge_settings import JudgeSettings
from tract.common.errors import ConfigError
from tract.common.model_name import model_name
from tract.config.schema import ModelConfig
from tract.models.adapter_digest import adapter_digest
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate


@dataclass(frozen=True)
class JudgeFiles:
    """A judge, not loaded yet.

    Attributes:
        name: what it is called in tables.
        fingerprinted: gives ``fingerprint``.
        model: the base model. weights: folder of the trained adapter or weights, or None. four_bit: whether the base model is quantised
            (QLoRA).
        tokenizer, layout, template: how prompts are worded and scores are written; those that it was trained with.
        seed: of the base model's weights where they are made at random; the one that it was trained on, not today's.
        use_cot: whether it was trained to write feedback before the score.
        named: what its run calls the base model, where that is found in another place now; None for ``model.name_or_path``.
        folder: where a judge is that was trained; None for a model as it came.
        own_stage: see ``stage``; None for a judge that no stage trained here.
        own_settings: see ``settings``; None for a judge that a pipeline opened.
        uncalibrated_by: the option that made the calibration one of other scores, so that it was left out; None for none.
        extra_body: of a hosted judge, the user's own parameters of each request.
    """

    name: str
    fingerprinted: Callable[[], str] = field(repr=False, compare=False)
    model: ModelConfig
    weights: Path | None
    tokenizer: Any
    layout: SequenceLayout
    template: PromptTemplate
    seed: int
    four_bit: bool = False
    use_cot: bool = True
    named: str | None = None
    folder: Path | None = None
    own_stage: FitFolder | None = None
    own_settings: JudgeSettings | None = None
    uncalibrated_by: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when its weights, tokenizer or layout do, and of a judge by itself with each setting that moves a score.

        Read from its files when it is asked for, which few of many ranks do.
        """
        return self.fingerprinted()

    @property
    def trained_digest(self) -> str:
        """Distinguishes what was trained from others: a stage's fingerprint, the digest of an adapter; empty for whole weights."""
        if self.own_stage is not None:
            return self.fingerprint
        return "" if self.weights is None else adapter_digest(self.weights)

    @property
    def stage(self) -> FitFolder:
        """The fit stage of a run's judge; its folder holds the weights."""
        assert self.own_stage is not None, "no stage trained it"
        return self.own_stage

    @property
    def settings(self) -> JudgeSettings:
        """How it works by itself; a pipeline's configuration says that instead."""
        assert self.own_settings is not None, "a judge of a pipeline works as the configuration says"
        return self.own_settings

    def check_calibrated(self) -> None:
        """Refuses a judge whose scores cannot be calibrated.

        Raises:
            ConfigError: if it has no calibration, or one that was fitted on other scores.
        """
        if self.settings.calibration is not None:
            return
        if self.uncalibrated_by is not None:
            raise ConfigError(
                f"calibrated: the calibration of {self.settings.name} was fitted with its own {self.uncalibrated_by}, another than "
                "the one that is given; leave that as it is, or load without calibrated"
            )
        raise ConfigError(f"calibrated: the judge {self.settings.name} has no calibration; fit one with `tract calibrate`")

    @property
    def model_name(self) -> str:
        """What the base model is called in reports."""
        return model_name(self.named or self.model.name_or_path, self.model.package)


def joint_digest(*parts: str) -> str:
    """SHA-256 (hex) over texts that a judge depends on."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
