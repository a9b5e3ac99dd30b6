"""One-edit mutants: what changes a value is refused, what keeps it is accepted."""

from random import Random

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.checks.check import Judgement
from services.verifier.checks.math.check import open_math_check
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.reading.parsed_answer import extract_gold
from services.verifier.config import MathConfig
from services.verifier.metrics import VerifierMetrics
from shared.protocol.verdict import VerdictItem
from tests.verifier.judging import LONGEST, find, rows_of
from tests.verifier.math.generated_golds import SHAPES, GeneratedGold
from tests.verifier.math.mutants import mutate

SAME, DIFFERENT, UNKNOWN = Equivalence


def _judge(gold: str, answer: str) -> Equivalence:
    found = find(gold, rf"\boxed{{{answer}}}")
    return DIFFERENT if found is None else found.equivalence


def _misjudged(gold: GeneratedGold) -> list[tuple[str, str, str]]:
    refused = [(gold.text, text, "refused") for text in gold.same if _judge(gold.text, text) is not SAME]
    return refused + [(gold.text, text, "accepted") for text in gold.other if _judge(gold.text, text) is not DIFFERENT]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_generated_gold_accepts_what_it_says_and_nothing_else(shape: str) -> None:
    draw = Random(shape)
    assert [row for _ in range(2) for row in _misjudged(SHAPES[shape](draw))] == []


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_many_generated_golds_accept_what_they_say_and_nothing_else(shape: str) -> None:
    draw = Random(f"many {shape}")
    assert [row for _ in range(150) for row in _misjudged(SHAPES[shape](draw))] == []


def _golds_of_sets() -> list[str]:
    rows = [
        *rows_of("math500.jsonl.gz"),
        *rows_of("math_verify_expectations.jsonl.gz"),
        *rows_of("gsm8k.jsonl.gz")[:100],
    ]
    golds = {text for row in rows if (text := extract_gold(row["gold"], LONGEST)) is not None and len(text) < 300}
    return sorted(gold for gold in golds if _judge(gold, gold) is SAME)


def _accepted_mutants(golds: list[str]) -> tuple[int, list[tuple[str, str, str]]]:
    """(how many were tried, those accepted) of the mutants that are decided without workers."""
    tried = [(kind, gold, mutant) for gold in golds for kind, mutant in mutate(gold) if mutant != gold]
    return len(tried), [mutant for mutant in tried if _judge(*mutant[1:]) is SAME]


def test_mutants_of_public_golds_are_refused() -> None:
    golds = _golds_of_sets()
    num_tried, accepted = _accepted_mutants(Random(0).sample(golds, 24))
    assert num_tried > 400
    assert accepted == []


@pytest.mark.slow
def test_all_mutants_of_public_golds_are_refused() -> None:
    num_tried, accepted = _accepted_mutants(_golds_of_sets())
    assert num_tried > 12_000
    assert accepted == []


@pytest.mark.slow
@pytest.mark.asyncio
async def test_mutants_that_take_a_worker_are_refused() -> None:
    texts = [
        (gold, mutant) for gold in _golds_of_sets() for _, mutant in mutate(gold) if _judge(gold, mutant) is UNKNOWN
    ]
    assert texts
    async with open_math_check(MathConfig(workers=2), VerifierMetrics(CollectorRegistry())) as check:
        accepted: list[tuple[str, str]] = []
        items = [
            VerdictItem(id="1", kind="math", response=rf"\boxed{{{mutant}}}", answer_key={"gold": gold})
            for gold, mutant in texts
        ]

        def report(position: int, judgement: Judgement) -> None:
            if judgement.reward:
                accepted.append(texts[position])

        await check.judge([check.prepare(item) for item in items], report)
    assert accepted == []
