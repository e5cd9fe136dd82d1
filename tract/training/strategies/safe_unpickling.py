"""Reading the parts of a sharded checkpoint without running what a replaced part could hold."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata

from tract.common.errors import DataError, TractError
from tract.common.safe_paths import resolve_within

# Torch's own: ``torch.load`` keeps to weights, whatever a library that calls it says.
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# What the metadata of a checkpoint of FSDP are made of, beside dtypes: shapes and names of files.
_OF_METADATA = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
    "pathlib": ("Path", "PosixPath"),
    "pathlib._local": ("Path", "PosixPath"),
}  # fmt: skip
# What torch says of a file that is no archive of its own.
_NO_ARCHIVE = "PytorchStreamReader"
# What a part holds beside weights, in torch's words, among its advice to load it all the same.
_UNSAFE = re.compile(r"GLOBAL \S+[^.\n]*")


@contextmanager
def only_weights(path: Path) -> Iterator[None]:
    """Allows only tensors, numbers and plain containers to be unpickled.

    Raises:
        DataError: if the checkpoint holds something else, or a part of it cannot be read.
    """
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        yield
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _NO_ARCHIVE not in str(error):
            raise
        raise _refusal(path, error) from error
    except CheckpointException as error:  # of torch.distributed.checkpoint, with what went wrong on each rank
        first = next(failure for failure, _ in error.failures.values())
        if isinstance(first, (TractError, OSError)):
            raise first from error
        raise _refusal(path, first) from error
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before


def _refusal(path: Path, error: BaseException) -> DataError:
    text = str(error)
    named = _UNSAFE.search(text)
    reason = " ".join((named[0] if named else text).split())[:200]
    return DataError(
        f"checkpoint {path}: a part of it is not what a training writes, and is not loaded ({type(error).__name__}: {reason}); remove "
        "this checkpoint: the same command then goes on from an older one, or begins anew"
    )


class _MetadataUnpickler(pickle.Unpickler):
    """Unpickles the metadata of a checkpoint, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """A class or function that the pickle names.

        Raises:
            UnpicklingError: if metadata hold nothing of this kind.
        """
        if (module, name) == ("builtins", "getattr"):
            return _enum_member  # how Python pickles members of enumerations
        if name in _OF_METADATA.get(module, ()) or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its metadata name {module}.{name}")


def _enum_member(kind: Any, name: str) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise pickle.UnpicklingError(f"its metadata ask for {name!r} of {kind!r}")
    return kind[name]


class SafeReader(FileSystemReader):
    """Torch's reader, which by itself unpickles the metadata without looking."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata of the checkpoint.

        Raises:
            UnpicklingError: if they hold anything but metadata. DataError: if they name a file outside of the checkpoint.
        """
        path = Path(self.path)
        with (path / ".metadata").open("rb") as file:
            metadata: Any = _MetadataUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"its metadata are a {type(metadata).__name__}")
        for place in (metadata.storage_data or {}).values():
            resolve_within(path, place.relative_path)
        if metadata.storage_meta is not None:
            metadata.storage_meta.load_id = self.load_id
        return metadata
