"""How the configured base model is asked: its tokenizer, the sequence layout and the prompt template."""

from __future__ import annotations

from typing import Any

from tract.config.schema import Config
from tract.models.tokenizers import load_tokenizer
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.score_grid import ScoreGrid


def base_layout(cfg: Config) -> tuple[Any, SequenceLayout, PromptTemplate]:
    """(tokenizer, layout, prompt template) of the configured base model."""
    grid = ScoreGrid(tuple(cfg.grid.labels))
    template = PromptTemplate(**{**vars(cfg.prompt), "blocks": tuple(cfg.prompt.blocks)})
    tokenizer = load_tokenizer(cfg.model)
    layout = SequenceLayout.build(
        tokenizer,
        system=bool(template.system),
        cue=template.cue,
        grid=grid,
        chat_template_kwargs=cfg.model.chat_template_kwargs,
        template_date=cfg.model.template_date,
    )
    return tokenizer, layout, template
