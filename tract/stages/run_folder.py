"""Run folders: where a stage's product goes, complete or absent, and what its manifest says.

    <runs>/<run name>/seed<seed>/<stage>-<key>            complete
    <runs>/<run name>/seed<seed>/<stage>-<key>.partial    being made; holds the checkpoints to resume from

The key is a hash of everything that moves the result: configuration and data. The same command finds its own folder
again; a changed one gets another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from tract.config import Config
from tract.errors import ConfigError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_LIBRARIES = ("torch", "lightning", "transformers", "tokenizers", "peft", "datasets", "torchmetrics", "hydra-core", "numpy")
# Sections and keys that move no number.
_IMMATERIAL = ("run", "paths", "logger", "data.num_workers", "data.path", "trainer.enable_progress_bar", "trainer.log_every_n_steps")


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder. ``path`` exists only when the stage is complete; work goes to ``working``."""

    path: Path
    key: str

    @property
    def working(self) -> Path:
        """The folder while the stage is being made."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def is_complete(self) -> bool:
        """Whether the product is there."""
        return (self.path / MANIFEST).is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out.

        Raises:
            ConfigError: if another process works on the folder.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"run: another process is working on {self.working}; wait for it, or change run.name or seed") from None
        try:
            yield
        finally:
            lock.release()

    def begin(self, *, overwrite: bool) -> None:
        """Makes the working folder; what an earlier try left there stays for resuming, unless ``overwrite``.

        Raises:
            ConfigError: if something that is no finished stage stands in the place of the product.
        """
        if overwrite:
            for old in (self.path, self.working):
                if old.exists():
                    log.info("run.overwrite: removing %s", old)
                    shutil.rmtree(old)
        elif self.path.exists() and not self.is_complete:
            raise ConfigError(f"run: {self.path} holds no {MANIFEST}, so no stage finished it; remove it, or set run.overwrite=true")
        self.working.mkdir(parents=True, exist_ok=True)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest and makes the folder complete in one rename."""
        write_json(self.working / MANIFEST, manifest)
        os.replace(self.working, self.path)


def stage_folder(cfg: Config, resolved: DictConfig, data_fingerprint: str) -> StageFolder:
    """The folder of this stage with this configuration and data."""
    # Typed, so that 1, 1.0 and "1" are the same value where the configuration says what it is.
    material: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(Config), resolved), resolve=True)
    for dotted in _IMMATERIAL:
        *sections, last = dotted.split(".")
        node: Any = material
        for section in sections:
            node = node.get(section, {})
        node.pop(last, None)
    material["data"]["source"] = data_fingerprint  # content counts, not the place where it lies
    key = hashlib.sha256(json.dumps(_canonical(material), sort_keys=True).encode()).hexdigest()[:10]
    return StageFolder(Path(cfg.paths.runs) / cfg.run.name / f"seed{cfg.seed}" / f"{cfg.stage}-{key}", key)


def _canonical(value: Any) -> Any:
    """The value with whole floats as integers: in sections without types, 1 and 1.0 are the same."""
    if isinstance(value, dict):
        return {str(name): _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def provenance() -> dict[str, Any]:
    """Commit, library versions and machine, for the manifest."""
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def _commit() -> str | None:
    """The checked-out commit of this code, with "+" after it if files were changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that the file is whole or absent."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
