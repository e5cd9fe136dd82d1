"""The model card of an export: what the judge is, how it is used, what was measured, what it was trained on, licences and limits. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tract.apps.export.licences import NOT_STATED
from tract.artifacts.judge_settings import SETTINGS_FILE, JudgeSettings

_PAPER = "https://arxiv.org/abs/2503.04381"
_TAGS = ["llm-as-a-judge", "tract", "regression-aware-fine-tuning", "text-generation"]
_SHOWN_METRICS = {
    "pearson_r": "Pearson r",
    "spearman_rho": "Spearman rho",
    "rmse": "RMSE",
    "mae": "MAE",
    "score_mass": "score mass",
    "failure_rate": "share of failed draws",
}
# Beside the predictors in ``JudgeSettings.metrics``.
_FACTS = ("n", "questions", "n_cot", "cots", "confidence")


@dataclass(frozen=True)
class CardFacts:
    """What the settings do not say.

    Attributes:
        base: the base model for people. base_id: its hub id, or None. dtype: of the weights in the folder.
        licence: of the export. base_licence, data_licence: of what it was made from; ``NOT_STATED`` where that is unknown.
        four_bit: whether it was trained on a quantised base model.
    """

    base: str
    base_id: str | None
    dtype: str
    licence: str
    base_licence: str
    data_licence: str
    four_bit: bool


def model_card(settings: JudgeSettings, facts: CardFacts) -> str:
    """The text of README.md, with the front matter that the hub reads."""
    sections = [
        f"# {_one_line(settings.name)}",
        _summary(settings, facts),
        f"## Use\n\n{_usage(settings)}",
        f"## How it judges\n\n{_table([('', ''), *_settings_rows(settings)])}\n\n{_prompt_section(settings)}",
        f"## Measured\n\n{_metrics_section(settings)}",
        f"## Training\n\n{_table([('', ''), *_training_rows(settings, facts)])}",
        f"## Limits\n\n{_bullets(_limitations(settings, facts))}",
        f"## Licences\n\n{_bullets(_licences(facts))}",
    ]
    return f"---\n{_front_matter(settings, facts)}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(settings: JudgeSettings, facts: CardFacts) -> str:
    data = settings.training.get("data", {}).get("name", "")
    content = {
        "license": "unknown" if facts.licence == NOT_STATED else facts.licence,
        **({"base_model": facts.base_id} if facts.base_id else {}),
        **({"base_model_relation": "adapter" if settings.adapter else "finetune"} if facts.base_id else {}),
        **({"datasets": [data]} if data.count("/") == 1 else {}),
        "pipeline_tag": "text-generation",
        "library_name": "peft" if settings.adapter else "transformers",
        "tags": _TAGS,
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _summary(settings: JudgeSettings, facts: CardFacts) -> str:
    scores = ", ".join(settings.grid.labels)
    first = "writes feedback, then a score" if settings.use_cot else "gives a score right behind the prompt"
    form = "This folder holds a LoRA adapter, to be loaded on its base model." if settings.adapter else f"Whole weights, {facts.dtype}."
    return (
        f"A language model that grades other models' answers. It reads an instruction, a response and a rubric, {first} among {scores}. "
        f"Made from {facts.base} by regression-aware fine-tuning ([TRACT]({_PAPER})). {form}"
    )


def _usage(settings: JudgeSettings) -> str:
    low, high = settings.grid.labels[0], settings.grid.labels[-1]
    own = (
        "from peft import AutoPeftModelForCausalLM  # AutoPeftModelForCausalLM.from_pretrained(folder): the bare model"
        if settings.adapter
        else "from transformers import AutoModelForCausalLM  # AutoModelForCausalLM.from_pretrained(folder): the bare model"
    )
    return f"""```python
from tract import Judge, Rubric

judge = Judge.from_pretrained("path/to/this/folder")  # or its id on the hub
rubric = Rubric("Is the answer right and complete?", {{{low}: "Wrong throughout.", {high}: "Right and complete."}})
grade = judge.grade("What is 7 times 8?", "It is 56.", rubric)
print(grade.score, grade.status, grade.interval, grade.feedback)
```

`{SETTINGS_FILE}` holds prompt, answer cue, grid, predictor and sampling. The model by itself needs nothing of tract:

```python
{own}
```"""


def _settings_rows(settings: JudgeSettings) -> Iterator[tuple[str, str]]:
    sampling = settings.sampling
    yield "scores", ", ".join(settings.grid.labels)
    yield "answer cue", f"`{settings.layout['cue']}`"
    yield "how a score is read", f"`{settings.predictor}`, mean over {settings.n_cot} CoT(s)" if settings.use_cot else settings.predictor
    yield (
        "sampling of CoTs",
        f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, repetition penalty {sampling.repetition_penalty:g}, "
        f"at most {sampling.max_cot_tokens} tokens",
    )
    too_long = "is refused" if settings.overlong == "refuse" else f"loses the middle of {', '.join(settings.shorten)}"
    longest = "no limit" if settings.max_length is None else f"{settings.max_length} tokens; a prompt that leaves no room {too_long}"
    yield "longest sequence", longest
    yield "no score below", f"{settings.least_score_mass:g} probability of the whole grid (status `low_score_mass`)"
    yield "seed", str(settings.seed)


def _prompt_section(settings: JudgeSettings) -> str:
    if settings.prompt.source == "finished":
        return "It was trained on finished prompts, whose template is not in this folder: only such prompts can be graded."
    system = f"The system turn:\n\n{_fenced(settings.prompt.system)}\n\n" if settings.prompt.system else ""
    user = _fenced("\n\n".join(settings.prompt.blocks))
    return f"{system}The user turn; a block with a field that is not given is left out:\n\n{user}"


def _fenced(text: str) -> str:
    """The text as a block of code, whose fence is longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _metrics_section(settings: JudgeSettings) -> str:
    if not settings.metrics:
        return "Nothing: this judge was exported without an evaluation. Measure it on labelled data of your own before you trust a score."
    parts = []
    for benchmark, content in settings.metrics.items():
        predictors = {name: row for name, row in content.items() if name not in _FACTS}
        shown = [metric for metric in _SHOWN_METRICS if any(metric in row for row in predictors.values())]
        rows = [("read by", *(_SHOWN_METRICS[metric] for metric in shown))]
        rows += [
            (f"**{name}**" if name == settings.predictor else name, *(_estimate(row.get(metric)) for metric in shown))
            for name, row in predictors.items()
        ]
        cots = f"{content['n_cot']} CoT(s) of its own per item" if content["cots"] == "sampled" else f"{content['cots']} CoTs"
        about = (
            f"{content['n']} items, {content['questions']} questions, {cots}; intervals hold {100 * content['confidence']:g} % "
            "(bootstrap, clustered by question)."
        )
        parts.append(f"### {_one_line(benchmark)}\n\n{about} The judge's own reading is bold.\n\n{_table(rows)}")
    return "\n\n".join(parts)


def _estimate(found: Mapping[str, float | None] | None) -> str:
    if found is None or found["value"] is None:
        return "-"
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _training_rows(settings: JudgeSettings, facts: CardFacts) -> Iterator[tuple[str, str]]:
    training = settings.training
    data = training.get("data", {})
    counts = data.get("counts", {})
    splits = counts.get("items_by_split", {})
    yield "base model", f"{facts.base}{f', revision {settings.base_model.revision}' if settings.base_model.revision else ''}"
    yield "stage", f"{training.get('stage')}, seed {training.get('seed')}, {training.get('optimizer_steps')} optimizer steps"
    yield "trained", f"{training.get('trained_parameters')} parameters (`adapter={training.get('adapter')}`)"
    yield "CoTs", "written by the stage-1 judge itself" if training.get("self_generated_cots") else "as annotated in the data"
    yield "objective", f"`{json.dumps(training.get('objective', {}))}`"
    yield "data", f"{data.get('name')}" + (f", read as {data.get('source')}" if data.get("source") != data.get("name") else "")
    yield "fingerprint of the data", f"`{data.get('fingerprint')}`"
    yield "rows of the data", f"{counts.get('rows_read')} read, {counts.get('rows_rejected')} rejected"
    yield "items used", _counts(splits)
    yield "items by status", _counts(counts.get("examples_by_status", {}))
    if "cots" in counts:
        yield "CoTs used", _counts(counts["cots"])
    if wording := training.get("wording"):
        yield "template", f"recovered from the training prompts; it gives {wording['equal']} of {wording['rows']} back exactly"
    yield "fingerprint of the stage", f"`{training.get('product')}`"
    yield "commit", f"`{training.get('commit')}`"
    yield "versions", ", ".join(f"{name} {version}" for name, version in (training.get("versions") or {}).items())


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def _limitations(settings: JudgeSettings, facts: CardFacts) -> Iterator[str]:
    yield "A score is an estimate: look at its interval and status, and let no decision about people rest on it alone."
    yield "It was trained on the prompts, rubrics, language and scores above; elsewhere nothing says how well it judges."
    yield "Judges can prefer long answers, or those of models like themselves; a response may try to talk to the judge."
    if settings.metrics and any(content["n"] < 200 for content in settings.metrics.values()):
        yield "Some figures above rest on few items; their intervals say how far they can be trusted."
    if settings.prompt.use_reference and "{reference_answer}" in "".join(settings.prompt.blocks):
        yield "The prompt can show a reference answer; where the training data always had one, grades without one are less sure."
    if facts.four_bit:
        yield "It was trained on a base model in 4 bits (QLoRA); on the whole base model its scores may differ a little."
    if settings.calibration is None:
        yield "Scores are not calibrated."


def _licences(facts: CardFacts) -> Iterator[str]:
    yield f"These weights: {facts.licence}."
    yield f"Base model, {facts.base}: {facts.base_licence}; its terms apply to what is made from it."
    yield f"Training data: {facts.data_licence}."


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _bullets(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is its head."""
    cells = [[_one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
    head, *body = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([head, "|" + "---|" * len(cells[0]), *body])
