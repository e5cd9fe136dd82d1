"""Names from outside stay in their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tract.common.errors import DataError
from tract.common.safe_paths import resolve_within


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "product"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_text("w")
    (tmp_path / "secret").write_text("s")
    return folder


@pytest.mark.parametrize("name", ["weights", "sub/new", "sub/./x", "a..b", "...", "best-step=..4"])
def test_names_in_the_folder(name: str, folder: Path) -> None:
    assert resolve_within(folder, name) == folder / name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "it is an absolute path"),
        ("C:/x", "it is an absolute path"),
        ("\\\\host\\x", "it is an absolute path"),
        ("../secret", "it leads upwards"),
        ("sub/../../secret", "it leads upwards"),
        ("sub\\..\\x", "it leads upwards"),
        ("..", "it leads upwards"),
        ("", "it is no name of a file"),
        ("a\0b", "it is no name of a file"),
        (3, "it is no name of a file"),
        (None, "it is no name of a file"),
    ],
)
def test_other_names_are_refused_in_one_line(name: object, problem: str, folder: Path) -> None:
    with pytest.raises(DataError, match=problem) as refused:
        resolve_within(folder, name)
    assert str(refused.value).startswith(f"{folder}: the name ")
    assert "\n" not in str(refused.value)


def test_links_out_of_the_folder_are_refused_and_those_within_are_not(folder: Path, tmp_path: Path) -> None:
    (folder / "out").symlink_to("../secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "within").symlink_to("weights")
    assert resolve_within(folder, "within").read_text() == "w"
    for name in ("out", "folder/secret", "folder"):
        with pytest.raises(DataError, match="leads out of the folder by a link"):
            resolve_within(folder, name)
        assert resolve_within(folder, name, links=False) == folder / name


def test_a_folder_that_is_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert resolve_within(tmp_path / "link", "weights").read_text() == "w"
