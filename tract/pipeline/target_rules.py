"""Classes that the configuration names by ``_target_``: whether they exist, and take the arguments that are given."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tract.config.devices import ZERO_OPTIMIZERS
from tract.config.schema import Config
from tract.config.vocabulary import WANDB_ARTIFACTS, WANDB_KEYS, WANDB_MODES
from tract.pipeline.unknown_keys import unknown_key_message

_HYDRA_NAME = re.compile(r"_\w+_")  # _target_, _partial_


def target_problems(cfg: Config) -> Iterator[str]:
    """Classes named by ``_target_`` that are not there, arguments that they do not take, and values that an optimizer refuses."""
    sections: dict[str, dict[str, Any]] = {"optimizer": cfg.optimizer, "trainer": cfg.trainer, "data.source": cfg.data.source}
    sections |= {f"logger.{name}": node for name, node in cfg.logger.items() if node is not None}
    if isinstance(wandb := sections.get("logger.wandb"), dict):
        yield from _wandb_problems(wandb)
        sections["logger.wandb"] = {"_target_": "wandb.init", **{name: value for name, value in wandb.items() if name not in WANDB_KEYS}}
    sound = set()
    for key, node in sections.items():
        if not isinstance(node, dict) or "_target_" not in node:
            yield f"{key}: found {str(node)[:80]}; a mapping with the key _target_, the dotted path of a class, is accepted"
        elif problems := list(_targets_below(key, node)):
            yield from problems
        else:
            sound.add(key)
    if "optimizer" in sound:
        yield from _optimizer_problems(cfg.optimizer)


def _wandb_problems(node: Mapping[str, Any]) -> Iterator[str]:
    if absent := [name for name in (*WANDB_KEYS, "mode") if name not in node]:
        yield f"logger.wandb: the keys {', '.join(absent)} are missing; start from logger=wandb, and logger.wandb=null for none"
    rows, patience = node.get("table_rows", 0), node.get("timeout_s", 1)
    if node.get("artifacts", "none") not in WANDB_ARTIFACTS:
        yield f"logger.wandb.artifacts: {node['artifacts']!r} is not one of {', '.join(WANDB_ARTIFACTS)}"
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        yield f"logger.wandb.table_rows: {rows!r} is not a whole number >= 0"
    if isinstance(patience, bool) or not isinstance(patience, (int, float)) or not patience > 0:
        yield f"logger.wandb.timeout_s: {patience!r} is not a number > 0"
    if node.get("mode", "auto") not in WANDB_MODES:
        yield f"logger.wandb.mode: {node['mode']!r} is not one of {', '.join(WANDB_MODES)}"


def _optimizer_problems(node: dict[str, Any]) -> Iterator[str]:
    """What the optimizer itself says of its arguments, tried on one number; otherwise it would speak after the weights are loaded."""
    if node["_target_"] == ZERO_OPTIMIZERS[-1]:
        return  # it is compiled at its first use
    import torch

    arguments = {name: value for name, value in node.items() if not _HYDRA_NAME.fullmatch(name)}
    try:
        _located(node["_target_"])([torch.nn.Parameter(torch.zeros(1))], **arguments)
    except (TypeError, ValueError) as error:
        yield f"optimizer: {node['_target_']} does not accept {arguments}: {' '.join(str(error).split())}"


def _targets_below(key: str, node: Any) -> Iterator[str]:
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        yield from _targets_below(f"{key}.{name}", value)
    if "_target_" not in node:
        return
    try:
        takes = inspect.signature(_located(str(node["_target_"]))).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        yield f"{key}._target_: {node['_target_']!r} cannot be imported ({error}); give the dotted path of a class, e.g. torch.optim.AdamW"
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        return
    accepted = [name for name in takes if name not in ("self", "args")]
    for name in node:
        if name not in accepted and not _HYDRA_NAME.fullmatch(str(name)):
            yield unknown_key_message(f"{key}.{name}", accepted)


def _located(target: str) -> Any:
    """The class or function at a dotted path."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and module.startswith(error.name):
                continue  # a class, not a module, or nothing at all
            raise
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ImportError(f"no module {parts[0]!r}")
