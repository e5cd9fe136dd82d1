"""How a chat model that was not trained here is asked: wording and settings, and the wording that a user gives instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from tract.artifacts.judge_settings import LEAST_SCORE_MASS, BaseModel, JudgeSettings
from tract.common.errors import ConfigError
from tract.common.user_paths import expanded
from tract.inference.sampling import Sampling
from tract.text.prompts import PromptTemplate

# Of chat models that were not trained here: sampling and lengths of the paper and of prometheus-eval.
_CHAT_SAMPLING = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.03, max_cot_tokens=1024)
_CHAT_MAX_LENGTH = 4096


def chat_settings(base: BaseModel) -> JudgeSettings:
    """The settings of a chat model; its layout is made when its tokenizer is known.

    Args:
        base: the model.
    """
    return JudgeSettings(
        name=base.package or Path(base.shown).name,
        prompt=_chat_template(),
        layout={},
        use_cot=True,
        predictor="rail_normalized",  # an untrained model leaves much of the probability to other tokens
        n_cot=1,
        sampling=_CHAT_SAMPLING,
        seed=0,
        max_length=_CHAT_MAX_LENGTH,
        overlong="refuse",
        shorten=("reference_answer", "response"),
        least_score_mass=LEAST_SCORE_MASS,
        dtype="bfloat16" if torch.cuda.is_available() else "float32",
        adapter=False,
        base_model=base,
        fixed_grid=False,
    )


@lru_cache(maxsize=1)
def _chat_template() -> PromptTemplate:
    return _from_mapping(yaml.safe_load(resources.files("tract.artifacts").joinpath("chat_prompt.yaml").read_text(encoding="utf-8")))


def _from_mapping(content: Mapping[str, Any]) -> PromptTemplate:
    try:
        return PromptTemplate(**{"reword_output_format": False, **content, "blocks": tuple(content["blocks"])})
    except (TypeError, KeyError) as error:
        accepted = ", ".join(PromptTemplate.__dataclass_fields__)
        raise ConfigError(f"prompt: {' '.join(str(error).split())}; the fields of a prompt are {accepted}") from error


def template_of(prompt: str | Path | Mapping[str, Any]) -> PromptTemplate:
    """The wording that the user gives, on top of that of chat models."""
    chat = asdict(_chat_template())
    if isinstance(prompt, str) and "{response}" in prompt:
        # prometheus-eval's templates: one text. Cut at blank lines, so that the section of an absent reference answer can go.
        return _from_mapping({**chat, "blocks": prompt.split("\n\n")})
    if not isinstance(prompt, (str, Path, Mapping)):
        raise ConfigError(f"prompt: found a {type(prompt).__name__}; a template text, a YAML file or a mapping are accepted")
    if not isinstance(prompt, Mapping):
        try:
            content = yaml.safe_load(Path(expanded(str(prompt), "prompt")).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"prompt: cannot read {str(prompt)!r} ({reason}); give a template that holds {{response}}, or a YAML file"
            ) from error
        prompt = content if isinstance(content, Mapping) else {}
    return _from_mapping({**chat, **prompt})
