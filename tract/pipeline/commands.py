"""Commands that are printed for a user to run next: whatever a value holds, the shell and then Hydra read it back as it is."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from functools import cache

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode

from tract.artifacts.judge_location import BASE
from tract.common.command_line import script_words
from tract.config.schema import Config

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
    flags = _flags()
    if "--config-name" in flags and script == "evaluate.py":  # a root of the user's own, which says nothing of what evaluate.yaml does
        changes = (*changes, "stages=[predict,evaluate]")
    return _command(script, [*flags, *kept_overrides(_given(), *changes)])


def kept_overrides(given: Sequence[str], *changes: str) -> list[str]:
    """The given overrides, less those of one run alone and those that the changes replace; then the changes."""
    replaced = {_key(change) for change in changes} | set(_OF_A_RUN)
    return [*(text for text in given if _key(text) not in replaced), *changes]


def next_commands(cfg: Config, judge: str) -> list[str]:
    """What goes on from a trained judge, with the overrides that this run was given: it is looked at closer, changed and repeated.

    Args:
        cfg: of the run. judge: the folder of its judge.
    """
    closer, changed = _closer(cfg), _changed(cfg)
    return [
        *([next_command("evaluate.py", override("judge", judge), closer, _compared(cfg))] if closer else []),
        *([next_command("train.py", changed)] if changed else []),
        # With this run, which is reused, three: the fewest that have an interval over seeds.
        next_command("train.py -m", f"seed={cfg.seed},{cfg.seed + 1},{cfg.seed + 2}"),
    ]


def _closer(cfg: Config) -> str | None:
    """What shows more of the judge: more of its CoTs, or attacks where it writes none; None where both were asked for."""
    if cfg.evaluation.n_cot > 0 and cfg.objective.use_cot:
        # Given CoTs are as many as there are.
        return f"evaluation.n_cot={2 * cfg.evaluation.n_cot}" if cfg.evaluation.cots == "sampled" else "evaluation.cots=sampled"
    return None if cfg.evaluation.perturbations else "evaluation.perturbations=[all]"


def _changed(cfg: Config) -> str | None:
    """What to train otherwise: lambda where it weighs two losses against each other, else the learning rate."""
    weight, rate = cfg.objective.score_loss_weight, cfg.optimizer.get("lr")
    if weight and cfg.objective.ce_weight:
        return f"objective.lambda={weight / 10:g}"
    return f"optimizer.lr={rate / 3:.2g}" if isinstance(rate, (int, float)) else None


def _compared(cfg: Config) -> str:
    """The judge to compare with, as given; stage 1 is none of an evaluation."""
    return override("compare_to", cfg.compare_to if cfg.compare_to not in (None, "stage1") else BASE)


def is_job() -> bool:
    """Whether this run is one of a multirun, whose end says what to do next."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _command(script: str, arguments: Sequence[str]) -> str:
    name, *flags = script.split()
    return shlex.join([*script_words(name), *flags, *arguments])


def _given() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _flags() -> list[str]:
    """Hydra's own flags, without which what was given cannot be composed: the user's folder of configurations, and his root."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [word for folder in folders for word in ("--config-dir", _local(folder))]
    root = hydra.job.config_name or "train"
    return flags if root in ("train", "generate_cot", "evaluate") else [*flags, "--config-name", root]


def _local(place: str) -> str:
    """A folder of Hydra's search path, relative to the working directory where it lies in it."""
    path = place.removeprefix("file://")
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _key(given: str) -> str:
    return given.partition("=")[0].lstrip("+~")
