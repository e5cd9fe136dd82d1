"""The options of a judge on a command line, by the names that ``Judge.from_pretrained`` has for them. Nothing heavy is loaded."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tract.common.errors import ConfigError
from tract.common.user_paths import given_text
from tract.config.vocabulary import DTYPES
from tract.evaluation.predictors import OF_COTS

# Options that decide what a judge is and how it is run: they are never left out of a command that needs one.
_LOADING = ("backend", "revision", "base_model", "device", "dtype", "batch_size", "base_url", "served_model", "api", "api_key_env",
            "timeout_s", "max_retries", "extra_body", "vllm", "trust_remote_code", "cache_dir", "stage", "variant", "best")  # fmt: skip
# Option -> the backend that it is for; with another one it would have no effect.
_ONLY_FOR = {"device": "hf", "vllm": "vllm",
             **dict.fromkeys(("base_url", "served_model", "api", "api_key_env", "timeout_s", "max_retries", "extra_body"),
                             "openai")}  # fmt: skip
APIS = ("vllm", "openai", "chat")
# Of vLLM's engine; what they accept is checked where it is started.
VLLM_KEYS = ("tensor_parallel_size", "gpu_memory_utilization", "kv_cache_gib", "enforce_eager")
# Options that move scores.
_SETTINGS = ("prompt", "n_cot", "predictor", "seed", "temperature", "top_p", "repetition_penalty", "max_cot_tokens", "max_length",
             "overlong", "least_score_mass", "grid", "calibrated")  # fmt: skip


def add_judge_arguments(parser: argparse.ArgumentParser, *, settings: bool = True, running: bool = True) -> None:
    """Adds ``--judge`` and its options.

    Args:
        settings: whether what replaces its own settings is accepted. running: whether it will be run, so that it matters where.
    """
    group = parser.add_argument_group("the judge")
    group.add_argument(
        "--judge",
        required=True,
        type=given_text,
        metavar="PATH",
        help="an exported folder, a stage or run folder, a chat model (folder or hub id), or package:NAME",
    )
    add_choice_arguments(group)
    if running:
        _add_running(group)
    group.add_argument("--dtype", choices=DTYPES, help="of the arithmetic (default: the judge's)")
    group.add_argument(
        "--base-model", type=given_text, metavar="PATH", help="where the LLM of an adapter lies (default: what its settings say)"
    )
    group.add_argument("--revision", metavar="NAME", help="on the hub")
    group.add_argument("--cache-dir", type=given_text, metavar="DIR", help="for files that are made of others, e.g. an unpacked model")
    group.add_argument("--trust-remote-code", action="store_true", default=None, help="let code that comes with the model run")
    if settings:
        _add_settings(parser.add_argument_group("instead of the judge's own settings"))


def add_choice_arguments(group: Any) -> None:
    """Adds what says which judge of a folder of runs is meant."""
    group.add_argument("--stage", metavar="STAGE", help="of a run that holds several judges: stage1, stage2 or the key of one")
    group.add_argument("--variant", metavar="NAME", help="of a sweep: the job's, as its folder is called")
    group.add_argument("--best", metavar="METRIC", help="of several judges, the one with the best validation metric, e.g. val/rmse")


def _add_running(group: Any) -> None:
    group.add_argument("--backend", choices=("hf", "vllm", "openai"), help="where it runs (default: hf, in this process)")
    group.add_argument("--base-url", metavar="URL", help="of the server, for --backend openai")
    group.add_argument("--served-model", metavar="NAME", help="what the server calls it")
    group.add_argument("--api", choices=APIS, help="what the server understands; openai: completions, chat: chats (default: vllm)")
    group.add_argument("--api-key-env", metavar="NAME", help="the environment variable that holds the server's key")
    group.add_argument("--timeout-s", type=_seconds, metavar="S", help="of a request to the server")
    group.add_argument(
        "--max-retries", type=_retries, metavar="N", help="of a request that failed on its way or that the server put off; 0 for none"
    )
    group.add_argument(
        "--extra-body",
        nargs="+",
        type=_body_option,
        action="extend",
        metavar="KEY=VALUE",
        help="for --api chat: further parameters of each request, e.g. reasoning_effort=low chat_template_kwargs.enable_thinking=false",
    )
    group.add_argument(
        "--vllm", nargs="+", type=_vllm_option, action="extend", metavar="KEY=VALUE", help=f"for --backend vllm: {', '.join(VLLM_KEYS)}"
    )
    group.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    group.add_argument("--batch-size", type=positive, metavar="N", help="feedbacks that are sampled at a time")


def _add_settings(group: Any) -> None:
    group.add_argument(
        "--prompt",
        type=given_text,
        metavar="FILE",
        help="YAML with the wording: system, blocks, cue, ... (fields of a prompt configuration)",
    )
    group.add_argument("--n-cot", type=int, metavar="N", help="feedbacks that are sampled and averaged for each response")
    group.add_argument("--predictor", metavar="NAME", help=f"how a score is read: {', '.join(OF_COTS)}")
    group.add_argument("--seed", type=int, metavar="N", help="of the sampling")
    group.add_argument("--temperature", type=float, metavar="T", help="of the sampling; 0 takes the most likely token")
    group.add_argument("--top-p", type=float, metavar="P", help="of the sampling")
    group.add_argument("--repetition-penalty", type=float, metavar="X", help="of the sampling; 1 turns it off")
    group.add_argument("--max-cot-tokens", type=int, metavar="N", help="a longer feedback is cut there (truncated_cot)")
    group.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt, feedback and score together")
    group.add_argument("--overlong", choices=("refuse", "shorten"), help="what becomes of a prompt that does not fit")
    group.add_argument("--least-score-mass", type=float, metavar="P", help="below it a reading is no score (low_score_mass)")
    group.add_argument(
        "--grid", type=_grid, metavar="SCORES", help="with commas between, e.g. 1,2,3,4,5; for a judge without a grid of its own"
    )
    group.add_argument("--calibrated", action="store_true", default=None, help="apply the calibration in its settings (default: off)")


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, by the names that ``Judge.from_pretrained`` has for them.

    Raises:
        ConfigError: if one would have no effect beside the others, or is given twice.
    """
    every = {name: getattr(arguments, name, None) for name in (*_LOADING, *_SETTINGS)}
    given = {name: value for name, value in every.items() if value is not None}
    backend = given.get("backend", "hf")
    for name, needed in _ONLY_FOR.items():
        if name in given and backend != needed:
            raise ConfigError(
                f"--{name.replace('_', '-')}: has no effect with --backend {backend}; leave it out, or give --backend {needed}"
            )
    for name in ("stage", "variant", "best"):
        if name in given and given.get("api") == "chat":
            raise ConfigError(f"--{name}: has no effect with --api chat, whose judge is the server's; leave it out")
    if "extra_body" in given and given.get("api") != "chat":
        raise ConfigError("--extra-body: has no effect without --api chat; leave it out, or give --api chat")
    if "vllm" in given:
        given["vllm"] = _mapping("--vllm", given["vllm"])
    if "extra_body" in given:
        given["extra_body"] = _nested(_mapping("--extra-body", given["extra_body"]))
    return given


def _mapping(option: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigError(f"{option}: {key} is given twice, as {found[key]!r} and {value!r}; give it once")
        found[key] = value
    return found


def _nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings in mappings of keys with dots."""
    found: dict[str, Any] = {}
    for key, value in dotted.items():
        *folders, last = key.split(".")
        inside = found
        for folder in folders:
            inside = inside.setdefault(folder, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"--extra-body: {key} is inside {folder}, which is given a value of its own; give one of them")
        if last in inside:
            raise ConfigError(f"--extra-body: {key} is given twice, by itself and by what is inside it; give one of them")
        inside[last] = value
    return found


def _vllm_option(text: str) -> tuple[str, Any]:
    key, value = _pair(text, "gpu_memory_utilization=0.5")
    if key not in VLLM_KEYS:
        raise argparse.ArgumentTypeError(f"unknown key {key!r}; accepted are {', '.join(VLLM_KEYS)}")
    return key, value


def _body_option(text: str) -> tuple[str, Any]:
    key, value = _pair(text, "reasoning_effort=low")
    if not all(key.split(".")):
        raise argparse.ArgumentTypeError(f"{text!r}: the key has an empty part; names with dots between are accepted")
    return key, value


def _pair(text: str, example: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is no KEY=VALUE pair, e.g. {example}")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the value is none that YAML reads; a number, true, false or null is accepted"
        ) from None


def _grid(text: str) -> tuple[str, ...]:
    labels = tuple(label.strip() for label in text.split(","))
    if len(labels) < 2 or not all(labels):
        raise argparse.ArgumentTypeError(f"{text!r} is no grid; write its scores with commas between, e.g. 1,2,3,4,5")
    return labels


def positive(text: str) -> int:
    """A whole number >= 1, for ``argparse``."""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def _retries(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds > 0")
    return found


def share(text: str) -> float:
    """A number between 0 and 1, for ``argparse``."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return found
