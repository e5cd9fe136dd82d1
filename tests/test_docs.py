"""README.md and docs/*.md: links lead somewhere, commands name options and keys that exist, and the page on own data is true."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tracked_files import tracked

from tract.pipeline.entry import _with_home
from tract.pipeline.stages.prepare import prepare
from tract.pipeline.validation import accepted_keys, typed, validate

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *(path for path in tracked(ROOT / "docs", "*.md") if path.parent.name == "docs")]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# Placeholders of a command in a page.
PLACEHOLDER = re.compile(r"^[A-Z_]*$|^\.\.\.$|\*")
# Sections below which any key can be added: the arguments of a class.
OPEN = (
    "trainer",
    "optimizer",
    "logger",
    "data.source",
    "scheduler.kwargs",
    "model.chat_template_kwargs",
    "generation.vllm.engine",
    "hydra",
)
# Options that a page tells the reader to write, and others that are no file of conf.
WRITTEN_BY_THE_READER = {"my_data", "my_prompt", "small", "huber", "checklist"}
ELSEWHERE = {*WRITTEN_BY_THE_READER, "null", "submitit_local", "joblib"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"`((?:tests|tract|conf|scripts|benchmarks|docs)/[\w/.\-]+\.(?:py|yaml|md|sbatch))`", text_of(page)))
    assert [file for file in sorted(named) if not (ROOT / file).exists()] == []


def overrides(page: Path) -> Iterator[tuple[str, str]]:
    """Key and value of each override in the commands of a page, and of what looks like one in its prose."""
    for block in blocks(page, "bash"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            if re.search(r"\b(train|generate_cot|evaluate)\.py\b", line):
                yield from (split_override(word) for word in shlex.split(line, comments=True) if re.match(r"[+~]{0,2}[\w./@]+=", word))
    for word in re.findall(r"`([+~]{0,2}[a-z][\w./@]*=[^`\s]*)`", text_of(page)):
        key, value = split_override(word)
        if "." in key or (ROOT / "conf" / key).is_dir():  # others are arguments of anything
            yield key, value


def split_override(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+~").split("@")[0], value


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """The default configuration, and its options' own keys, as one nested mapping."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        composed: Any = OmegaConf.to_container(compose("train"))
    return dict(composed)


def exists(key: str, values: dict[str, Any]) -> bool:
    """Whether a dotted key is one of the configuration, or may be added to it."""
    node: Any = values
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            break
        node = node[name]
    else:
        return True
    if any(key.startswith(f"{section}.") for section in OPEN):
        return True
    section, _, name = key.rpartition(".")
    return name in accepted_keys(re.sub(r"^stage2\.(?=objective|optimizer|scheduler|batch|train)", "", section))


# The generated page shows what files set by the keys of their group; tests/config/test_config_reference.py checks it.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "configuration.md"], ids=lambda page: page.name)
def test_options_and_keys_that_are_named_exist(page: Path, values: dict[str, Any]) -> None:
    unknown = []
    for key, value in overrides(page):
        group = ROOT / "conf" / key
        if not group.is_dir():
            unknown += [] if exists(key, values) else [f"{key}={value}"]
            continue
        options = [option for option in value.strip("[]").split(",") if not PLACEHOLDER.search(option)]
        known = {*ELSEWHERE, *(path.relative_to(group).with_suffix("").as_posix() for path in group.rglob("*.yaml"))}
        known |= {path.stem for path in (ROOT / "examples" / key).glob("*.yaml")}
        unknown += [f"{key}={option}" for option in options if option not in known]
    assert unknown == []


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Script and overrides of each command of a page that is whole; of a sweep, the first of the values."""
    for block in blocks(page, "bash"):
        text = re.sub(r"\\\n", " ", block)
        text = re.sub(r"\$\([^)]*\)", "seed", text)  # what a command of the shell prints: a judge
        for script, rest in re.findall(r"\b(train|generate_cot|evaluate)\.py (.*)$", text, re.MULTILINE):
            words = shlex.split(re.sub(r"--config-dir \S+", "", rest), comments=True)
            if any(word.startswith("--") or "hydra/" in word or PLACEHOLDER.search(word.partition("=")[2] or word) for word in words):
                continue
            given = [word for word in words if word != "-m"]
            sweeps = len(given) < len(words) or any(word.startswith("sweep=") for word in words)
            yield script, [re.sub(r"^([^=\[]+=[^,\[]*),.*$", r"\1", word) for word in given] if sweeps else given


@pytest.mark.slow
@pytest.mark.usefixtures("vllm_counts_as_installed")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_is_a_sound_configuration(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It composes and validates, all of the page's own options included; nothing is read or run."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for written in WRITING:
        written_files(tmp_path, written)
    monkeypatch.syspath_prepend(str(tmp_path))  # for functions that an option of the reader's names
    for folder in (tmp_path / "mine", ROOT / "examples"):  # as --config-dir
        shutil.copytree(folder, tmp_path / "conf", dirs_exist_ok=True)
    refused = []
    for script, words in commands(page):
        with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path / "conf")):
            try:
                validate(compose(script, [_with_home(word) for word in words]))  # as the script rewrites them
            except Exception as error:  # all of a page at once, each with its command
                refused.append(f"{script}.py {' '.join(words)}: {error}")
    assert refused == []


OWN_DATA = ROOT / "docs" / "own_data.md"
WRITING = (OWN_DATA, ROOT / "docs" / "change_the_science.md")


def written_files(into: Path, page: Path = OWN_DATA) -> None:
    """Writes the files that a page tells its reader to write."""
    for block in blocks(page, "bash"):
        for name, text in re.findall(r"^cat > (\S+) <<'EOF'\n(.*?)^EOF$", block, re.MULTILINE | re.DOTALL):
            file = into / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def test_the_files_of_the_page_on_own_data_are_read_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copytree(tmp_path / "mine", tmp_path / "conf", dirs_exist_ok=True)
    small = ["experiment=own_data", "data=my_data", "data.on_bad_row=skip", "model=tiny", f"paths.cache={tmp_path}/cache"]
    with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path / "conf")):
        cfg = typed(compose("train", small))
        own_prompt = typed(compose("train", [*small, "prompt=my_prompt"]))
        scores_only = typed(compose("train", [*small, "data.source.columns.cot=null", "+ablation=regression_only"]))
    data = prepare(cfg)
    assert (data.counts["rows_read"], data.counts["rows_rejected"], data.counts["examples"]) == (12, 1, 11)
    rubric = data.store.example(0).rubric
    assert rubric is not None
    assert len(rubric.descriptions) == 3
    assert own_prompt.prompt.blocks[0] == "Question: {instruction}"
    assert prepare(scores_only).counts["annotations"] == 0


@pytest.mark.slow
def test_the_commands_of_the_page_on_own_data_run(tmp_path: Path) -> None:
    """The dry runs: one that names the row that cannot be used, and one that leaves it out."""
    written_files(tmp_path)
    commands = [
        line for block in blocks(OWN_DATA, "bash") for line in block.splitlines() if "dry_run=true" in line and "my_prompt" not in line
    ]
    assert len(commands) >= 2
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ends = []
    for command in commands[:2]:
        _, _, *arguments = shlex.split(command, comments=True)
        run = [sys.executable, str(ROOT / "train.py"), *arguments]
        done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        ends.append((done.returncode, done.stdout + done.stderr))
    assert ends[0][0] == 2
    assert "judged.csv:9: grade: score 7 is not on the grid" in ends[0][1]
    assert ends[1][0] == 0
    assert "judged.csv: 12 rows read, 1 left out (grade: 1), 11 examples" in " ".join(ends[1][1].split())
    assert "dry run: stage1" in ends[1][1]


@pytest.mark.parametrize("page", ["design.md", "internals.md"])
def test_modules_that_are_named_exist(page: str) -> None:
    """`room.module` and `room.module.name`, as the pages about the code write them."""
    rooms = {path.parent.name for path in (ROOT / "tract").glob("*/__init__.py")}
    named = re.findall(r"`(?:tract\.)?([a-z_]+(?:\.[A-Za-z_]+)+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    keys = {"data.source", "model.", "judge_config"}
    missing = []
    for dotted in {name for name in named if name.partition(".")[0] in rooms and not any(name.startswith(key) for key in keys)}:
        parts, place = dotted.split("."), ROOT / "tract"
        while parts and ((place / parts[0]).is_dir() or (place / f"{parts[0]}.py").is_file()):
            place = place / parts.pop(0)
        if place == ROOT / "tract" or len(parts) > 2 or (parts and parts[0] not in _source_of(place)):
            missing.append(dotted)
    assert missing == []


def _source_of(place: Path) -> str:
    file = place.with_suffix(".py")
    return file.read_text(encoding="utf-8") if file.is_file() else ""
