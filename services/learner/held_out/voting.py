"""Which of the answers to a problem are the same: the verifier takes one for the other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from re import compile as pattern

from services.learner.queue.problems import EncodedProblem
from shared.clients import VerifierClient
from shared.errors import IbtpoError, InvalidInput, TooLarge
from shared.protocol.verdict import ItemLimits, Verdict, VerdictItem
from shared.runtime.logs import event_logger
from shared.tree.draw import Draw, is_full_reward

log = event_logger(__name__)
_RIGHT = 0
"""The class of all right answers."""
_COMPARED_KINDS = frozenset({"math"})
"""Kinds of which two texts may be one answer."""
_MAX_TEXTS = 64
"""So many different texts of a problem are compared, those with most votes; others are the same only if equal."""
_MAX_ITEMS = 512
_SECONDS, _ITEM_SECONDS = 60.0, 1.0
_PLAIN = pattern(r"-?(?:0|[1-9][0-9]{0,17})")
"""Two such numbers are the same only if equal; most wrong answers are of this form."""


async def count_votes(
    problem: EncodedProblem, draws: Sequence[Draw], verifier: VerifierClient | None
) -> tuple[int | None, ...]:
    """The class of each answer; None for one that does not vote: cut, without a verdict, or without a final answer.

    Without a verifier, or where it fails, wrong answers are the same only if their texts are equal.
    """
    texts = [None if draw.reward is None else draw.final_answer or None for draw in draws]
    wrong = Counter(text for draw, text in zip(draws, texts, strict=True) if text and not _is_right(draw))
    first_of = {text: text for text in wrong}
    if verifier is not None and problem.kind in _COMPARED_KINDS:
        first_of |= await _merge([text for text, _ in wrong.most_common(_MAX_TEXTS)], problem, verifier)
    number_of = {text: number for number, text in enumerate(dict.fromkeys(first_of.values()), start=_RIGHT + 1)}
    return tuple(
        None if not text else _RIGHT if _is_right(draw) else number_of[first_of[text]]
        for draw, text in zip(draws, texts, strict=True)
    )


def _is_right(draw: Draw) -> bool:
    return draw.reward is not None and is_full_reward(draw.reward)


async def _merge(texts: Sequence[str], problem: EncodedProblem, verifier: VerifierClient) -> Mapping[str, str]:
    """Of each text the first one that is the same."""
    pairs = [pair for pair in combinations(texts, 2) if not all(map(_PLAIN.fullmatch, pair))]
    same: set[tuple[str, str]] = set()
    try:
        for start in range(0, len(pairs), _MAX_ITEMS):
            same |= await _find_same(pairs[start : start + _MAX_ITEMS], problem, verifier)
    except IbtpoError as error:
        log.warning("answers_not_compared", problem=problem.id, error=str(error))
    first_of: dict[str, str] = {}
    for text in texts:
        known = (other for other in dict.fromkeys(first_of.values()) if (other, text) in same)
        first_of[text] = next(known, text)
    return first_of


async def _find_same(
    pairs: Sequence[tuple[str, str]], problem: EncodedProblem, verifier: VerifierClient
) -> set[tuple[str, str]]:
    """The pairs whose second is right if the first is the gold. One that cannot be a gold has its half asked again."""
    if not pairs:
        return set()
    limits = ItemLimits(wall_seconds=_ITEM_SECONDS)
    items = [
        VerdictItem(
            id=str(number),
            kind=problem.kind,
            response=second,
            answer_key={"gold": first, "extraction": ["response"]},
            limits=limits,
        )
        for number, (first, second) in enumerate(pairs)
    ]
    try:
        verdicts: Sequence[Verdict] = await verifier.judge(items, _SECONDS + 5, _SECONDS)
    except (InvalidInput, TooLarge):
        if len(pairs) == 1:
            return set()
        half = len(pairs) // 2
        return await _find_same(pairs[:half], problem, verifier) | await _find_same(pairs[half:], problem, verifier)
    return {pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.reward == 1.0}
