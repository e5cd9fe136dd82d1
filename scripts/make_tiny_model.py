"""Makes tract/assets/tiny: a byte-level BPE tokenizer of 512 tokens, trained on generated tasks, and a two-layer Llama config.

Run: python scripts/make_tiny_model.py
"""

import json
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tract.data.sources.rubric_check.generator import RubricCheck

FOLDER = Path(__file__).resolve().parents[1] / "tract" / "assets" / "tiny"
SPECIAL = ["<unk>", "<pad>", "<|begin|>", "<|system|>", "<|user|>", "<|judge|>", "<|end|>"]
VOCABULARY = 512
CHAT_TEMPLATE = (
    "<|begin|>{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|judge|>{{ message['content'] }}<|end|>"
    "{% else %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|judge|>{% endif %}"
)


def main() -> None:
    """Writes the four files."""
    source = RubricCheck(
        n_questions=400, responses_per_question=1, n_ood_questions=40, annotations_per_response=1,
        n_constraints=4, cot_noise=0.0, score_noise=0.0, seed=0, kinds=None, wording="varied",
    )  # fmt: skip
    texts = (text for e in islice(source.examples(), 440) for text in (e.instruction, e.response, e.annotations[0].cot))
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(FOLDER / "tokenizer.json"))
    (FOLDER / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
        },
    )
    write(
        "config.json",
        {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
            "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 8192,
            "tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 6, "pad_token_id": 1, "initializer_range": 0.08,
        },
    )  # fmt: skip


def write(name: str, content: dict[str, object]) -> None:
    """Writes one JSON file."""
    (FOLDER / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
