"""Grows a tree: IBTree and every other sampler, one loop (METHOD, IBTree)."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Protocol

from services.rollout.engines.engine import Completion, Engine, Request, Sampling
from services.rollout.vocabulary import Vocabulary
from shared.errors import InvalidInput, Unavailable
from shared.protocol.grow import BranchesChosen, DrawGrown
from shared.protocol.task import Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish
from shared.tree.expansion import Branch
from shared.tree.node import build_tree, trajectory

Listener = Callable[[BranchesChosen | DrawGrown], None]


class Rewards(Protocol):
    """Where rewards come from: the verifier's client, or a stand-in in tests."""

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> float | None:
        """In [0, 1]; None when there is no verdict."""


class TooFewVerdicts(Unavailable):
    """Fewer than half of a tree's draws were judged: it is discarded (METHOD, Ends)."""


@dataclass(slots=True)
class _Growth:
    """One tree on its way: its record and what it has cost."""

    task: Task
    vocabulary: Vocabulary
    listen: Listener | None
    rng: Random
    draws: list[Draw] = field(default_factory=list)
    prompt_tokens: int = 0
    reusable_tokens: int = 0
    cached_tokens: int = 0
    engine_seconds: float = 0.0
    verify_seconds: float = 0.0


class TreeGrower:
    """Every call of `grow` advances on its own; the engine and the verifier batch what many trees ask."""

    def __init__(self, engine: Engine, rewards: Rewards, replica: str) -> None:
        self._engine = engine
        self._rewards = rewards
        self._replica = replica

    async def grow(self, task: Task, vocabulary: Vocabulary, listen: Listener | None = None) -> ScoredTree:
        """Draws from the root, then from where the sampler says, until it says nothing.

        Raises InvalidInput for a task that no engine state can serve, Unavailable when the engine cannot serve now
        or the verifier judged too little.
        """
        self._check(task)
        started = time.monotonic()
        sampler = vocabulary.informed(task.growth.sampler)
        growth = _Growth(task, vocabulary, listen, Random(task.seed))
        branches: tuple[Branch, ...] = (Branch(None, 0, sampler.initial_draws),)
        for round_ in count(1):
            await self._draw(growth, branches)
            branches = sampler.expand(build_tree(growth.draws, task.growth.merge_equal_draws), round_, growth.rng)
            if not branches:
                break
            if listen:
                listen(_chosen(round_, branches))
        return self._scored(growth, time.monotonic() - started)

    def _check(self, task: Task) -> None:
        limits = self._engine.limits
        longest = len(task.prompt_ids) + task.growth.max_tokens
        if longest > limits.context_length:
            raise InvalidInput(
                f"{len(task.prompt_ids)} prompt tokens + max_tokens {task.growth.max_tokens} exceed the context of "
                f"{limits.context_length}: shorten the prompt or lower growth.max_tokens"
            )
        outside = [i for i in task.prompt_ids if not 0 <= i < limits.vocab_size]
        if outside:
            raise InvalidInput(f"token id {outside[0]} is outside the vocabulary of {limits.vocab_size}")

    async def _draw(self, growth: _Growth, branches: tuple[Branch, ...]) -> None:
        """Draws every branch at once and records them in the order asked, so that a seed decides the tree."""
        running: list[asyncio.Task[Draw]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for branch in branches:
                    for _ in range(branch.count):
                        seed, index = growth.rng.getrandbits(62), len(growth.draws) + len(running)
                        running.append(group.create_task(self._draw_one(growth, branch, index, seed)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        growth.draws.extend(task.result() for task in running)

    async def _draw_one(self, growth: _Growth, branch: Branch, index: int, seed: int) -> Draw:
        prefix = () if branch.parent is None else trajectory(growth.draws, branch.parent)[: branch.cut]
        completion = await self._complete(growth, prefix, index, seed)
        token_ids = prefix + completion.token_ids
        started = time.monotonic()
        reward = await self._judge(growth, token_ids, completion.finish)
        growth.verify_seconds += time.monotonic() - started
        draw = Draw(
            parent=branch.parent,
            cut=branch.cut,
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            sampling_logprobs=completion.sampling_logprobs,
            step_ends=growth.vocabulary.segmenter.step_ends(prefix, completion.token_ids),
            spans=completion.spans,
            finish=completion.finish,
            reward=reward,
        )
        if growth.listen:
            growth.listen(_grown(index, draw, growth.vocabulary))
        return draw

    async def _complete(self, growth: _Growth, prefix: tuple[int, ...], index: int, seed: int) -> Completion:
        spec = growth.task.growth
        request = Request(
            token_ids=growth.task.prompt_ids + prefix,
            max_tokens=spec.max_tokens - len(prefix),
            sampling=Sampling(spec.temperature, spec.top_p, spec.top_k),
            stop_ids=growth.vocabulary.stop_ids,
            seed=seed,
            group=hash(growth.task.prompt_ids),
        )
        started = time.monotonic()
        completion = await self._engine.complete(request)
        growth.engine_seconds += time.monotonic() - started
        growth.prompt_tokens += len(request.token_ids)
        growth.cached_tokens += completion.cached_tokens
        # The last token of a request is computed even behind a full cache: its output is the first logits.
        growth.reusable_tokens += len(request.token_ids) - 1 if index else 0
        return completion

    async def _judge(self, growth: _Growth, token_ids: tuple[int, ...], finish: Finish) -> float | None:
        task = growth.task
        if finish is Finish.LENGTH:
            return 0.0
        if not task.kind:
            return None
        return await self._rewards.reward(task.kind, growth.vocabulary.text(token_ids), task.answer_key)

    def _scored(self, growth: _Growth, seconds: float) -> ScoredTree:
        draws = tuple(growth.draws)
        unjudged = sum(draw.reward is None for draw in draws)
        if growth.task.kind and 2 * unjudged > len(draws):
            raise TooFewVerdicts(f"{unjudged} of {len(draws)} draws have no verdict: is the verifier up?")
        usage = TreeUsage(
            generated_tokens=sum(len(draw.token_ids) for draw in draws),
            prompt_tokens=growth.prompt_tokens,
            reusable_tokens=growth.reusable_tokens,
            cached_tokens=growth.cached_tokens,
            unjudged_draws=unjudged,
            seconds=seconds,
            engine_seconds=growth.engine_seconds,
            verify_seconds=growth.verify_seconds,
        )
        return ScoredTree(task=growth.task, replica=self._replica, draws=draws, usage=usage)


def _chosen(round_: int, branches: tuple[Branch, ...]) -> BranchesChosen:
    return BranchesChosen(round=round_, branches=tuple((b.parent, b.cut, b.count) for b in branches))


def _grown(index: int, draw: Draw, vocabulary: Vocabulary) -> DrawGrown:
    return DrawGrown(
        index=index,
        parent=draw.parent,
        cut=draw.cut,
        token_ids=draw.token_ids,
        text=vocabulary.text(draw.token_ids),
        logprob=sum(draw.logprobs),
        finish=draw.finish.value,
        reward=draw.reward,
    )
