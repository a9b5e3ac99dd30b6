"""How two forms compare, and how likenesses combine."""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import TypeVar

Item = TypeVar("Item")
_MOST_UNORDERED = 40


class Likeness(Enum):
    """UNKNOWN where it takes more than exact and numeric comparison to tell."""

    SAME = auto()
    DIFFERENT = auto()
    UNKNOWN = auto()

    @staticmethod
    def of(is_same: bool) -> "Likeness":
        return Likeness.SAME if is_same else Likeness.DIFFERENT


def all_of(likenesses: Iterable[Likeness]) -> Likeness:
    """SAME if all are; one that is different decides."""
    found = Likeness.SAME
    for likeness in likenesses:
        if likeness is Likeness.DIFFERENT:
            return likeness
        if likeness is Likeness.UNKNOWN:
            found = likeness
    return found


def any_of(likenesses: Iterable[Likeness]) -> Likeness:
    """DIFFERENT if all are; one that is the same decides."""
    found = Likeness.DIFFERENT
    for likeness in likenesses:
        if likeness is Likeness.SAME:
            return likeness
        if likeness is Likeness.UNKNOWN:
            found = likeness
    return found


def pairwise(golds: Sequence[Item], answers: Sequence[Item], compare: Callable[[Item, Item], Likeness]) -> Likeness:
    """Compares in order."""
    if len(golds) != len(answers):
        return Likeness.DIFFERENT
    return all_of(compare(gold, answer) for gold, answer in zip(golds, answers, strict=True))


def unordered(golds: Sequence[Item], answers: Sequence[Item], compare: Callable[[Item, Item], Likeness]) -> Likeness:
    """Compares in any order. Being the same is transitive, so the first answer that is the same will do."""
    if len(golds) != len(answers):
        return Likeness.DIFFERENT
    if len(golds) > _MOST_UNORDERED:  # in one order only: the work grows with the square
        found = pairwise(golds, answers, compare)
        return found if found is Likeness.SAME else Likeness.UNKNOWN
    left, unsure = list(answers), 0
    for gold in golds:
        likenesses = [compare(gold, answer) for answer in left]
        if Likeness.SAME in likenesses:
            del left[likenesses.index(Likeness.SAME)]
        elif Likeness.UNKNOWN in likenesses:
            unsure += 1
        else:
            return Likeness.DIFFERENT
    return Likeness.UNKNOWN if unsure else Likeness.SAME
