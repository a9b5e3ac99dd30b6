"""Scored trees made of random draws, as a replica would send them."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from services.learner.model.prefix_rows import PrefixTrie
from services.learner.training.trajectories import BuiltTree, Trajectory, assign_credit, extract_trajectories
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.credit import IBTPOCredit, assign_advantages
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.samplers import IndependentSampler
from tests.learner.policies import VOCAB_SIZE

V0, V1 = WeightVersion(1, 0), WeightVersion(1, 1)


def growth(max_tokens: int = 16) -> Growth:
    """Eight independent answers."""
    return Growth(sampler=IndependentSampler(initial_draws=8), max_tokens=max_tokens)


def task(number: int = 0, *, run: str = "run", attempt: int = 0, prompt_ids: Sequence[int] = (3, 4, 5)) -> Task:
    """A task that belongs to no sequence."""
    return Task(
        run=run,
        id=f"0-{number}",
        attempt=attempt,
        problem_id=f"p{number}",
        prompt_ids=tuple(prompt_ids),
        kind="exact",
        answer_key={"gold": "1"},
        growth=growth(),
        seed=number,
    )


def draws(
    rng: random.Random,
    num_first: int = 4,
    num_branches: int = 4,
    *,
    versions: Sequence[WeightVersion] = (V0,),
    rewards: Sequence[float] | None = None,
    max_tokens: int = 9,
) -> tuple[Draw, ...]:
    """Draws from the prompt, then branches at random step ends of earlier ones."""
    record: list[Draw] = []
    for number in range(num_first + num_branches):
        parent, cut = None, 0
        if number >= num_first:
            forks = [(one, end) for one, draw in enumerate(record) for end in draw.step_ends[:-1]]
            parent, cut = rng.choice(forks) if forks else (None, 0)
        reward = rewards[number % len(rewards)] if rewards else float(rng.random() < 0.5)
        record.append(_draw(rng, parent, cut, versions, reward, max_tokens))
    return tuple(record)


def _draw(
    rng: random.Random, parent: int | None, cut: int, versions: Sequence[WeightVersion], reward: float, max_tokens: int
) -> Draw:
    count = rng.randint(2, max_tokens)
    inner = sorted(rng.sample(range(1, count), rng.randint(0, count - 1)))
    edges = sorted(rng.sample(range(1, count), min(len(versions), count) - 1))
    bounds = [0, *edges, count]
    return Draw(
        parent=parent,
        cut=cut,
        token_ids=tuple(rng.randrange(2, VOCAB_SIZE) for _ in range(count)),
        logprobs=tuple(-rng.random() * 3 for _ in range(count)),
        step_ends=tuple(cut + end for end in (*inner, count)),
        spans=tuple(
            VersionSpan(version, start, end) for version, start, end in zip(versions, bounds, bounds[1:], strict=False)
        ),
        finish=Finish.STOP,
        reward=reward,
    )


def scored(of_task: Task, record: Sequence[Draw], *, replica: str = "fake") -> ScoredTree:
    """The tree as it is sent."""
    usage = TreeUsage(
        generated_tokens=sum(len(draw.token_ids) for draw in record),
        prompt_tokens=sum(len(of_task.prompt_ids) + draw.cut for draw in record),
    )
    return ScoredTree(task=of_task, replica=replica, draws=tuple(record), usage=usage)


def with_logprobs(record: Sequence[Draw], logprobs: Sequence[Sequence[float]]) -> tuple[Draw, ...]:
    """The draws with other log-probabilities."""
    return tuple(replace(draw, logprobs=tuple(own)) for draw, own in zip(record, logprobs, strict=True))


def build_all(trees: Iterable[ScoredTree]) -> list[BuiltTree]:
    """As a step takes them."""
    return [BuiltTree.of(tree) for tree in trees]


def credited_trajectories(seed: int) -> list[Trajectory]:
    """Of a random tree."""
    tree = BuiltTree.of(scored(task(), draws(random.Random(seed), versions=(V0, V1))))
    credit = IBTPOCredit()
    of_nodes = assign_advantages(credit, tree.nodes)
    weights = credit.weights(tree.nodes, of_nodes)
    return assign_credit(extract_trajectories(tree.scored, V1), tree.nodes, weights, of_nodes)


def trie_of(*sequences: Sequence[int]) -> PrefixTrie:
    """Token sequences in one row."""
    return PrefixTrie.of(sequences)[0]
