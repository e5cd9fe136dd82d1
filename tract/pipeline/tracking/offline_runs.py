"""W&B runs that were logged offline: their folders, and the command that uploads them."""

from __future__ import annotations

import glob
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tract.config.schema import Config

FOLDER = "wandb"  # below the folder of all runs


def offline_runs(cfg: Config, keys: list[str]) -> list[Path]:
    """The folders of W&B's offline runs of stages with these keys that are not uploaded yet, sorted.

    A stage that runs share has a W&B run under the name of the one that made it, which counts where this run has none of its own.
    """
    place, own = Path(cfg.paths.runs) / FOLDER, f"{cfg.run.name}-s{cfg.seed}-"
    found: list[Path] = []
    for key in dict.fromkeys(keys):
        of_stage = [path for path in place.glob(f"offline-run-*-{key}") if not any(path.glob("*.wandb.synced"))]
        found += [path for path in of_stage if path.name.split("-", 3)[-1].startswith(own)] or of_stage  # offline-run-TIME-ID
    return sorted(found)


def sync_command(cfg: Config, folders: Sequence[Path]) -> str:
    """The command that uploads these folders, and no other; short where a pattern stands for just these."""
    place = Path(cfg.paths.runs) / FOLDER
    own = f"{cfg.run.name}-s{cfg.seed}-"
    program = "wandb" if shutil.which("wandb") else f"{shlex.quote(sys.executable)} -m wandb"
    if len(folders) > 1 and sorted(place.glob(f"offline-run-*-{glob.escape(own)}*")) == sorted(folders):
        return f"{program} sync --yes {shlex.quote(f'{place}/offline-run-')}*{shlex.quote(f'-{own}')}*"
    return f"{program} sync --yes {shlex.join(map(str, folders))}"
