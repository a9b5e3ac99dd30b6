"""A scored tree as a list of nodes to show: parents before children, each with its text and the method's figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from services.launcher.runs.model_files import TokenTable
from services.launcher.runs.shown_values import SHOWN_VALUES
from shared.protocol.tree import ScoredTree
from shared.tree.diagnostics import ValuesOf
from shared.tree.draw import Draw, Finish
from shared.tree.ib_score import IBSettings, confidences, etas1, scores, value_ratios
from shared.tree.node import Tree, build_tree


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node. A figure is None where there is none: no IB-Score at a leaf, no value without verdicts, or where a
    value estimator of the user's own failed."""

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


def describe_nodes(
    scored: ScoredTree,
    prompt: str,
    tokens: TokenTable,
    settings: IBSettings | None = None,
    values_of: ValuesOf = SHOWN_VALUES,
) -> tuple[NodeView, ...]:
    """The nodes of a tree, the root first, below each node its children in the order in which they were drawn. They
    are scored by `settings`, or as the tree says."""
    settings = settings or scored.ib_settings
    is_judged = any(draw.counted_reward is not None for draw in scored.draws)
    draws = scored.draws if is_judged else [replace(draw, reward=0.0) for draw in scored.draws]
    tree = build_tree(draws, scored.task.growth.merge_equal_draws)
    found, etas2 = values_of(tree, settings.values), confidences(tree, settings.confidence)
    is_valued, values = is_judged and found is not None, found or (0.0,) * len(tree.nodes)
    ratios = value_ratios(tree, values)
    ib_scores, first_etas = scores(tree, ratios, etas2, settings), etas1(ratios, settings.beta)

    def describe(node_id: int, guide: str) -> NodeView:
        node = tree.nodes[node_id]
        draw = None if node.draw is None else tree.draws[node.draw]
        return NodeView(
            guide=guide,
            id=node_id,
            parent=node.parent,
            text=prompt if node_id == 0 else tokens.decode(_shown_ids(tree, node_id, tokens)),
            draw=node.draw if draw is not None and node.start <= draw.cut else None,
            value=values[node_id] if is_valued else None,
            eta1=first_etas[node_id] if is_valued and draw is not None else None,
            eta2=etas2[node_id] if draw is not None else None,
            ib_score=ib_scores[node_id] if is_valued else None,
            num_leaves=node.num_leaves,
            reward=node.reward if is_judged else None,
            finish=draw.finish if draw is not None and node.num_draws == 0 else None,
        )

    return tuple(describe(node_id, guide) for node_id, guide in _walk(tree))


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


def _shown_ids(tree: Tree, node_id: int, tokens: TokenTable) -> Sequence[int]:
    """The tokens of a step, without the stop token, which is not part of the text."""
    node, token_ids = tree.nodes[node_id], tree.token_ids(node_id)
    if node.draw is None or node.num_draws:
        return token_ids
    return shown_ids(token_ids, tree.draws[node.draw], tokens)


def shown_ids(token_ids: Sequence[int], draw: Draw, tokens: TokenTable) -> Sequence[int]:
    """The last tokens of a draw, without its stop token, if it has one."""
    return token_ids[:-1] if draw.finish is Finish.STOP and not tokens.ends_are_text else token_ids
