"""A tree of answers, as `grow` makes it and as it is shown, saved and scored."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self

from rich.console import RenderableType

from ibtpo.hand_made import make_tree
from ibtpo.notebook import frame_svg, to_text
from services.launcher.display.node_views import NodeView, describe_nodes, shown_ids
from services.launcher.display.tree_svg import draw_page, render_tree_svg
from services.launcher.display.tree_view import render_tree, summarize_tree
from services.launcher.runs.kept_trees import KeptTree
from services.launcher.runs.model_files import TokenTable
from services.launcher.runs.shown_values import SHOWN_VALUES
from services.launcher.runs.tree_files import read_tree, save_tree
from shared.errors import InvalidInput
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Finish, trajectory
from shared.tree.ib_score import IBSettings
from shared.tree.node import Tree as BuiltTree


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, from the prompt's end to its own. `nodes` are the ids of those on its way, the leaf last."""

    text: str
    reward: float | None
    """None: not judged."""
    finish: Finish
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    nodes: tuple[int, ...]


class Tree:
    """Answers that share prefixes, with their rewards. It draws itself in a notebook; `print` writes it as text."""

    def __init__(self, scored: ScoredTree, tokens: TokenTable, prompt: str | None = None) -> None:
        """`scored` is the record of the draws, `tokens` has their texts; `prompt` is shown in place of the rendered
        one."""
        self.scored = scored
        self.tokens = tokens
        self.prompt = KeptTree(Path(), scored, tokens).message if prompt is None else prompt

    @classmethod
    def from_answers(
        cls,
        answers: Sequence[str | Sequence[str]],
        rewards: Sequence[float | None],
        *,
        prompt: str = "the problem",
        logprobs: Sequence[Sequence[float]] | None = None,
    ) -> Self:
        """A tree of answers that something else sampled independently; equal beginnings are shared, step by step.

        An answer is its text, whose steps end at blank lines, or the texts of its steps. `logprobs` has one number for
        each of these steps; without it, the probability of a step is the share of the answers before it that take it.
        """
        return cls(*make_tree(answers, rewards, prompt, logprobs), prompt)

    @classmethod
    def load(cls, path: str | PathLike[str], model: str | PathLike[str] | None = None) -> Self:
        """The tree that `save` wrote, or one that a run kept, whose `model` has the texts of its tokens."""
        return cls(*read_tree(Path(path), None if model is None else Path(model)))

    def save(self, path: str | PathLike[str]) -> Path:
        """Writes the tree's record or, to a name that ends in .svg, its drawing."""
        path = Path(path)
        if path.suffix != ".svg":
            save_tree(path, self.scored, self.tokens)
            return path
        try:
            path.write_text(self.svg(), encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
        return path

    @cached_property
    def built(self) -> BuiltTree:
        """The nodes and draws as the mathematics has them."""
        return self.scored.tree()

    @cached_property
    def nodes(self) -> tuple[NodeView, ...]:
        """Every node with its figures, parents before children; a node's id is its place here."""
        return self.scored_nodes(self.scored.ib_settings)

    def scored_nodes(self, settings: IBSettings) -> tuple[NodeView, ...]:
        """The nodes, scored by other settings."""
        nodes = describe_nodes(self.scored, self.prompt, self.tokens, settings)
        return tuple(sorted(nodes, key=lambda node: node.id))

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """Every answer, in the order in which they were drawn."""
        return tuple(self._describe_answers())

    @property
    def rewards(self) -> tuple[float | None, ...]:
        """That of every answer; None where it was not judged."""
        return tuple(draw.counted_reward for draw in self.scored.draws)

    @property
    def root_value(self) -> float | None:
        """The mean reward of the initial draws: an unbiased estimate of how often the policy is right."""
        return self.scored.figures(values_of=SHOWN_VALUES).root_value

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, which JSON can hold."""
        return {
            "prompt": self.prompt,
            "summary": summarize_tree(self.scored),
            "nodes": [_without_guide(node) for node in self.nodes],
            "answers": [asdict(answer) for answer in self.answers],
            "task": self.scored.task.model_dump(mode="json"),
        }

    def svg(self) -> str:
        """The drawing as a file of its own."""
        return draw_page(self._in_order())

    def __len__(self) -> int:
        """How many answers it has."""
        return len(self.scored.draws)

    def __repr__(self) -> str:
        return f"<{summarize_tree(self.scored)}>"

    def __str__(self) -> str:
        return to_text(self)

    def __rich__(self) -> RenderableType:
        return render_tree(self.scored, self.prompt, self.tokens)

    def _repr_html_(self) -> str:
        return frame_svg(render_tree_svg(self._in_order()), summarize_tree(self.scored))

    def _in_order(self) -> tuple[NodeView, ...]:
        """The nodes, below each one its children in the order in which they were drawn."""
        return describe_nodes(self.scored, self.prompt, self.tokens)

    def _describe_answers(self) -> Iterator[Answer]:
        draws = self.scored.draws
        logprobs: list[tuple[float, ...]] = []
        for draw_id, draw in enumerate(draws):
            before = () if draw.parent is None else logprobs[draw.parent][: draw.cut]
            logprobs.append((*before, *draw.logprobs))
            token_ids = trajectory(draws, draw_id)
            text = self.tokens.decode(shown_ids(token_ids, draw, self.tokens))
            path = self.built.path(draw_id)
            yield Answer(text, draw.counted_reward, draw.finish, token_ids, logprobs[-1], path)


def _without_guide(node: NodeView) -> dict[str, Any]:
    return {name: value for name, value in asdict(node).items() if name != "guide"}
