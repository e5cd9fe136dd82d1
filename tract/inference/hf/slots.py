"""Keys and values of sequences of different lengths in one buffer for each layer, and what a step's tokens see of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tract.models.tree_attention import LayerRules

# Spare slots when a buffer is made or grows: all keys are copied once in so many tokens, each of which reads all of them.
SPARE_SLOTS = 64
# Slots are counted in these, which the fused kernels of a GPU need of a mask's rows.
_ALIGNED = 8


@dataclass(frozen=True, slots=True)
class PromptKeys:
    """A prompt that went through the model: for each layer its keys and values, [Hkv, P, D] and [Hkv, P, Dv], of one dtype."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        """P."""
        return int(self.layers[0][0].shape[1])


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Q tokens that go through the model behind each of B sequences; the most tokens are known on the host, so nobody asks the device.

    Attributes:
        prompt_tokens: [B] int64. own: [B] int64, tokens behind the prompts, those of this step not counted.
        longest: the most tokens of a sequence, with its prompt. longest_own: without.
        depths: [Q] int64, of the new tokens, 0 for the next position. within: [Q, Q] bool, which of them see which.
        positions: [B, Q] int64, of the new tokens.
    """

    prompt_tokens: Tensor
    own: Tensor
    longest: int
    longest_own: int
    depths: Tensor
    within: Tensor
    positions: Tensor


class Slots:
    """Keys and values of B rows, for each layer [B, Hkv, S, D]: a row's tokens lie in its first slots, what is behind them is not seen.

    New tokens are written behind the others, and count as tokens of the row only when the caller says so with the next step's ``ends``.
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._masks: dict[tuple[int | None, int | None], Tensor] = {}

    def add(self, like: PromptKeys, rows: int, tokens: int) -> None:
        """Adds empty rows with room for so many tokens, in the shapes and dtypes of a prompt's keys."""
        if not self._keys:
            self._keys = [keys.new_zeros(0, keys.shape[0], 0, keys.shape[2]) for keys, _ in like.layers]
            self._values = [values.new_zeros(0, values.shape[0], 0, values.shape[2]) for _, values in like.layers]
        more = max(0, _aligned(tokens + SPARE_SLOTS) - self._size)
        self._each(lambda tensor: F.pad(tensor, (0, 0, 0, more, 0, 0, 0, rows)))

    def fill(self, rows: slice, prompt: PromptKeys) -> None:
        """Writes a prompt's keys to the first slots of some rows."""
        for layer, (keys, values) in enumerate(prompt.layers):
            self._keys[layer][rows, :, : prompt.tokens] = keys
            self._values[layer][rows, :, : prompt.tokens] = values

    def keep(self, rows: Tensor, tokens: int) -> None:
        """Drops all other rows, and slots that the longest row, of so many tokens, does not need."""
        self._each(_chosen(rows, _aligned(tokens + SPARE_SLOTS)))

    def copy_of(self, rows: Tensor, tokens: int) -> Slots:
        """These rows for themselves."""
        copy = Slots()
        choose = _chosen(rows, _aligned(tokens + SPARE_SLOTS))
        copy._keys, copy._values = [choose(keys) for keys in self._keys], [choose(values) for values in self._values]
        return copy

    def begin(self, step: DecodeStep, ends: Tensor, longest: int, first: Tensor | int) -> None:
        """Makes room for the tokens of a step.

        Args:
            ends: [B] int64, tokens of each row. longest: the most of these. first: the position of the first slot, [B] if rows differ.
        """
        count = len(step.depths)
        if (needed := longest + count) > self._size:
            more = _aligned(needed + SPARE_SLOTS) - self._size
            self._each(lambda tensor: F.pad(tensor, (0, 0, 0, more)))
        self._step = step
        self._used = _aligned(needed)
        self._new = ends[:, None] + torch.arange(count, device=ends.device)
        slots = torch.arange(self._used, device=ends.device)
        ahead = slots - ends[:, None]  # [B, S]; 0 to Q - 1 for the new tokens
        number = ahead.clamp(0, count - 1)
        self._seen = (ahead < 0)[:, None] | ((ahead < count)[:, None] & step.within[:, number].transpose(0, 1))  # [B, Q, S]
        places = torch.where(ahead < 0, slots, ends[:, None] + step.depths[number])
        self._positions = places + (first[:, None] if isinstance(first, Tensor) else first)  # [B, S]
        self._masks.clear()

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the step's keys and values, [B, Hkv, Q, D]; returns those of all tokens, [B, Hkv, S, D]."""
        index = self._new[:, None, :, None]
        for held, new in ((self._keys[layer], key), (self._values[layer], value)):
            held.scatter_(2, index.expand(-1, new.shape[1], -1, new.shape[3]), new.to(held.dtype))
        return self._keys[layer][:, :, : self._used], self._values[layer][:, :, : self._used]

    def hidden(self, rules: LayerRules) -> Tensor:
        """[B, Q, S] bool, which slots the new tokens do not see; made once for all layers of a kind."""
        kind = (rules.window, rules.chunk)
        if kind not in self._masks:
            self._masks[kind] = ~self._seen
            if (outside := outside_of(self._step.positions[:, :, None], self._positions[:, None], rules)) is not None:
                self._masks[kind] |= outside
        return self._masks[kind]

    @property
    def _size(self) -> int:
        return self._keys[0].shape[2]

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Changes each buffer in its turn, so that no more than one is there twice."""
        for tensors in (self._keys, self._values):
            for layer, tensor in enumerate(tensors):
                tensors[layer] = change(tensor)


def outside_of(queries: Tensor, keys: Tensor, rules: LayerRules) -> Tensor | None:
    """Which keys a layer's window or chunk hides from which queries, by their positions, broadcast; None where it has neither."""
    outside = None if rules.window is None else queries - keys >= rules.window
    if rules.chunk is not None:
        other = queries // rules.chunk != keys // rules.chunk
        outside = other if outside is None else outside | other
    return outside


def capped(products: Tensor, rules: LayerRules) -> Tensor:
    """The products as the softmax sees them, float32."""
    products = products.float()
    return products if rules.softcap is None else rules.softcap * torch.tanh(products / rules.softcap)


def sinks_of(rules: LayerRules, kv_heads: int, count: int) -> Tensor | None:
    """[1, Hkv, G * Q, 1] float32: the sink of each of the grouped queries; None for a layer without."""
    if rules.sinks is None:
        return None
    return rules.sinks.float().view(1, kv_heads, -1, 1).repeat_interleave(count, dim=2)


def _aligned(slots: int) -> int:
    return -(-slots // _ALIGNED) * _ALIGNED


def _chosen(rows: Tensor, slots: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[:, :, :slots].index_select(0, rows)


def neighbours(prompts: Sequence[PromptKeys]) -> list[tuple[int, int]]:
    """The rows, from and to, of neighbours that share a prompt."""
    groups: list[tuple[int, int]] = []
    for row, prompt in enumerate(prompts):
        if row and prompt is prompts[row - 1]:
            groups[-1] = (groups[-1][0], row + 1)
        else:
            groups.append((row, row + 1))
    return groups
