"""What a stage made: its files, and the manifest that says what they were made from and how to tell that they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tract.artifacts.identity import StageIdentity
from tract.common.durable import sync_folder, write_json
from tract.common.errors import ConfigError, DataError
from tract.common.masking import masked
from tract.common.safe_paths import resolve_within

STORE = "stages"  # the folder, below that of all runs, of the products that they share
MANIFEST = "manifest.json"
CURVES_FILE = "curves.png"  # of a fit stage: losses and validations, drawn from its CSV files
# How the folders begin that a stage goes on with after a kill. They go when the product is complete, not before: one that went
# earlier would take hours of sampling with it if the last seconds of the stage were cut off.
JOURNAL = "journal"
# Top-level names in a stage's folder that no other stage reads: neither verified nor part of the fingerprint.
IMMATERIAL_FILES = (
    "checkpoints", "csv", "tensorboard", "wandb", "lightning_logs", "logs", "*.log", "config.yaml", "preview.txt", CURVES_FILE,
    f"{JOURNAL}*", f"{MANIFEST}*",
)  # fmt: skip
# Those of them that are read all the same.
_READ_ALL_THE_SAME = ("config.yaml", MANIFEST)
# Folder -> manifest's fingerprint, and size and time of change of each file, of products whose contents this process knows to be right.
_known: dict[Path, tuple[str, list[tuple[int, int]]]] = {}
_leader_checks = False  # in a process of a stage: who started it has checked what it reads


@dataclass(frozen=True)
class Product:
    """What a complete stage made.

    Attributes:
        path: its folder. manifest: the content of ``manifest.json``.
        fingerprint: SHA-256 (hex) over names and contents of its files; a stage made anew with the same bytes has the same.
    """

    path: Path
    manifest: dict[str, Any]
    fingerprint: str

    def file(self, name: str) -> tuple[Path, str | None]:
        """One of its files and the SHA-256 of it, so that nobody hashes it again; None if it is no part of the product."""
        return self.path / name, self.manifest["files"].get(name, (0, None))[1]


def write_manifest(folder: Path, facts: Mapping[str, Any], identity: StageIdentity) -> dict[str, Any]:
    """Writes the manifest of a finished folder, whose files and names are on the disk then.

    Args:
        folder: holds all files of the product.
        facts: to keep, without secrets; identity, key, files (path -> [bytes, SHA-256]), fingerprint and time are added.
        identity: what the product is made from.

    Returns:
        The content of the manifest.
    """
    files = _sync_and_digest(folder)
    content = {
        **masked(dict(facts)),
        "key": identity.key,
        "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        "fingerprint": _fingerprint(files),
        "identity": identity.to_dict(),
        "files": files,
    }
    write_json(folder / MANIFEST, content)
    for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync_folder(inner)
    return content


def read_manifest(path: Path) -> tuple[dict[str, Any], StageIdentity]:
    """The manifest of a complete folder and the identity in it.

    Raises:
        DataError: if it cannot be read, or does not agree with itself.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        identity = StageIdentity.from_dict(manifest["identity"])
        agrees = manifest["key"] == identity.key and manifest["fingerprint"] == _fingerprint(manifest["files"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"the manifest cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
    else:
        if agrees:
            return manifest, identity
        problem = "the manifest was changed, key or fingerprint do not fit the rest"
    raise DataError(f"{path / MANIFEST}: {problem}; rebuild it with force={_stage_name(path)}, or remove the folder")


@contextmanager
def checked_by_leader() -> Iterator[None]:
    """Lets ``open_product`` look at sizes alone meanwhile: the process that started this one has hashed all that it reads."""
    global _leader_checks
    before, _leader_checks = _leader_checks, True
    try:
        yield
    finally:
        _leader_checks = before


def open_product(path: Path, *, just_made: bool = False) -> Product:
    """Reads a complete stage for use by another one, after checking that its files are what the stage wrote.

    All files are hashed once in a process, and again when size or time of change of one says that it is another; those of a product
    that this process has written itself are known. Sizes are checked each time.

    Args:
        path: the folder. just_made: a process of this command has hashed the files since it wrote them, or another command has, while
            this one was at work; so they are not read again.

    Raises:
        ConfigError: if there is no complete stage.
        DataError: if a file is missing or not as it was finished, the manifest cannot be used, or something leads out of the folder.
    """
    if not (path / MANIFEST).is_file():
        raise ConfigError(f"no complete stage at {path} (it holds no {MANIFEST}); run {_stage_name(path)} first, or correct the path")
    _check_links(path)
    manifest, identity = read_manifest(path)
    for name in manifest["files"]:  # whoever changes the manifest can make key and fingerprint fit, so these say nothing of it
        resolve_within(path, name)
    product = Product(path, manifest, manifest["fingerprint"])
    _check_files(product, identity.stage, _size_problem)
    if _leader_checks:
        return product
    place, state = path.resolve(), _file_state(product)  # before the contents are read: what is written meanwhile is another state
    if not just_made and _known.get(place) != state:
        _check_files(product, identity.stage, _content_problem)
    _known[place] = state
    return product


def remember(product: Product) -> None:
    """Notes that this process has hashed the product's files as they are now."""
    _known[product.path.resolve()] = _file_state(product)


def _file_state(product: Product) -> tuple[str, list[tuple[int, int]]]:
    stats = [(product.path / name).stat() for name in product.manifest["files"]]
    return product.fingerprint, [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _check_files(product: Product, stage: str, check: Callable[[Path, list[Any]], str | None]) -> None:
    for name, expected in product.manifest["files"].items():
        if problem := check(product.path / name, expected):
            raise DataError(f"{product.path / name}: {problem}; the product is damaged: rebuild it with force={stage}")


def _check_links(folder: Path) -> None:
    """Refuses links out of the folder, also of files that the manifest does not name: libraries read what they find."""
    for top in folder.iterdir():
        if top.name not in _READ_ALL_THE_SAME and any(fnmatchcase(top.name, pattern) for pattern in IMMATERIAL_FILES):
            continue
        for path in (top, *(top.rglob("*") if top.is_dir() and not top.is_symlink() else ())):
            if path.is_symlink():
                resolve_within(folder, path.relative_to(folder).as_posix())


def _size_problem(file: Path, expected: list[Any]) -> str | None:
    if not file.is_file():
        return "the file is missing"
    size = file.stat().st_size
    return None if size == expected[0] else f"the file has {size} bytes, {expected[0]} were written"


def _content_problem(file: Path, expected: list[Any]) -> str | None:
    with file.open("rb") as stream:
        return None if hashlib.file_digest(stream, "sha256").hexdigest() == expected[1] else "the content is not what was written"


def _stage_name(path: Path) -> str:
    """The stage that a folder's name says."""
    return path.name.rpartition("-")[0] or path.name


def _sync_and_digest(folder: Path) -> dict[str, list[Any]]:
    """Path below the folder -> [bytes, SHA-256] of the files that make the product, which are on the disk then."""
    files: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(fnmatchcase(relative.parts[0], pattern) for pattern in IMMATERIAL_FILES):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                files[relative.as_posix()] = [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
    return files


def _fingerprint(files: Mapping[str, list[Any]]) -> str:
    named = sorted((name, digest) for name, (_, digest) in files.items())
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def write_config(folder: Path, resolved: DictConfig) -> None:
    """Writes ``config.yaml``: the configuration with all interpolations resolved, and without secrets."""
    content = OmegaConf.to_container(resolved, resolve=True)
    shown = masked(content)
    OmegaConf.save(resolved if shown == content else OmegaConf.create(shown), folder / "config.yaml", resolve=True)
