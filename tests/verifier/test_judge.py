"""The judge without HTTP: the cache, bounded concurrency, and kinds that cannot be judged here."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.checks.check import Case, Check, Judgement, ReportJudgement, judge_concurrently
from services.verifier.judge import Judge, JudgementCache
from services.verifier.metrics import VerifierMetrics
from shared.errors import InvalidInput, Unavailable
from shared.protocol.verdict import ItemLimits, Outcome, VerdictItem

RIGHT = Judgement(1.0, Outcome.RIGHT)


class EchoCheck(Check[str]):
    """A kind of the tests: right for every response but "wrong"; counts what it judges."""

    def __init__(self, kind: str = "echo", reason: str | None = None, is_repeatable: bool = True) -> None:
        self.kind = kind
        self.is_repeatable = is_repeatable
        self.judged: list[str] = []
        self._reason = reason

    def refusal(self) -> str | None:
        return self._reason

    def health(self) -> dict[str, Any]:
        return {"workers": 3}

    def prepare(self, item: VerdictItem) -> Case[str]:
        return Case(item.response, str(item.answer_key), item.limits)

    async def judge(self, cases: Sequence[Case[str]], report: ReportJudgement) -> None:
        for position, case in enumerate(cases):
            self.judged.append(case.response)
            is_right = case.response != "wrong"
            report(position, Judgement(float(is_right), Outcome.RIGHT if is_right else Outcome.WRONG))


def _judge(*checks: EchoCheck, max_entries: int = 10) -> tuple[Judge, VerifierMetrics]:
    metrics = VerifierMetrics(CollectorRegistry())
    judge = Judge(metrics, 100, JudgementCache(max_entries))
    for check in checks:
        judge.add(check)
    return judge, metrics


def _item(response: str, kind: str = "echo", limits: ItemLimits | None = None) -> VerdictItem:
    return VerdictItem(id=response, kind=kind, response=response, answer_key={}, limits=limits)


async def _rewards(judge: Judge, *items: VerdictItem) -> list[float | None]:
    judgements: dict[int, Judgement] = {}
    await judge.judge(await judge.admit(items), 10, judgements.__setitem__)
    return [judgements[position].reward for position in range(len(items))]


async def test_what_the_cache_knows_is_not_judged_again() -> None:
    check = EchoCheck()
    judge, metrics = _judge(check)
    assert await _rewards(judge, _item("a"), _item("wrong")) == [1.0, 0.0]
    assert await _rewards(judge, _item("wrong"), _item("b"), _item("a")) == [0.0, 1.0, 1.0]
    assert check.judged == ["a", "wrong", "b"]
    assert metrics.registry.get_sample_value("ibtpo_verifier_cache_hits_total", {"kind": "echo"}) == 2
    right = {"kind": "echo", "outcome": "right"}
    assert metrics.registry.get_sample_value("ibtpo_verifier_verdicts_total", right) == 3, "cached verdicts count too"


async def test_other_limits_or_an_unrepeatable_kind_are_judged_again() -> None:
    check, other = EchoCheck(), EchoCheck("other", is_repeatable=False)
    judge, _ = _judge(check, other)
    await _rewards(judge, _item("a"), _item("a", "other"))
    await _rewards(judge, _item("a", limits=ItemLimits(wall_seconds=1)), _item("a", "other"))
    assert (check.judged, other.judged) == (["a", "a"], ["a", "a"])


def test_the_cache_drops_what_was_used_longest_ago() -> None:
    cache = JudgementCache(2)
    a, b, c = (Case(name, None) for name in "abc")
    cache.put("k", a, RIGHT)
    cache.put("k", b, RIGHT)
    assert cache.get("k", a) is RIGHT
    cache.put("k", c, RIGHT)
    assert (cache.get("k", a), cache.get("k", b), cache.get("k", c)) == (RIGHT, None, RIGHT)
    assert cache.get("other kind", a) is None


@pytest.mark.parametrize(
    ("response", "judgement"),
    [
        ("a", Judgement.failure("broken")),
        ("a", Judgement(0.0, Outcome.TIMED_OUT)),
        ("a", Judgement(0.0, Outcome.MEMORY)),
        ("a" * 5_000, RIGHT),
    ],
)
def test_failures_time_outs_and_long_responses_are_not_cached(response: str, judgement: Judgement) -> None:
    cache = JudgementCache(2)
    cache.put("k", Case(response, None), judgement)
    assert cache.get("k", Case(response, None)) is None


def test_a_cache_of_no_entries_keeps_none() -> None:
    cache = JudgementCache(0)
    cache.put("k", Case("a", None), RIGHT)
    assert cache.get("k", Case("a", None)) is None


async def test_a_kind_that_cannot_be_judged_here_refuses_its_batch_alone() -> None:
    judge, metrics = _judge(EchoCheck(), EchoCheck("jailed", reason="no seccomp"))
    with pytest.raises(Unavailable, match="kind 'jailed' cannot be judged here: no seccomp"):
        await judge.admit([_item("a"), _item("a", "jailed")])
    with pytest.raises(InvalidInput, match="kind 'poetry' is none of: echo, jailed"):
        await judge.admit([_item("a", "poetry")])
    assert judge.health() == {
        "pending_items": 0,
        "kinds": {"echo": {"refusal": None, "workers": 3}, "jailed": {"refusal": "no seccomp", "workers": 3}},
    }
    refused = metrics.registry.get_sample_value("ibtpo_verifier_refused_batches_total", {"reason": "unavailable"})
    assert refused == 1


def test_a_verifier_is_ready_while_one_kind_can_be_judged() -> None:
    refusing = EchoCheck("jailed", reason="no seccomp")
    assert _judge(refusing, EchoCheck())[0].why_not_ready() is None
    assert _judge(refusing)[0].why_not_ready() == "no seccomp"


async def test_the_age_of_the_oldest_batch_is_shown_while_it_waits() -> None:
    judge, metrics = _judge(EchoCheck())

    def age() -> float:
        return metrics.registry.get_sample_value("ibtpo_verifier_queue_age_seconds") or 0.0

    assert age() == 0.0
    batch = await judge.admit([_item("a")])
    assert age() > 0.0
    await judge.judge(batch, 10, lambda *_: None)
    assert age() == 0.0


@pytest.mark.parametrize(
    ("reward", "outcome"), [(None, Outcome.WRONG), (0.0, Outcome.UNSUPPORTED), (0.0, Outcome.INFRASTRUCTURE)]
)
def test_only_what_could_not_be_judged_has_no_reward(reward: float | None, outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="unjudged answers alone have none"):
        Judgement(reward, outcome)


class UnvettedCheck(EchoCheck):
    """A kind of the tests whose keys take forever to read."""

    async def vet(self, cases: Sequence[Case[str]]) -> None:
        await asyncio.Event().wait()


async def test_the_deadline_counts_from_arrival_and_holds_while_items_are_prepared() -> None:
    judge, _ = _judge(EchoCheck(), UnvettedCheck("unvetted"))
    judgements: dict[int, Judgement] = {}
    items, ten_seconds_ago = [_item("a"), _item("b", "unvetted")], time.monotonic() - 10
    async with asyncio.timeout(5):
        batch = await judge.admit(items, {0: "bad"}, ten_seconds_ago, deadline_seconds=10.05)
    await judge.judge(batch, 10.05, judgements.__setitem__)
    late = "not judged within the batch's deadline of 10.05 s; send it again"
    assert [(judgements[n].reward, judgements[n].reason) for n in (0, 1)] == [(None, "bad"), (None, late)]
    assert judge.health()["pending_items"] == 0


async def test_items_are_judged_in_order_and_no_more_at_once_than_allowed() -> None:
    started: list[int] = []
    running = most = 0
    reported: dict[int, float | None] = {}

    async def judge(item: int) -> Judgement:
        nonlocal running, most
        started.append(item)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Judgement(item / 10, Outcome.WRONG)

    await judge_concurrently(range(10), 3, judge, lambda index, judgement: reported.update({index: judgement.reward}))
    assert started == list(range(10))
    assert most == 3
    assert reported == {n: n / 10 for n in range(10)}


async def test_the_first_exception_stops_the_others() -> None:
    async def judge(item: int) -> Judgement:
        if item == 1:
            raise RuntimeError("broken")
        await asyncio.Event().wait()
        return RIGHT

    with pytest.raises(ExceptionGroup) as caught:
        await judge_concurrently(range(10), 2, judge, lambda *_: None)
    assert [str(error) for error in caught.value.exceptions] == ["broken"]


@pytest.mark.parametrize("kind", ["code", "choice", "custom"])
async def test_a_prompt_that_opens_a_thought_begins_the_response_of_any_kind(kind: str) -> None:
    check = EchoCheck(kind)
    judge, _ = _judge(check)
    opened = _item("a", kind).model_copy(update={"prompt": "q<|Assistant|><think>\n"})
    await _rewards(judge, opened, _item("b", kind), _item("c", kind).model_copy(update={"prompt": "<think></think>"}))
    assert check.judged == ["<think>a", "b", "c"]
