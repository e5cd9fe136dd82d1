"""The store of stage products: each complete or absent, found again by what it was made from, shared by all runs.

    <runs>/stages/<stage>-<key>                           complete
    <runs>/stages/<stage>-<key>.partial                   being made; holds the checkpoints to resume from
    <runs>/stages/<stage>-<key>.lock, .holder             who is making it
    <runs>/<run name>/seed<seed>/<stage>-<key>            a link to the product, for people
    <runs>/<run name>/<variant>/seed<seed>/<stage>-<key>  the same, of a job of a multirun

The key is a hash of everything that moves the result, see ``tract.pipeline.identity.keys``. The same command finds its own product
again; a changed one gets another, and runs that share a stage share its product.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tract.artifacts.identity import StageIdentity, differences
from tract.artifacts.products import JOURNAL, MANIFEST, STORE, Product, read_manifest, remember, write_manifest
from tract.common.durable import sync_folder, write_json
from tract.common.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_LIBRARIES = ("torch", "lightning", "transformers", "tokenizers", "peft", "datasets", "torchmetrics", "hydra-core", "numpy")
_COMPARED = ("torch", "transformers", "peft", "tokenizers")  # those of them that can move a number by themselves
_REMIND_S = 60.0  # between two lines that say who is waited for
_POLL_S = 0.2


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder. ``path`` exists only when the stage is complete; work goes to ``working``.

    Attributes:
        path: the complete folder. identity: what the stage is to be made from.
    """

    path: Path
    identity: StageIdentity

    @property
    def key(self) -> str:
        """The key of what the stage is to be made from."""
        return self.identity.key

    @property
    def working(self) -> Path:
        """The folder while the stage is being made."""
        return self._sibling(".partial")

    @property
    def is_complete(self) -> bool:
        """Whether the product is there; ``open_product`` tells whether it is whole."""
        return (self.path / MANIFEST).is_file()

    def _sibling(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    @contextmanager
    def locked(self, *, wait: bool) -> Iterator[None]:
        """Keeps other processes out; the system gives the lock back when a process ends, however it ends.

        After a wait the product may be complete, so ask ``is_complete`` inside.

        Args:
            wait: wait while another process works on the folder, and say who it is; else refuse.

        Raises:
            ConfigError: if another process works on the folder and ``wait`` is False.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._sibling(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                message = f"{self._holder()} is working on {self.working}; wait for it, or set run.when_locked=wait"
                raise ConfigError(f"run.when_locked=refuse: {message}") from None
            self._wait(lock)
        try:
            write_json(self._sibling(".holder"), {"pid": os.getpid(), "host": socket.gethostname()})
            yield
        finally:
            self._sibling(".holder").unlink(missing_ok=True)
            lock.release()

    def _wait(self, lock: Any) -> None:
        begun = time.monotonic()
        while not lock.is_locked:
            log.info("%s: %s is working on %s; waiting (%.0f s)", self.identity.stage, self._holder(), self.path, time.monotonic() - begun)
            try:
                lock.acquire(timeout=_REMIND_S, poll_interval=_POLL_S)
            except Timeout:
                continue

    def _holder(self) -> str:
        """Who holds the lock, as far as is known: the file is written just after the lock is taken."""
        try:
            holder = json.loads(self._sibling(".holder").read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def begin(self, *, overwrite: bool) -> None:
        """Makes the working folder, or keeps the one of an earlier try. To be called with the lock held.

        Args:
            overwrite: remove a complete product and an earlier try first.

        Raises:
            ConfigError: if something that is no finished stage stands in the place of the product, or no folder in that of the work.
        """
        assert self.path.name == _folder_name(self.identity), (
            "a product of other code is only read; find it with on_code_change=redo to make it"
        )
        if overwrite:
            self._discard()
        elif os.path.lexists(self.path):  # a link to nowhere too: after hours of work it would still be in the way
            assert not self.is_complete, "a complete product is only overwritten on request"
            raise ConfigError(
                f"paths.runs: {self.path} holds no {MANIFEST}, so no stage finished it; remove it, or set force={self.identity.stage}"
            )
        try:
            self.working.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ConfigError(f"paths.runs: {self.working} is no folder; remove it, or set force={self.identity.stage}") from None

    def _discard(self) -> None:
        discarded = self._sibling(".discarded")
        for old in (discarded, self.path, self.working):
            if not os.path.lexists(old):
                continue
            log.info("%s: removing %s", self.identity.stage, old)
            if old != discarded:
                os.replace(old, discarded)  # first, so that a removal that is cut off leaves no half of a complete folder
            if discarded.is_dir() and not discarded.is_symlink():
                shutil.rmtree(discarded)
            else:
                discarded.unlink()

    def finish(self, manifest: Mapping[str, Any]) -> Product:
        """Writes the manifest and makes the folder complete in one rename; what was only kept to go on with is removed then.

        Args:
            manifest: facts to keep; ``write_manifest`` adds the rest.
        """
        content = write_manifest(self.working, manifest, self.identity)
        os.replace(self.working, self.path)
        sync_folder(self.path.parent)
        for journal in self.path.glob(f"{JOURNAL}*"):
            shutil.rmtree(journal)
        product = Product(self.path, content, content["fingerprint"])
        remember(product)
        return product

    def link(self, run_folder: Path) -> None:
        """Makes a relative link to the product in the folder of a run; where links are impossible, one line says so."""
        place = run_folder / self.path.name
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            run_folder.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(os.path.relpath(self.path.resolve(), run_folder.resolve()), target_is_directory=True)
            try:
                os.replace(temporary, place)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: %s cannot be made a link (%s); the product is in %s", self.identity.stage, place, error.strerror, self.path)


def find(runs: Path, identity: StageIdentity, on_code_change: str, on_version_change: str = "reuse") -> StageFolder:
    """The folder of the product with this identity, complete or not.

    Args:
        runs: the folder of all runs, which holds the store.
        identity: what the product is made from.
        on_code_change: "redo": the product must be of this very code. "reuse": where there is none, the newest complete
            product of other code, the rest being equal, is taken, and one line says what code differs.
        on_version_change: "redo": a product of other code is not taken if it was made with other versions too.

    Raises:
        ConfigError: if ``on_code_change`` is neither.
    """
    if on_code_change not in ("redo", "reuse"):
        raise ConfigError(f"run.on_code_change: found {on_code_change!r}; redo or reuse is accepted")
    own = StageFolder(runs / STORE / _folder_name(identity), identity)
    if own.is_complete or on_code_change == "redo":
        return own
    equal = [(path, old) for path, old in _complete_products(runs, identity.stage) if replace(old, code=identity.code).key == identity.key]
    if on_version_change == "redo":
        equal = [(path, old) for path, old in equal if not version_changes(read_manifest(path)[0])]
    if not equal:
        return own
    path, old = equal[-1]
    log.info("%s: reusing %s of other code (run.on_code_change=reuse): %s", identity.stage, path, "; ".join(differences(old, identity)))
    return StageFolder(path, identity)


def reason(runs: Path, identity: StageIdentity, run: Path, *, judge: str | None = None) -> str:
    """Why the stage must be made, in one line: what differs from the most similar complete product of this run.

    Args:
        runs: the folder of all runs, which holds the store. identity: what the product is to be made from.
        run: the folder of this run and seed: a product that is linked there, or that they made, is rebuilt. Products of other runs
            are no earlier version of this one, and are not mentioned.
        judge: of a predict stage, whose judge's name the product must have to be compared: predictions of another judge are no
            earlier version of these.
    """
    comparable = [found for found in _manifests(runs, identity.stage) if judge is None or _judge_name(found[1]) == judge]
    own = [found for found in comparable if _was_made_by(run.relative_to(runs), found[1]) or os.path.lexists(run / found[0].name)]
    if not own:
        return "making it (nothing to reuse)"
    # The newest of equally similar ones.
    path, _, old = min(reversed(own), key=lambda found: len(differences(found[2], identity, at_most=None)))
    lines = "; ".join(differences(old, identity))
    if not lines:
        return f"rebuilding, though {path} has the same inputs"
    return f"rebuilding, since {lines} (was {path.name})"


def _judge_name(manifest: Mapping[str, Any]) -> str | None:
    judge = manifest.get("judge")
    return str(judge.get("name")) if isinstance(judge, Mapping) else None


def _was_made_by(run: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a product was made by the run of a folder, given relative to that of all runs."""
    return Path(str(manifest.get("run")), str(manifest.get("variant") or ""), f"seed{manifest.get('seed')}") == run


def _folder_name(identity: StageIdentity) -> str:
    return f"{identity.stage}-{identity.key}"


def _complete_products(runs: Path, stage: str) -> list[tuple[Path, StageIdentity]]:
    """The complete products of a stage, oldest first; one that cannot be read is left out with a line."""
    return [(path, identity) for path, _, identity in _manifests(runs, stage)]


def _manifests(runs: Path, stage: str) -> list[tuple[Path, dict[str, Any], StageIdentity]]:
    """As ``_complete_products``, with what the manifest says."""
    found = []
    for path in (runs / STORE).glob(f"{stage}-*"):
        if path.suffix or not (path / MANIFEST).is_file():  # .partial and .discarded may hold a manifest
            continue
        try:
            manifest, identity = read_manifest(path)
        except DataError as error:
            log.warning("%s", error)
            continue
        if identity.stage == stage:
            found.append((path, manifest, identity))
    return sorted(found, key=lambda entry: (str(entry[1].get("finished")), entry[0]))


def provenance() -> dict[str, Any]:
    """Commit, library versions, machine and process, for the manifest."""
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "pid": os.getpid(),
    }


def version_changes(manifest: Mapping[str, Any]) -> list[str]:
    """What was installed when a product was made and is another version now, as "torch 2.7.1 -> 2.8.0".

    Builds of one version (``+cpu``, ``+cu129``) are the same. Of a manifest that does not say, nothing is known to have changed.
    """
    recorded = manifest.get("versions")
    made = {name: str(recorded[name]) for name in _COMPARED if name in recorded} if isinstance(recorded, Mapping) else {}
    found = {name: (old, version(name)) for name, old in made.items()}
    return [f"{name} {old} -> {now}" for name, (old, now) in found.items() if old.partition("+")[0] != now.partition("+")[0]]


def _commit() -> str | None:
    """The checked-out commit of this code, with "+" after it if files were changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
