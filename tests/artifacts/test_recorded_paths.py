"""A run that was made with a relative path of its model is used from anywhere, also where its project was moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tract.apps.export.exporting import export
from tract.apps.export.options import ExportOptions
from tract.artifacts.identity import StageIdentity
from tract.artifacts.judge_settings import BaseModel, read_settings
from tract.artifacts.judges import find_judge
from tract.artifacts.products import write_manifest
from tract.artifacts.recorded_paths import found_base, places_of, whereabouts
from tract.artifacts.run_judges import run_judge
from tract.artifacts.standalone_judges import open_judge_files
from tract.common.errors import ConfigError
from tract.config.schema import Config
from tract.models.locating import locate, model_fingerprint
from tract.pipeline.validation import validate

WRITTEN = "models/x"


@dataclass
class Project:
    """A folder with ``models/x`` and a run that was trained on it from there."""

    root: Path
    cfg: Config

    @property
    def stage(self) -> Path:
        """The fit stage."""
        return self.root / "runs" / "stages" / "stage1-0123456789"

    def moved(self, to: Path) -> Project:
        """The same elsewhere; nothing is left where it was."""
        shutil.move(self.root, to)
        return replace(self, root=to)

    def says(self, **facts: Any) -> None:
        """Lets the manifest say something else; None takes a fact out."""
        path = self.stage / "manifest.json"
        content = {**json.loads(path.read_text()), **facts}
        path.write_text(json.dumps({name: value for name, value in content.items() if value != "absent"}))

    def fingerprint(self) -> str:
        """Of the judge, from here."""
        return find_judge(str(self.stage), self.cfg).fingerprint


@pytest.fixture
def project(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cfg = validate(whole.tiny.compose())
    made = Project(tmp_path / "project", cfg)
    shutil.copytree(whole.products["stage1"].path, made.stage)
    shutil.copytree(locate(cfg.model).location, made.root / WRITTEN)
    monkeypatch.chdir(made.root)
    config = OmegaConf.load(made.stage / "config.yaml")
    config.model.package, config.model.name_or_path = None, WRITTEN
    OmegaConf.save(config, made.stage / "config.yaml")
    model = replace(cfg.model, package=None, name_or_path=WRITTEN)
    old = json.loads((made.stage / "manifest.json").read_text())
    old["identity"]["config"]["model"] |= {"fingerprint": model_fingerprint(model, cfg.seed)}
    facts = {**old, **whereabouts(model)}
    write_manifest(made.stage, facts, StageIdentity.from_dict(old["identity"]))
    return made


def test_a_run_says_where_it_was_made(whole: Any, project: Project) -> None:
    assert whole.products["stage1"].manifest["base_model"] is None  # of a package
    assert Path(whole.products["stage1"].manifest["working_directory"]).is_dir()
    said = json.loads((project.stage / "manifest.json").read_text())
    assert (said["working_directory"], said["base_model"]) == (str(project.root), str(project.root / WRITTEN))


def test_its_judge_is_the_same_from_everywhere(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = project.fingerprint()
    assert find_judge(str(project.stage), project.cfg).model.name_or_path == WRITTEN
    settings = open_judge_files(project.stage).settings
    monkeypatch.chdir(tmp_path)
    judge = find_judge("project/runs/stages/stage1-0123456789", project.cfg)
    assert Path(judge.model.name_or_path).samefile(project.root / WRITTEN)
    assert (judge.fingerprint, judge.model_name) == (own, WRITTEN)
    files = open_judge_files(project.stage)
    assert files.settings == settings
    assert Path(files.model.name_or_path).samefile(project.root / WRITTEN)
    there = project.moved(tmp_path / "moved" / "twice")
    assert there.fingerprint() == own
    monkeypatch.chdir(there.stage)
    assert find_judge(".", there.cfg).fingerprint == own


def test_a_run_of_before_it_was_said_is_found_beside_its_folder(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = project.fingerprint()
    project.says(working_directory="absent", base_model="absent")
    monkeypatch.chdir(tmp_path)
    assert project.fingerprint() == own
    # One with other files is not taken for what may be an id of the hub.
    (project.root / WRITTEN / "more.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^base_model: .*'models/x'; no folder here or beside the run has its files"):
        project.fingerprint()


def test_another_folder_of_that_name_is_not_taken_for_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = project.fingerprint()
    other = tmp_path / "other"
    shutil.copytree(project.root / WRITTEN, other / WRITTEN)
    (other / WRITTEN / "more.json").write_text("{}")
    monkeypatch.chdir(other)
    assert project.fingerprint() == own
    assert "other files" not in caplog.text
    shutil.rmtree(project.root / WRITTEN)
    assert project.fingerprint() != own
    assert f"was trained on {WRITTEN!r}; {WRITTEN}, with other files, is taken for it" in caplog.text


@pytest.mark.parametrize("written", [WRITTEN, "./models/x", "../project/models/x", "models/deeper/x"])
def test_a_base_that_is_gone_is_told_in_one_line(written: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(project.cfg.model, package=None, name_or_path=written)
    manifest = json.loads((project.stage / "manifest.json").read_text())
    shutil.rmtree(project.root / "models")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^base_model: .*stage1-0123456789 was trained on '.*models/.*x' \(/.*when the run was made\)"):
        found_base(model, 0, project.stage, manifest)
    before = {name: value for name, value in manifest.items() if name not in ("working_directory", "base_model")}
    with pytest.raises(ConfigError, match=rf"^base_model: .* was trained on '{written}'.*; start the command.*base_model=PATH"):
        found_base(model, 0, project.stage, before)


def test_the_user_can_say_where_it_is_now(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = open_judge_files(project.stage).fingerprint
    (project.root / "models").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="^base_model: "):
        open_judge_files(project.stage)
    assert open_judge_files(project.stage, base_model=str(tmp_path / "elsewhere" / "x")).fingerprint == own
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_judge_files(project.stage, base_model="~/elsewhere/x").fingerprint == own


def test_a_model_of_the_hub_is_not_looked_for_in_folders(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though one above the run happens to have its name."""
    project.says(base_model=None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^model.name_or_path: cannot load 'models/x'"):
        project.fingerprint()


def test_places_are_in_order_and_named_once(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = {"working_directory": str(project.root)}
    assert places_of(WRITTEN, project.stage, manifest) == [Path(WRITTEN)]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project.root / WRITTEN, project.stage.parent / WRITTEN)
    assert places_of(WRITTEN, project.stage, manifest) == [project.root / WRITTEN, project.stage.parent / WRITTEN]
    assert places_of(WRITTEN, project.stage, {}) == [project.stage.parent / WRITTEN, project.root / WRITTEN]
    assert places_of("nowhere", project.stage, manifest) == []


@pytest.mark.parametrize("adapter", [True, False])
def test_an_export_is_made_and_used_from_elsewhere(
    adapter: bool, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose_config: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    if adapter:  # the model's weights are made at random, so that its folder has none, which an export of an adapter refuses
        shutil.copytree(project.stage, project.root / "out")
        settings = replace(run_judge(project.stage).settings, base_model=BaseModel(f"./{WRITTEN}"))
        settings.write(project.root / "out")
        (project.root / "out" / "manifest.json").unlink()
    else:
        export(project.stage, project.root / "out", ExportOptions())
    assert read_settings(project.root / "out" / "judge_config.json").adapter is adapter
    there = project.moved(tmp_path / "moved")
    files = open_judge_files(there.root / "out")
    assert Path(files.model.name_or_path).samefile(there.root / (WRITTEN if adapter else "out"))
    if adapter:
        replace(files.settings, base_model=BaseModel("/nowhere/x")).write(there.root / "out")
        with pytest.raises(ConfigError, match=r"^base_model: the adapter .*out belongs on '/nowhere/x', which is not there; give"):
            open_judge_files(there.root / "out")
        replace(files.settings, base_model=BaseModel(WRITTEN)).write(there.root / "out")  # an id of the hub, whatever lies above
        with pytest.raises(ConfigError, match=r"^base_model: the adapter .* 'models/x', neither a folder here nor found on the hub; give"):
            open_judge_files(there.root / "out")
