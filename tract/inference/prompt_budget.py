"""How many tokens a prompt may have: what a model's context leaves beside the longest CoT and its score. Pure.

All stages and the judge API ask here, so a prompt has the same wording in each of them, and one that must be cut is cut equally.
"""

from __future__ import annotations

from tract.common.errors import ConfigError
from tract.inference.stopping import free_tokens
from tract.text.layout import SequenceLayout


def tokens_behind(layout: SequenceLayout, max_cot_tokens: int) -> int:
    """The most tokens that can follow a prompt.

    These are the longest CoT, a cue of the judge's own with the score that it writes freely, and the layout's cue with score, end of
    turn and the branches of the score trie.

    Args:
        layout: of the judge. max_cot_tokens: the most tokens of a CoT.
    """
    return max_cot_tokens + len(layout.cue_ids) + free_tokens(layout) + layout.max_tail_tokens


def prompt_budget(context: int | None, max_cot_tokens: int, layout: SequenceLayout, of: str) -> int | None:
    """The most tokens of a prompt; None where the model states no limit.

    Args:
        context: the most tokens of a sequence that the model takes, or None. max_cot_tokens: the most tokens of a CoT.
        layout: of the judge. of: name of the model, for an error.

    Raises:
        ConfigError: if nothing is left for a prompt.
    """
    if context is None:
        return None
    behind = tokens_behind(layout, max_cot_tokens)
    if behind >= context:
        raise ConfigError(
            f"generation.max_cot_tokens: a CoT of {max_cot_tokens} tokens, with {behind - max_cot_tokens} for cue and score, leaves no "
            f"room for a prompt in the context of {of} ({context} tokens); lower it, or take a model with a longer context"
        )
    return context - behind
