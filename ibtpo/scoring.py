"""Scores the nodes of a tree, and assigns credit to its answers, as samplers and the learner do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ibtpo.settings import to_settings, to_toml
from ibtpo.table import Table
from ibtpo.tree import Tree
from services.learner.config import LearnerConfig
from services.learner.training.trajectories import assign_credit, extract_trajectories
from shared.errors import InvalidInput
from shared.runtime.config import load_config, resolve_overrides
from shared.tree.credit import CREDITS, Advantages, Credit, SideInformation, assign_advantages
from shared.tree.ib_score import IBSettings
from shared.tree.values import VALUES

_SECTION = {"learner": LearnerConfig}
_SCORE, _CREDIT = "learner.growth.sampler.score", "learner.advantage"
_COLUMNS = ("node", "parent", "text", "value", "eta1", "eta2", "ib_score", "answers", "reward")


def score(tree: Tree, **settings: Any) -> Table:
    """The value p̂, η₁, η₂ and IB-Score J of every node, one row each, in the order of their ids.

    The settings are those of `learner.method`, and `form`: `beta=3`, `confidence="joint"`, `values="backup"`. What is
    not given is as the tree was grown.
    """
    config = _load(tree, settings, score, (_SCORE,))
    nodes = tree.scored_nodes(cast(IBSettings, config.growth.sampler.score))
    rows = (
        (node.id, node.parent, node.text, node.value, node.eta1, node.eta2, node.ib_score, node.num_leaves, node.reward)
        for node in nodes
    )
    return Table.of_rows((dict(zip(_COLUMNS, row, strict=True)) for row in rows), _COLUMNS)


@dataclass(frozen=True, slots=True)
class CreditedTree:
    """The credit of a tree's answers: what the learner multiplies the log-probabilities of their tokens with."""

    tree: Tree
    credit: Credit
    of_nodes: Advantages
    """Of every node: A(s), and its global part."""
    advantages: tuple[tuple[float, ...] | None, ...]
    """Of every answer, the advantage of each of its tokens; None where it was not judged."""
    weights: tuple[tuple[float, ...] | None, ...]
    """Of every answer, the weight of each of its tokens."""

    @property
    def steps(self) -> Table:
        """The advantage of every step of every judged answer, counted from 0."""
        rows = (
            row
            for number, (answer, of_tokens) in enumerate(zip(self.tree.answers, self.advantages, strict=True))
            if of_tokens is not None
            for row in self._steps_of(number, answer.nodes, of_tokens)
        )
        return Table.of_rows(rows, ("answer", "node", "text", "tokens", "advantage"))

    def _steps_of(self, answer: int, nodes: tuple[int, ...], of_tokens: tuple[float, ...]) -> list[dict[str, Any]]:
        built = self.tree.built
        return [
            {
                "answer": answer,
                "node": node_id,
                "text": self.tree.nodes[node_id].text,
                "tokens": built.nodes[node_id].end - built.nodes[node_id].start,
                "advantage": of_tokens[built.nodes[node_id].start],
            }
            for node_id in nodes
        ]

    def __repr__(self) -> str:
        return f"<credit {CREDITS.kind_of(self.credit)} of {self.tree!r}>"

    def _repr_html_(self) -> str:
        return self.steps._repr_html_()


def credit(tree: Tree, advantage: str | Mapping[str, Any] = "ibtpo", **settings: Any) -> CreditedTree:
    """The advantage of every token of a tree's answers, by a credit's name, or by an import path of your own.

    The settings are those of `learner.advantage` and `learner.method`, such as `lam=0.2` or `std="sample"`.
    """
    given = {"learner.advantage": advantage, **settings}
    chosen = _load(tree, given, credit, (_CREDIT,)).advantage
    if chosen.reads_reference:
        raise InvalidInput("this credit needs the reference policy, which a tree does not hold: use prior=sampling")
    side = SideInformation(num_first=tree.scored.task.growth.sampler.initial_draws)
    of_nodes = assign_advantages(chosen, tree.built, side)
    trajectories = extract_trajectories(tree.scored, tree.scored.oldest_version)
    credited = iter(assign_credit(trajectories, tree.built, chosen.weights(tree.built, of_nodes), of_nodes))
    is_judged = [bool(tree.built.path(draw_id)) for draw_id in range(len(tree))]
    found = [next(credited) if judged else None for judged in is_judged]
    return CreditedTree(
        tree,
        chosen,
        of_nodes,
        tuple(None if one is None else _plain(one.advantages) for one in found),
        tuple(None if one is None else _plain(one.weights) for one in found),
    )


def _plain(values: Any) -> tuple[float, ...]:
    return tuple(np.asarray(values, float).tolist())


def _load(tree: Tree, settings: Mapping[str, Any], function: Any, tables: tuple[str, ...]) -> LearnerConfig:
    """The learner's configuration with these settings; what the method does not get is as the tree was grown.
    InvalidInput for a setting of another table."""
    scored = tree.scored.ib_settings
    own = {"beta": scored.beta, "confidence": scored.confidence, "values": VALUES.dump(scored.values)}
    given = to_settings(settings, _SECTION, function)
    known = ("learner.method", *tables)
    for path in resolve_overrides(given, _SECTION)["learner"]:
        key = path.partition("=")[0]
        if not any(f"{key}.".startswith(f"{table}.") for table in known):
            raise InvalidInput(f"{function.__name__}() has no setting {key}: it takes those of {' and '.join(known)}")
    fixed = ("model=unused", "data=unused", "total_steps=1", "growth.sampler=ib", f"{_SCORE[8:]}.form={scored.form}")
    before = (*fixed, *(f"method.{key}={to_toml(value, key)}" for key, value in own.items()))
    return load_config(LearnerConfig, "learner", None, (*(f"learner.{one}" for one in before), *given))
