r"""Reads what stands between \begin and \end: matrices, systems of equations, and functions by cases."""

from collections.abc import Callable

from services.verifier.checks.math.reading.cursor import TokenCursor
from services.verifier.checks.math.reading.forms import (
    Apply,
    Form,
    Matrix,
    Piecewise,
    Relation,
    Text,
    UnreadableAnswer,
    ValueList,
)
from services.verifier.checks.math.reading.tokens import TokenKind

_MATRICES = frozenset({"pmatrix", "bmatrix", "matrix", "Bmatrix", "vmatrix", "array", "smallmatrix"})
_SYSTEMS = frozenset({"cases", "dcases", "rcases", "aligned", "align", "gathered", "split", "gather"})
_CONDITION_WORDS = frozenset({"if", "when", "for", "where"})
_OTHERWISE = frozenset({"otherwise", "else", "elsewhere"})


def is_system(name: str) -> bool:
    r"""Whether an environment behind a single brace \{ is a system."""
    return name in _SYSTEMS or name in ("array", "matrix")


def read_environment(cursor: TokenCursor, read_cell: Callable[[], Form], *, behind_brace: bool = False) -> Form:
    r"""The form of an environment whose \begin is read already. Raises UnreadableAnswer."""
    name = _read_name(cursor)
    if name == "array" and cursor.accept("{"):
        while cursor.peek().kind is TokenKind.WORD or cursor.is_at("|"):
            cursor.next()
        cursor.expect("}")
    rows: list[tuple[Form, ...]] = []
    while not cursor.accept("\\end"):
        rows.append(_read_row(cursor, read_cell))
        if not cursor.accept("\\\\") and not cursor.is_at("\\end"):
            raise UnreadableAnswer(f"{cursor.peek().text!r} in a matrix")
    if _read_name(cursor) != name or len({len(row) for row in rows}) != 1:
        raise UnreadableAnswer("a matrix with rows of different lengths, or closed as another")
    if name in _SYSTEMS or behind_brace or (name == "array" and all(isinstance(row[0], Relation) for row in rows)):
        return _to_system(rows)
    return Apply("det", (Matrix(tuple(rows)),)) if name == "vmatrix" else Matrix(tuple(rows))


def _read_row(cursor: TokenCursor, read_cell: Callable[[], Form]) -> tuple[Form, ...]:
    cursor.accept("&")
    cells = [read_cell()]
    while cursor.accept(",", ";", ".", "&"):
        if cursor.peek(-1).text == "&":
            cells.append(_read_condition(cursor) or read_cell())
        elif not cursor.is_at("&", "\\\\", "\\end"):
            raise UnreadableAnswer("several values in one place of a matrix")
    return tuple(cells)


def _read_condition(cursor: TokenCursor) -> Form | None:
    """Skips `if`; the word `otherwise` is a condition of its own."""
    token = cursor.peek()
    word = token.text.strip(" ,.").casefold()
    if token.kind in (TokenKind.TEXT, TokenKind.WORD) and word in _CONDITION_WORDS | _OTHERWISE:
        cursor.next()
        return Text("otherwise") if word in _OTHERWISE else None
    return None


def _to_system(rows: list[tuple[Form, ...]]) -> Form:
    match len(rows[0]):
        case 1:
            return rows[0][0] if len(rows) == 1 else ValueList(tuple(row[0] for row in rows))
        case 2:
            return Piecewise(tuple((value, condition) for value, condition in rows))
        case _:
            raise UnreadableAnswer("cases with more than a value and its condition")


def _read_name(cursor: TokenCursor) -> str:
    cursor.expect("{")
    name = cursor.next().text
    cursor.accept("*")
    cursor.expect("}")
    if name not in _MATRICES | _SYSTEMS:
        raise UnreadableAnswer(f"the environment {name!r} is not known here")
    return name
