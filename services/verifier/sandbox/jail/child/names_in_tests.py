"""What test code names and asserts, read from its syntax tree."""

import ast
import builtins
import sys
from collections.abc import Iterator, Sequence


def has_assertion(tree: ast.AST) -> bool:
    """Whether the code can fail a solution: an `assert`, a `raise`, or a call of some `….assert…`."""
    return any(
        isinstance(node, ast.Assert | ast.Raise)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("assert"))
        for node in ast.walk(tree)
    )


def free_names(trees: Sequence[ast.AST], entry_point: str) -> dict[str, bool]:
    """The names that the code uses and does not define, and whether each is a standard module.

    They are the solution's. A builtin's name is the builtin, unless it is the entry point and nothing else can be it.
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {name for node in nodes for name in _definitions(node)}
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} - defined
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    used_plainly = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in bases}
    modules = (loaded - used_plainly) & sys.stdlib_module_names
    free = {name for name in loaded if not hasattr(builtins, name)}
    if entry_point in loaded and not free - modules:
        free.add(entry_point)
    return {name: name in modules for name in sorted(free)}


def _definitions(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(ctx=ast.Store() | ast.Del(), id=name) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.alias(name=module, asname=alias):
            yield alias or module.partition(".")[0]
