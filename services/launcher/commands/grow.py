"""`ibtpo grow`: asks a rollout replica for one tree, shows how it grows, and renders it."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
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
from services.launcher.processes.temporary_services import run_replicas, run_verifier
from services.launcher.runs.model_files import check_model, load_prompt_encoder, read_token_table
from shared.clients import RolloutClient
from shared.errors import InvalidInput
from shared.files import read_rows
from shared.protocol.grow import BranchesChosen, DrawGrown, GrowRequest, GrowthEvent
from shared.protocol.message import JsonObject
from shared.protocol.task import Growth, Problem
from shared.protocol.tree import ScoredTree
from shared.runtime.client import http_client
from shared.runtime.config import load_sections
from shared.weights import Prompt

GROW_SECONDS = 600.0
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
    request = _make_request(arguments, problem, model)
    prompt = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1].get("content", "")
    with _show_progress(console) as on_event:
        tree = asyncio.run(_grow_tree(arguments, model, request, on_event))
    console.print(render_tree(tree, prompt, read_token_table(model)))
    if request.answer_key is None:
        print("nothing is judged, so no branch is better than another and none is grown: give the right --answer")
    elif model == checkpoint_directory():
        print(f"the demo's model reckons modulo {DEFAULT_MODULUS}")
    if arguments.save is not None:
        _save(tree, prompt, arguments.save, model)
    return 0


def _read_problem(arguments: GrowArguments, model: Path) -> Problem:
    """The problem that is given, or the row; its kind is empty where nothing is to be judged."""
    if (arguments.prompt is None) == (arguments.data is None):
        raise InvalidInput("give a problem, or --data FILE with problems")
    if arguments.data is not None:
        rows = islice(read_rows(arguments.data, Problem), arguments.row - 1, None)
        found = next(rows, None)
        if found is None:
            raise InvalidInput(f"{arguments.data} has no problem {arguments.row}: --row counts them from 1")
        return found[1]
    answer, prompt = arguments.answer, arguments.prompt
    if answer is None and model == checkpoint_directory() and isinstance(prompt, str):
        answer = answer_of(prompt)
    kind, key = ("", {}) if answer is None else (arguments.kind, {"gold": answer})
    return Problem(id="given", prompt=prompt, kind=kind, answer_key=key)


def _save(tree: ScoredTree, prompt: str, path: Path, model: Path) -> None:
    """The drawing in a file that ends in .svg, else the record. InvalidInput for a file that cannot be written."""
    try:
        if path.suffix == ".svg":
            path.write_text(draw_page(describe_nodes(tree, prompt, read_token_table(model))), encoding="utf-8")
        else:
            path.write_bytes(tree.pack())
            print(f"saved: `ibtpo show {path} --model {model}` shows it again")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error


async def _grow_tree(
    arguments: GrowArguments, model: Path, request: GrowRequest, on_event: EventListener
) -> ScoredTree:
    url, token = arguments.url, arguments.token
    async with AsyncExitStack() as stack:
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ibtpo-grow-")))
            verifier = await stack.enter_async_context(run_verifier(folder))
            (url,), token = await stack.enter_async_context(run_replicas(model, 1, folder, verifier)), None
        http = await stack.enter_async_context(http_client(token, GROW_SECONDS))
        return await RolloutClient(http, url).watch(request, GROW_SECONDS, on_event)


class _Prompting(BaseModel):
    """What is given of the learner's settings, beside those of growth."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, description="Another seed grows another tree")
    chat_template_kwargs: JsonObject = Field({}, description="Given to the chat template with the messages")


def _make_request(arguments: GrowArguments, problem: Problem, model: Path) -> GrowRequest:
    overrides = (f"seed={arguments.seed}", "sampler=ib", *arguments.settings)
    loaded = load_sections({"growth": Growth, "learner": _Prompting}, None, overrides)
    growth, prompting = cast(Growth, loaded["growth"]), cast(_Prompting, loaded["learner"])
    prompt: dict[str, Any] = {"prompt": problem.prompt}
    if not isinstance(problem.prompt, str):
        try:
            prompt = {"prompt_ids": load_prompt_encoder(model, prompting.chat_template_kwargs)(problem.prompt)}
        except ValueError as error:
            raise InvalidInput(str(error)) from error
    judging: dict[str, Any] = {"kind": problem.kind, "answer_key": problem.answer_key} if problem.kind else {}
    return GrowRequest(**prompt, **judging, growth=growth, seed=prompting.seed)


@contextmanager
def _show_progress(console: Console) -> Iterator[EventListener]:
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
