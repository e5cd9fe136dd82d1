"""Chat templates that print today's date: the prompt is the same whenever a stage runs, and another day in the configuration is another."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import CONF
from omegaconf import OmegaConf
from tiny_pipeline import made, reused
from transformers.utils import chat_template_utils

from tract.apps.export.exporting import export
from tract.apps.export.options import ExportOptions
from tract.artifacts.identity import StageIdentity, differences
from tract.artifacts.judges import find_judge
from tract.artifacts.products import write_manifest
from tract.artifacts.standalone_judges import open_judge_files
from tract.common.errors import ConfigError
from tract.pipeline.stages.fit import FitStage
from tract.pipeline.stages.generate import GenerateStage
from tract.pipeline.validation import validate
from tract.text.chat_template import TEMPLATE_DATE
from tract.text.layout import SequenceLayout
from tract.text.score_grid import ScoreGrid

_TURNS = (
    "{% for turn in messages %}<|{{ 'judge' if turn.role == 'assistant' else turn.role }}|>{{ turn.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|judge|>{% endif %}"
)
# In our own words, what templates do with the clock.
TEMPLATES = {
    "plain": "<|begin|>Today: {{ strftime_now('%d %b %Y') }}. ",
    "set": "{% set today = strftime_now('%Y-%m-%d') %}<|begin|>{{ today }} ",
    "macro": "{% macro day() %}{{ strftime_now('%A, %B %d') }}{% endmacro %}<|begin|>{{ day() }} ",
    "default": (
        "{% if date_string is not defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}<|begin|>Today: {{ date_string }}. "
    ),
    "time": "<|begin|>{{ strftime_now('%H:%M:%S %j') }} ",
    "reckoned": "{% set year = strftime_now('%Y') | int %}<|begin|>{{ year - 1 }} to {{ strftime_now('%m') }} ",
}
DATED = [name for name in TEMPLATES if name != "time"]


@contextmanager
def on_day(day: str) -> Iterator[None]:
    """The clock that transformers' templates read says this day."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromisoformat(day)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_template_utils, "datetime", Clock)
        yield


@pytest.fixture
def layout_of(tiny_tokenizer: Any) -> Callable[..., SequenceLayout]:
    def build(template: str, **options: Any) -> SequenceLayout:
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = template + _TURNS
        arguments = {"system": False, "cue": " Score: ", "grid": ScoreGrid(("1", "5")), "chat_template_kwargs": {}, **options}
        return SequenceLayout.build(tokenizer, **arguments)

    return build


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_scaffold_is_the_same_on_every_day(name: str, layout_of: Callable[..., SequenceLayout]) -> None:
    found = []
    for day in ("2025-03-01T08:30:00", "2031-12-09T23:59:59"):
        with on_day(day):
            found.append(layout_of(TEMPLATES[name], template_date="2024-02-03"))
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].to_dict() == found[1].to_dict()
    with on_day("2025-03-01"):  # the clock is really read where nothing goes before it
        shown = found[0].tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert found[0].scaffold.before not in shown


@pytest.mark.parametrize("name", DATED)
def test_the_day_is_that_of_the_configuration(name: str, layout_of: Callable[..., SequenceLayout]) -> None:
    one, other = (layout_of(TEMPLATES[name], template_date=day) for day in ("2024-02-03", "2019-11-30"))
    assert one.fingerprint != other.fingerprint
    assert layout_of(TEMPLATES[name]).fingerprint == layout_of(TEMPLATES[name], template_date=TEMPLATE_DATE).fingerprint


def test_a_date_that_is_given_goes_before_the_day(layout_of: Callable[..., SequenceLayout]) -> None:
    given = {"chat_template_kwargs": {"date_string": "1 Jan 2020"}}
    found = [layout_of(TEMPLATES["default"], template_date=day, **given) for day in ("2024-02-03", "2019-11-30")]
    assert found[0].scaffold.before == found[1].scaffold.before == "<|begin|>Today: 1 Jan 2020. <|user|>"
    assert layout_of(TEMPLATES["default"], template_date="2024-02-03").scaffold.before == "<|begin|>Today: 03 Feb 2024. <|user|>"


def test_no_template_gets_at_the_clock_otherwise(layout_of: Callable[..., SequenceLayout]) -> None:
    names = ("datetime", "date", "date_string", "now", "time", "today")
    found = layout_of("<|begin|>" + "".join(f"{{{{ {name} is defined }}}} " for name in names))
    assert found.scaffold.before == "<|begin|>" + "False " * len(names) + "<|user|>"
    plain = [layout_of("<|begin|>Today. ", template_date=day).fingerprint for day in ("2024-02-03", "2019-11-30")]
    assert plain[0] == plain[1]


def test_the_default_is_that_of_the_configuration() -> None:
    content = yaml.safe_load((CONF / "model" / "_base.yaml").read_text(encoding="utf-8"))
    assert content["template_date"] == TEMPLATE_DATE


@pytest.mark.parametrize("wrong", ["26.07.2024", "2024-13-01", "today", "20240726", "2024-07-26T10:00"])
def test_what_is_no_day_is_refused(wrong: str, whole: Any) -> None:
    with pytest.raises(ConfigError, match=r"model.template_date: '.*' is no day; a date as YYYY-MM-DD is accepted"):
        validate(whole.tiny.compose(f"model.template_date='{wrong}'"))


@pytest.fixture
def template(tmp_path: Path) -> str:
    path = tmp_path / "dated.jinja"
    path.write_text(TEMPLATES["default"] + _TURNS, encoding="utf-8")
    return f"model.chat_template={path}"


def identity(whole: Any, *overrides: str) -> StageIdentity:
    resolved = whole.tiny.compose(*overrides)
    return FitStage(validate(resolved), resolved).identity()


def test_a_key_holds_the_rendered_scaffold_and_not_the_day(whole: Any, template: str) -> None:
    with on_day("2025-03-01"):
        first = identity(whole, template)
    with on_day("2025-03-02"):
        assert identity(whole, template).key == first.key
    other = identity(whole, template, "model.template_date=2025-03-02")
    assert other.key != first.key
    (line,) = differences(first, other)
    assert line.startswith("layout.scaffold.before: ")
    assert "26 Jul 2024" in line
    assert "02 Mar 2025" in line
    # Where the template prints no date, the day moves nothing.
    assert identity(whole, "model.template_date=2025-03-02").key == identity(whole).key
    keys = []
    for day in ([], ["model.template_date=2025-03-02"]):
        resolved = whole.tiny.compose(template, "generation=hf", *day)
        cfg = validate(resolved)
        keys.append(GenerateStage(cfg, resolved, find_judge("base", cfg)).identity().key)
    assert keys[0] != keys[1]


@pytest.mark.kills
def test_a_run_that_takes_days_has_one_scaffold(whole: Any, template: str, tmp_path: Path) -> None:
    dated = [template, "model.template_date=2024-02-03", "run.name=dated"]
    with on_day("2025-03-01"):
        first, _ = whole.tiny.run(*dated, "stages=[stage1]")
    with on_day("2025-03-02"):
        second, lines = whole.tiny.run(*dated, "stages=[stage1,generate,stage2]")
        judge = find_judge(str(second["stage2"].path), validate(whole.tiny.compose()))
    assert reused(lines) == ["stage1"]
    assert made(lines) == ["generate", "stage2"]
    saved = [json.loads((product.path / "layout.json").read_text()) for product in (first["stage1"], second["stage2"])]
    assert saved[0] == saved[1]
    assert "03 Feb 2024" in judge.layout.scaffold.before
    # In an export, another wording is put into a scaffold of the same day.
    export(second["stage2"].path, tmp_path / "exported", ExportOptions())
    prompt = {"system": "", "blocks": ["{instruction}\n{response}"], "cue": " Score: ", "require_cue_in_prompt": False}
    for changed in ({}, {"prompt": prompt}):
        assert "03 Feb 2024" in open_judge_files(tmp_path / "exported", **changed).layout.scaffold.before


def test_a_run_of_before_the_key_keeps_the_scaffold_that_it_was_trained_with(whole: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(whole.products["stage1"].path, tmp_path / "old")
    config = OmegaConf.load(folder / "config.yaml")
    del config["model"]["template_date"]
    OmegaConf.save(config, folder / "config.yaml")
    layout = json.loads((folder / "layout.json").read_text(encoding="utf-8"))
    layout["scaffold"]["before"] = layout["scaffold"]["before"].replace("<|begin|>", "<|begin|>Today: 01 Jan 2023. ")
    (folder / "layout.json").write_text(json.dumps(layout), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    kept = {name: manifest[name] for name in manifest if name not in ("files", "identity", "key")}
    write_manifest(folder, kept, StageIdentity.from_dict(manifest["identity"]))
    judge = find_judge(str(folder), validate(whole.tiny.compose("model.template_date=2025-03-02")))
    assert judge.layout.scaffold.before.startswith("<|begin|>Today: 01 Jan 2023. ")
    assert open_judge_files(folder).layout.scaffold == judge.layout.scaffold
