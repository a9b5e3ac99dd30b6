"""`ibtpo grow`: asks a rollout replica for one tree, shows how it grows, and renders it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.status import Status

from services.demo.difficulty import DEFAULT_MODULUS
from services.demo.task import answer_of, checkpoint_directory
from services.launcher.display.node_views import describe_nodes
from services.launcher.display.tree_svg import draw_page
from services.launcher.display.tree_view import render_tree
from services.launcher.processes.model_services import ModelServices, ServiceAddresses
from services.launcher.runs.model_files import TokenTable, check_model, load_prompt_encoder, read_token_table
from services.launcher.runs.tree_files import save_tree
from shared.errors import InvalidInput
from shared.files import read_rows
from shared.protocol.grow import BranchesChosen, DrawGrown, GrowRequest, GrowthEvent
from shared.protocol.message import JsonObject
from shared.protocol.task import Growth, Problem
from shared.protocol.tree import ScoredTree
from shared.runtime.config import load_sections
from shared.weights import Prompt

EventListener = Callable[[GrowthEvent], None]


@dataclass(frozen=True, slots=True)
class GrowArguments:
    """The command's arguments. Without `url`, a verifier and a replica are started for this tree."""

    prompt: Prompt | None
    """None: that of a row of `data`."""
    data: Path | None
    row: int
    model: Path | None
    url: str | None
    kind: str
    answer: str | None
    settings: tuple[str, ...]
    seed: int
    token: str | None
    save: Path | None


def grow(arguments: GrowArguments) -> int:
    """Grows the tree and prints it; returns the exit code."""
    console = Console()
    model = check_model(arguments.model or checkpoint_directory())
    problem = _read_problem(arguments, model)
    request = make_request(problem, model, (f"seed={arguments.seed}", *arguments.settings))
    prompt = shown_prompt(problem)
    with show_progress(console) as on_event:
        tree = asyncio.run(_grow_tree(arguments, model, request, on_event))
    tokens = read_token_table(model)
    console.print(render_tree(tree, prompt, tokens))
    if request.answer_key is None:
        print("nothing is judged, so no branch is better than another and none is grown: give the right --answer")
    elif model == checkpoint_directory():
        print(f"the demo's model reckons modulo {DEFAULT_MODULUS}")
    if arguments.save is not None:
        _save(tree, prompt, arguments.save, tokens)
    return 0


def make_problem(prompt: Prompt, model: Path, kind: str, answer: str | None) -> Problem:
    """A problem with its right answer; the demo's model gets one from us. Its kind is empty where nothing is to be
    judged."""
    if answer is None and model == checkpoint_directory() and isinstance(prompt, str):
        answer = answer_of(prompt)
    kind, key = ("", {}) if answer is None else (kind, {"gold": answer})
    return Problem(id="given", prompt=prompt, kind=kind, answer_key=key)


def shown_prompt(problem: Problem) -> str:
    """The problem's text, or that of its last message."""
    return problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1].get("content", "")


def _read_problem(arguments: GrowArguments, model: Path) -> Problem:
    """The problem that is given, or the row."""
    if (arguments.prompt is None) == (arguments.data is None):
        raise InvalidInput("give a problem, or --data FILE with problems")
    if arguments.prompt is not None:
        return make_problem(arguments.prompt, model, arguments.kind, arguments.answer)
    path = cast(Path, arguments.data)
    found = next(islice(read_rows(path, Problem), arguments.row - 1, None), None)
    if found is None:
        raise InvalidInput(f"{path} has no problem {arguments.row}: --row counts them from 1")
    return found[1]


def _save(tree: ScoredTree, prompt: str, path: Path, tokens: TokenTable) -> None:
    """The drawing in a file that ends in .svg, else the record. InvalidInput for a file that cannot be written."""
    if path.suffix != ".svg":
        save_tree(path, tree, tokens)
        print(f"saved: `ibtpo show {path}` shows it again")
        return
    try:
        path.write_text(draw_page(describe_nodes(tree, prompt, tokens)), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error


async def _grow_tree(
    arguments: GrowArguments, model: Path, request: GrowRequest, on_event: EventListener
) -> ScoredTree:
    given = ServiceAddresses(rollout_url=arguments.url, token=arguments.token)
    async with ModelServices(model, given) as services:
        return await services.grow(request, on_event)


class Prompting(BaseModel):
    """What is given of the learner's settings, beside those of growth."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, description="Another seed grows another tree")
    chat_template_kwargs: JsonObject = Field({}, description="Given to the chat template with the messages")


GROWTH_SECTIONS: dict[str, type[BaseModel]] = {"growth": Growth, "learner": Prompting}
"""What `ibtpo grow` has settings of."""


_SERVICES = frozenset({"rollout", "verifier", "launcher"})


def make_request(problem: Problem, model: Path, settings: Sequence[str]) -> GrowRequest:
    """How the problem is grown with these settings; InvalidInput for one that is unknown or wrong."""
    for one in settings:
        if one.partition(".")[0] in _SERVICES:
            raise InvalidInput(
                f"{one}: this command takes settings of how trees grow, and its services have their defaults; start a "
                "replica with its own, `ibtpo rollout …`, and give its --url"
            )
    loaded = load_sections(GROWTH_SECTIONS, None, ("sampler=ib", *settings))
    growth, prompting = cast(Growth, loaded["growth"]), cast(Prompting, loaded["learner"])
    prompt: dict[str, Any] = {"prompt": problem.prompt}
    if not isinstance(problem.prompt, str):
        try:
            prompt = {"prompt_ids": load_prompt_encoder(model, prompting.chat_template_kwargs)(problem.prompt)}
        except ValueError as error:
            raise InvalidInput(str(error)) from error
    judging: dict[str, Any] = {"kind": problem.kind, "answer_key": problem.answer_key} if problem.kind else {}
    return GrowRequest(**prompt, **judging, growth=growth, seed=prompting.seed)


@contextmanager
def show_progress(console: Console) -> Iterator[EventListener]:
    """Shows a status line while the tree grows; yields the function that updates it."""
    num_draws = 0
    with Status("starting a verifier and a rollout replica", console=console) as status:

        def on_event(event: GrowthEvent) -> None:
            nonlocal num_draws
            if isinstance(event, DrawGrown):
                num_draws += 1
                status.update(f"{num_draws} answers grown")
            elif isinstance(event, BranchesChosen):
                status.update(f"{num_draws} answers grown, round {event.round}")

        yield on_event
