"""What of the code counts: all that can move a number, and no text of a message."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tract.pipeline.identity.code_digest import code_digest

ROOT = Path(__file__).resolve().parents[2]
RAISING = [path for path in (ROOT / "tract").rglob("*.py") if re.search(r'raise \w+\(\s*f?"', path.read_text(encoding="utf-8"))]
REAL = sorted(RAISING, key=lambda path: path.stat().st_size)[-5:]  # the longest of them


def digest(source: str) -> str:
    return of_tree(ast.parse(source))


def of_tree(tree: ast.Module) -> str:
    return code_digest(tree, list(ast.walk(tree)))


MODULE = """
import logging
import re
import warnings
from tract.common.errors import ConfigError, DataError, ReportedExit

log = logging.getLogger(__name__)
_LOOK = "look at the file"
_WORD = "[a-z]+"


class Reader:
    def read(self, path, limit):
        try:
            rows = path.read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); {_LOOK}") from error
        if len(rows) > limit:
            raise ConfigError("data.path: too many rows, " + "give fewer")
        return rows


def checked(value, names, table):
    hint = f"one of {', '.join(names)}" if names else "none is there"
    message = f"found {value!r}; {hint}"
    message += ", choose another"
    if value not in names or not re.match(_WORD, value):
        raise ConfigError(message)
    known = "score"
    log.info("%s is taken", known)
    key = "weight"
    log.info("the key is %s", key)
    assert table, "an empty table"
    dropped = table.pop("old")
    log.info("%s", dropped)
    return table[key]


def error_of(value):
    return DataError(f"{value}: {_described(value)}") if value else None


def _described(value):
    kind = "number" if value > 3 else "text"
    return f"a {kind} that nobody wants"


def _named(value):
    return "name: " + value


def told(value):
    warnings.warn(_named(value))
    return _named(value)


def quiet(rows):
    for row in rows:
        try:
            row.go()
        except ValueError:
            log.warning("%s stays", row)
        else:
            log.debug("gone")
    if not rows:
        raise ReportedExit(2, "nothing is there")
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cannot be read ({error})", "no {limit}"),  # another variable in an f-string
        ('f"{path}: cannot be read ({error}); {_LOOK}"', '"unreadable"'),  # none of them
        ('"data.path: too many rows, "', "'give less: '"),
        ("one of {', '.join(names)}", "some of {names}"),
        ("none is there", "there is none"),
        ("found {value!r}; {hint}", "{hint}, not {value}"),
        (", choose another", ""),
        ('"score"', '"target"'),  # of a name that is only logged
        ('"an empty table"', '"no table"'),
        ('assert table, "an empty table"', "assert table"),
        ("a {kind} that nobody wants", "{kind}"),
        ('"text"', '"a few words"'),  # inside what describes
        ('"look at the file"', '"see the manual"'),
        ('log.info("the key is %s", key)', 'log.warning("%s and %s", key, table)'),
        ('    log.info("the key is %s", key)\n', ""),
        ('log.warning("%s stays", row)', "pass"),
        ('        else:\n            log.debug("gone")\n', ""),
        ("    return rows\n", '    log.info("%d rows", len(rows))\n        return rows\n'),
        ("warnings.warn(_named(value))", 'warnings.warn("again")'),
        ('"nothing is there"', '"no row"'),
    ],
)
def test_texts_of_messages_do_not_count(old: str, new: str) -> None:
    assert MODULE.count(old) == 1
    changed = MODULE.replace(old, new)
    ast.parse(changed)
    assert digest(changed) == digest(MODULE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("len(rows) > limit", "len(rows) >= limit"),  # when it is raised
        ("value not in names", "value in names"),
        ("raise ConfigError(message)", "raise DataError(message)"),  # another handler catches it
        ("raise ConfigError(message)", "return message"),
        ("raise ReportedExit(2,", "raise ReportedExit(1,"),
        ('"[a-z]+"', '"[a-z]*"'),  # no message, though a private name of the module
        ('"weight"', '"bias"'),  # logged and used
        ('"old"', '"older"'),  # what is logged was taken with it
        ('"name: "', '"named: "'),  # of a function whose text is used elsewhere too
        ("value > 3", "value > 4"),  # a condition inside what describes
        ("return table[key]", "return table"),
        ("except OSError", "except ValueError"),
        ("row.go()", "row.stop()"),
        ("else None", "else True"),
        ("assert table,", "assert not table,"),
        ('log.debug("gone")', "row.end()"),
        ('log.info("%s is taken", known)', "known()"),
        ('log.info("%s is taken", known)', 'log.append("%s is taken", known)'),  # no logger
        ('log.info("%s is taken", known)', 'log.info("%s is taken", (known := 3))'),  # it does more
    ],
)
def test_all_that_can_move_a_number_counts(old: str, new: str) -> None:
    assert MODULE.count(old) == 1
    changed = MODULE.replace(old, new)
    ast.parse(changed)
    assert digest(changed) != digest(MODULE)


@pytest.mark.parametrize(
    "source",
    [
        "def f(a):\n    x = 'TEXT'\n    raise ValueError(x) if a else KeyError(g(x))\n    return x",  # used behind it
        "def f(a):\n    x = 'TEXT'\n    def inner():\n        return x\n    raise ValueError(x)",  # used by an inner function
        "def f():\n    global x\n    x = 'TEXT'\n    raise ValueError(x)",  # another function may read it
        "def f():\n    x = 'TEXT'\n    def g():\n        nonlocal x\n        x = 'more'\n        raise ValueError(x)\n    return x",
        "def f(a):\n    x = a.pop('TEXT')\n    raise ValueError(x)",  # changes what is there
        "def f(a):\n    x = open(a, 'TEXT')\n    raise ValueError(x)",
        "def f(a):\n    x = {'TEXT': a}\n    return x\n    log.info(x)",
        # Does more than describe.
        "def _f(a):\n    a.save('TEXT')\n    return a.name\n\ndef g(a):\n    path = _f(a)\n    log.info('%s', path)",
        "def _f(a):\n    return 'TEXT'\n\nNAMES = [_f]\n\ndef g(a):\n    raise ValueError(_f(a))",  # called from elsewhere
        "def f(a):\n    return 'TEXT'\n\ndef g(a):\n    raise ValueError(f(a))",  # other modules may call it
        "X = 'TEXT'\n\ndef g(a):\n    raise ValueError(X)",
        "def f():\n    x = 'TEXT'\n    return mean_error(x)",  # no exception
        "def f():\n    return MeanSquaredError(reduction='TEXT')",
        "class A:\n    x = 'TEXT'\n    def f(self, x):\n        raise ValueError(x)",
        "def f(log):\n    return log.info('TEXT')",  # its value is used
        "import re\ndef f(a):\n    if re.match('TEXT', a):\n        raise ValueError(a)",
    ],
)
def test_a_text_that_may_do_more_counts(source: str) -> None:
    assert digest(source) != digest(source.replace("TEXT", "OTHER"))


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_every_message_of_a_real_module_can_be_reworded(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert (places := texts_raised(source))
    reworded = source.encode()
    for start, end in sorted(places, reverse=True):
        reworded = reworded[:start] + b'("reworded" f"{anything}")' + reworded[end:]
    assert reworded != source.encode()
    assert digest(reworded.decode()) == digest(source)


def texts_raised(source: str) -> set[tuple[int, int]]:
    """(first byte, byte behind the last) of each text in a raise statement; of an f-string as a whole."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def outermost(node: ast.AST) -> set[tuple[int, int]]:
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            return {(lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset)}
        return {place for inner in ast.iter_child_nodes(node) for place in outermost(inner)}

    return {place for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise) for place in outermost(node)}


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_every_number_of_a_real_module_counts(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = of_tree(tree)
    shown = {inner for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Raise)) or logs(node) for inner in ast.walk(node)}
    numbers = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node not in shown]
    assert numbers
    for number in numbers:
        before, number.value = number.value, 12345
        assert of_tree(tree) != known, f"{path}:{number.lineno}"
        number.value = before
    assert of_tree(tree) == known


def logs(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("log.", "warnings."))
