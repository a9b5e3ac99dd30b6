"""What values in brackets are: a set, a point, an interval, or one value in parentheses."""

from services.verifier.checks.math.reading.forms import (
    Apply,
    Bracket,
    FiniteSet,
    Form,
    Ratio,
    Relation,
    SetBuilder,
    UnreadableAnswer,
    ValueList,
)

# The closings of each opening; the first belongs to it, others make half-open intervals.
CLOSING = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",), "\\langle": ("\\rangle",)}


def bracketed(opening: str, closing: str, items: tuple[Form, ...]) -> Form:
    """The form of values between two brackets. Raises UnreadableAnswer."""
    match items:
        case (SetBuilder(),):
            return items[0]
        case (Relation(),) if opening == "\\{" and (described := _described_by(items[0])) is not None:
            return described
        case _ if opening == "\\{":
            return FiniteSet(items)
        case (Apply("atop", arguments),) if opening == "(":
            return Apply("binom", arguments)
        case (only,) if closing in CLOSING[opening][:1]:
            return only
        case (_,):
            raise UnreadableAnswer(f"one value between {opening} and {closing}")
        case _ if opening == "{":
            return ValueList(items)
        case _:
            return Bracket(opening.lstrip("\\"), closing.lstrip("\\"), items)


def _described_by(relation: Form) -> SetBuilder | None:
    r"""\{x : x < 2\}: the colon was read as a ratio's."""
    assert isinstance(relation, Relation)
    for at, side in enumerate(relation.sides):
        if isinstance(side, Ratio) and len(side.parts) == 2 and at < len(relation.relators):
            before = (*relation.sides[:at], side.parts[0])
            element = Relation(before, relation.relators[:at]) if at else side.parts[0]
            return SetBuilder(element, Relation((side.parts[1], *relation.sides[at + 1 :]), relation.relators[at:]))
    return None
