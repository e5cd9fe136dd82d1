"""Commands that are printed for a user to run next: whatever a value holds, the shell and then Hydra read it back as it is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

_ROOT = Path(__file__).resolve().parents[2]
# Overrides that say what one run does, which the next one need not do too.
_OF_A_RUN = ("stages", "from", "force", "dry_run", "sweep")
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def override(key: str, text: str) -> str:
    """``KEY=VALUE`` from which Hydra reads exactly this text, quoted only where that is needed. It still needs quoting for the shell."""
    # OmegaConf reads ${...} in a value, also in a quoted one; a backslash keeps it as it is.
    escaped = _INTERPOLATION.sub(lambda found: found[1] * 2 + "\\${", text)
    plain = f"{key}={escaped}"
    return plain if _parsed(plain) == escaped else f"{key}={QuotedString(escaped, Quote.single).with_quotes()}"


def _parsed(line: str) -> object:
    """The value that Hydra reads; None where it reads none."""
    try:
        found = _parser().parse_override(line)
    except HydraException:
        return None
    return None if found.is_sweep_override() else found.value()


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def next_command(script: str, *changes: str) -> str:
    """The command line of a script with what this run was given, less what belongs to this run alone and what the changes replace.

    Args:
        script: with its flags, e.g. "train.py -m". changes: overrides, see ``override``.
    """
    return _command(script, [*_flags(script), *kept_overrides(_given(), *changes)])


def kept_overrides(given: Sequence[str], *changes: str) -> list[str]:
    """The given overrides, less those of one run alone and those that the changes replace; then the changes."""
    replaced = {_key(change) for change in changes} | set(_OF_A_RUN)
    return [*(text for text in given if _key(text) not in replaced), *changes]


def _command(script: str, arguments: Sequence[str]) -> str:
    name, *flags = script.split()
    path = name if Path(name).resolve() == _ROOT / name else str(_ROOT / name)
    return shlex.join([_python(), path, *flags, *arguments])


def _python() -> str:
    """This interpreter as it is typed."""
    found = shutil.which("python")
    return "python" if found is not None and os.path.dirname(found) == os.path.dirname(sys.executable) else sys.executable


def _given() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _flags(script: str) -> list[str]:
    """Hydra's own flags, without which what was given cannot be composed: the user's folder of configurations, and his root."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [word for folder in folders for word in ("--config-dir", _local(folder))]
    root = hydra.job.config_name or "train"
    own = root not in ("train", "generate_cot", "evaluate") and script.startswith("train.py")
    return [*flags, "--config-name", root] if own else flags


def _local(place: str) -> str:
    """A folder of Hydra's search path, relative to the working directory where it lies in it."""
    path = place.removeprefix("file://")
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _key(given: str) -> str:
    return given.partition("=")[0].lstrip("+~")
