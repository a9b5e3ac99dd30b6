"""Φ at the step ends of draws, on the real engine: equal to its definition, off by default, and never fatal."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from zlib import crc32

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM

from services.demo.task import checkpoint_directory
from services.rollout import likelihoods as likelihoods_module
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import ScoreRequest, TokenScores
from services.rollout.grower import TreeGrower
from services.rollout.likelihoods import GoldAnswer
from services.rollout.metrics import RolloutMetrics
from services.rollout.rewards import Reward
from services.rollout.vocabulary import Vocabulary
from shared.errors import InvalidInput, Unavailable
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Finish, WeightVersion, trajectory
from shared.tree.likelihood import LikelihoodForm, LikelihoodSettings
from shared.tree.samplers import IBSampler


class CoinRewards:
    """One answer in two is right."""

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        return Reward(float(crc32(response.encode()) % 2))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """The demo's."""
    return Vocabulary.load(checkpoint_directory())


@pytest.fixture
async def engine() -> AsyncIterator[EmbeddedEngine]:
    """Serves the demo's policy."""
    served = EmbeddedEngine(EmbeddedSettings(trace=False, halve=False))
    await served.load(checkpoint_directory(), WeightVersion(1, 0))
    yield served
    await served.close()


async def grow(
    engine: EmbeddedEngine,
    vocabulary: Vocabulary,
    likelihood: dict[str, Any] | None,
    answer_key: dict[str, Any] | None = None,
    **growth: Any,
) -> ScoredTree:
    asked = Task(
        run="r",
        id="0-0",
        problem_id="p",
        prompt_ids=vocabulary.encode("2+3*4-1*6="),
        kind="math",
        answer_key={"gold": "1"} if answer_key is None else answer_key,
        growth=Growth.model_validate(
            {"sampler": IBSampler(rounds=2), "max_tokens": 40, "likelihood": likelihood, **growth}
        ),
        seed=1,
    )
    return await TreeGrower(engine, CoinRewards(), "r1").grow(asked, vocabulary)


def expected(tree: ScoredTree, draw_id: int, vocabulary: Vocabulary, form: str) -> list[float]:
    """By its definition: a plain pass for every step end."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint_directory(), dtype=torch.float32).eval()
    opener, given = vocabulary.encode_continuation("\\boxed{"), vocabulary.encode_continuation("1}")
    found = []
    for end in tree.draws[draw_id].step_ends:
        prefix = tuple(token for token in trajectory(tree.draws, draw_id)[:end] if token not in vocabulary.stop_ids)
        before = tree.task.prompt_ids + prefix + opener
        with torch.no_grad():
            logits = model(torch.tensor([before + given])).logits[0, len(before) - 1 : -1]
        logprobs = (logits / tree.task.growth.temperature).log_softmax(-1)[range(len(given)), list(given)]
        found.append(float((logprobs.sum() if form == "joint" else logprobs.mean()).exp()))
    return found


@pytest.mark.parametrize(("form", "temperature"), [("joint", 1.0), ("geometric", 0.8)])
async def test_every_step_end_has_the_likelihood_of_the_gold_answer_there(
    engine: EmbeddedEngine, vocabulary: Vocabulary, form: str, temperature: float
) -> None:
    tree = await grow(engine, vocabulary, {"form": form}, temperature=temperature)
    for draw_id in (0, len(tree.draws) - 1):  # one from the prompt, and a branch
        assert tree.draws[draw_id].step_likelihoods == pytest.approx(
            expected(tree, draw_id, vocabulary, form), abs=1e-4
        )
    assert tree.draws[-1].parent is not None
    assert any(draw.finish is Finish.STOP for draw in tree.draws)
    assert tree.usage.scored_tokens == 2 * sum(len(draw.step_ends) for draw in tree.draws)
    assert tree.usage.unscored_draws == 0
    packed = ScoredTree.unpack(tree.pack())
    for draw, sent in zip(tree.draws, packed.draws, strict=True):
        assert sent.step_likelihoods == pytest.approx(draw.step_likelihoods, abs=1e-6)


async def test_the_tree_is_the_same_with_likelihoods_and_without(
    engine: EmbeddedEngine, vocabulary: Vocabulary
) -> None:
    plain = await grow(engine, vocabulary, None)
    assert engine.counters.scored_tokens == 0
    assert {draw.step_likelihoods for draw in plain.draws} == {None}
    scored = await grow(engine, vocabulary, {})
    assert [draw.token_ids for draw in scored.draws] == [draw.token_ids for draw in plain.draws]
    assert [draw.reward for draw in scored.draws] == [draw.reward for draw in plain.draws]


KEYS_WITHOUT_GOLD: list[dict[str, Any]] = [
    {},
    {"gold": ""},
    {"gold": None},
    {"gold": ["1"]},
    {"gold": True},
    {"g": "1"},
]


async def test_a_key_without_a_gold_text_costs_the_likelihoods_and_nothing_else(
    engine: EmbeddedEngine, vocabulary: Vocabulary, caplog: pytest.LogCaptureFixture
) -> None:
    tree = await grow(engine, vocabulary, {"field": "answer"})
    assert {draw.step_likelihoods for draw in tree.draws} == {None}
    assert tree.usage.unscored_draws == len(tree.draws) == 6
    assert all(draw.reward is not None for draw in tree.draws)
    assert "likelihoods_missing" in caplog.text
    metrics = RolloutMetrics()
    metrics.record_tree(tree, tree.figures())
    assert metrics.registry.get_sample_value("ibtpo_rollout_unscored_draws_total") == 6
    assert engine.counters.scored_tokens == 0
    for answer_key in KEYS_WITHOUT_GOLD:
        with pytest.raises(InvalidInput, match="no text or number 'gold'"):
            GoldAnswer.of(LikelihoodSettings(), answer_key, vocabulary)
    by_number = GoldAnswer.of(LikelihoodSettings(field="value"), {"value": 1}, vocabulary)
    assert by_number == GoldAnswer.of(LikelihoodSettings(), {"gold": "1"}, vocabulary)


async def test_a_step_end_that_cannot_be_scored_costs_its_draw_alone(
    engine: EmbeddedEngine, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = EmbeddedEngine.score, []

    async def fail_once(engine: EmbeddedEngine, request: ScoreRequest) -> TokenScores:
        calls.append(request)
        if len(calls) == 3:
            raise Unavailable("not now")
        return await score(engine, request)

    monkeypatch.setattr(EmbeddedEngine, "score", fail_once)
    tree = await grow(engine, vocabulary, {})
    assert [draw.step_likelihoods is None for draw in tree.draws].count(True) == 1
    assert tree.usage.unscored_draws == 1
    # no room for opener and answer at the end of the context
    room = engine.limits.context_length - len(tree.task.prompt_ids)
    long = await grow(engine, vocabulary, {"opener": "1" * (room - 10)})
    assert long.usage.unscored_draws > 0
    assert len(long.draws) == 6


async def test_scores_of_all_trees_are_bounded(
    engine: EmbeddedEngine, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihoods_module, "_MOST_AT_ONCE", 3)
    score, running, most = EmbeddedEngine.score, 0, 0

    async def count(engine: EmbeddedEngine, request: ScoreRequest) -> TokenScores:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await score(engine, request)
        finally:
            running -= 1

    monkeypatch.setattr(EmbeddedEngine, "score", count)
    tree = await grow(engine, vocabulary, {})
    assert most == 3
    assert tree.usage.unscored_draws == 0


async def test_a_growth_that_is_given_up_leaves_no_score_behind(
    engine: EmbeddedEngine, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cancelled = asyncio.Event(), 0

    async def hang(engine: EmbeddedEngine, request: ScoreRequest) -> TokenScores:
        nonlocal cancelled
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        raise AssertionError("never")

    monkeypatch.setattr(EmbeddedEngine, "score", hang)
    growing = asyncio.create_task(grow(engine, vocabulary, {}))
    await begun.wait()
    growing.cancel()
    await asyncio.wait([growing])
    assert growing.cancelled()
    assert cancelled > 0


def test_a_token_in_which_opener_and_gold_meet_is_scored() -> None:
    pieces = ["\\", "b", "{", "1", "}", "{\\", "f"]
    merges = [("{", "\\")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    table = tuple(piece.encode() for piece in pieces)
    vocabulary = Vocabulary(table, frozenset(), None, tokenizer)  # type: ignore[arg-type]
    settings = LikelihoodSettings(opener="\\b{")
    plain = GoldAnswer.of(settings, {"gold": 11}, vocabulary)
    assert (plain.opener_ids, plain.token_ids) == ((0, 1, 2), (3, 3, 4))
    met = GoldAnswer.of(settings, {"gold": "\\f"}, vocabulary)
    assert (met.opener_ids, met.token_ids) == ((0, 1), (5, 6, 4))
    bare = GoldAnswer.of(LikelihoodSettings(opener="", closer="", form=LikelihoodForm.JOINT), {"gold": "1"}, vocabulary)
    assert (bare.opener_ids, bare.token_ids) == ((), (3,))
    with pytest.raises(InvalidInput, match="no tokens in this vocabulary"):
        GoldAnswer.of(LikelihoodSettings(opener="", closer=""), {"gold": "?"}, vocabulary)


@pytest.mark.parametrize("bad", [{"surprise": 1}, {"form": "x"}, {"field": ""}, "joint"])
def test_wrong_settings_are_refused_by_name(bad: Any) -> None:
    with pytest.raises(ValidationError, match="likelihood"):
        Growth.model_validate({"sampler": "ib", "likelihood": bad})
