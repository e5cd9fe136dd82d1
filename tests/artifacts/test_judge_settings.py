"""Settings of a judge: those of earlier versions are read, and what they say of lengths is what a prompt meets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_settings import made_settings

from tract.artifacts.judge_settings import read_settings
from tract.common.errors import ConfigError
from tract.inference.prompt_budget import tokens_behind
from tract.judge.rendering import rendered_prompt
from tract.judge.requests import GradeRequest
from tract.text.chat_template import TEMPLATE_DATE
from tract.text.layout import SequenceLayout


@pytest.mark.parametrize("max_length", [3000, None])
def test_the_longest_sequence_goes_through_the_file(max_length: int | None, tmp_path: Path) -> None:
    settings = made_settings(max_length=max_length, template_date="2024-02-03")
    assert read_settings(settings.write(tmp_path)) == settings


def test_settings_of_before_a_key_are_read(tmp_path: Path) -> None:
    path = made_settings(max_length=3000).write(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["template_date"]
    path.write_text(json.dumps(content), encoding="utf-8")
    found = read_settings(path)
    assert (found.max_length, found.template_date) == (3000, TEMPLATE_DATE)


@pytest.mark.parametrize("value", [0, -1, True, "3000", 1.5])
def test_what_is_no_length_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="max_length: .* is not a whole number >= 1"):
        made_settings(max_length=value)


@pytest.mark.parametrize("use_cot", [True, False])
def test_the_limit_itself_is_not_too_long(tiny_layout: SequenceLayout, use_cot: bool) -> None:
    request = GradeRequest("Say it.", "word " * 50)
    settings = made_settings(use_cot=use_cot, max_length=None)
    whole = rendered_prompt(request, tiny_layout, settings, settings.sampling)
    assert (whole.refusal, whole.shortened) == (None, False)
    limit = len(whole.ids) + tokens_behind(tiny_layout, settings.sampling.max_cot_tokens)
    for max_length, fits in ((limit, True), (limit - 1, False), (1, False)):
        found = rendered_prompt(request, tiny_layout, made_settings(use_cot=use_cot, max_length=max_length), settings.sampling)
        assert (found.refusal is None) == fits
        assert found.ids == whole.ids
