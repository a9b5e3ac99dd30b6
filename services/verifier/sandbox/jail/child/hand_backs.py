"""Where tests look at an argument after a call, so that the solution's changes to it must come back."""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from types import CodeType

# Of a call in the source, as code objects have it: first line, last line, first column, last column.
_Span = tuple[int | None, int | None, int | None, int | None]

TEST_FILE = "<test"
"""How the file names of the tests' code begin."""


class HandBacks:
    """The calls of the tests whose changed arguments come back.

    They do where the result is dropped (`f(a)`), or is kept and never compared with what depends on the arguments
    (`k = f(a); assert a[:k] == [1]`). Where both meet (`assert f(a) == sorted(a)`), the test means the argument as it
    was; an answer must not pass by emptying it.
    """

    def __init__(self) -> None:
        self._may_write: dict[tuple[str, _Span], bool] = {}

    def add(self, tree: ast.AST, file_name: str) -> None:
        """Notes the calls in a test's tree, which is compiled under this file name."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self._may_write[file_name, _span(node.value)] = True
        for scope in _scopes(tree):
            for call, is_free in _kept_calls(scope):
                self._may_write[file_name, _span(call)] = is_free

    def of_caller(self) -> bool | None:
        """Whether the running call of a test may change its arguments there; None: it does not look at them."""
        if not self._may_write:
            return None
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(TEST_FILE):
            frame = frame.f_back  # type: ignore[assignment]
        if frame is None:
            return None
        return self._may_write.get((frame.f_code.co_filename, _positions(frame.f_code)[frame.f_lasti // 2]))


@cache
def _positions(code: CodeType) -> list[_Span]:
    return list(code.co_positions())


def _span(node: ast.Call) -> _Span:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _scopes(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    if isinstance(tree, ast.Module):
        yield tree.body
    yield from (node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _kept_calls(body: list[ast.stmt]) -> Iterator[tuple[ast.Call, bool]]:
    """The calls of a scope whose result gets a name, and whether result and arguments never meet."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            arguments = [*node.value.args, *(keyword.value for keyword in node.value.keywords)]
            from_arguments = _spread(_names(arguments), nodes)
            from_result = _spread(_names(node.targets), nodes)
            if from_arguments:
                yield node.value, not any(_meet(pair, from_result, from_arguments) for pair in _compared(nodes))


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for root in nodes for node in ast.walk(root) if isinstance(node, ast.Name)}


def _spread(names: set[str], nodes: list[ast.AST]) -> set[str]:
    """With the names that are computed from them."""
    for _ in range(2):
        for node in nodes:
            if isinstance(node, ast.Assign) and _names([node.value]) & names:
                names = names | _names(node.targets)
    return names


def _compared(nodes: list[ast.AST]) -> Iterator[list[ast.expr]]:
    for node in nodes:
        if isinstance(node, ast.Compare):
            yield [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            yield node.args


def _meet(sides: list[ast.expr], from_result: set[str], from_arguments: set[str]) -> bool:
    names = [_names([side]) for side in sides]
    return any(
        one & from_result and other & from_arguments
        for position, one in enumerate(names)
        for other in names[:position] + names[position + 1 :]
    )
