"""What a chat template puts around a judge's prompt: its scaffold, and the token that ends the judge's turn."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError

from tract.common.errors import ConfigError
from tract.text.tokenization import control_tokens

# The day that chat templates print, in ISO's form, where no configuration names another.
TEMPLATE_DATE = "2024-07-26"
# What rendering raises: the template's own raise_exception, and faults in its expressions.
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)
SYSTEM_MARK = "\ue000tract-system\ue001"


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The chat template's text around the user turn of a single-turn conversation.

    Attributes:
        before: the user turn; it holds ``SYSTEM_MARK`` where the system text goes, unless that is part of the user turn.
        after: the user turn, up to where the judge begins.
        system_in_user_turn: whether a system text is put in front of the user's, as the template has no system turn.
    """

    before: str
    after: str
    system_in_user_turn: bool


def fixed_clock(tokenizer: Any, template_date: str) -> dict[str, Any]:
    """The variable ``strftime_now`` at the start of a fixed day, for a chat template that uses it; else nothing.

    It overrides the one of transformers, which reads the clock: a scaffold with today's date would differ between the stages of a run
    that takes more than a day.
    """
    if "strftime_now" not in str(tokenizer.chat_template):
        return {}
    return {"strftime_now": datetime.fromisoformat(template_date).strftime}


def find_scaffold(tokenizer: Any, system: bool, kwargs: dict[str, Any]) -> Scaffold:
    """The scaffold of a chat template, found by rendering it with marks in place of the texts.

    Args:
        tokenizer: with a chat template. system: whether prompts have a system turn. kwargs: variables of the template.

    Raises:
        ConfigError: if the template cannot render a user turn, or does not show it exactly once.
    """
    mark = f"tract-user-{secrets.token_hex(8)}"

    def render(messages: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs))

    user = {"role": "user", "content": mark}
    if system:
        try:
            text = render([{"role": "system", "content": SYSTEM_MARK}, user])
            # A template that merges the system text into the user turn by itself keeps both marks.
            if text.count(SYSTEM_MARK) == 1 and text.count(mark) == 1 and text.index(SYSTEM_MARK) < text.index(mark):
                before, after = text.split(mark)
                return Scaffold(before, after, system_in_user_turn=False)
        except _TEMPLATE_ERRORS:
            pass  # the template knows no system role
    try:
        text = render([user])
    except _TEMPLATE_ERRORS as error:
        raise ConfigError(f"model.chat_template: it cannot render a user turn: {error}") from error
    if text.count(mark) != 1:
        raise ConfigError(f"model.chat_template: it shows the user turn {text.count(mark)} times instead of once; fix the template")
    before, after = text.split(mark)
    return Scaffold(before, after, system_in_user_turn=True)


def find_end_of_turn(tokenizer: Any, kwargs: dict[str, Any]) -> int:
    """Id of the first control token that the chat template writes after an assistant turn, else of the end-of-sequence token.

    Args:
        tokenizer: with a chat template. kwargs: variables of the template.

    Raises:
        ConfigError: if the template cannot render an assistant turn, or nothing ends it.
    """
    mark = f"tract-assistant-{secrets.token_hex(8)}"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False, **kwargs))
    except _TEMPLATE_ERRORS as error:
        raise ConfigError(f"model.chat_template: it cannot render an assistant turn: {error}") from error
    if mark not in text:
        raise ConfigError("model.chat_template: it does not show the assistant turn, so what ends it is unknown; fix the template")
    tail = text.rpartition(mark)[2]
    controls = control_tokens(tokenizer)
    present = [(tail.index(content), -len(content), token_id) for content, token_id in controls.items() if content and content in tail]
    if present:
        return min(present)[2]
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model.chat_template: no token ends the assistant's turn, and {tokenizer.name_or_path!r} has no end-of-sequence token"
        )
    return int(tokenizer.eos_token_id)
