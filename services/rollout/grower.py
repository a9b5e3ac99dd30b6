"""Grows trees: one loop for IBTree and every other sampler (METHOD, Where to draw next)."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from services.rollout.engines.engine import Completion, Engine, Request, Sampling
from services.rollout.likelihoods import GoldAnswer, LikelihoodScorer
from services.rollout.rewards import NoVerdict, Reward, Rewards
from services.rollout.vocabulary import Vocabulary
from shared.errors import IbtpoError, InvalidInput, Unavailable
from shared.kinds import packages_of
from shared.plugins import OwnCodeFailed, OwnProcesses
from shared.protocol.grow import BranchesChosen, DrawGrown
from shared.protocol.task import Growth, Task
from shared.protocol.thought import find_opened_thought
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.runtime.logs import event_logger
from shared.tree.diagnostics import TreeFigures
from shared.tree.draw import Draw, Finish, trajectory
from shared.tree.node import Tree, build_tree
from shared.tree.samplers import SAMPLERS, Branch, Sampler, choose_branches, prepare_sampler
from shared.tree.values import VALUES

log = event_logger(__name__)

_DECISION_SECONDS = 30.0
OnEvent = Callable[[BranchesChosen | DrawGrown], None]


class TooFewVerdicts(Unavailable):
    """Fewer than half of a tree's draws have a verdict, so the tree is discarded (METHOD, Ends)."""


@dataclass(slots=True)
class _Growth:
    """One tree while it grows: its draws and what they have cost."""

    task: Task
    vocabulary: Vocabulary
    on_event: OnEvent | None
    rng: Random
    opened_thought: str
    gold: GoldAnswer | None = None
    """What is scored at step ends; None: nothing is."""
    draws: list[Draw] = field(default_factory=list)
    missing_verdicts: list[NoVerdict] = field(default_factory=list)
    prompt_tokens: int = 0
    reusable_tokens: int = 0
    cached_tokens: int = 0
    scored_tokens: int = 0
    unscored_draws: int = 0
    why_unscored: str = ""
    engine_seconds: float = 0.0
    verify_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)


class TreeGrower:
    """Grows any number of trees at once; the engine and the verifier batch the requests of all of them."""

    def __init__(self, engine: Engine, rewards: Rewards, replica: str, own: OwnProcesses | None = None) -> None:
        """`own` has the processes in which samplers of the user's own decide."""
        self._engine = engine
        self._own = own or OwnProcesses(_DECISION_SECONDS)
        self._rewards = rewards
        self._replica = replica
        self._likelihoods = LikelihoodScorer(engine)
        self._lost_seconds: dict[str, float] = {}
        """What failures of each value estimator took."""

    async def grow(self, task: Task, vocabulary: Vocabulary, on_event: OnEvent | None = None) -> ScoredTree:
        """Draws from the root, then in rounds from the nodes that the sampler chooses, until it chooses none.

        Raises InvalidInput for a task that this policy can never serve, or whose answers the verifier refuses to judge;
        Unavailable if the engine cannot serve now or too few draws have a verdict.
        """
        opened_thought = find_opened_thought(vocabulary.decode(task.prompt_ids))
        growth = _Growth(task, vocabulary, on_event, Random(task.seed), opened_thought)
        if task.growth.likelihood is not None:
            try:
                growth.gold = GoldAnswer.of(task.growth.likelihood, task.answer_key, vocabulary)
            except InvalidInput as error:
                growth.why_unscored = str(error)
        sampler = await self._prepare(task.growth, vocabulary)
        branches: Sequence[Branch] = (Branch(None, 0, sampler.initial_draws),)
        for round_number in count(1):
            growth.draws += await self._draw(growth, branches)
            tree = build_tree(growth.draws, task.growth.merge_equal_draws)
            branches = await self._choose(growth, sampler, tree, round_number)
            if not branches:
                break
            if on_event is not None:
                chosen = tuple((branch.parent, branch.cut, branch.count) for branch in branches)
                on_event(BranchesChosen(round=round_number, branches=chosen))
        return self._finish(growth)

    async def figures(self, tree: ScoredTree) -> TreeFigures:
        """The tree's diagnostics; without scores where a value estimator of the user's own fails, which is logged
        once. One whose failures have taken as long as a call may is not asked again."""
        if not packages_of([tree.ib_settings]):
            return tree.figures()
        kind, started = VALUES.kind_of(tree.ib_settings.values), time.monotonic()
        lost = self._lost_seconds.get(kind, 0.0)
        if lost < self._own.seconds:
            try:
                return await self._own.run(tree.figures)
            except OwnCodeFailed as error:
                if kind not in self._lost_seconds:
                    log.warning("values_failed", reason=f"value estimator {kind}: {error}")
                self._lost_seconds[kind] = lost + time.monotonic() - started
        return tree.figures(values_of=lambda *_: None)

    async def _prepare(self, spec: Growth, vocabulary: Vocabulary) -> Sampler:
        """The sampler with what it needs to know of tokens and answers; InvalidInput where one of the user's own fails
        to learn it."""
        sampler, own = spec.sampler, type(spec.sampler)
        if not packages_of([sampler]):
            return vocabulary.prepare(sampler).for_answers(spec.max_tokens)
        if own.for_vocabulary is Sampler.for_vocabulary and own.for_answers is Sampler.for_answers:
            return sampler
        try:
            return await self._own.run(prepare_sampler, sampler, vocabulary.bytes_of_token, spec.max_tokens)
        except OwnCodeFailed as error:
            raise InvalidInput(f"sampler {SAMPLERS.kind_of(sampler)} cannot be prepared: {error}") from error

    async def _choose(self, growth: _Growth, sampler: Sampler, tree: Tree, round_number: int) -> Sequence[Branch]:
        """What the sampler draws next; InvalidInput where it fails, or asks for what cannot be drawn. One of the user's
        own decides in another process, so that a loop holds up this tree alone, and not for ever."""
        try:
            if packages_of([sampler]):
                chosen = await self._own.run(choose_branches, sampler, tree, round_number, growth.rng)
            else:
                chosen = choose_branches(sampler, tree, round_number, growth.rng)
        except (OwnCodeFailed, ValueError) as error:
            kind = SAMPLERS.kind_of(sampler)
            raise InvalidInput(f"sampler {kind}, round {round_number}: {error!s:.300}") from error
        branches, growth.rng = chosen
        return branches

    async def _draw(self, growth: _Growth, branches: Sequence[Branch]) -> list[Draw]:
        """Draws all branches at once. The order of the result depends on the branches alone, so that the seed decides
        the tree."""
        running: list[asyncio.Task[Draw]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for branch in branches:
                    for _ in range(branch.count):
                        seed, index = growth.rng.getrandbits(62), len(growth.draws) + len(running)
                        running.append(group.create_task(self._draw_one(growth, branch, index, seed)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in running]

    async def _draw_one(self, growth: _Growth, branch: Branch, index: int, seed: int) -> Draw:
        prefix = () if branch.parent is None else trajectory(growth.draws, branch.parent)[: branch.cut]
        completion = await self._complete(growth, prefix, index, seed)
        finish = completion.finish
        if finish is Finish.LENGTH and growth.task.growth.judge_truncated:
            finish = Finish.LENGTH_JUDGED
        token_ids = prefix + completion.token_ids
        step_ends = growth.vocabulary.segmenter.step_ends(prefix, completion.token_ids)
        reward, likelihoods = await asyncio.gather(
            self._judge(growth, token_ids, finish), self._score_steps(growth, token_ids, step_ends)
        )
        draw = Draw(
            parent=branch.parent,
            cut=branch.cut,
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            sampling_logprobs=completion.sampling_logprobs,
            step_ends=step_ends,
            spans=completion.spans,
            finish=finish,
            reward=reward.value if reward else None,
            final_answer=reward.final_answer if reward else None,
            step_likelihoods=likelihoods,
            entropies=completion.entropies,
        )
        if growth.on_event is not None:
            growth.on_event(_describe_draw(index, draw, growth.vocabulary))
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
            with_entropies=spec.sampler.asks_entropies,
        )
        started = time.monotonic()
        completion = await self._engine.complete(request)
        growth.engine_seconds += time.monotonic() - started
        growth.prompt_tokens += len(request.token_ids)
        growth.cached_tokens += completion.cached_tokens
        # Even a full cache leaves the last token of a request to compute: its output is the first logits.
        growth.reusable_tokens += len(request.token_ids) - 1 if index else 0
        return completion

    async def _judge(self, growth: _Growth, token_ids: tuple[int, ...], finish: Finish) -> Reward | None:
        task = growth.task
        if finish is Finish.LENGTH:
            return Reward(0.0)
        if not task.kind:
            return None
        response = growth.opened_thought + growth.vocabulary.decode(token_ids)
        started = time.monotonic()
        try:
            return await self._rewards.reward(task.kind, response, task.answer_key)
        except NoVerdict as missing:
            growth.missing_verdicts.append(missing)
            return None
        finally:
            growth.verify_seconds += time.monotonic() - started

    async def _score_steps(
        self, growth: _Growth, token_ids: tuple[int, ...], step_ends: tuple[int, ...]
    ) -> tuple[float, ...] | None:
        """Φ at every step end of a draw; None where it is not asked for, or had for every one. A draw's end counts
        without its stop token: nothing would come after that."""
        if growth.gold is None:
            growth.unscored_draws += growth.task.growth.likelihood is not None
            return None
        is_stopped = token_ids[-1] in growth.vocabulary.stop_ids
        whole = token_ids[:-1] if is_stopped else token_ids
        try:
            found = await self._likelihoods.score(
                growth.task.prompt_ids,
                [whole[:end] for end in step_ends],
                growth.gold,
                growth.task.growth.temperature,
            )
        except IbtpoError as error:
            growth.unscored_draws += 1
            growth.why_unscored = str(error)
            return None
        growth.scored_tokens += found.scored_tokens
        return found.values

    def _finish(self, growth: _Growth) -> ScoredTree:
        draws = tuple(growth.draws)
        unjudged = sum(draw.reward is None for draw in draws)
        if growth.task.kind and 2 * unjudged > len(draws):
            raise _too_few_verdicts(growth, unjudged)
        if growth.unscored_draws:
            reason, of = growth.why_unscored, f"{growth.unscored_draws} of {len(draws)} draws"
            log.warning("likelihoods_missing", task=growth.task.id, of=of, reason=reason)
        usage = TreeUsage(
            generated_tokens=sum(draw.num_sampled for draw in draws),
            prompt_tokens=growth.prompt_tokens,
            reusable_tokens=growth.reusable_tokens,
            cached_tokens=growth.cached_tokens,
            unjudged_draws=unjudged,
            scored_tokens=growth.scored_tokens,
            unscored_draws=growth.unscored_draws,
            seconds=time.monotonic() - growth.started,
            engine_seconds=growth.engine_seconds,
            verify_seconds=growth.verify_seconds,
        )
        return ScoredTree(task=growth.task, replica=self._replica, draws=draws, usage=usage)


def _too_few_verdicts(growth: _Growth, unjudged: int) -> IbtpoError:
    """With the last reason; InvalidInput where most answers were refused for good."""
    num_draws, refused = len(growth.draws), [missing for missing in growth.missing_verdicts if missing.is_final]
    if 2 * len(refused) > num_draws:
        return InvalidInput(f"{len(refused)} of {num_draws} draws cannot be judged: {refused[-1]}")
    return TooFewVerdicts(f"{unjudged} of {num_draws} draws have no verdict: {growth.missing_verdicts[-1]}")


def _describe_draw(index: int, draw: Draw, vocabulary: Vocabulary) -> DrawGrown:
    return DrawGrown(
        index=index,
        parent=draw.parent,
        cut=draw.cut,
        token_ids=draw.token_ids,
        text=vocabulary.decode(draw.token_ids),
        logprob=sum(draw.logprobs),
        finish=draw.finish.value,
        reward=draw.reward,
    )
