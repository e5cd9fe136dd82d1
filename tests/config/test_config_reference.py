"""docs/configuration.md is what its generator makes of conf/ and tract/config/schema.py now, and each kind of change shows in it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tracked_files import tracked

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_reference", ROOT / "scripts" / "config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["config_reference"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(generator: ModuleType) -> Any:
    return generator.Reference(ROOT / "conf")


@pytest.fixture(scope="module")
def page(reference: Any) -> str:
    return str(reference.text())


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of conf to change."""
    for path in tracked(ROOT / "conf", "*.yaml"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path / "conf"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def row_of(page: str, key: str) -> list[str]:
    """The cells of a key's row."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_page_is_up_to_date(page: str) -> None:
    if (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") != page:
        pytest.fail("docs/configuration.md is stale; run make docs", pytrace=False)


def test_a_row_says_type_default_choices_and_comment(page: str) -> None:
    assert row_of(page, "stage2.init_from") == [
        "`stage2.init_from`", "text", "`base`", "base, stage1",
        "base: start again from the base model (the paper); stage1: go on from the judge of stage 1.",
    ]  # fmt: skip
    assert row_of(page, "objective.lambda")[1:] == ["number", "`1.0`", "Weight of score_loss"]
    assert row_of(page, "evaluation.n_cot")[1:4] == ["whole number", "`1`", ">= 0"]
    assert row_of(page, "trainer.precision")[3].startswith("32-true, bf16-mixed")
    assert row_of(page, "model.pad_token")[1:3] == ["text or null", r"`<\|im_end\|>`"]


def test_a_changed_default_or_comment_and_a_new_key_make_it_stale(page: str, copied: Path, generator: ModuleType) -> None:
    replace(copied / "train.yaml", "max_epochs: 1", "max_epochs: 3")
    replace(copied / "model" / "_base.yaml", "# Weights at random, for tests.", "# Another | meaning.")
    replace(copied / "optimizer" / "adamw.yaml", "weight_decay:", "# Of the variant by Reddi et al.\namsgrad: false\nweight_decay:")
    now = generator.reference(copied)
    assert row_of(page, "train.max_epochs")[2] == "`1`"
    assert row_of(now, "train.max_epochs")[2] == "`3`"
    assert row_of(now, "model.random_init")[-1] == r"Another \| meaning."
    assert row_of(now, "optimizer.amsgrad")[1:] == ["true, false", "`false`", "Of the variant by Reddi et al."]
    assert len(set(now.splitlines()) - set(page.splitlines())) == 4, "the row of optimizer=adamw says what it sets"


def test_a_new_option_or_group_makes_it_stale(page: str, copied: Path, generator: ModuleType) -> None:
    new = {
        "grid/one_to_three.yaml": '# Few scores.\nlabels: ["1", "2", "3"]\n',
        "experiment/mine.yaml": "# @package _global_\n# Few scores.\n# Run: python train.py experiment=mine\n# Cost: none.\nseed: 1\n",
        "newgroup/mine.yaml": "# @package _global_\n# Few scores.\nseed: 1\n",
    }
    (copied / "newgroup").mkdir()
    for file, text in new.items():
        (copied / file).write_text(text)
    now = generator.reference(copied)
    for file in new:
        assert f"../conf/{file}" not in page
        (row,) = [line for line in now.splitlines() if f"(../conf/{file})" in line]
        assert "Few scores." in row
    assert "### newgroup" in now


def test_every_option_and_every_key_is_there(page: str, reference: Any) -> None:
    files = [
        path
        for path in tracked(ROOT / "conf", "*.yaml")
        if not path.name.startswith("_") and not path.parent.name.endswith("_logging") and path.parent.name != "conf"
    ]
    assert [path for path in files if f"(../conf/{path.relative_to(ROOT / 'conf').as_posix()})" not in page] == []
    assert [key for key in reference.values if f"| `{key}` |" not in page and not key.startswith("hydra.")] == []


def test_comments_are_found_above_and_beside(generator: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(
        "# @package _global_\n# Header.\na: 1\n# Of b,\n# in two lines.\nb:\n  # Of c.\n  c: 'x # no comment'\n  d: 2  # beside\n\n"
        "# Lost.\n\ne: 3\nf:\n  - |-\n    ## No comment\ng: [4,\n  5]\n# Of h.\nh: |-\n  # None\ni: 6\n"
    )
    found = generator.read(path)
    assert found.header == ("Header.",)
    assert found.comments == {"b": "Of b, in two lines.", "b.c": "Of c.", "b.d": "beside", "h": "Of h."}
    assert found.values == {"a": 1, "b.c": "x # no comment", "b.d": 2, "e": 3, "f": ["## No comment"], "g": [4, 5], "h": "# None", "i": 6}
