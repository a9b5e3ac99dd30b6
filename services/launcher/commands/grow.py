"""`ibtpo grow`: asks a rollout replica for one tree, shows how it grows, and renders it."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from services.demo.task import answer_of, checkpoint_directory
from services.launcher.display.tree_view import render_tree
from services.launcher.processes.temporary_services import run_replicas
from services.launcher.runs.model_files import check_model, load_prompt_encoder, read_token_bytes
from shared.clients import RolloutClient
from shared.errors import InvalidInput
from shared.protocol.grow import BranchesChosen, DrawGrown, GrowRequest, GrowthEvent
from shared.protocol.task import Growth
from shared.protocol.tree import ScoredTree
from shared.runtime.client import http_client
from shared.runtime.config import load_config

GROW_SECONDS = 600.0
EventListener = Callable[[GrowthEvent], None]


@dataclass(frozen=True, slots=True)
class GrowArguments:
    """The command's arguments. Without `url`, a verifier and a replica are started for this tree."""

    prompt: str
    chat: bool
    """The prompt is a user's message, for the model's chat template."""
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
    request = _make_request(arguments, model)
    with _show_progress(console) as on_event:
        tree = asyncio.run(_grow_tree(arguments, model, request, on_event))
    console.print(render_tree(tree, arguments.prompt, read_token_bytes(model)))
    if arguments.save is not None:
        arguments.save.write_bytes(tree.pack())
        console.print(f"saved: `ibtpo show {arguments.save} --model {model}` shows it again", highlight=False)
    return 0


async def _grow_tree(
    arguments: GrowArguments, model: Path, request: GrowRequest, on_event: EventListener
) -> ScoredTree:
    if arguments.url is not None:
        return await _request_tree(arguments.url, request, arguments.token, on_event)
    with tempfile.TemporaryDirectory(prefix="ibtpo-grow-") as folder:
        async with run_replicas(model, 1, Path(folder)) as (url,):
            return await _request_tree(url, request, None, on_event)


async def _request_tree(url: str, request: GrowRequest, token: str | None, on_event: EventListener) -> ScoredTree:
    async with http_client(token, GROW_SECONDS) as http:
        return await RolloutClient(http, url).watch(request, GROW_SECONDS, on_event)


def _make_request(arguments: GrowArguments, model: Path) -> GrowRequest:
    growth = load_config(Growth, "growth", None, ["sampler=ib", *arguments.settings])
    answer = arguments.answer
    if answer is None and model == checkpoint_directory():
        answer = answer_of(arguments.prompt)
    judging: dict[str, Any] = {} if answer is None else {"kind": arguments.kind, "answer_key": {"gold": answer}}
    prompt: dict[str, Any] = {"prompt": arguments.prompt}
    if arguments.chat:
        prompt = {"prompt_ids": _encode_chat(arguments.prompt, model)}
    return GrowRequest(**prompt, **judging, growth=growth, seed=arguments.seed)


def _encode_chat(message: str, model: Path) -> tuple[int, ...]:
    try:
        return load_prompt_encoder(model)(({"role": "user", "content": message},))
    except ValueError as error:
        raise InvalidInput(str(error)) from error


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
