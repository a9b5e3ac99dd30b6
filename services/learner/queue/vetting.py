"""Has the verifier read the answer keys of a run before anything is grown for them."""

import re
from collections.abc import Iterable, Iterator, Sequence

from services.learner.queue.problems import EncodedProblem
from shared.clients import VerifierClient
from shared.errors import InvalidInput, Overloaded, TooLarge, Unauthorized, Unavailable
from shared.protocol.verdict import VerdictItem
from shared.runtime.logs import event_logger

log = event_logger(__name__)
_BATCH = 256
_SECONDS = 120.0
_MAX_REFUSALS = 5
_MAX_NAME = 256
_AROUND_REASON = re.compile(
    r"^.*?item '[^']*'(?: \(kind '[^']*'\))?: |; its answer_key has .*$| \(\d+ from [^)]*\)$", re.DOTALL
)
_KINDS_WITH_KEYS = frozenset({"math", "code", "choice", "exact"})
"""Their keys have a shape. Of any other kind one problem is asked: its function may be slow, or be paid by the call."""


class KeyVetting:
    """Asks for a verdict on an empty answer to each problem: a verifier refuses kinds and keys that it cannot read."""

    def __init__(self, verifier: VerifierClient | None, problems: Iterable[EncodedProblem]) -> None:
        self._verifier = verifier
        self._items = tuple(_items(problems))

    async def vet(self) -> None:
        """InvalidInput names the first rows that the verifier refuses, with its reasons. Unavailable while it cannot be
        asked; without a verifier nothing is asked."""
        if self._verifier is None:
            log.warning("answer_keys_not_vetted", remedy="give learner.verifier_url")
            return
        refusals: list[str] = []
        for start in range(0, len(self._items), _BATCH):
            refusals += await _refusals(self._verifier, self._items[start : start + _BATCH])
            if len(refusals) >= _MAX_REFUSALS:
                refusals[_MAX_REFUSALS:] = ["and perhaps more"]
                break
        if refusals:
            raise InvalidInput(f"the verifier cannot judge answers to these problems: {'; '.join(refusals)}")
        log.info("answer_keys_vetted", keys=len(self._items))


def _items(problems: Iterable[EncodedProblem]) -> Iterator[VerdictItem]:
    """An empty answer to every problem; one where kind and key are equal."""
    seen = set()
    for problem in problems:
        key = problem.answer_key if problem.kind in _KINDS_WITH_KEYS else {}
        if (known := (problem.kind, repr(key))) not in seen:
            seen.add(known)
            name = problem.where or problem.id
            yield VerdictItem(id=name[-_MAX_NAME:], kind=problem.kind, response="", answer_key=problem.answer_key)


async def find_refusals(verifier: VerifierClient, items: Sequence[VerdictItem]) -> dict[str, str]:
    """The verifier's reason against each item that it refuses, by the item's id. Of kinds of one's own nothing is
    asked."""
    asked = tuple(item for item in items if item.kind in _KINDS_WITH_KEYS)
    found: dict[str, str] = {}
    parts = [asked] if asked else []
    while parts:
        part = parts.pop()
        reason = await _ask(verifier, part)
        if reason and len(part) == 1:
            found[part[0].id] = _AROUND_REASON.sub("", reason)
        elif reason:
            parts += [part[: len(part) // 2], part[len(part) // 2 :]]
    return found


async def _refusals(verifier: VerifierClient, items: Sequence[VerdictItem]) -> list[str]:
    """The verifier's reasons against some of these items, by halves, as it names one for a whole batch."""
    reason = await _ask(verifier, items)
    if not reason or len(items) == 1:
        return [reason] if reason else []
    half = len(items) // 2
    first = await _refusals(verifier, items[:half])
    return first if len(first) >= _MAX_REFUSALS else first + await _refusals(verifier, items[half:])


async def _ask(verifier: VerifierClient, items: Sequence[VerdictItem]) -> str:
    """Why the verifier refuses these items, or one of them; empty where it does not."""
    try:
        await verifier.judge(items, _SECONDS)
    except Overloaded as error:
        raise Unavailable(str(error)) from error
    except Unauthorized as error:
        raise InvalidInput(f"the verifier refuses the learner's token (IBTPO_TOKEN): {error}") from error
    except (InvalidInput, TooLarge) as error:
        return str(error)
    return ""
