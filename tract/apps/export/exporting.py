"""From a run to an exported folder: weights, tokenizer, settings and model card, all of it or nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from tract.apps.export.card import CardFacts, model_card
from tract.apps.export.eval_metrics import metrics_of
from tract.apps.export.licences import NOT_STATED, data_licence, hub_id, model_licence
from tract.apps.export.options import ExportOptions
from tract.apps.export.target import check_target, new_folder
from tract.apps.export.weights import write_adapter, write_whole
from tract.artifacts.judge_choice import Choice, described
from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.judge_settings import JudgeSettings
from tract.artifacts.run_judges import run_judge
from tract.artifacts.trained_on import training_hashes, write_trained_on
from tract.common.errors import ConfigError
from tract.common.masking import masked
from tract.config.vocabulary import DTYPES

CARD_FILE = "README.md"
_NO_CHOICE = Choice()
_LICENCE = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: where it is. settings: those in it. dtype: of its weights. size: of all files, in bytes.
        stage: what was exported. judge: which one that is: variant, seed, stage and key.
        licence: of it, ``NOT_STATED`` where none is known.
    """

    folder: Path
    settings: JudgeSettings
    dtype: str
    size: int
    stage: Path
    judge: str
    licence: str


def export(
    folder: Path,
    out: Path,
    options: ExportOptions,
    *,
    trust_remote_code: bool = False,
    cache: Path | None = None,
    data: Path | None = None,
    to_hub: bool = False,
    choice: Choice = _NO_CHOICE,
) -> Exported:
    """Writes the judge of a run as a standard folder.

    Args:
        folder: of a run or a fit stage. out: the new folder. options: what is asked for.
        to_hub: whether others are to load it from the hub. choice: which judge is meant, where the folder holds several.
        trust_remote_code, cache, data: as in ``judge_of_stage``.

    Raises:
        ConfigError, DataError: if there is no such judge, or it cannot be written so; nothing is left then.
    """
    check_options(options)
    check_target(out, overwrite=options.overwrite)
    run = run_judge(folder, choice=choice, trust_remote_code=trust_remote_code, cache=cache, data=data, name=options.name)
    with new_folder(out, sources=(run.stage.path,), overwrite=options.overwrite) as working:
        settings, dtype = _write_model(run, options, working, to_hub=to_hub)
        licence = options.licence or model_licence(run.model)
        facts = CardFacts(
            base=_base_name(run),
            base_id=hub_id(run.model),
            dtype=dtype,
            licence=licence,
            base_licence=model_licence(run.model),
            data_licence=options.data_licence or data_licence(dict(settings.training["data"])),
            four_bit=run.four_bit,
        )
        licences = {"weights": licence, "base_model": facts.base_licence, "data": facts.data_licence}
        settings = replace(settings, training={**settings.training, "licences": licences})
        settings.write(working)
        if (hashes := training_hashes(run.stage.path, cache)) is not None:
            write_trained_on(working, hashes)
        (working / CARD_FILE).write_text(model_card(settings, facts), encoding="utf-8")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Exported(out, settings, dtype, size, run.stage.path, described(run.stage), licence)


def check_options(options: ExportOptions) -> None:
    """Refuses options that contradict each other, before anything is read.

    Raises:
        ConfigError: naming the option.
    """
    if options.dtype is not None and options.dtype not in DTYPES:
        raise ConfigError(f"--dtype: {options.dtype!r} is not one of {', '.join(DTYPES)}")
    if options.adapter and options.dtype is not None:
        raise ConfigError("--dtype: an adapter stays as it was trained, in float32; leave --dtype or --adapter out")
    if options.base is not None and not options.adapter:
        raise ConfigError("--base: only an adapter names a base model to load; add --adapter, or leave --base out")
    if options.licence is not None and not _LICENCE.fullmatch(options.licence):
        raise ConfigError(f"--license: {options.licence!r} is no identifier of a licence on the hub, such as apache-2.0 or other")


def _write_model(run: JudgeFiles, options: ExportOptions, folder: Path, *, to_hub: bool) -> tuple[JudgeSettings, str]:
    """Weights and tokenizer; returns the settings that belong to them, and the dtype of the weights."""
    run.tokenizer.save_pretrained(folder)
    metrics = masked(metrics_of(run))
    if options.adapter:
        base = write_adapter(run, options.base, folder)
        if to_hub and Path(base.name_or_path).is_absolute():
            raise ConfigError(f"--push: the adapter's base model is the folder {base.name_or_path}, which others lack; give --base HUB_ID")
        return replace(run.settings, base_model=base, metrics=metrics), "float32"
    dtype = write_whole(run, options.dtype, folder)
    return replace(run.settings, adapter=False, dtype=dtype, metrics=metrics), dtype


def _base_name(run: JudgeFiles) -> str:
    """The base model for people: where it can be found, or what it is."""
    base = run.settings.base_model
    known = hub_id(run.model)
    if base.package is None or known is None:
        return base.shown
    return f"{known} (as in the Python package {base.package})"


def licence_hint(exported: Exported) -> str | None:
    """What to do about a licence that nobody stated; None if one is."""
    if exported.licence != NOT_STATED:
        return None
    return "no licence of the base model is known; say under which the export may be used with --license before you pass it on"
