"""A small copy of a model: the same architecture with every kind of layer, a few layers of small sizes, and weights at random.

What a packed row, or a cache, does to an architecture shows on it in float32, in a second, before weights or data are read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from tract.common.errors import ConfigError

log = logging.getLogger(__name__)

# Tokens that a window, or a chunk, holds in the copy, so that a short sequence is longer.
WINDOW = 8
# Of products of the attention, so low that it caps them in the copy too.
_SOFTCAP = 2.0
# The copy is refused when it has more parameters: some size has a name that is not known here.
_MOST_PARAMETERS = 20_000_000
_MOST_LAYERS = 12

# What configurations of transformers call their sizes -> the size in the copy, where the model's own is larger.
_SIZES = {
    64: (
        "hidden_size d_model n_embd emb_dim embedding_size word_embed_proj_dim backbone_hidden_size lru_width input_embedding_size "
        "output_embedding_size attention_hidden_size mamba_d_ssm intermediate_size ffn_dim dff dim_ff ffn_hidden_size n_inner "
        "moe_intermediate_size shared_expert_intermediate_size decoder_ffn_dim encoder_ffn_dim intermediate_size_mlp "
        "dense_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size feed_forward_size "
        "shared_intermediate_size hidden_size_per_layer_input num_experts_hidden_size image_size"
    ),
    512: "vocab_size vocab_size_per_layer_input decoder_vocab_size audio_vocab_size pronunciation_vocab_size shape_vocab_size",
    32: "kv_lora_rank q_lora_rank o_lora_rank qk_head_dim ple_embed_dim pronunciation_embed_dim shape_embed_dim index_head_dim_total",
    16: (
        "head_dim swa_head_dim kv_channels dim_head linear_key_head_dim linear_value_head_dim linear_head_dim attention_head_size "
        "global_head_dim index_head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim rotary_dim mamba_d_head mamba_head_dim d_head "
        "patch_size"
    ),
    8: (
        "mamba_d_state state_size ssm_state_size mamba_n_heads mamba_num_heads hc_lowrank laurel_rank sliding_window "
        "attention_chunk_size sliding_window_size attention_window_size window_size chunk_size mamba_chunk_size keep_window_size "
        "block_size floor_scale index_block_size hidden_lowrank_size"
    ),
    4: (
        "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads encoder_attention_heads "
        "swa_num_attention_heads linear_num_heads linear_num_value_heads num_decoder_attention_heads num_encoder_attention_heads "
        "num_experts n_routed_experts num_local_experts moe_num_experts zero_expert_num mamba_dt_rank time_step_rank index_topk "
        "index_topk_blocks index_n_heads"
    ),
    2: (
        "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_global_key_value_heads "
        "num_experts_per_tok moe_topk moe_k num_experts_per_token top_k_experts n_mamba_heads"
    ),
    1: (
        "n_group topk_group n_groups num_expert_group mamba_n_groups first_k_dense_replace num_dense_layers moe_layer_start_index "
        "max_window_layers"
    ),
    0: "num_nextn_predict_layers",
}
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names.split()}
# What configurations, and layers, call a window or a chunk.
WINDOWS = ("sliding_window", "attention_chunk_size", "sliding_window_size", "attention_window_size", "window_size")
_DEPTHS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_encoder_layers",
    "num_decoder_layers", "num_layers_per_stack", "depth",
)  # fmt: skip
# Parts of names of how often a kind of layer comes.
_PERIODS = ("period", "interval", "every_n", "pattern")
# Of the checkpoint, not of the architecture.
_LEFT_OUT = ("quantization_config", "torch_dtype", "dtype", "transformers_version", "model_type", "_name_or_path", "architectures")


class NoSmallCopyError(Exception):
    """A small copy cannot be made of this configuration, for a reason that says nothing of the model itself."""


def small_copy(config: Any, attn_implementation: str | None = None, *, trust_remote_code: bool = False) -> nn.Module:
    """A causal LM of the same architecture, small, in float32 and evaluation mode; the same one at each call.

    Args:
        config: of transformers. attn_implementation: see ``from_config``; None for transformers' own choice.
        trust_remote_code: whether the code may run that comes with the configuration.

    Raises:
        NoSmallCopyError: if none can be made. ConfigError: if the configuration is of no causal LM.
    """
    arguments: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code}
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and "AutoModelForCausalLM" not in (getattr(config, "auto_map", None) or {}):
        kind = type(config).__name__
        raise ConfigError(f"model.name_or_path: transformers has no causal language model for a {kind}; choose a causal language model")
    try:
        small = type(config)(**shrunk(config.to_dict()))
        if hasattr(config, "auto_map"):
            small.auto_map = config.auto_map
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(small, **arguments).parameters())
        if size > _MOST_PARAMETERS:
            raise NoSmallCopyError(f"it would have {size:,} parameters")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = AutoModelForCausalLM.from_config(small, **arguments)
            _spread_weights(model)
    except NoSmallCopyError:
        raise
    except Exception as error:  # whatever a class makes of sizes that it was not written for
        raise NoSmallCopyError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    return model.eval()


def shrunk(full: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a small model of the same kinds of layers, from that of a large one (``to_dict``)."""
    depth = _depth(full)
    layers = _layers_needed(full, depth)
    shared = full.get("num_kv_shared_layers")
    small = {name: _small_value(name, value, layers, depth) for name, value in full.items() if name not in _LEFT_OUT}
    context = full.get("max_position_embeddings")
    for name in WINDOWS:  # one that no sequence is longer than hides nothing
        if isinstance(context, int) and isinstance(full.get(name), int) and full[name] >= context:
            small[name] = full[name]
    if full.get("mamba_d_ssm") and isinstance(full.get("mamba_d_head"), int):
        small["mamba_d_ssm"] = small["mamba_n_heads"] * small["mamba_d_head"]
    if shared:
        small["num_kv_shared_layers"] = layers // 2
    if full.get("expand") and full.get("num_heads"):  # the heads of a state-space layer share what it expands to
        small["num_heads"] = int(small["hidden_size"] * full["expand"]) // small["head_dim"]
    if full.get("attention_head_dim"):  # Zamba's attention reads hidden state and embedding beside each other
        small["attention_hidden_size"] = 2 * small["hidden_size"]
        small["attention_head_dim"] = small["attention_hidden_size"] // small["num_attention_heads"]
    if full.get("mamba_headdim"):
        small["mamba_headdim"] = int(small["hidden_size"] * full["mamba_expand"]) // small["n_mamba_heads"]
    # Each head has keys of its own, latent attention's among them.
    if full.get("num_key_value_heads") and (full.get("kv_lora_rank") or full["num_key_value_heads"] == full.get("num_attention_heads")):
        small["num_key_value_heads"] = small["num_attention_heads"]
    return small


def _depth(full: Mapping[str, Any]) -> int | None:
    """Layers of a model; by the list of their kinds where no number is given."""
    stated = next((full[name] for name in _DEPTHS if isinstance(full.get(name), int)), None)
    kinds = next((full[name] for name in ("layer_types", "layers_block_type") if isinstance(full.get(name), list)), None)
    return stated if stated is not None else len(kinds) if kinds else None


def _layers_needed(full: Mapping[str, Any], depth: int | None) -> int:
    """So many first layers that each kind of layer is among them."""
    needed = 2
    for name, value in full.items():
        if isinstance(value, list) and depth and len(value) == depth:
            kinds = [str(kind) for kind in value]
            if len(set(kinds)) < _MOST_LAYERS:
                needed = max(needed, *(kinds.index(kind) + 1 for kind in set(kinds)))
                if kinds.count("hybrid") > 1:  # layers that share their weights
                    needed = max(needed, kinds.index("hybrid", kinds.index("hybrid") + 1) + 1)
        elif _numbers_of_layers(value, depth):
            needed = max(needed, min(value) + 1)
        elif isinstance(value, list) and value and all(isinstance(kind, str) for kind in value) and "types" in name:
            needed = max(needed, len(value))  # kinds of layers that are repeated (RecurrentGemma)
        elif isinstance(value, int) and not isinstance(value, bool) and any(part in name for part in _PERIODS):
            needed = max(needed, value)
    if full.get("num_kv_shared_layers"):
        needed *= 2
    return min(needed, _MOST_LAYERS, depth or 2)


def _small_value(name: str, value: Any, layers: int, depth: int | None) -> Any:
    if isinstance(value, Mapping):
        return _small_mapping(name, value, layers)
    if isinstance(value, list):
        return _small_list(name, value, layers, depth)
    if name == "attn_logit_softcapping" and value:
        return min(value, _SOFTCAP)
    if _is_factor(name) and isinstance(value, (int, float)):
        return type(value)(1)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if name in _DEPTHS:
        return min(value, layers)
    if name.endswith(("_token_id", "_token_index")):
        return min(value, 3)
    return min(value, _SIZE_OF.get(name, value))


def _small_list(name: str, value: list[Any], layers: int, depth: int | None) -> Any:
    if name.endswith("_token_id"):
        return None
    if _is_factor(name):
        return [type(item)(1) for item in value]
    if depth and len(value) == depth:
        return _first_of_each_kind([_small_value(name, item, layers, None) for item in value], layers)
    if _numbers_of_layers(value, depth):
        return [item for item in value if item < layers] or [layers - 1]
    return value


def _is_factor(name: str) -> bool:
    """Whether it scales what a layer or the head gives: those of trained models make the logits of weights at random vanish."""
    return "multiplier" in name or name in ("logit_scale", "logits_scaling")


def _numbers_of_layers(value: Any, depth: int | None) -> bool:
    numbers = isinstance(value, list) and bool(value) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    return bool(numbers and depth and len(value) != depth and max(value) < depth)


def _first_of_each_kind(kinds: list[Any], layers: int) -> list[Any]:
    """So many first entries; kinds that come later take the place of the last ones."""
    first, later = kinds[:layers], []
    for kind in kinds[layers:]:
        if kind not in first and kind not in later:
            later.append(kind)
    return first[: layers - len(later)] + later if len(later) < layers else first


def _small_mapping(name: str, value: Mapping[Any, Any], layers: int) -> Any:
    if "model_type" in value:  # the text or the vision part of a model
        return shrunk(value) | {"model_type": value["model_type"]}
    if name in ("rope_scaling", "rope_parameters"):
        return _plain_rope(value)
    if name == "per_layer_config":
        return {key: _small_mapping("", item, layers) for key, item in value.items() if int(key) < layers}
    return {key: _small_value(str(key), item, layers, None) for key, item in value.items()}


def _plain_rope(value: Mapping[str, Any]) -> Any:
    """Rotary positions without scaling, which is made for lengths and head sizes that the copy does not have."""
    plain = {key: _plain_rope(item) for key, item in value.items() if isinstance(item, Mapping)}
    kept = {key: item for key, item in value.items() if not isinstance(item, (Mapping, list)) and key not in ("type", "rope_type")}
    return {**kept, **plain, **({} if plain else {"rope_type": "default"})}


def _spread_weights(model: nn.Module) -> None:
    """Draws matrices anew so large that what a token sees moves its log-probabilities; the usual first weights are nearly nothing."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and not name.endswith(("A_log", "dt_bias")):
                weight.normal_(0, max(weight.shape[1], 1) ** -0.5)
            elif name.endswith("sinks"):
                weight.normal_()
