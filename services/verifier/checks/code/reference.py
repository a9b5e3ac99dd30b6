"""Reference solutions: an answer is charged for tests only where the key's own reference passes them."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.key import PreparedTests
from shared.protocol.verdict import Outcome

_MAX_KEPT = 256

JudgeSource = Callable[[str], Awaitable[Judgement]]


class References:
    """What became of keys' reference solutions; each is run once, when a first answer fails its tests."""

    def __init__(self) -> None:
        self._kept: OrderedDict[PreparedTests, Judgement] = OrderedDict()
        self._running: WeakValueDictionary[PreparedTests, asyncio.Lock] = WeakValueDictionary()

    async def excuse(self, judgement: Judgement, tests: PreparedTests, judge: JudgeSource) -> Judgement:
        """The judgement of an answer, or one without reward where the reference fails the same tests here."""
        if not tests.reference or judgement.reward in (None, 1.0) or judgement.outcome is Outcome.NO_ANSWER:
            return judgement
        of_reference = await self._judge_reference(tests, judge)
        if of_reference.reward == 1.0:
            return judgement
        if of_reference.reward is None:
            return of_reference
        reason = f"the key's reference solution fails these tests here, too ({of_reference.outcome}); drop the row"
        return Judgement(None, Outcome.UNSUPPORTED, reason, tests.rule)

    async def _judge_reference(self, tests: PreparedTests, judge: JudgeSource) -> Judgement:
        async with self._running.setdefault(tests, asyncio.Lock()):  # the answers of a tree fail together
            if tests not in self._kept:
                judgement = await judge(tests.reference)
                if judgement.reward is None:
                    return judgement  # our own failure: the next answer asks again
                self._kept[tests] = judgement
            self._kept.move_to_end(tests)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
            return self._kept[tests]
