"""Identities of stages: what the key depends on, how differences read, and what counts as code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from tract.artifacts.identity import StageIdentity, differences
from tract.artifacts.judges import find_judge
from tract.config.schema import ADDED_KEYS, with_added_keys, without_added_keys
from tract.pipeline.identity.keys import code_digests, key_fields, named_code
from tract.pipeline.stages.predict import PredictStage
from tract.pipeline.stages.stage import IGNORED_CODE
from tract.pipeline.validation import validate

Compose = Callable[..., DictConfig]
SECTIONS = ("seed", "model", "grid", "objective", "optimizer", "data", "trainer", "train.max_steps")
IGNORED_FIELDS = ("data.num_workers", "data.path", "trainer.log_every_n_steps", "trainer.no_such_key", "logger.name")
BASE = StageIdentity("stage1", {"seed": 0, "optimizer": {"lr": 0.1}}, {"cots": "f1"}, {"tract.method.objective": "c1"})


def material_of(compose: Compose, *overrides: str) -> dict[str, Any]:
    return key_fields(compose("model=tiny", *overrides), SECTIONS, IGNORED_FIELDS)


def key_of(config: dict[str, Any]) -> str:
    return replace(BASE, config=config).key


@pytest.mark.parametrize(
    "override",
    [
        "run.name=other",
        "train.max_epochs=7",  # not among the sections
        "data.num_workers=3",
        "data.path=elsewhere.jsonl",
        "trainer.log_every_n_steps=7",
        "objective.lambda=1",
        "optimizer.weight_decay=0",
        "grid.labels=[1,2,3,4,5]",  # the same values, written otherwise
    ],
)
def test_key_ignores_what_is_immaterial_or_written_otherwise(override: str, compose_config: Compose) -> None:
    assert key_of(material_of(compose_config, override)) == key_of(material_of(compose_config))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "objective.lambda=2",
        "optimizer.lr=2e-5",
        "model.dtype=bfloat16",
        "train.max_steps=3",
        "data.max_length=100",
        "grid=one_to_ten",
        "trainer.precision=bf16-mixed",
    ],
)
def test_key_depends_on_what_is_material(override: str, compose_config: Compose) -> None:
    assert key_of(material_of(compose_config, override)) != key_of(material_of(compose_config))


def test_material_holds_the_sections_without_immaterial_keys_and_leaves_the_configuration_alone(compose_config: Compose) -> None:
    cfg = compose_config("model=tiny")
    before = cfg.copy()
    found = key_fields(cfg, SECTIONS, IGNORED_FIELDS)
    assert list(found) == ["seed", "model", "grid", "objective", "optimizer", "data", "trainer", "train"]
    assert found["train"] == {"max_steps": cfg.train.max_steps}
    assert "num_workers" not in found["data"]
    assert "split_seed" in found["data"]
    assert cfg == before


def test_an_unknown_section_is_refused(compose_config: Compose) -> None:
    with pytest.raises(KeyError, match="no_such_section"):
        key_fields(compose_config("model=tiny"), ["no_such_section"], [])


@pytest.mark.parametrize("key", ADDED_KEYS)
def test_an_added_key_at_its_old_value_is_no_part_of_the_key(key: str, compose_config: Compose) -> None:
    """So products of before the key are found again. Another value is another product, whose key says so."""
    section, _, name = key.partition(".")
    cfg = compose_config("model=tiny", f"{key}={ADDED_KEYS[key]}")
    assert OmegaConf.select(cfg, key) == ADDED_KEYS[key]
    found = key_fields(cfg, [section], [])
    assert name not in found[section]
    assert len(found[section]) > 0
    another: Any = not ADDED_KEYS[key] if isinstance(ADDED_KEYS[key], bool) else "another"
    other = key_fields(compose_config("model=tiny", f"{key}={another}"), [section], [])
    assert other[section] == {**found[section], name: another}


def test_an_older_configuration_is_read_as_if_it_had_the_added_keys() -> None:
    before = {key.partition(".")[2]: value for key, value in ADDED_KEYS.items() if key.startswith("objective.")}
    assert with_added_keys({"ce_weight": 1.0}, "objective.") == {**before, "ce_weight": 1.0}
    assert with_added_keys({"score_loss": "mine.huber"}, "objective.") == {**before, "score_loss": "mine.huber"}
    flat = {"objective.score_loss": "squared_error", "score_loss": "squared_error", "objective.lambda": 1.0}
    assert without_added_keys(flat) == {"score_loss": "squared_error", "objective.lambda": 1.0}


@pytest.mark.parametrize(
    "changed",
    [
        replace(BASE, stage="stage2"),
        replace(BASE, config={"seed": 1, "optimizer": {"lr": 0.1}}),
        replace(BASE, config={"seed": False, "optimizer": {"lr": 0.1}}),  # equal to 0 in Python
        replace(BASE, parents={"cots": "f2"}),
        replace(BASE, parents={}),
        replace(BASE, code={"tract.method.objective": "c2"}),
    ],
)
def test_key_depends_on_every_part(changed: StageIdentity) -> None:
    assert changed.key != BASE.key
    assert len(changed.key) == 10
    assert len(differences(BASE, changed)) == 1


def test_key_does_not_depend_on_order_or_on_whole_floats() -> None:
    other = replace(BASE, config={"optimizer": {"lr": 0.1}, "seed": 0.0})
    assert other.key == BASE.key
    assert differences(BASE, other) == []


def test_key_is_the_same_in_every_process() -> None:
    assert StageIdentity("stage1", {"seed": 0}, {}, {}).key == "f4c560af51"


def test_identity_comes_back_from_the_manifest() -> None:
    identity = replace(BASE, config={"a": 1.0, "b": (1, 2), 3: None, "c": {"d": []}})
    back = StageIdentity.from_dict(json.loads(json.dumps(identity.to_dict())))
    assert back.key == identity.key
    assert differences(identity, back) == []
    assert back.config["a"] == 1.0


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ({"objective": {"lambda": 1.0}}, {"objective": {"lambda": 2.0}}, "objective.lambda: 1.0 -> 2.0"),
        ({"prompt": {"cue": " Score: "}}, {"prompt": {"cue": None}}, 'prompt.cue: " Score: " -> null'),
        ({"a": {}}, {"a": {"b": 1}}, None),
        ({}, {"a": {"b": [1, 2]}}, "a.b: (absent) -> [1, 2]"),
        ({"a": "x" * 99 + "y"}, {"a": "x" * 99 + "z"}, f'a: "...{"x" * 10}y" -> "...{"x" * 10}z"'),
        ({"a": ["x" * 99, "y"]}, {"a": ["x" * 99, "z"]}, "a: changed"),
        ({"a": "x" * 99}, {"a": "y"}, f'a: "{"x" * 36}... -> "y"'),
    ],
)
def test_differences_of_the_configuration(old: dict[str, Any], new: dict[str, Any], line: str | None) -> None:
    found = differences(replace(BASE, config=old), replace(BASE, config=new))
    assert found == ([line] if line else ["a: {} -> (absent)", "a.b: (absent) -> 1"])


def test_differences_of_stage_parents_and_code() -> None:
    old = StageIdentity("a", {}, {"stage1": "1", "cots": "2"}, {"tract.method.objective": "1", "tract.old": "1"})
    new = StageIdentity("b", {}, {"stage1": "9", "cots": "2"}, {"tract.method.objective": "9", "tract.new": "1"})
    assert differences(old, new) == [
        "stage: a -> b",
        "parent stage1 changed",
        "code of tract.method.objective changed",
        "code of tract.new added",
        "code of tract.old removed",
    ]


def test_many_differences_are_counted() -> None:
    old, new = ({f"k{i}": i + step for i in range(8)} for step in (0, 1))
    found = differences(replace(BASE, config=old), replace(BASE, config=new))
    assert found[:2] == ["k0: 0 -> 1", "k1: 1 -> 2"]
    assert found[5:] == ["and 3 more"]
    assert len(differences(replace(BASE, config=old), replace(BASE, config=new), at_most=None)) == 8


PACKAGE = {
    "pkg/__init__.py": '"""A package."""',
    "pkg/start.py": "import os\nimport pkg.plain as p\nfrom pkg.sub import module, name\n\ndef f():\n    from .later import g\n",
    "pkg/plain.py": "import package_of_others",
    "pkg/later.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import hints\n",
    "pkg/hints.py": "import pkg.start",  # a circle
    "pkg/sub/__init__.py": "from .inner.deep import x as name",
    "pkg/sub/module.py": "from ..tool import *",
    "pkg/sub/inner/__init__.py": "",
    "pkg/sub/inner/deep.py": "x = 1",
    "pkg/sub/unused.py": "import pkg.unused",
    "pkg/tool.py": "import pkg.only_of_tool",
    "pkg/only_of_tool.py": "",
    "pkg/unused.py": "",
    "pkg/absent_from_imports.py": "",
}
CLOSURE = {
    "pkg", "pkg.start", "pkg.plain", "pkg.later", "pkg.hints", "pkg.sub", "pkg.sub.module", "pkg.sub.inner", "pkg.sub.inner.deep",
    "pkg.tool", "pkg.only_of_tool",
}  # fmt: skip


def write_package(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def digest(root: Path, text: str) -> str:
    write_package(root, {"pkg/__init__.py": text})
    return code_digests("pkg", ignored_fields=(), root=root)["pkg"]


def test_closure_is_exactly_what_is_imported(tmp_path: Path) -> None:
    found = code_digests("pkg.start", ignored_fields=(), root=write_package(tmp_path, PACKAGE))
    assert set(found) == CLOSURE
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("ignored_fields", "left_out"),
    [
        (["pkg"], {"pkg"}),
        (["pkg.tool"], {"pkg.tool", "pkg.only_of_tool"}),
        (["pkg.sub.*"], {"pkg.sub.module", "pkg.sub.inner", "pkg.sub.inner.deep", "pkg.tool", "pkg.only_of_tool"}),
        (["pkg.no_such_module"], set()),
    ],
)
def test_immaterial_modules_and_what_only_they_import_are_left_out(ignored_fields: list[str], left_out: set[str], tmp_path: Path) -> None:
    found = code_digests("pkg.start", ignored_fields=ignored_fields, root=write_package(tmp_path, PACKAGE))
    assert set(found) == CLOSURE - left_out


MINE = {
    "named_losses.py": "import torch\nimport my_common\nimport tract.method.objective\n\ndef huber(): ...\n",
    "my_common.py": "x = 1\n",
    "my_unused.py": "",
    "mine/optimizers.py": "from mine.parts import step\n\nclass Slow: ...\n",
    "mine/parts.py": "def step(): ...\n",
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return write_package(tmp_path, MINE)


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        ({"objective": {"score_loss": "named_losses.huber"}}, {"named_losses", "my_common"}),
        ({"objective": {"score_loss": {"_target_": "named_losses.Huber", "delta": 0.5}}}, {"named_losses", "my_common"}),
        ({"optimizer": {"_target_": "mine.optimizers.Slow", "lr": 0.1}}, {"mine.optimizers", "mine.parts"}),
        ({"trainer": {"callbacks": [{"_target_": "mine.parts.step"}], "strategy": {"_target_": "named_losses.X"}}},
         {"mine.parts", "named_losses", "my_common"}),
        # Of libraries, of this package, a name of a table, nothing that is there, and a text that is no dotted path of code.
        ({"optimizer": {"_target_": "torch.optim.AdamW"}, "data": {"source": {"_target_": "tract.data.sources.RubricCheck"}}}, set()),
        ({"objective": {"score_loss": "squared_error"}, "x": {"_target_": "no_such_module.f"}, "y": {"name": "named_losses.huber"}}, set()),
    ],
)  # fmt: skip
def test_named_code_is_that_of_the_users_own_modules(config: dict[str, Any], modules: set[str], mine: Path) -> None:
    assert set(named_code(config)) == modules


def test_another_loss_in_the_same_file_name_is_another_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is told from another process; in one process the code that is loaded counts."""
    config, digests = {"objective": {"score_loss": "my_own_losses.huber"}}, []
    for name, text in (("a", "def huber(): return 1"), ("b", "# reworded\ndef huber(): return 1"), ("c", "def huber(): return 2")):
        with monkeypatch.context() as patched:
            patched.syspath_prepend(write_package(tmp_path / name, {"my_own_losses.py": text}))
            digests.append(named_code(config)["my_own_losses"])
    assert digests[0] == digests[1] != digests[2]


def test_a_module_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pkg\.nothing: there is no such module"):
        code_digests("pkg.nothing", ignored_fields=(), root=write_package(tmp_path, PACKAGE))


CODE = 'class A:\n    """Doc."""\n\n    x: int = 1\n\n    def f(self, a: int) -> str:\n        """Doc."""\n        return "text"\n'


@pytest.mark.parametrize(
    "text",
    [
        "# comment\n" + CODE,
        '"""Module."""\n\n\n' + CODE,
        CODE.replace("Doc.", "Another."),
        CODE.replace('        """Doc."""\n', ""),
        CODE.replace("x: int = 1", 'x: int = (\n        1\n    )\n    """About x."""'),
        CODE.replace('"text"', "'te' 'xt'"),
    ],
)
def test_comments_docstrings_and_layout_are_no_code(text: str, tmp_path: Path) -> None:
    assert text != CODE
    assert digest(tmp_path / "a", text) == digest(tmp_path / "b", CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("= 1", "= 2"), ("a: int", "a: float"), ('"text"', '"Text"'), ("f(", "g("), ("return", "yield"), ('return "text"', '"text"')],
)
def test_everything_else_is_code(old: str, new: str, tmp_path: Path) -> None:
    assert digest(tmp_path / "a", CODE.replace(old, new)) != digest(tmp_path / "b", CODE)


def test_reworded_messages_are_no_other_code(tmp_path: Path) -> None:
    """More in ``test_code_digest.py``."""
    code = 'def f(a):\n    if a > 1:\n        raise ValueError(f"{a} is too large")\n    return "a"\n'
    assert digest(tmp_path / "a", code) == digest(tmp_path / "b", code.replace("is too large", "is more than 1"))
    assert digest(tmp_path / "a", code) != digest(tmp_path / "c", code.replace("a > 1", "a > 2"))


def test_closure_of_the_fit_stage() -> None:
    found = code_digests("tract.pipeline.stages.fit", ignored_fields=("tract", "tract.training.preview"))
    assert {
        "tract.method.objective",
        "tract.method.predictors",
        "tract.text.layout",
        "tract.data.steps",
        "tract.pipeline.stages.prepare",
    } <= set(found)
    assert not {"tract", "tract.training.preview", "tract.pipeline.entry"} & set(found)


def test_training_does_not_depend_on_how_cots_are_sampled() -> None:
    """Whether sequences are packed is asked of the sampling code too, but the answer is in the key, and the code is not."""
    found = set(code_digests("tract.pipeline.stages.fit", ignored_fields=IGNORED_CODE))
    sampling = {f"tract.inference.{name}" for name in ("hf.judge", "hf.live", "hf.rows", "sampling")} | {"tract.pipeline.backends"}
    assert not sampling & found
    assert {"tract.models.packed_forward", "tract.models.tree_attention", "tract.pipeline.stages.fit"} <= found
    assert {"tract.inference.hf.judge", "tract.inference.hf.rows"} <= set(
        code_digests("tract.pipeline.stages.generate", ignored_fields=IGNORED_CODE)
    )


def test_how_scores_are_read_needs_no_other_judgements(compose_config: Compose) -> None:
    """So a new predictor is one evaluation, of the judgements that are there."""
    cfg = compose_config("model=tiny", "generation=hf")
    stage = PredictStage(validate(cfg), cfg, find_judge("base", validate(cfg)))
    code = set(stage.identity().code)
    assert not {"tract.evaluation.predictors", "tract.evaluation.parsing", "tract.evaluation.metrics"} & code
    assert "tract.pipeline.stages.judging" in code
    assert "tract.evaluation.predictors" in code_digests("tract.pipeline.stages.evaluate", ignored_fields=IGNORED_CODE)
