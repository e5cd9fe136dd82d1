"""What the entry scripts share: composing the configuration, one line for each error, logging. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import hydra
import yaml
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tract.common import signals
from tract.common.command_line import SUBCOMMANDS, given_command, given_program, install_command
from tract.common.errors import ReportedExit, TractError
from tract.common.masking import masked_text
from tract.common.near_names import did_you_mean, near_names
from tract.common.terminal import say
from tract.common.user_paths import expanded
from tract.pipeline import config_help, old_names
from tract.pipeline.sweeps import multirun

Result = TypeVar("Result")

# Of a value: what stands between commas and brackets, which ${...} may be part of.
_ELEMENT = re.compile(r"(?!\s)(?:\$\{[^{}]*\}|[^,\[\]{}()])+")
_FOLDER_FLAGS = ("--config-dir", "--config-path", "-cd", "-cp")

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"
# What the package needs for training and does not hold by itself.
NO_CHECKOUT = (
    f"conf: there is no {CONFIG_DIR / 'train.yaml'}: the installed package holds no configuration files; train from a checkout, "
    "installed with pip install -e ."
)
# Sections whose keys are the arguments of a class, so that any that it takes can be added.
_OPEN_SECTIONS = ("trainer", "optimizer", "logger", "data.source", "scheduler.kwargs", "model.chat_template_kwargs")
# What Hydra and OmegaConf add to the first line of a message: no help to whom the configuration is all that is known.
_NOISE = ("full_key", "object_type", "reference_type", "Set the environment", "Config search path", "To append", "provider=", "See https")
# Launchers and sweepers that come with a package: how their names begin -> the package, the extra that installs it.
_PLUGINS = {
    "hydra/launcher/submitit_": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/joblib": ("hydra-joblib-launcher", "joblib"),
    "hydra/sweeper/optuna": ("hydra-optuna-sweeper", "optuna"),
}

# Read by torch at its first allocation on a CPU: large tensors in whole and, where the system has them, huge pages. Without it
# the heap keeps more holes between tensors of changing sizes (docs/performance.md).
ALLOCATOR = {"THP_MEM_ALLOC_ENABLE": "1"}

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What the C++ and Rust parts of libraries say instead of an error number.
_DISK_FULL_TEXTS = tuple(os.strerror(number) for number in _DISK_FULL)


def launch(task: Callable[[DictConfig], float | None], config_name: str) -> None:
    """Runs ``task`` on the composed configuration; an error of the user's, or a full disk, ends as one line and exit status 2.

    In a multirun the other jobs go on, and those that failed are listed at the end. What a task returns, a sweeper may optimise.
    """
    # Hydra prints errors over several lines and without the accepted keys; with this it raises them instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.excepthook = show_masked
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        # Bars of libraries fill a log file with lines; Lightning's own bar is a key, trainer.enable_progress_bar.
        os.environ.setdefault("TQDM_DISABLE", "1")
    _check_conf()
    multirun.findable()
    guarded(_expand_home)()
    guarded(old_names.upgrade_command_line)()
    if config_help.wanted(sys.argv[1:]):
        _show_help(config_name)
        return
    began = False

    @functools.wraps(task)
    def job(cfg: DictConfig) -> float | multirun.Failure | None:
        nonlocal began
        began = True
        sys.argv[1:] = map(masked_text, sys.argv[1:])  # it was read, and W&B keeps it
        # Guarded here, inside Hydra's job: outside, Hydra has printed lines of its own before.
        guarded(multirun.check_launcher)()
        cfg = guarded(old_names.upgraded_job)(cfg)
        return multirun.run_job(guarded(task), cfg) if multirun.is_job() else guarded(task)(cfg)

    # submitit has handlers of its own: it starts jobs again that were out of time.
    handled = contextlib.nullcontext() if multirun.is_submitit_job() else signals.handled(_last_line, once=True)
    try:
        with handled:
            hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)(job)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        if began:  # the configuration was composed and checked, so this is a fault of ours
            raise
        _fail(explain(error))
    except Exception as error:
        if began or not multirun.by_submitit(error):
            raise
        multirun.tell_end()
        _fail(multirun.explain(error))
    if multirun.tell_end():
        sys.exit(2)


def _check_conf() -> None:
    if not (CONFIG_DIR / "train.yaml").is_file():
        _fail(NO_CHECKOUT)


def _show_help(config_name: str) -> None:
    """Prints what the script can do, with the values that the other arguments lead to."""
    script = f"{config_name}.py"
    program = f"tract {SUBCOMMANDS[script]}" if given_program() is not None else f"python {script}"
    try:
        say(guarded(config_help.help_text)(CONFIG_DIR, config_name, sys.argv[1:], program).rstrip())
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        _fail(explain(error))


def _expand_home() -> None:
    """Rewrites what Hydra reads before the configuration is there and would not accept: ``~``, and "=" in a folder's name."""
    for name in ("TRACT_RUNS", "TRACT_CACHE"):
        if (found := os.environ.get(name, "")).startswith("~"):
            os.environ[name] = expanded(found, name)
    sys.argv[1:] = [_with_home(word) for word in sys.argv[1:]]


def _with_home(word: str) -> str:
    """An argument of a script with the home folder for ``~`` at the beginning of a value; any other one, and "=" in a path, is quoted."""
    key, equals, value = word.partition("=")
    if key in _FOLDER_FLAGS:
        return f"{key}={expanded(value, key)}" if value.startswith("~") else word
    # A folder of a sweep's job has "=" in its name, which Hydra reads in quotes alone.
    unread = "~=" if "=" in value and _is_path(key) else "~"
    if not equals or not set(unread) & set(value) or re.search(r"['\"]", value) or not re.fullmatch(r"[+~]*[\w./@:-]+", key):
        return word  # what is quoted is read as it is, and expanded where it is a path (tract.pipeline.validation)
    # Of a list, or of several jobs, each by itself.
    return f"{key}=" + _ELEMENT.sub(lambda found: _quoted(found[0], key.lstrip("+~")) if set(unread) & set(found[0]) else found[0], value)


def _is_path(key: str) -> bool:
    from tract.config.vocabulary import PATHS

    return key.lstrip("+~") in PATHS


def _quoted(text: str, key: str) -> str:
    is_path = _is_path(key) or text.partition("/")[0] == "~"  # elsewhere ~NAME may be any text
    return QuotedString(expanded(text, key) if is_path else text, Quote.single).with_quotes()


def show_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints the traceback of a fault of ours without secrets; for ``sys.excepthook``."""
    sys.stderr.write(masked_text("".join(traceback.format_exception(kind, error, trace))))


def _last_line(number: int, reason: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # A command that holds a secret can be read again by its user alone.
    sys.stderr.write(f"{masked_text(signals.interrupt_line(number, reason, given_command()))}\n")
    sys.stderr.flush()


def guarded(task: Callable[..., Result]) -> Callable[..., Result]:
    """The task with errors of the user's, and a full disk, ending the process as one line and exit status 2."""

    @functools.wraps(task)
    def run(*arguments: Any) -> Result:
        try:
            return task(*arguments)
        except Exception as error:  # whatever its kind, a full disk may have caused it
            if (full := disk_full(error)) is not None:
                _fail(f"disk full: {full}; free space and run the same command again: it goes on where it stopped")
            if isinstance(error, TractError):
                _fail(str(error))
            raise

    return run


def disk_full(error: BaseException) -> str | None:
    """The file that did not fit on its disk or in its quota, else what the disk said; None for an error of another kind."""
    chain = list(_chain(error))
    found = next((link for link in chain if _says_disk_full(link)), None)
    if found is None:
        return None
    names = [link.filename for link in chain if isinstance(link, OSError) and link.errno in _DISK_FULL]
    paths = [name for name in names if isinstance(name, (str, bytes))]  # it can be absent, or the number of an open file
    return os.fsdecode(paths[0]) if paths else str(found)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, then what it came from, as a traceback would show them."""
    seen: set[int] = set()  # a chain can be a ring
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _says_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_FULL
    # Told by its name, since safetensors is not imported here. Messages for users may quote any text.
    speaks = isinstance(error, (OSError, RuntimeError)) or type(error).__name__ == "SafetensorError"
    return speaks and not isinstance(error, TractError) and any(text in str(error) for text in _DISK_FULL_TEXTS)


def explain(error: Exception) -> str:
    """One line for an error of Hydra, OmegaConf or YAML, with what is accepted where that is known."""
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        reason = "; ".join(line for line in _lines(error) if not line.startswith("Error parsing override") and line.strip("^"))
        return (
            f"override {error.override!r}: cannot be read ({reason}); write KEY=VALUE, and text with < {{ [ ( or commas as KEY='\"TEXT\"'"
        )
    if isinstance(error, yaml.YAMLError):
        return f"YAML: {' '.join(str(error).split())}"
    if key := re.search(r"Could not override '([^']+)'", str(error)):
        return _not_overridden(key[1], error)
    return "; ".join(_lines(error))[:600]


def _missing_config(error: MissingConfigException) -> str:
    name = error.missing_cfg_file or ""
    group, _, option = name.rpartition("/")
    for beginning, (package, extra) in _PLUGINS.items():
        if name.startswith(beginning):
            return f"{group}: {option} needs the package {package}; run `{install_command(extra)}`"
    options = [option for option in error.options or () if not option.startswith("_")]
    if not options:
        hint = did_you_mean(group or name, _groups())
        return f"{name}: there is no such configuration file or group in conf{hint}; `--help` lists the groups"
    return f"{group}: there is no option {option!r}{did_you_mean(option, options)}; accepted are {', '.join(options)}"


def _groups() -> list[str]:
    return sorted(path.name for path in CONFIG_DIR.iterdir() if path.is_dir() and path.name != "hydra")


def _unset_groups() -> list[str]:
    """Groups that are no section of the configuration, such as ablation."""
    from tract.pipeline.validation import accepted_keys

    return [group for group in _groups() if group not in accepted_keys("")]


def _not_overridden(key: str, error: Exception) -> str:
    from tract.pipeline.unknown_keys import unknown_key_message
    from tract.pipeline.validation import accepted_keys

    if key.startswith("data.") and (meant := _key_of_own_data(key)):
        return (
            f"{key}: unknown key (did you mean {meant}?)"
            if meant != key
            else f"{key}: is a key of data=columns, for files of your own; choose it with data=columns"
        )
    if key.rpartition(".")[0] == "data.source.columns":
        return f"{key}: unknown; accepted are {', '.join(_own_source()['columns'])}"
    if section := next((name for name in _OPEN_SECTIONS if f"{key}.".startswith(f"{name}.")), None):
        return f"{key}: unknown key of {section}; keys of it that the configuration does not hold yet are added with a plus, +{key}=..."
    if (CONFIG_DIR / key).is_dir():
        options = sorted(path.stem for path in (CONFIG_DIR / key).glob("[!_]*.yaml"))
        return f"{key}: no option of this group is chosen yet; add one with a plus, +{key}={options[0]}"
    parent = key
    while parent:  # the innermost section that exists is where the path went wrong
        parent, _, name = parent.rpartition(".")
        accepted = accepted_keys(parent)
        if not parent and name not in accepted and (near := near_names(name, _unset_groups(), most=1)):
            return f"{name}: unknown group (did you mean +{near[0]}?); groups that are chosen with a plus are {', '.join(_unset_groups())}"
        if accepted and name not in accepted:
            return unknown_key_message(f"{parent}.{name}".lstrip("."), accepted, _in_open_sections(name))
    return f"{key}: cannot be set ({'; '.join(_lines(error.__cause__ or error))})"


def _own_source() -> dict[str, Any]:
    """The section data.source of files of the user's own."""
    source: dict[str, Any] = yaml.safe_load((CONFIG_DIR / "data" / "columns.yaml").read_text(encoding="utf-8"))["source"]
    return source


def _key_of_own_data(key: str) -> str:
    """The key of ``data=columns`` that a mistyped one is near, part by part, or which it is; "" if there is none."""
    tree = {"data": {"source": _own_source()}}
    found: list[str] = []
    for name in key.split("."):
        tree = tree if isinstance(tree, dict) else {}
        near = [name] if name in tree else near_names(name, tree, most=1)
        if not near:
            return ""
        found.append(near[0])
        tree = tree[near[0]]
    return ".".join(found)


def _in_open_sections(name: str) -> list[str]:
    """The keys of that name in the open sections, by the files of their groups."""
    groups = {section: (CONFIG_DIR / section).glob("*.yaml") for section in _OPEN_SECTIONS}
    keys = {group: {key for file in files for key in yaml.safe_load(file.read_text(encoding="utf-8"))} for group, files in groups.items()}
    return [f"{group}.{name}" for group, names in keys.items() if name in names and name != "defaults"]


def _lines(error: BaseException) -> list[str]:
    """The lines of a message that say something."""
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line and not line.startswith(_NOISE)]


def _fail(message: str) -> NoReturn:
    with contextlib.suppress(OSError):  # a log file on a full disk
        sys.stdout.flush()
    line = masked_text(" ".join(message.split()))
    sys.stderr.write(f"error: {line}\n")
    raise ReportedExit(2, line)
