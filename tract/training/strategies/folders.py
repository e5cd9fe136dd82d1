"""Checkpoints that are folders, with a part of each rank."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tract.common.distributed import barrier
from tract.common.durable import TEMPORARY


class AtomicFolders:
    """Writes the folder of a checkpoint beside its final name and renames it when every rank has written its part."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Writes the checkpoint, all ranks together.

        Raises:
            OSError: if it cannot be written.
        """
        final = Path(filepath)
        partial = final.with_name(final.name + TEMPORARY)
        strategy: Any = self
        if strategy.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
        barrier()
        super().save_checkpoint(checkpoint, partial, storage_options)  # type: ignore[misc]
        barrier()
        if strategy.is_global_zero:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
        barrier()

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Removes a checkpoint."""
        strategy: Any = self
        if strategy.is_global_zero:
            shutil.rmtree(filepath, ignore_errors=True)
