"""The result of comparing two forms, and how results combine."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TypeVar

Item = TypeVar("Item")
_MAX_UNORDERED = 40


class Equivalence(IntEnum):
    """UNKNOWN if exact and numeric comparison cannot decide; it stands between the other two."""

    SAME = 2
    DIFFERENT = 0
    UNKNOWN = 1

    @staticmethod
    def of(is_same: bool) -> "Equivalence":
        return Equivalence.SAME if is_same else Equivalence.DIFFERENT


def compare_in_order(
    golds: Sequence[Item], answers: Sequence[Item], compare: Callable[[Item, Item], Equivalence]
) -> Equivalence:
    """Compares first with first, second with second, and so on."""
    if len(golds) != len(answers):
        return Equivalence.DIFFERENT
    return min(map(compare, golds, answers), default=Equivalence.SAME)


def compare_in_any_order(
    golds: Sequence[Item], answers: Sequence[Item], compare: Callable[[Item, Item], Equivalence]
) -> Equivalence:
    """Pairs each gold with the first answer that is the same; SAME is transitive, so the choice does not matter."""
    if len(golds) != len(answers):
        return Equivalence.DIFFERENT
    if len(golds) > _MAX_UNORDERED:  # the work would grow with the square
        return max(compare_in_order(golds, answers, compare), Equivalence.UNKNOWN)
    left, found = list(answers), Equivalence.SAME
    for gold in golds:
        equivalences = [compare(gold, answer) for answer in left]
        best = max(equivalences)
        if best is Equivalence.SAME:
            del left[equivalences.index(best)]
        elif best is Equivalence.DIFFERENT:
            return best
        else:
            found = best
    return found
