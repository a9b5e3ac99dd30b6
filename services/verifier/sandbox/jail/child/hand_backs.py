"""Where tests look at an argument after a call, so that the solution's changes to it must come back."""

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from types import CodeType

# Of a call in the source, as code objects have it: first line, last line, first column, last column.
_Span = tuple[int | None, int | None, int | None, int | None]

_MAX_CALLS = 200
TEST_FILE = "<test"
"""How the file names of the tests' code begin."""


class HandBacks:
    """The calls of the tests whose changed arguments come back.

    They do where the result is dropped (`f(a)`) or gets a name (`k = f(a)`), unless a comparison behind the call sets
    what depends on an argument against the result or against an argument again (`assert k == sorted(a)`): there the
    test means the argument as it was, and an answer must not pass by emptying it.
    """

    def __init__(self) -> None:
        self._may_write: dict[tuple[str, _Span], bool] = {}

    def add(self, nodes: Sequence[ast.AST], file_name: str) -> None:
        """Notes the calls among the nodes of a test's tree, which is compiled under this file name."""
        calls = [node for node in nodes if isinstance(node, ast.Expr | ast.Assign) and isinstance(node.value, ast.Call)]
        scopes = [node.body for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module)]
        if not calls or len(calls) > _MAX_CALLS:
            return
        for body in scopes:
            inside = [node for statement in body for node in ast.walk(statement)] if len(scopes) > 1 else nodes
            for node in inside:
                if isinstance(node, ast.Expr | ast.Assign) and isinstance(node.value, ast.Call):
                    self._may_write[file_name, _span(node.value)] = not _meets(node, node.value, inside)

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


def _meets(statement: ast.Expr | ast.Assign, call: ast.Call, nodes: Sequence[ast.AST]) -> bool:
    """Whether a comparison behind the call has an argument on one side, and the result or an argument on another."""
    behind = [node for node in nodes if getattr(node, "lineno", 0) >= (call.end_lineno or 0) and node is not statement]
    assigned = [node for node in behind if isinstance(node, ast.Assign)]
    arguments = _spread(_names([*call.args, *(keyword.value for keyword in call.keywords)]), assigned)
    results = _names(statement.targets) if isinstance(statement, ast.Assign) else set()
    for sides in _compared(behind):
        names = [_names([side]) for side in sides]
        for position, one in enumerate(names):
            others = {name for other in names[:position] + names[position + 1 :] for name in other}
            if one & arguments and others & (arguments | results):
                return True
    return False


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for root in nodes for node in ast.walk(root) if isinstance(node, ast.Name)}


def _spread(names: set[str], assigned: Sequence[ast.Assign]) -> set[str]:
    """With the names that are computed from them."""
    for node in assigned:
        if _names([node.value]) & names:
            names = names | _names(node.targets)
    return names


def _compared(nodes: Iterable[ast.AST]) -> Iterator[list[ast.expr]]:
    for node in nodes:
        if isinstance(node, ast.Compare):
            yield [node.left, *node.comparators]
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("assert")
        ):
            yield node.args
