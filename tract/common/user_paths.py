"""Paths as users give them: ``~`` is the home folder wherever it is written, also where no shell expands it. Standard library alone."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tract.common.errors import ConfigError


def expanded(text: str, key: str) -> str:
    """The path with ``~`` or ``~NAME`` at its beginning replaced by that home folder; ``./~`` is a folder of that name.

    Args:
        text: a path, or what may be one, such as a hub id. key: what it was given for, for messages.

    Raises:
        ConfigError: if it is blank, or the home folder is not known.
    """
    if not text.strip():
        raise ConfigError(f"{key}: {text!r} is empty, as a shell variable is that is not set; give a path or a name")
    if not text.startswith("~"):
        return text
    name, _, rest = text.partition("/")
    # An empty HOME would make another path of ~/x, /x.
    home = os.environ.get("HOME") or _home_of_user() if name == "~" else os.path.expanduser(name)
    if home is None or home.startswith("~"):
        why = "HOME is not set; set it" if name == "~" else f"there is no user {name[1:]!r}; correct it"
        raise ConfigError(f"{key}: the home folder in {text!r} is not known, {why}, or write the folder out (./{name} is one of that name)")
    return os.path.join(home, rest) if rest else home


def _home_of_user() -> str | None:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def given_text(text: str) -> str:
    """``expanded`` for ``argparse``: of what is a path or a hub id."""
    try:
        return expanded(text, "path")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("path: ")) from None


def given_path(text: str) -> Path:
    """``expanded`` for ``argparse``: of a path."""
    return Path(given_text(text))
