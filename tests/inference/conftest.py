"""Prompts for judges."""

from __future__ import annotations

import pytest
from judge_items import make_items

from tract.inference.judgement import Prompt
from tract.text.layout import SequenceLayout


@pytest.fixture(scope="session")
def prompts(tiny_layout: SequenceLayout) -> list[Prompt]:
    """Prompts of very different lengths, also ones that the talking model was not trained on."""
    return [Prompt(item.id, row, tuple(item.prompt_ids)) for row, item in enumerate(make_items(tiny_layout, 8))]
