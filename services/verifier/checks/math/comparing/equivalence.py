"""The result of comparing two forms, and how results combine."""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import TypeVar

Item = TypeVar("Item")
_MAX_UNORDERED = 40


class Equivalence(Enum):
    """UNKNOWN if exact and numeric comparison cannot decide."""

    SAME = auto()
    DIFFERENT = auto()
    UNKNOWN = auto()

    @staticmethod
    def of(is_same: bool) -> "Equivalence":
        return Equivalence.SAME if is_same else Equivalence.DIFFERENT


def all_of(equivalences: Iterable[Equivalence]) -> Equivalence:
    """SAME if all are, DIFFERENT if any is, else UNKNOWN."""
    found = Equivalence.SAME
    for equivalence in equivalences:
        if equivalence is Equivalence.DIFFERENT:
            return equivalence
        if equivalence is Equivalence.UNKNOWN:
            found = equivalence
    return found


def any_of(equivalences: Iterable[Equivalence]) -> Equivalence:
    """SAME if any is, DIFFERENT if all are, else UNKNOWN."""
    found = Equivalence.DIFFERENT
    for equivalence in equivalences:
        if equivalence is Equivalence.SAME:
            return equivalence
        if equivalence is Equivalence.UNKNOWN:
            found = equivalence
    return found


def compare_in_order(
    golds: Sequence[Item], answers: Sequence[Item], compare: Callable[[Item, Item], Equivalence]
) -> Equivalence:
    """Compares first with first, second with second, and so on."""
    if len(golds) != len(answers):
        return Equivalence.DIFFERENT
    return all_of(compare(gold, answer) for gold, answer in zip(golds, answers, strict=True))


def compare_in_any_order(
    golds: Sequence[Item], answers: Sequence[Item], compare: Callable[[Item, Item], Equivalence]
) -> Equivalence:
    """Pairs each gold with the first answer that is the same; SAME is transitive, so the choice does not matter."""
    if len(golds) != len(answers):
        return Equivalence.DIFFERENT
    if len(golds) > _MAX_UNORDERED:  # the work would grow with the square
        found = compare_in_order(golds, answers, compare)
        return found if found is Equivalence.SAME else Equivalence.UNKNOWN
    left, unsure = list(answers), 0
    for gold in golds:
        equivalences = [compare(gold, answer) for answer in left]
        if Equivalence.SAME in equivalences:
            del left[equivalences.index(Equivalence.SAME)]
        elif Equivalence.UNKNOWN in equivalences:
            unsure += 1
        else:
            return Equivalence.DIFFERENT
    return Equivalence.UNKNOWN if unsure else Equivalence.SAME
