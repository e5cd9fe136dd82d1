"""Small models with random weights: what a test needs as a folder, as a GGUF file or of another architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tract.config.schema import ModelConfig
from tract.models.loading import load_judge
from tract.models.locating import in_folder
from tract.models.saving import save_judge
from tract.models.tokenizers import load_tokenizer
from tract.models.tree_attention import TREE

# The vocabulary of tract/assets/tiny, and layers whose sizes are multiples of 64, a block of 4-bit weights.
TEXT: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 8192, "initializer_range": 0.08,
    "bos_token_id": 2, "eos_token_id": 6, "pad_token_id": 1,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip
SIZES = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048, "initializer_range": 0.3, "pad_token_id": 1,
}  # fmt: skip
# Families of conf/model, small and random. The windows are shorter than the test's sequences.
FAMILIES = {
    "llama": {},
    "mistral": {},
    "mistral-with-window": {"sliding_window": 7},
    "qwen3": {},
    "gemma3_text": {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}


def overrides_of(folder: Path) -> list[str]:
    """What makes the tiny model's configuration one of a folder."""
    return [f"model.name_or_path={folder}", "model.package=null", "model.random_init=false"]


def tiny_folder(tiny: ModelConfig, folder: Path) -> ModelConfig:
    """Writes the tiny model's weights and tokenizer; returns the model's configuration."""
    save_judge(load_judge(tiny, None, four_bit=False, seed=0), load_tokenizer(tiny), folder)
    return in_folder(tiny, folder)


def family_folder(tiny: ModelConfig, folder: Path, family: str, **more: Any) -> ModelConfig:
    """Writes a small model of another family (``model_type``) with the tiny model's tokenizer; returns the model's configuration."""
    config = AutoConfig.for_model(family, **(more if family == "gemma3" else TEXT | more))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_judge(AutoModelForCausalLM.from_config(config), load_tokenizer(tiny), folder)
    return in_folder(tiny, folder)


def gemma_with_vision(tiny: ModelConfig, folder: Path) -> ModelConfig:
    """The same of the class that google/gemma-3-4b-it and -12b-it load as: a text model, a vision part and a projector between."""
    text = {**TEXT, "sliding_window": 256, "layer_types": ["sliding_attention", "full_attention"]}
    tokens = {"mm_tokens_per_image": 4, "image_token_index": 511, "boi_token_index": 510, "eoi_token_index": 509}
    return family_folder(tiny, folder, "gemma3", text_config=text, vision_config=VISION, **tokens)


def gguf_file(model: Any, path: Path) -> None:
    """Writes a Llama's weights as a GGUF file, matrices in 8 bits; without a tokenizer. Its heads divide the hidden size among them."""
    import gguf

    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.named_parameters():
        kind = gguf.GGMLQuantizationType.Q8_0 if value.dim() == 2 else gguf.GGMLQuantizationType.F32
        packed = gguf.quants.quantize(value.detach().float().numpy(), kind)
        writer.add_tensor(names.get_name(name, (".weight",)), packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def family_model(name: str, attention: str = TREE) -> Any:
    """A model of ``FAMILIES``, the same at each call."""
    config = AutoConfig.for_model(name.removesuffix("-with-window"), **{"sliding_window": None, **SIZES, **FAMILIES[name]})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
