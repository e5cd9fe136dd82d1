"""The shape of the package: rooms alone at its top, files and functions of a readable size, one meaning for each class name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "tract"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES_OF_A_FILE = 350
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_THE_METHOD = 1200
ROOMS = {
    "apps", "artifacts", "common", "config", "data", "evaluation", "inference", "judge", "method", "models", "pipeline", "text", "training",
}  # fmt: skip


def lines_of(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path.relative_to(PACKAGE), node


def test_rooms_alone_stand_at_the_top() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == ROOMS


def test_tests_mirror_the_rooms() -> None:
    assert {path.name for path in Path(__file__).parent.iterdir() if path.is_dir()} >= ROOMS


def test_no_file_is_long() -> None:
    assert {str(path.relative_to(PACKAGE)): n for path in FILES if (n := lines_of(path)) > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_long() -> None:
    long = {
        f"{path}:{node.name}": n
        for path, node in nodes()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (n := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_the_method_reads_in_one_sitting() -> None:
    assert sum(lines_of(path) for path in (PACKAGE / "method").glob("*.py")) <= MOST_LINES_OF_THE_METHOD


def test_a_class_name_means_one_thing() -> None:
    homes = defaultdict(list)
    for path, node in nodes():
        if isinstance(node, ast.ClassDef):
            homes[node.name].append(str(path))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
