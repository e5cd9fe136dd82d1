"""Every causal LM of transformers, made small: their configurations, and what is known of those that are refused or cannot be made."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

# What the configuration classes leave open, or set to nothing of the kind that released models have.
_AS_RELEASED: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 16, "position_embedding_type": "rope"},
    "hunyuan_v1_dense": {"head_dim": 16, "num_key_value_heads": 8},
    "hunyuan_v1_moe": {"head_dim": 16, "num_key_value_heads": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
    "ministral": {"head_dim": 128, "num_key_value_heads": 8},
    "nemotron": {"num_key_value_heads": 8},
}  # fmt: skip
# Further forms of an architecture that released models have, or that are another path through its code.
_FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-decoder": ("bert", {"is_decoder": True}),
    "falcon-alibi": ("falcon", {"alibi": True}),
    "llama4-without-temperature": ("llama4_text", {"attn_temperature_tuning": False}),
    "mistral-window": ("mistral", {"sliding_window": 4096}),
    "mpt-without-alibi": ("mpt", {"attn_config": {"alibi": False}}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
}
# Why no small copy can be made from the configuration class alone.
NO_COPY = {
    "blt": "its tables of byte n-grams have no size that a configuration names",
    "cohere_compass_text": "its defaults name no full attention, which its rotary positions ask for",
    "dbrx": "its configuration does not read what it writes",
    "dots1": "its defaults leave the number of experts open",
    "gemma3n": "its vision part needs the package timm",
    "gemma4_assistant": "a draft model, made from the model that it drafts for",
    "gemma4_unified_assistant": "a draft model, made from the model that it drafts for",
    "musicgen": "has no defaults: it is composed of three models",
    "musicgen_melody": "has no defaults: it is composed of three models",
    "qwen4_exp": "its defaults leave sizes open",
    "qwen4_exp_text": "its defaults leave sizes open",
    "reformer": "its factors of positions must multiply to the hidden size",
}
# As they come, these read both ways.
_ENCODERS = (
    "bert bert-generation big_bird camembert cpmant data2vec-text electra ernie megatron-bert prophetnet rembert roberta "
    "roberta-prelayernorm roc_bert roformer xlm xlm-roberta xlm-roberta-xl xlnet"
)
# What is said of those that cannot be judges.
REFUSED = {
    **dict.fromkeys(_ENCODERS.split(), "tokens see later ones"),
    **dict.fromkeys(("xlstm", "xmod"), "cannot be called with text alone"),
    # Sparse attention: the keys that a token reads are chosen by rank, and equal ranks fall otherwise in a longer row.
    **dict.fromkeys(("axk2", "deepseek_v32", "doge", "glm_moe_dsa", "hy_v4"), "beside longer ones than alone"),
}

NAMES = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *(form for form, (base, _) in _FORMS.items() if base in CONFIG_MAPPING)})


def config_of(name: str) -> Any:
    """The configuration of a family, in the size of its class's defaults."""
    base, changed = _FORMS.get(name, (name, _AS_RELEASED.get(name, {})))
    return CONFIG_MAPPING[base](**changed)
