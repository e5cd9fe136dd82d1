"""The predict stage: a judge samples CoTs on the items of all benchmarks and reads the scores behind them."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from tract.artifacts.identity import StageIdentity
from tract.artifacts.judge_files import JudgeFiles
from tract.artifacts.products import JOURNAL, Product, open_product, write_config
from tract.artifacts.run_folder import StageFolder
from tract.common.distributed import rank_info
from tract.common.durable import json_line
from tract.common.errors import ConfigError, DataError
from tract.common.safe_paths import resolve_within
from tract.config.ignored_fields import OF_STAGES
from tract.config.schema import Config
from tract.data.arrow_columns import values_at
from tract.data.generated_cots.file import COTS_FILE, read_cots
from tract.data.score_leak import check_score_leak
from tract.data.tokens import OVERLONG, TokenStore
from tract.evaluation.items import BenchmarkItem
from tract.inference.backend import JudgeBackend
from tract.inference.judgement import Judgement
from tract.inference.prompt_budget import tokens_behind
from tract.models.locating import context_of
from tract.pipeline.backends import ignored_modules, keys_of_other_backends, open_backend, sequence_path_fields
from tract.pipeline.identity.keys import code_digests, key_fields
from tract.pipeline.stages.benchmarks import Benchmark, find_benchmarks, perturbed_benchmarks, target_of, worded_for
from tract.pipeline.stages.generate import prompts_at
from tract.pipeline.stages.judging import read_judgements, sample_judgements
from tract.pipeline.stages.prepare import Lengths, sampling_tokens
from tract.pipeline.stages.rank_logs import RankLogs
from tract.pipeline.stages.stage import IGNORED_CODE, REPORTED_CODE
from tract.pipeline.tracking.tracker import Tracker
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)

# How scores are read from judgements is asked when they are evaluated: another predictor needs no other judgements.
_IMMATERIAL_CODE = ("tract.evaluation.predictors",)

_SECTIONS = (
    "seed", "deterministic", "trainer.precision", "data.truncation", "data.shorten", "data.val_fraction", "data.test_fraction",
    "data.split_seed", "generation", "evaluation.prompt", "evaluation.cots", "evaluation.n_cot", "evaluation.target",
    "evaluation.max_items",
)  # fmt: skip
Record = TypeVar("Record")
JUDGE_FILE = "judge.json"


@dataclass(frozen=True)
class _AskedItem:
    """What a judge is asked about a benchmark.

    Attributes:
        benchmark: the items. tokens: their prompts. status: row -> status of its prompt, in order. cots: row -> given CoTs, if any are.
        left_out: items that have no given CoT. longest: the most tokens of a sequence, prompt included.
    """

    benchmark: Benchmark
    tokens: TokenStore
    status: dict[int, str]
    cots: dict[int, Sequence[Sequence[int]]]
    left_out: int
    longest: int

    @property
    def judged(self) -> list[int]:
        """The rows whose prompts the judge is given."""
        return [row for row, status in self.status.items() if not status.startswith("dropped")]


@dataclass
class PredictStage:
    """Judges every item of every benchmark: ``evaluation.n_cot`` CoTs of the judge's own, or given ones, and once without.

    Attributes:
        cfg: the typed configuration. resolved: the same as composed, for the run folder. judge: who judges.
        compared: whether it is the judge that the run's own one is compared to; moves nothing but messages.
    """

    cfg: Config
    resolved: DictConfig
    judge: JudgeFiles
    compared: bool = False

    @property
    def name(self) -> str:
        """Predict."""
        return "predict"

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"predict (the compared judge, {self.judge.name})" if self.compared else self.name

    @cached_property
    def _benchmarks(self) -> list[Benchmark]:
        grid, template = self.judge.layout.grid, worded_for(self.cfg, self.judge.template)
        found = find_benchmarks(self.cfg, grid)
        return [*found, *(changed for base in found for changed in perturbed_benchmarks(base, self.cfg, grid, template))]

    @property
    def _free(self) -> bool:
        return "decode_free" in self.cfg.evaluation.predictors

    @cached_property
    def _given(self) -> Product | None:
        """The generate stage whose CoTs are read, if CoTs are given by one."""
        where = self.cfg.evaluation.cots
        return None if where in ("sampled", "annotated") else open_product(Path(where))

    def identity(self) -> StageIdentity:
        """Configuration, content of the benchmarks, judge and code."""
        config = key_fields(self.resolved, _SECTIONS, (*OF_STAGES, "generation.n_cot", *keys_of_other_backends(self.cfg)))
        config["generation"] |= sequence_path_fields(self.judge, self.cfg)
        config["free"] = self._free
        config["benchmarks"] = {benchmark.name: benchmark.store.fingerprint for benchmark in self._benchmarks}
        parents = {"judge": self.judge.fingerprint}
        if self._given is not None:
            config["evaluation"]["cots"] = "generated"
            parents["cots"] = self._given.fingerprint
        ignored_fields = (*IGNORED_CODE, *REPORTED_CODE, *_IMMATERIAL_CODE, *ignored_modules(self.cfg))
        return StageIdentity(self.name, config, parents, code_digests("tract.pipeline.stages.predict", ignored_fields=ignored_fields))

    def make(self, folder: StageFolder, tracker: Tracker) -> dict[str, Any]:
        """Judges what an earlier try left undone, benchmark after benchmark."""
        if rank_info().is_first:
            write_config(folder.working, self.resolved)
        asked = [self._asked(benchmark) for benchmark in self._benchmarks]
        with open_backend(self.judge, self.cfg, max(each.longest for each in asked)) as judge:
            counts = {each.benchmark.name: self._judge_benchmark(each, judge, folder.working) for each in asked}
        if not rank_info().is_first:
            return {}
        template = worded_for(self.cfg, self.judge.template)
        layout = {"cue": self.judge.layout.cue, "grid": list(self.judge.layout.grid.labels)}
        (folder.working / JUDGE_FILE).write_text(json.dumps({"name": self.judge.name, **layout}, indent=2) + "\n", encoding="utf-8")
        return {
            "judge": {"name": self.judge.name, "model": self.judge.model_name, "weights": str(self.judge.folder or "")},
            "shown_fields": sorted(template.shown_fields) if template.source == "template" else None,
            "prompt_budget": self._lengths.prompt,
            "benchmarks": counts,
        }

    def _judge_benchmark(self, asked: _AskedItem, judge: JudgeBackend, folder: Path) -> dict[str, Any]:
        cfg, benchmark, rows, status, cots = self.cfg, asked.benchmark, list(asked.status), asked.status, asked.cots
        prompts = prompts_at(asked.tokens, asked.judged)
        journal = RankLogs(folder / f"{JOURNAL}-{benchmark.name}", cfg.generation.shard_size)
        what, batch_size = f"predict ({self.judge.name}, {benchmark.name})", cfg.generation.sequences
        if cfg.evaluation.cots == "sampled":
            n_cot = cfg.evaluation.n_cot
            sample_judgements(judge, prompts, journal, what=what, n_cot=n_cot, without_cot=True, free=self._free, batch_size=batch_size)
        else:
            read_judgements(judge, prompts, cots, journal, what=what, without_cot=True, batch_size=batch_size)
        if not journal.finish():
            return {}
        finishes: Counter[str] = Counter()
        _write_lines(folder / f"items-{benchmark.name}.jsonl", (asdict(item) for item in self._items(benchmark, rows, status)))
        _write_lines(folder / f"judgements-{benchmark.name}.jsonl", _counted(journal, set(rows), finishes))
        return {
            "items": len(rows),
            "by_status": dict(Counter(status.values())),
            "without_target": benchmark.without_target,
            "without_given_cot": asked.left_out,
            "cots_by_finish": dict(sorted(finishes.items())),
            **({"base": benchmark.base, "perturbation": benchmark.perturbation} if benchmark.base else {}),
            **({"unchanged": benchmark.unchanged} if benchmark.base else {}),
        }

    def _asked(self, benchmark: Benchmark) -> _AskedItem:
        """What the judge is asked about a benchmark; says in the log which prompts are too long."""
        rows, given = list(benchmark.rows), self.cfg.evaluation.cots
        cots: dict[int, Sequence[Sequence[int]]] = {}
        if given != "sampled":
            cots = self._given_cots(benchmark)
            rows = [row for row in rows if row in cots]
            if not rows:
                raise DataError(f"evaluation.cots: {given!r} holds no CoT for any item of {benchmark.name}")
        template, layout = worded_for(self.cfg, self.judge.template), self.judge.layout
        # Prompts as in training, whatever stands behind them here.
        tokens = sampling_tokens(self.cfg, benchmark.store, template, layout, self._lengths, trained=False)
        if given == "annotated" and self.judge.use_cot:
            check_score_leak(tokens, layout, self.cfg.data.on_score_leak)
        status = dict(zip(rows, values_at(tokens.dataset, "status", rows), strict=True))
        self._lengths.report(f"{self.name} ({benchmark.name})", Counter(status.values()))
        sizes = tokens.prompt_lengths(rows).tolist()
        behind = {row: max(map(len, cots[row])) + layout.max_tail_tokens for row in rows} if cots else {}
        whole = {row: size + behind.get(row, 0) for row, size in zip(rows, sizes, strict=True)}
        context = context_of(self.judge.model) or max(whole.values())
        if beyond := [row for row, size in whole.items() if size > context]:  # a given CoT may be longer than any that is sampled
            log.warning("%s: %d items of %s are longer with their CoTs than the model's context", self.name, len(beyond), benchmark.name)
            status |= dict.fromkeys(beyond, OVERLONG)
        sampled = max(sizes) + tokens_behind(layout, self.cfg.generation.max_cot_tokens)
        return _AskedItem(benchmark, tokens, status, cots, len(benchmark.rows) - len(rows), max(sampled, *whole.values()))

    @cached_property
    def _lengths(self) -> Lengths:
        return Lengths.of(self.cfg, self.judge.model, self.judge.layout)

    def _given_cots(self, benchmark: Benchmark) -> dict[int, Sequence[Sequence[int]]]:
        """Row -> token ids of the CoTs that are given for it."""
        if self._given is None:
            examples = ((row, benchmark.store.example(row)) for row in benchmark.rows)
            encode = self.judge.layout.cot_ids
            # A judge that was trained without CoTs reads its score right behind the prompt.
            return {
                row: [encode(annotation.cot) if self.judge.use_cot else [] for annotation in example.annotations]
                for row, example in examples
                if example.annotations
            }
        found: dict[int, list[Sequence[int]]] = {}
        ids = dict(zip(benchmark.rows, values_at(benchmark.store.dataset, "id", benchmark.rows), strict=True))
        path, fingerprint = self._given.file(COTS_FILE)
        for record in read_cots(path, Path(self.cfg.paths.cache), fingerprint):
            if record["row"] in ids:
                if record["id"] != ids[record["row"]]:
                    raise ConfigError(f"evaluation.cots: {self.cfg.evaluation.cots!r} was generated on other data than {benchmark.name}")
                found.setdefault(record["row"], []).append(record["cot_ids"])
        return dict(found)

    def _items(self, benchmark: Benchmark, rows: Sequence[int], status: dict[int, str]) -> Iterator[BenchmarkItem]:
        examples = [benchmark.store.example(row) for row in rows]
        # Where some responses stand only inside a finished prompt, the words of all prompts are counted instead.
        told_apart = all(example.instruction for example in examples)
        for row, example in zip(rows, examples, strict=True):
            target = target_of(example, self.cfg.evaluation.target)
            assert target is not None
            words = len((example.response if told_apart else example.prompt or "").split())
            yield BenchmarkItem(
                example.id,
                row,
                example.question_id,
                target,
                words,
                status[row],
                example.meta,
                n_raters=example.n_raters,
                rater_sd=example.rater_sd,
                instruction=example.instruction,
                response=example.response,
                reference_answer=example.reference_answer,
                rubric=_rubric(example),
                prompt=None if example.instruction else example.prompt,
                raters=_raters(example),
            )


def _rubric(example: JudgeExample) -> dict[str, Any] | None:
    """Criterion and descriptions, for JSON."""
    rubric = example.rubric
    return None if rubric is None else {"criteria": rubric.criteria, "descriptions": dict(rubric.descriptions)}


def _raters(example: JudgeExample) -> list[dict[str, Any]]:
    """Every score that a rater gave, with the comment where there is one."""
    commented = [{"rater": given.rater, "score": given.score, "comment": given.cot or None} for given in example.annotations]
    return commented + [{"rater": rating.rater, "score": rating.score, "comment": None} for rating in example.ratings]


def _counted(journal: RankLogs, rows: set[int], finishes: Counter[str]) -> Iterator[dict[str, Any]]:
    for judgement in journal.ordered():
        if judgement.row in rows:
            finishes[judgement.finish] += 1
            yield judgement.to_dict()


def _write_lines(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json_line(record, f"{path}, {record['id']}"))


@dataclass(frozen=True)
class Predictions:
    """What a judge said on all benchmarks of a predict stage.

    Attributes:
        grid: its scores. cue: its answer cue.
        of: benchmark -> (items, judgements), perturbed copies of benchmarks included.
        counts: benchmark -> what the manifest says of it.
    """

    grid: ScoreGrid
    cue: str
    of: Mapping[str, tuple[list[BenchmarkItem], list[Judgement]]]
    counts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, product: Product) -> Predictions:
        """Those of a predict stage.

        Raises:
            DataError: as ``read_predictions``.
        """
        judge = json.loads((product.path / JUDGE_FILE).read_text(encoding="utf-8"))
        return cls(ScoreGrid(tuple(judge["grid"])), judge["cue"], read_predictions(product), product.manifest["benchmarks"])


def read_predictions(product: Product) -> dict[str, tuple[list[BenchmarkItem], list[Judgement]]]:
    """Benchmark -> (items, judgements) of a predict stage.

    Raises:
        DataError: if the name of a benchmark leads out of the stage's folder, or a judgement or a true score is none, e.g. with a
            number that is not finite; it names the item.
    """
    return {
        name: (
            _records(resolve_within(product.path, f"items-{name}.jsonl"), _item),
            _records(resolve_within(product.path, f"judgements-{name}.jsonl"), Judgement.from_dict),
        )
        for name in product.manifest["benchmarks"]
    }


def _item(record: dict[str, Any]) -> BenchmarkItem:
    item = BenchmarkItem(**record)
    if not math.isfinite(item.target):
        raise ValueError(f"target: {item.target} is no score")
    return item


def _records(path: Path, of: Callable[[dict[str, Any]], Record]) -> list[Record]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        record: Any = None
        try:
            record = json.loads(line)
            found.append(of(record))
        except (ValueError, TypeError, KeyError) as error:
            item = f", item {record['id']}" if isinstance(record, dict) and "id" in record else ""
            raise DataError(f"{path}:{number}{item}: {' '.join(str(error).split())}; judge the benchmark again: force=[predict]") from error
    return found
