"""The command: what it writes and says, what it refuses, and that a folder is there as a whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import main_of
from exported_runs import Runs
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from tract.apps.export import command, exporting, hub
from tract.apps.export.exporting import Exported
from tract.apps.export.target import new_folder
from tract.artifacts.judge_settings import read_settings
from tract.common.errors import ConfigError

main = main_of(command)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of an error."""
    with pytest.raises(SystemExit) as error:
        main([str(argument) for argument in arguments])
    assert error.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_command_writes_a_standard_folder_and_says_what_it_is(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main([str(runs.folder), "out/judge", "--name", "my judge"])
    assert names(tmp_path / "out" / "judge") == {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "judge_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json", "trained_on.txt",
    }  # fmt: skip
    assert names(tmp_path / "out") == {"judge"}
    stage = runs.products["stage2"].path.name
    line, judge = capsys.readouterr().out.splitlines()[:2]
    assert line.startswith("out/judge: my judge, whole weights, float32, ")
    assert line.endswith("; measured on: test, ood")
    assert judge == f"judge: seed 0, {stage}, in {runs.folder / stage}"
    assert read_settings(tmp_path / "out" / "judge" / "judge_config.json").name == "my judge"
    rights = {path.stat().st_mode & 0o777 for path in (tmp_path / "out" / "judge").iterdir()}
    assert len(rights) == 1  # safetensors writes for its owner alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "bfloat16", "--adapter"], "--dtype: an adapter stays as it was trained"),
        (["--base", "org/x"], "--base: only an adapter names a base model"),
        (["--license", "do what you like"], "--license: 'do what you like' is no identifier"),
        (["--private"], "--private: nothing is uploaded"),
        (["--adapter"], "--adapter: the base model 'assets/tiny' lies in the Python package tract, where PEFT cannot load it; leave"),
        (["--adapter", "--base", "/no/such/base"], "--base: there is no folder '/no/such/base'"),
        (["--adapter", "--base", "."], "--base: cannot load"),
    ],
)
def test_options_that_cannot_be_are_refused(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, runs.folder, "judge", *options)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (["--variant", "other"], "error: variant: {folder} holds no judge of variant 'other'; accepted are none"),
        (["--best", "val/rms"], "error: best: 'val/rms' is no metric of training; did you mean 'val/rmse'?"),
        (["--stage", "stage3"], "error: stage: {folder} holds no judge of stage 'stage3'; did you mean 'stage"),
    ],
)
def test_a_choice_of_no_judge_is_refused(
    choice: list[str], message: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, runs.folder, tmp_path / "out", *choice)
    assert line.startswith(message.format(folder=runs.folder)), line


def test_the_first_stage_of_a_run_is_exported_by_choice(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(runs.folder.parent), str(tmp_path / "out"), "--stage", "stage1"])
    stage = runs.products["stage1"].path.name
    assert f"\njudge: seed 0, {stage}, in {runs.folder / stage}\n" in capsys.readouterr().out
    assert read_settings(tmp_path / "out" / "judge_config.json").training["stage"] == "stage1"


def test_an_adapter_of_other_shapes_is_refused(runs: Runs, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((base / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    assert "has hidden_size 32, the base model of the run 64" in refused(capsys, runs.folder, tmp_path / "x", "--adapter", "--base", other)


def test_whole_weights_have_no_adapter(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--adapter: all weights of this judge were trained" in refused(capsys, runs.whole, tmp_path / "judge", "--adapter")


def test_an_adapter_names_its_base(adapter: Exported, base: Path) -> None:
    content = json.loads((adapter.folder / "adapter_config.json").read_text())
    assert (content["base_model_name_or_path"], content["revision"]) == (str(base), None)
    assert adapter.settings.base_model.name_or_path == str(base)


def test_nothing_but_an_export_is_replaced(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage, out = runs.products["stage1"].path, tmp_path / "judge"
    out.mkdir()
    main([str(stage), str(out)])  # an empty folder is nothing
    before = (out / "judge_config.json").read_bytes()
    assert "holds an export already; add --overwrite" in refused(capsys, stage, out)
    (out / "notes.txt").write_text("mine")
    assert "holds 'notes.txt', which no export wrote" in refused(capsys, stage, out, "--overwrite")
    assert (out / "judge_config.json").read_bytes() == before
    (out / "notes.txt").unlink()
    main([str(stage), str(out), "--overwrite", "--name", "another"])
    assert read_settings(out / "judge_config.json").name == "another"
    assert names(tmp_path) == {"judge"}
    (out / "judge_config.json").unlink()
    assert "holds other files (e.g. README.md) and no judge_config.json" in refused(capsys, stage, out, "--overwrite")
    (tmp_path / "file").write_text("")
    assert "is a file or a link" in refused(capsys, stage, tmp_path / "file", "--overwrite")
    assert "cannot write beside" in refused(capsys, stage, tmp_path / "file" / "judge")


def test_no_export_goes_into_the_run_that_it_reads(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    stage = runs.products["stage2"].path
    before = names(stage)
    assert "lie in one another" in refused(capsys, stage, stage / "judge")
    assert names(stage) == before


def test_an_export_that_fails_leaves_nothing_and_the_old_one_whole(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, out = runs.products["stage1"].path, tmp_path / "judge"
    main([str(stage), str(out)])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(exporting, "model_card", lambda *_: 1 / 0)
    for target in (out, tmp_path / "new"):
        with pytest.raises(ZeroDivisionError):
            main([str(stage), str(target), "--overwrite"])
    assert names(tmp_path) == {"judge"}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_that_somebody_else_fills_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "judge"

    def fill() -> None:
        with new_folder(out, sources=(), overwrite=False) as working:
            (working / "judge_config.json").write_text("{}")
            out.mkdir()
            (out / "theirs").write_text("1")

    with pytest.raises(ConfigError, match="holds other files"):
        fill()
    assert names(tmp_path) == {"judge"}
    assert names(out) == {"theirs"}


class Hub:
    """A stand-in for the hub's client that keeps what it is asked for."""

    def __init__(self, *, public: bool = False, fails: Exception | None = None, at: str = "upload_folder") -> None:
        self.public, self.fails, self.at = public, fails, at
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.files: set[str] = set()

    def _called(self, name: str, **given: Any) -> None:
        self.calls.append((name, given))
        if self.fails is not None and name == self.at:
            raise self.fails

    def whoami(self) -> dict[str, str]:
        self._called("whoami")
        return {"name": "me"}

    def create_repo(self, **given: Any) -> Any:
        self._called("create_repo", **given)
        return type("Url", (str,), {"repo_id": f"me/{given['repo_id']}"})(f"https://hub/me/{given['repo_id']}")

    def repo_info(self, **given: Any) -> Any:
        self._called("repo_info", **given)
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, **given: Any) -> None:
        self._called("upload_folder", **given)
        self.files = names(Path(given["folder_path"]))


def http_error(status: int) -> HfHubHTTPError:
    import httpx

    return HfHubHTTPError("no\nway", response=httpx.Response(status, request=httpx.Request("POST", "https://hub")))


def test_an_export_is_uploaded_on_request_alone(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Hub()
    monkeypatch.setattr(hub, "_api", lambda: client)
    main([str(runs.products["stage1"].path), str(tmp_path / "a")])
    assert client.calls == []
    main([str(runs.products["stage1"].path), str(tmp_path / "b"), "--push", "judge", "--private"])
    assert [name for name, _ in client.calls] == ["whoami", "create_repo", "repo_info", "upload_folder"]
    assert client.calls[1][1] == {"repo_id": "judge", "private": True, "exist_ok": True, "repo_type": "model"}
    assert client.calls[3][1]["repo_id"] == "me/judge"
    assert client.files == names(tmp_path / "b")
    assert "uploaded: https://hub/me/judge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("client", "repo", "message"),
    [
        (Hub(), "no such/na me", "--push: 'no such/na me' is no name of a repository"),
        (Hub(fails=LocalTokenNotFoundError("x"), at="whoami"), "judge", "--push: no token of the hub is at hand; run `hf auth login`"),
        (Hub(fails=OfflineModeIsEnabled("x"), at="whoami"), "judge", "--push: HF_HUB_OFFLINE is set"),
        (Hub(fails=http_error(401), at="whoami"), "judge", "--push: the hub knows no such token"),
        (Hub(fails=ConnectionError("no route"), at="whoami"), "judge", "cannot be reached (ConnectionError: no route)"),
    ],
)
def test_an_upload_that_cannot_be_is_refused_before_anything_is_written(
    client: Hub, repo: str, message: str, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "_api", lambda: client)
    assert message in refused(capsys, runs.products["stage1"].path, tmp_path / "judge", "--push", repo)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (Hub(fails=http_error(403), at="create_repo"), "--push: the token may not write to 'judge'"),
        (Hub(fails=http_error(500)), "--push: the hub refused 'judge': "),
        (Hub(public=True), "--private: me/judge is there already and public"),
    ],
)
def test_an_upload_that_fails_keeps_the_export(
    client: Hub, message: str, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "_api", lambda: client)
    line = refused(capsys, runs.products["stage1"].path, tmp_path / "judge", "--push", "judge", "--private")
    assert message in line
    assert ("`hf upload judge" in line) == (not client.public)
    assert (tmp_path / "judge" / "judge_config.json").is_file()
    assert client.files == set()


def test_an_adapter_on_a_local_base_is_not_uploaded(
    runs: Runs, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "_api", lambda: Hub())
    line = refused(capsys, runs.folder, tmp_path / "judge", "--adapter", "--base", base, "--push", "judge")
    assert "which others lack; give --base HUB_ID" in line
    assert names(tmp_path) == set()


def test_the_hub_s_own_client_without_a_network_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    with pytest.raises(ValueError, match="^--push: ") as error:
        hub.check_push("judge")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_help_loads_nothing_heavy_and_the_module_runs() -> None:
    script = (
        "import sys\nfrom tract.apps.cli.main import main\n"
        "try:\n    main(['export', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    done = subprocess.run([sys.executable, "-m", "tract", "export", "no/run", "no/out"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr.splitlines()[-1][:34]) == (2, "error: judge: there is no folder '")
