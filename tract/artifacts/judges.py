"""Which judge a stage works with: a run's, an exported one, a Hugging Face model or the base model, with its own prompt, cue and grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, open_dict

from tract.artifacts.exported_judge import ExportedJudge
from tract.artifacts.fit_stages import FitFolder
from tract.artifacts.judge_files import JudgeFiles, joint_digest
from tract.artifacts.judge_loader import NOT_WEIGHTS, JudgeLoader, trained_judge
from tract.artifacts.judge_location import BASE, JudgeLocation, locate_judge
from tract.artifacts.judge_settings import BaseModel
from tract.common.model_name import model_name
from tract.config.schema import Config
from tract.models.adapter_digest import adapter_digest
from tract.models.base_layout import base_layout
from tract.models.locating import in_folder, model_fingerprint
from tract.models.tokenizers import load_tokenizer
from tract.text.layout import SequenceLayout


def find_judge(spec: str, cfg: Config) -> JudgeFiles:
    """The judge of a run, an exported one, a model, an adapter on the configured base model, or that LLM itself (``base``).

    Args:
        spec: see ``tract.artifacts.judge_location.locate_judge``.

    Raises:
        ConfigError, DataError: if there is none, or more than one, or its files are damaged.
    """
    found = locate_judge(spec)
    return _base_judge(cfg) if found.kind == BASE else _ConfiguredLoader(cfg).open(found)


def with_exact_judges(resolved: DictConfig, cfg: Config) -> DictConfig:
    """The configuration with the folder of a fit stage in place of a run's, for ``judge`` and ``compare_to``.

    What is made meanwhile may be linked into the folder of that very run.

    Raises:
        ConfigError: if one names no judge, or several.
    """
    exact = resolved
    for key, spec in (("judge", cfg.judge), ("compare_to", cfg.compare_to)):
        if spec is None or spec in (BASE, "stage1"):
            continue
        found = locate_judge(spec)
        if found.fit is not None and found.fit.run is not None:
            exact = exact.copy()
            with open_dict(exact):
                exact[key] = str(found.path)
    return exact


class _ConfiguredLoader(JudgeLoader):
    """Judges of a pipeline: what was not trained as one is asked as the configuration says."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg.model)
        self._cfg = cfg

    def of_run(self, stage: FitFolder) -> JudgeFiles:
        return trained_judge(stage, trust_remote_code=self.like.trust_remote_code, unpacked=self.like.unpacked)

    def of_adapter(self, folder: Path) -> JudgeFiles:
        base = _base_judge(self._cfg)

        def fingerprinted() -> str:
            return joint_digest(base.fingerprint, adapter_digest(folder))

        return replace(base, name=folder.name, weights=folder, fingerprinted=fingerprinted, folder=folder)

    def of_export(self, exported: ExportedJudge, found: JudgeLocation) -> JudgeFiles:
        settings, adapter = exported.settings, exported.adapter
        model = replace(self.model(exported.model), dtype=settings.dtype, chat_template=None)
        tokenizer = load_tokenizer(model if adapter is None else in_folder(model, adapter))
        layout = SequenceLayout.from_dict(tokenizer, dict(settings.layout))

        def fingerprinted() -> str:
            # Whatever its card and its settings say beside what is read here, the judge is the same.
            llm = model_fingerprint(model, settings.seed, leave_out=NOT_WEIGHTS, named=settings.base_model.name_or_path)
            return joint_digest(llm, judge.trained_digest, layout.fingerprint, repr(settings.prompt))

        judge = JudgeFiles(
            name=settings.name,
            fingerprinted=fingerprinted,
            model=model,
            weights=adapter,
            tokenizer=tokenizer,
            layout=layout,
            template=settings.prompt,
            seed=settings.seed,
            use_cot=settings.use_cot,
            named=settings.base_model.shown,
            folder=found.path,
        )
        return judge

    def untrained(self, base: BaseModel) -> JudgeFiles:
        judge = _base_judge(replace(self._cfg, model=self.model(base)))
        return replace(judge, name=model_name(Path(base.name_or_path).name, base.package))


def _base_judge(cfg: Config) -> JudgeFiles:
    tokenizer, layout, template = base_layout(cfg)

    def fingerprinted() -> str:
        return joint_digest(model_fingerprint(cfg.model, cfg.seed), layout.fingerprint, repr(template))

    return JudgeFiles(BASE, fingerprinted, cfg.model, None, tokenizer, layout, template, cfg.seed)
