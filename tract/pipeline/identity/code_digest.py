"""The digest of a module's code without comments, docstrings, log statements and the texts of messages: none of these moves a number.

A text belongs to a message where it is written in an exception, a warning, an assertion or a log statement, or where it gets there alone:
by a local name, a private name of the module or what a private function returns, if these are used for nothing else. Of a message only the
texts are left out; names, numbers and calls in it count, as does the condition under which it is raised. Code that reads a message again,
as ``str(error).startswith(...)``, is not seen to depend on it.
"""

from __future__ import annotations

import ast
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_LOGGERS = ("log", "logger", "logging")
_LOG_METHODS = ("debug", "info", "warning", "error", "critical", "exception", "log")
_EXCEPTIONS = ("Error", "Exception", "Warning", "Exit")  # how the names of exceptions end
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPE = (*_FUNCTION, ast.ClassDef)
_DOCUMENTED = (ast.Module, *_SCOPE)
_BODIES = ("body", "orelse", "finalbody")
_MESSAGE_KINDS = {ast.Raise, ast.Call, ast.Assert, ast.Expr}
_EFFECTS = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)  # expressions that do something beside having a value


def code_digest(tree: ast.Module, nodes: Sequence[ast.AST]) -> str:
    """16 hex characters that two modules have in common if they differ in nothing but what moves no number.

    Args:
        tree: the syntax tree. nodes: all nodes of it.
    """
    return hashlib.sha256(_dump(tree, _nodes_in_messages(tree, nodes)).encode()).hexdigest()[:16]


def _dump(node: Any, messages: Collection[ast.AST]) -> str:
    """The syntax tree as text, without what moves no number. ``messages``: the nodes whose texts are those of messages."""
    if not isinstance(node, ast.AST):
        return repr(node)
    if node in messages and _is_text(node):
        return "'text'"
    parts = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            kept = _statements(value, isinstance(node, _DOCUMENTED)) if field in _BODIES else value
            parts.append(f"[{','.join([_dump(inner, messages) for inner in kept])}]")
        elif not (field == "msg" and isinstance(node, ast.Assert)):
            parts.append(_dump(value, messages))
    return f"{type(node).__name__}({','.join(parts)})"


def _statements(body: Sequence[ast.stmt], documented: bool) -> list[ast.stmt]:
    """Those that do something; ``documented``: texts that are statements are docstrings."""
    return [s for s in body if not isinstance(s, ast.Pass) and not _is_log(s) and not (documented and _is_docstring(s))]


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    return isinstance(node, ast.JoinedStr) and not _has_effects(node)


def _is_log(statement: ast.AST) -> bool:
    """Whether it is a call like ``log.info(...)`` or ``warnings.warn(...)``, and nothing else."""
    if not (isinstance(statement, ast.Expr) and isinstance(call := statement.value, ast.Call) and isinstance(call.func, ast.Attribute)):
        return False
    owner, method = call.func.value, call.func.attr
    if not isinstance(owner, ast.Name):
        return False
    return ((owner.id in _LOGGERS and method in _LOG_METHODS) or (owner.id, method) == ("warnings", "warn")) and not _has_effects(call)


def _has_effects(node: ast.AST) -> bool:
    return any(isinstance(inner, _EFFECTS) for inner in ast.walk(node))


def _nodes_in_messages(tree: ast.Module, nodes: Sequence[ast.AST]) -> set[ast.AST]:
    """The nodes whose values get into messages alone."""
    found = {inner for node in nodes if type(node) in _MESSAGE_KINDS for message in _message_nodes(node) for inner in ast.walk(message)}
    waiting = list(_message_sources(tree, nodes))
    while settled := [source for source in waiting if source.uses <= found]:
        found.update(inner for source in settled for value in source.values for text in _text_parts(value) for inner in ast.walk(text))
        waiting = [source for source in waiting if source not in settled]
    return found


def _message_nodes(node: ast.AST) -> Sequence[ast.AST]:
    """What of a node is a message at any place."""
    if isinstance(node, ast.Raise):
        return [node]
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
        return node.args if name.endswith(_EXCEPTIONS) else ()  # keywords rather configure a metric, as MeanSquaredError
    if isinstance(node, ast.Assert):
        return [node.msg] if node.msg else ()
    return [node] if _is_log(node) else ()


@dataclass(frozen=True, eq=False)
class _MessageSource:
    """What may serve messages alone: a name or a function; where it is used, and the expressions of what it may be."""

    uses: set[ast.AST]
    values: list[ast.expr]


def _message_sources(tree: ast.Module, nodes: Sequence[ast.AST]) -> Iterator[_MessageSource]:
    """Local names of functions, and private names and functions of the module."""
    for function in nodes:
        if isinstance(function, _FUNCTION) and (local := _assigned(function.body)):
            yield from _sources_by_use(local, {}, list(ast.walk(function)))
    private = {name: values for name, values in _assigned(tree.body).items() if _is_private(name)}
    functions = {node.name: node for node in tree.body if isinstance(node, _FUNCTION) and _is_private(node.name)}
    yield from _sources_by_use({**private, **{name: _returned(node) for name, node in functions.items()}}, functions, nodes)


def _sources_by_use(values: dict[str, list[ast.expr]], functions: dict[str, Any], nodes: Sequence[ast.AST]) -> Iterator[_MessageSource]:
    uses: dict[str, set[ast.AST]] = defaultdict(set)
    shared: set[str] = set()
    for node in nodes:
        if type(node) is ast.Name:  # much faster than isinstance, and most nodes are others
            if node.id in values and isinstance(node.ctx, ast.Load):
                uses[node.id].add(node)
        elif type(node) is ast.Global or type(node) is ast.Nonlocal:
            shared.update(node.names)
    for name in values.keys() - shared:
        own = [functions[name]] if name in functions else values[name]
        yield _MessageSource(uses[name].difference(*map(ast.walk, own)), values[name])


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _scope_statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """These statements and those in them, without those of inner functions and classes."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _SCOPE):
            continue
        yield node
        for inner in (node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            for field in _BODIES:
                waiting += getattr(inner, field, ())


def _assigned(body: Sequence[ast.stmt]) -> dict[str, list[ast.expr]]:
    """Name -> the expressions that are assigned to it."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for node in _scope_statements(body):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id].append(node.value)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id].append(node.value)
    return found


def _returned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    return [node.value for node in _scope_statements(function.body) if isinstance(node, ast.Return) and node.value is not None]


def _text_parts(value: ast.expr) -> Iterator[ast.expr]:
    """The parts that a value is put together from as text. Other texts in it, as keys and arguments of calls, may do more than be shown."""
    if isinstance(value, (ast.Constant, ast.JoinedStr, ast.Name)):
        yield value
    elif isinstance(value, ast.Call):
        if isinstance(value.func, ast.Name):
            yield value.func  # what it returns is a part
        elif isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Constant):
            yield value  # "; ".join(...)
    elif isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Add, ast.Mod)):
        yield from (text for part in (value.left, value.right) for text in _text_parts(part))
    elif isinstance(value, ast.IfExp):
        yield from (text for part in (value.body, value.orelse) for text in _text_parts(part))
    elif isinstance(value, ast.BoolOp):
        yield from (text for part in value.values for text in _text_parts(part))
