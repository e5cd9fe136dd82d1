"""Folders with a model's configuration and tokenizer but no weights: for arithmetic, and for benchmarks on random weights.

The tokenizer is Mistral's own (``tokenizer.model.v1`` of the package mistral-common), under a chat template in the style of
Mistral-7B-Instruct-v0.2. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

# config.json of mistralai/Mistral-7B-Instruct-v0.2.
MISTRAL_7B: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
    "rope_theta": 1e6, "sliding_window": None, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "initializer_range": 0.02, "attention_dropout": 0.0, "dtype": "bfloat16",
}  # fmt: skip
# The same architecture in tests; heads of 32, the least that vLLM takes on a CPU.
SMALL = {
    **MISTRAL_7B,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def write_shape(folder: Path, config: dict[str, Any]) -> list[str]:
    """Writes a Mistral of some size without weights; returns the overrides that make a run take it, with weights at random.

    Raises:
        SystemExit: if mistral-common, which has the tokenizer, is not installed.
    """
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        raise SystemExit("mistral-common is not installed, which has the tokenizer; run `make setup`")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(spec.origin).parent / "data" / "tokenizer.model.v1", folder / "tokenizer.model")
    tokenizer = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "chat_template": _TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return ["model=mistral_7b_instruct", f"model.name_or_path={folder}", "model.random_init=true"]
