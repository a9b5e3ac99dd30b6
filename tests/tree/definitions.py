"""METHOD's definitions, written slowly over trajectories, with nothing of the code that they check.

A state is a prefix of a trajectory that ends at a step end or at a fork; a draw continues a state when it sampled the
next token itself. Draws without a verdict are trajectories of nothing; what others continue of them is kept.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from statistics import fmean, pstdev

from shared.tree.draw import Draw, Finish
from shared.tree.node import Tree
from shared.tree.values import VALUES, ValueEstimator
from tests.tree.records import SEGMENTER

State = Hashable
ROOT: State = ()


class Definitions:
    """Every quantity of METHOD for one record of draws."""

    def __init__(self, draws: Sequence[Draw], merge: bool, beta: float = 5.0, kappa: float = 2.0) -> None:
        self.draws, self.merge, self.beta, self.kappa = draws, merge, beta, kappa
        every = range(len(draws))
        self.ids = [i for i in every if draws[i].finish is Finish.LENGTH or draws[i].reward is not None]
        self.reward = [0.0 if one.finish is Finish.LENGTH else one.reward or 0.0 for one in draws]
        self.rewards = [self.reward[i] for i in self.ids]
        self.sampler_of_token = [self._samplers(i) for i in every]
        self.tokens = [
            tuple(self.draws[j].token_ids[at - self.draws[j].cut] for at, j in enumerate(self.sampler_of_token[i]))
            for i in every
        ]
        forks = {self.prefix(parent, cut) for parent, cut in self._forks()}
        self.states = [
            [ROOT]
            + [
                self.prefix(i, end)
                for end in range(1, len(self.tokens[i]) + 1)
                if end in SEGMENTER.step_ends((), self.tokens[i]) or self.prefix(i, end) in forks
            ]
            for i in every
        ]
        self.all_states = {state for i in self.ids for state in self.states[i]}

    def _forks(self) -> set[tuple[int, int]]:
        """Where one sampled token is followed by tokens of several draws, in trajectories with a verdict; where its
        sampler has a verdict, its own next token is one of them, kept or not."""
        followers: dict[tuple[int, int], set[int]] = {}
        for i in self.ids:
            samplers = self.sampler_of_token[i]
            for at in range(1, len(samplers)):
                followers.setdefault((samplers[at - 1], at), set()).add(samplers[at])
        return {(j, at) for (j, at), after in followers.items() if len(after) > 1}

    def _samplers(self, i: int) -> list[int]:
        """Which draw sampled each token of the trajectory of draw i."""
        one = self.draws[i]
        above = [] if one.parent is None else self._samplers(one.parent)[: one.cut]
        return above + [i] * len(one.token_ids)

    def prefix(self, i: int, length: int) -> State:
        """The first tokens of a trajectory: by what they are when equal ones are merged, by who drew them otherwise."""
        if not self.merge:
            return tuple(self.sampler_of_token[i][:length])
        return (self.tokens[i][:length], length == len(self.tokens[i]))

    def length(self, state: State) -> int:
        return len(state[0]) if self.merge and state else len(state)

    def leaves(self, s: State) -> list[int]:
        return [i for i in self.ids if s in self.states[i]]

    def successors(self, s: State) -> Iterator[State]:
        """The state after s of each draw that continues s."""
        through = [i for i in self.leaves(s) if self.length(s) < len(self.tokens[i])]
        after = {self.sampler_of_token[i][self.length(s)]: self.states[i][self.states[i].index(s) + 1] for i in through}
        yield from after.values()

    def parent(self, s: State) -> State:
        i = self.leaves(s)[0]
        return self.states[i][max(self.states[i].index(s) - 1, 0)]

    def multiplicity(self, s: State) -> int:
        return list(self.successors(self.parent(s))).count(s)

    def counts(self, s: State) -> float:
        return fmean(self.reward[i] for i in self.leaves(s))

    def backup(self, s: State) -> float:
        of_draws = [self.backup(c) for c in self.successors(s)]
        return fmean(of_draws) if of_draws else self.counts(s)

    def shrunk(self, s: State) -> float:
        if s == ROOT:
            return self.backup(s)
        n = len(self.leaves(s))
        return (n * self.backup(s) + self.kappa * self.shrunk(self.parent(s))) / (n + self.kappa)

    def value(self, estimator: ValueEstimator, s: State) -> float:
        return {"counts": self.counts, "backup": self.backup, "shrunk": self.shrunk}[VALUES.kind_of(estimator)](s)

    def step_logprobs(self, s: State) -> list[float]:
        """Of the tokens after the parent's end, in one trajectory through s."""
        i = self.leaves(s)[0]
        return [
            self.draws[j].logprobs[at - self.draws[j].cut]
            for at, j in enumerate(self.sampler_of_token[i])
            if self.length(self.parent(s)) <= at < self.length(s)
        ]

    def step_tokens(self, s: State) -> tuple[int, ...]:
        return self.tokens[self.leaves(s)[0]][self.length(self.parent(s)) : self.length(s)]

    def eta2(self, confidence: str, s: State) -> float:
        if s == ROOT:
            return 1.0
        if confidence == "geometric":
            return math.exp(fmean(self.step_logprobs(s)))
        joint = math.prod(math.exp(x) for x in self.step_logprobs(s))
        if confidence == "joint":
            return joint
        siblings = {self.step_tokens(c): c for c in self.successors(self.parent(s))}
        return joint / sum(math.prod(math.exp(x) for x in self.step_logprobs(c)) for c in siblings.values())

    def r(self, estimator: ValueEstimator, s: State) -> float:
        above = self.value(estimator, self.parent(s))
        return self.value(estimator, s) / above if above else 1.0

    def eta1(self, estimator: ValueEstimator, s: State) -> float:
        return self.r(estimator, s) - (1 + 1 / self.beta)

    def ib1(self, estimator: ValueEstimator, confidence: str, s: State) -> float | None:
        terms = [self.eta1(estimator, c) * self.eta2(confidence, c) for c in self.successors(s)]
        return (1 + self.beta) / len(terms) * sum(terms) if terms else None

    def ib1x(self, estimator: ValueEstimator, confidence: str, s: State) -> float | None:
        terms = [
            self.eta2(confidence, c) * (self.r(estimator, c) ** 2 - (1 + 1 / self.beta)) for c in self.successors(s)
        ]
        return 1 + self.beta / len(terms) * sum(terms) if terms else None

    def a_gl(self, estimator: ValueEstimator, s: State) -> float:
        return (self.value(estimator, s) - self.value(estimator, ROOT)) / (pstdev(self.rewards) + 1e-6)

    def a_ib(self, estimator: ValueEstimator, confidence: str, s: State, *, centred: bool = False) -> float:
        of_outcome = self.r(estimator, s) - 1 if centred else self.eta1(estimator, s)
        return of_outcome * self.eta2(confidence, s)

    def draw_weight(self, s: State) -> float:
        if s == ROOT:
            return float(len(self.ids))
        above = self.parent(s)
        return self.draw_weight(above) * self.multiplicity(s) / len(list(self.successors(above)))


def states_of(tree: Tree, slow: Definitions) -> dict[int, State]:
    """The state that each node ends at, found by walking every trajectory through both."""
    states: dict[int, State] = {0: ROOT}
    for draw_id in slow.ids:
        path = tree.path(draw_id)
        assert len(path) == len(slow.states[draw_id]) - 1
        for node_id, state in zip(path, slow.states[draw_id][1:], strict=True):
            assert states.setdefault(node_id, state) == state
    assert len(set(states.values())) == len(states) == len(tree.nodes)
    return states
