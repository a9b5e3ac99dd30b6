"""A scored tree as a list of nodes to show: parents before children, each with its text and the method's figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw, Finish
from shared.tree.ib_score import IBSettings, confidences, etas1, scores, value_ratios
from shared.tree.node import Tree, build_tree
from shared.tree.values import node_values


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node. A figure is None where there is none: no IB-Score at a leaf, no value without verdicts."""

    guide: str
    """The lines, as text, that lead to it from above."""
    id: int
    parent: int | None
    text: str
    draw: int | None
    """The draw that begins here, counted from 0 in the order of growth; None where a draw continues."""
    value: float | None
    eta1: float | None
    eta2: float | None
    ib_score: float | None
    num_leaves: int
    reward: float | None
    finish: Finish | None


def describe_nodes(scored: ScoredTree, prompt: str, bytes_of_token: Sequence[bytes]) -> tuple[NodeView, ...]:
    """The nodes of a tree, the root first, below each node its children in the order in which they were drawn."""
    is_judged = any(draw.counted_reward is not None for draw in scored.draws)
    draws = scored.draws if is_judged else [replace(draw, reward=0.0) for draw in scored.draws]
    tree = build_tree(draws, scored.task.growth.merge_equal_draws)
    figures = _Figures.of(tree, scored.ib_settings, is_judged)
    return tuple(
        _describe(tree, node_id, guide, prompt if node_id == 0 else _text(tree, node_id, bytes_of_token), figures)
        for node_id, guide in _walk(tree)
    )


@dataclass(frozen=True, slots=True)
class _Figures:
    """The figures of every node."""

    is_judged: bool
    values: tuple[float, ...]
    etas1: Sequence[float]
    etas2: tuple[float, ...]
    ib_scores: tuple[float | None, ...]

    @classmethod
    def of(cls, tree: Tree, settings: IBSettings, is_judged: bool) -> "_Figures":
        values = node_values(tree, settings.values, settings.kappa)
        ratios, etas2 = value_ratios(tree, values), confidences(tree, settings.confidence)
        return cls(is_judged, values, etas1(ratios, settings.beta), etas2, scores(tree, ratios, etas2, settings))


def _describe(tree: Tree, node_id: int, guide: str, text: str, figures: _Figures) -> NodeView:
    node = tree.nodes[node_id]
    draw: Draw | None = None if node.draw is None else tree.draws[node.draw]
    is_leaf, is_judged = node.num_draws == 0, figures.is_judged
    return NodeView(
        guide=guide,
        id=node_id,
        parent=node.parent,
        text=text,
        draw=node.draw if draw is not None and node.start <= draw.cut else None,
        value=figures.values[node_id] if is_judged else None,
        eta1=figures.etas1[node_id] if is_judged and draw is not None else None,
        eta2=figures.etas2[node_id] if draw is not None else None,
        ib_score=figures.ib_scores[node_id] if is_judged else None,
        num_leaves=node.num_leaves,
        reward=node.reward if is_judged else None,
        finish=draw.finish if draw is not None and is_leaf else None,
    )


def _walk(tree: Tree) -> Iterator[tuple[int, str]]:
    """(node, guide) from the top down. Only forks indent: steps without a fork stay in one column."""
    pending = [(0, "", "")]
    while pending:
        node_id, guide, below = pending.pop()
        yield node_id, guide
        children = tree.nodes[node_id].children
        if len(children) == 1:
            pending.append((children[0], below, below))
            continue
        for child in reversed(children):
            corner, line = ("└─ ", "   ") if child == children[-1] else ("├─ ", "│  ")
            pending.append((child, below + corner, below + line))


def _text(tree: Tree, node_id: int, bytes_of_token: Sequence[bytes]) -> str:
    node, token_ids = tree.nodes[node_id], tree.token_ids(node_id)
    if node.draw is not None and node.num_draws == 0 and tree.draws[node.draw].finish is Finish.STOP:
        token_ids = token_ids[:-1]  # the stop token is not part of the text
    known = (bytes_of_token[token] for token in token_ids if token < len(bytes_of_token))
    return b"".join(known).decode("utf-8", "replace")
