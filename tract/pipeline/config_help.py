"""``--help`` of the entry scripts: how they are called, the groups with their options, and each key with its value and meaning."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tract.common.errors import ConfigError
from tract.common.terminal import width
from tract.config.comments import File, chain, field_of, groups_of, leaves, read

_KEY_WIDTH = 34  # of "key = value"; a longer one has its meaning on the line below
_BELOW = " " * 8
_LONGEST_VALUE = 48
_HELP_FLAGS = {"--help", "-h"}


def wanted(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for the help; ``--hydra-help`` is Hydra's own."""
    return any(word in _HELP_FLAGS for word in arguments)


def help_text(conf: Path, config_name: str, arguments: Sequence[str], program: str) -> str:
    """The whole help of a script, with the values that its arguments lead to.

    Args:
        conf: the folder of the configuration. config_name: its root. arguments: of the command line; what Hydra itself reads among
            them is respected. program: what the user types, e.g. ``python train.py``.

    Raises:
        HydraException: as composing does.
        ConfigError: if ``--config-dir`` is no folder.
    """
    given = get_args_parser().parse_args(list(arguments))
    folders = [conf, *([Path(given.config_dir)] if given.config_dir else [])]
    if not folders[-1].is_dir():
        raise ConfigError(f"--config-dir: there is no folder {given.config_dir!r}; give the folder of your own configuration files")
    place = conf if given.config_path is None else Path(given.config_path).resolve()
    parser = OverridesParser.create()
    plain = [word for word in given.overrides if not parser.parse_override(word).is_sweep_override()]
    search = [f"hydra.searchpath=[file://{folders[-1].resolve()}]"] if given.config_dir else []
    with initialize_config_dir(version_base="1.3", config_dir=str(place)):
        cfg = compose(given.config_name or config_name, [*plain, *search], return_hydra_config=True)
    header = re.sub(r"python (train|generate_cot|evaluate)\.py", program, str(cfg.hydra.help.header))
    chosen = {str(group): option for group, option in cfg.hydra.runtime.choices.items()}
    groups = _groups(folders)
    lines = [
        f"usage: {program} [GROUP=OPTION ...] [KEY=VALUE ...]",
        "",
        header.strip(),
        "",
        *_wrapped("Hydra's flags: -m (several runs), --cfg job --resolve, --config-dir FOLDER; all: --hydra-help.", ""),
        "",
        "Groups, chosen by GROUP=OPTION (+GROUP=OPTION where none is); * is chosen:",
        "",
        *_group_lines(groups, chosen),
        "",
        "Keys, set by KEY=VALUE, with their values here; more in docs/configuration.md:",
        *_key_lines(cfg, conf, groups, chosen),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _groups(folders: Sequence[Path]) -> dict[str, dict[str, File]]:
    """Group -> option -> file, of all folders."""
    found: dict[str, dict[str, File]] = {}
    for folder in folders:
        for group, options in groups_of(folder).items():
            found.setdefault(group, {}).update(options)
    return {group: options for group, options in found.items() if not group.startswith("hydra/")}


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    """Lines of a text, none broken within a word."""
    return textwrap.wrap(
        text, width(), initial_indent=indent if first is None else first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _group_lines(groups: dict[str, dict[str, File]], chosen: dict[str, Any]) -> Iterator[str]:
    longest = max(map(len, groups))
    for group, options in groups.items():
        names = [name for name in options if not name.rpartition("/")[2].startswith("_")]
        shown = [f"*{name}" if chosen.get(group) == name else name for name in names]
        yield from _wrapped(", ".join(shown), " " * (longest + 4), f"  {group:<{longest}}  ")


def _key_lines(cfg: DictConfig, conf: Path, groups: dict[str, dict[str, File]], chosen: dict[str, Any]) -> Iterator[str]:
    """Each key; a section begins with its name and what it is."""
    train = read(conf / "train.yaml")
    content = OmegaConf.to_container(cfg)
    assert isinstance(content, dict)
    del content["hydra"]
    section: str | None = None
    for key, value in leaves(content):
        own = key.partition(".")[0] if "." in key else ""
        if own != section:
            section = own
            yield ""
            yield from _wrapped(": ".join(filter(None, (own, _meaning(own, train, groups, chosen)))), "  ", "") if own else ()
        if key.rpartition(".")[2] in ("_target_", "_partial_"):
            continue
        yield from _key(key, value, _meaning(key, train, groups, chosen))


def _meaning(key: str, train: File, groups: dict[str, dict[str, File]], chosen: dict[str, Any]) -> str:
    """The first sentence of the comment beside a key: in the root, in the files of its group, the chosen one's first, or in the code."""
    group, _, name = key.partition(".")
    files = [train]
    found = train.comments.get(key)
    if found is None and name and group in groups:
        options = groups[group]
        option = str(chosen.get(group))
        files = [*(chain(options, option) if option in options else []), *options.values()]
        found = next((file.comments[name] for file in files if name in file.comments), None)
    return sentence(found or field_of(key)[1])


def sentence(text: str) -> str:
    """The first sentence of a comment."""
    return re.split(r"(?<=[.;]) (?=[A-Z`])", re.sub(r"\s+", " ", text.replace("``", "`")).strip())[0]


def _key(key: str, value: Any, meaning: str) -> list[str]:
    """A key and its value, and its meaning in one line: beside them where it fits, else below."""
    left = f"  {key} = {_value(value)}"
    beside = f"{left:<{_KEY_WIDTH}}  {meaning}".rstrip()
    if len(left) <= _KEY_WIDTH and len(beside) <= width():
        return [beside]
    return [left, f"{_BELOW}{in_one_line(meaning, width() - len(_BELOW))}"] if meaning else [left]


def in_one_line(text: str, most: int) -> str:
    """The first clauses of a sentence that fit into so many characters; where the first does not, its first words and dots."""
    if len(text) <= most:
        return text
    ends = [found.start() for found in re.finditer(r";(?= )|, (?=which|whatever|as |so |for |in all)|:(?= )", text)]
    ends = [end for end in ends if end <= most and (text[end] != ":" or ";" not in text[:end])]  # "; null: all" is one clause
    if ends and ends[-1] > most // 3:
        return text[: ends[-1]]
    return textwrap.shorten(text, most, placeholder=" ...", break_long_words=False, break_on_hyphens=False)


def _value(value: Any) -> str:
    """A value as it is typed, on one line; a long one is cut."""
    if value is None or isinstance(value, bool):
        shown = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, list):
        shown = f"[{','.join(map(_value, value))}]"
    else:
        shown = '""' if value == "" else " ".join(str(value).split())
    return shown if len(shown) <= _LONGEST_VALUE else f"{shown[: _LONGEST_VALUE - 3]}..."
