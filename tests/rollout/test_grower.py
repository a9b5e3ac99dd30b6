"""The grower against a scripted engine: what it asks for, what it records, when it stops."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.rollout.engines.engine import Completion, EngineLimits, Request, ScoreRequest, TokenScores
from services.rollout.grower import TooFewVerdicts, TreeGrower
from services.rollout.rewards import NoVerdict, Reward
from services.rollout.vocabulary import Vocabulary
from shared.errors import InvalidInput, Unavailable
from shared.protocol.grow import BranchesChosen, DrawGrown
from shared.protocol.task import Growth, Task
from shared.tree.draw import Finish, VersionSpan, WeightVersion, trajectory
from shared.tree.node import build_tree
from shared.tree.samplers import ActivePathSampler, IBSampler, IndependentSampler
from shared.tree.segmentation import Segmenter

TABLE = (b"<eos>", b"\n\n", b"a", b"b", b"c")
EOS, BREAK = 0, 1


@dataclass
class ScriptedEngine:
    """Answers every request with two steps whose text depends on the seed; the second is the end."""

    version: WeightVersion | None = field(default_factory=lambda: WeightVersion(1, 7))
    limits: EngineLimits = field(default_factory=lambda: EngineLimits(vocab_size=5, context_length=64))
    requests: list[Request] = field(default_factory=list)
    failure: Exception | None = None
    always_long: bool = False

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        self.limits.check(request)
        if self.failure:
            raise self.failure
        self.requests.append(request)
        letter = 2 + request.seed % 3
        full = (letter, BREAK, 2 + request.seed // 3 % 3, BREAK, letter, EOS)
        tokens = full[: request.max_tokens]
        finish = Finish.STOP if len(tokens) == len(full) and not self.always_long else Finish.LENGTH
        return Completion(
            token_ids=tokens,
            logprobs=tuple(-0.1 * (i + 1) for i in range(len(tokens))),
            sampling_logprobs=None,
            spans=(VersionSpan(WeightVersion(1, 7), 0, len(tokens)),),
            finish=finish,
            cached_tokens=min(2, len(request.token_ids)),
            entropies=tuple(0.5 * i for i in range(len(tokens))) if request.with_entropies else None,
        )

    async def score(self, request: ScoreRequest) -> TokenScores:
        raise NotImplementedError

    async def load(self, snapshot: Path, version: WeightVersion) -> None:
        raise NotImplementedError

    async def close(self) -> None: ...


class LetterRewards:
    """Right when the answer ends in `a`."""

    def __init__(self, silent_after: int | None = None, *, is_final: bool = False) -> None:
        self.judged: list[str] = []
        self.is_final = is_final
        self.silent_after = silent_after

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        self.judged.append(response)
        if self.silent_after is not None and len(self.judged) > self.silent_after:
            raise NoVerdict("the verifier is asleep", is_final=self.is_final)
        return Reward(float(response.endswith("a")), final_answer=response[-1:])


@pytest.fixture
def vocabulary() -> Vocabulary:
    stop = frozenset({EOS})
    return Vocabulary(TABLE, stop, Segmenter(TABLE, stop), tokenizer=None)  # type: ignore[arg-type]


def task(sampler: object = IBSampler(), seed: int = 1, max_tokens: int = 40, prompt: tuple[int, ...] = (2, 3)) -> Task:
    growth = Growth(sampler=sampler, max_tokens=max_tokens)  # type: ignore[arg-type]
    return Task(
        run="r", id="0-0", problem_id="p", prompt_ids=prompt, kind="exact", answer_key={}, growth=growth, seed=seed
    )


async def test_an_ib_tree_has_first_plus_one_draw_per_further_level(vocabulary: Vocabulary) -> None:
    tree = await TreeGrower(ScriptedEngine(), LetterRewards(), "r1").grow(task(), vocabulary)
    assert len(tree.draws) == 4 + 8
    assert all(draw.parent is None for draw in tree.draws[:4])
    assert tree.usage.generated_tokens == sum(len(draw.token_ids) for draw in tree.draws)


async def test_draws_have_entropies_where_the_sampler_asks_for_them(vocabulary: Vocabulary) -> None:
    engine = ScriptedEngine()
    grower = TreeGrower(engine, LetterRewards(), "r1")
    tree = await grower.grow(task(ActivePathSampler(initial_draws=2, rounds=2)), vocabulary)
    assert len(tree.draws) == 6
    assert all(draw.entropies == tuple(0.5 * i for i in range(len(draw.token_ids))) for draw in tree.draws)
    # the highest is that of the last token; the one before it is kept, and the next one drawn again
    assert [draw.cut for draw in tree.draws[:4]] == [0, 0, 5, 5]
    assert [draw.entropies for draw in tree.unpack(tree.pack()).draws] == [draw.entropies for draw in tree.draws]
    plain = await grower.grow(task(), vocabulary)
    assert {draw.entropies for draw in plain.draws} == {None}


async def test_a_branch_asks_for_the_sampled_ids_of_its_prefix_and_the_rest_of_the_limit(
    vocabulary: Vocabulary,
) -> None:
    engine = ScriptedEngine()
    tree = await TreeGrower(engine, LetterRewards(), "r1").grow(task(max_tokens=30), vocabulary)
    for draw, request in zip(tree.draws, engine.requests, strict=True):
        prefix = () if draw.parent is None else trajectory(tree.draws, draw.parent)[: draw.cut]
        assert request.token_ids == (2, 3, *prefix)
        assert request.max_tokens == 30 - len(prefix)
        assert request.stop_ids == {EOS}


async def test_the_same_seed_grows_the_same_tree(vocabulary: Vocabulary) -> None:
    grower = TreeGrower(ScriptedEngine(), LetterRewards(), "r1")
    first, again, other = [await grower.grow(task(seed=seed), vocabulary) for seed in (3, 3, 4)]
    assert first.draws == again.draws
    assert first.draws != other.draws


async def test_the_verifier_reads_the_whole_answer_without_the_stop_token(vocabulary: Vocabulary) -> None:
    rewards = LetterRewards()
    tree = await TreeGrower(ScriptedEngine(), rewards, "r1").grow(task(IndependentSampler(initial_draws=3)), vocabulary)
    assert sorted(rewards.judged) == sorted(vocabulary.decode(draw.token_ids) for draw in tree.draws)
    assert all("<eos>" not in text for text in rewards.judged)


async def test_an_answer_to_a_prompt_that_opens_a_thought_is_judged_with_its_tag() -> None:
    table, stop = (*TABLE, b"<think>"), frozenset({EOS})
    vocabulary = Vocabulary(table, stop, Segmenter(table, stop), tokenizer=None)  # type: ignore[arg-type]
    engine, rewards = ScriptedEngine(limits=EngineLimits(vocab_size=6, context_length=64)), LetterRewards()
    asked = task(IndependentSampler(initial_draws=3), prompt=(2, 5, BREAK))
    tree = await TreeGrower(engine, rewards, "r1").grow(asked, vocabulary)
    assert sorted(rewards.judged) == sorted("<think>" + vocabulary.decode(draw.token_ids) for draw in tree.draws)


async def test_an_answer_cut_by_length_is_wrong_unjudged_and_never_branched(vocabulary: Vocabulary) -> None:
    rewards = LetterRewards()
    tree = await TreeGrower(ScriptedEngine(always_long=True), rewards, "r1").grow(task(), vocabulary)
    assert rewards.judged == []
    assert {draw.reward for draw in tree.draws} == {0.0}
    nodes = build_tree(tree.draws).nodes
    assert all(node.num_draws == 0 for node in nodes if node.reward is not None)


async def test_a_missing_verdict_leaves_the_draw_out_and_is_counted(vocabulary: Vocabulary) -> None:
    tree = await TreeGrower(ScriptedEngine(), LetterRewards(silent_after=9), "r1").grow(task(), vocabulary)
    assert tree.usage.unjudged_draws == 3
    assert sum(draw.reward is None for draw in tree.draws) == 3


async def test_a_tree_with_too_few_verdicts_is_discarded_with_the_reason(vocabulary: Vocabulary) -> None:
    with pytest.raises(TooFewVerdicts, match="7 of 12 draws have no verdict: the verifier is asleep"):
        await TreeGrower(ScriptedEngine(), LetterRewards(silent_after=5), "r1").grow(task(), vocabulary)


async def test_a_task_whose_answers_are_refused_for_good_is_none_to_try_again(vocabulary: Vocabulary) -> None:
    engine = ScriptedEngine()
    with pytest.raises(InvalidInput, match="4 of 4 draws cannot be judged: the verifier is asleep"):
        await TreeGrower(engine, LetterRewards(silent_after=0, is_final=True), "r1").grow(task(), vocabulary)
    assert len(engine.requests) == 4


async def test_answers_that_the_limit_cuts_count_0_or_are_judged_as_the_task_says(vocabulary: Vocabulary) -> None:
    rewards, engine = LetterRewards(), ScriptedEngine()
    engine.always_long = True
    grower, cut = TreeGrower(engine, rewards, "r1"), task(IndependentSampler(initial_draws=8))
    tree = await grower.grow(cut, vocabulary)
    assert rewards.judged == []
    assert {draw.counted_reward for draw in tree.draws} == {0.0}
    judged = cut.model_copy(update={"growth": cut.growth.model_copy(update={"judge_truncated": True})})
    tree = await grower.grow(judged, vocabulary)
    assert len(rewards.judged) == 8
    assert {draw.counted_reward for draw in tree.draws} == {0.0, 1.0}
    assert tree.figures().truncated.value == 1.0


async def test_without_a_kind_nothing_is_judged(vocabulary: Vocabulary) -> None:
    rewards = LetterRewards()
    ungraded = task().model_copy(update={"kind": ""})
    tree = await TreeGrower(ScriptedEngine(), rewards, "r1").grow(ungraded, vocabulary)
    assert rewards.judged == []
    assert {draw.reward for draw in tree.draws} == {None}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (task(max_tokens=63), "over the context of 64: shorten the prompt or lower growth.max_tokens"),
        (task(prompt=(2, 5)), r"token id 5 is outside the vocabulary \[0, 5\)"),
    ],
)
async def test_a_task_that_can_never_be_served_is_refused_with_its_values(
    vocabulary: Vocabulary, bad: Task, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        await TreeGrower(ScriptedEngine(), LetterRewards(), "r1").grow(bad, vocabulary)


async def test_an_engine_that_cannot_serve_ends_the_tree_with_its_own_error(vocabulary: Vocabulary) -> None:
    engine = ScriptedEngine(failure=Unavailable("restarting"))
    with pytest.raises(Unavailable, match="restarting"):
        await TreeGrower(engine, LetterRewards(), "r1").grow(task(), vocabulary)


async def test_a_listener_hears_every_draw_and_every_choice(vocabulary: Vocabulary) -> None:
    events: list[BranchesChosen | DrawGrown] = []
    await TreeGrower(ScriptedEngine(), LetterRewards(), "r1").grow(task(), vocabulary, events.append)
    draws = [event for event in events if isinstance(event, DrawGrown)]
    assert [event.index for event in draws] == list(range(12))
    assert [event.round for event in events if isinstance(event, BranchesChosen)] == list(range(1, 9))
