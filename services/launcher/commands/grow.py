"""`ibtpo grow`: asks a rollout replica for one tree, tells how it grows, and draws it."""

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
from services.launcher.display.tree_view import tree_picture
from services.launcher.processes.serving import Serving, serving
from services.launcher.runs.model_files import bytes_of_model, check_model
from services.launcher.settings.overrides import sort_out
from shared.clients import RolloutClient
from shared.protocol.grow import BranchesChosen, DrawGrown, GrowRequest, GrowthEvent
from shared.protocol.task import Growth
from shared.protocol.tree import ScoredTree
from shared.runtime.client import http_client
from shared.runtime.config import load_config

GROW_SECONDS = 600.0
Hear = Callable[[GrowthEvent], None]


@dataclass(frozen=True, slots=True)
class Growing:
    """The command's arguments. Without `url` a verifier and a replica are started for the one tree."""

    prompt: str
    model: Path | None
    url: str | None
    kind: str
    answer: str | None
    settings: tuple[str, ...]
    seed: int
    token: str | None
    save: Path | None


def grow(growing: Growing) -> int:
    """Grows and draws; returns the exit code."""
    console = Console()
    model = check_model(growing.model or checkpoint_directory())
    request = _request(growing, model)
    with _told(console) as hear:
        tree = asyncio.run(_grown(growing, model, request, hear))
    console.print(tree_picture(tree, growing.prompt, bytes_of_model(model)))
    if growing.save is not None:
        growing.save.write_bytes(tree.pack())
        console.print(f"saved: `ibtpo show {growing.save} --model {model}` draws it again", highlight=False)
    return 0


async def _watch(url: str, request: GrowRequest, token: str | None, hear: Hear) -> ScoredTree:
    async with http_client(token, GROW_SECONDS) as http:
        return await RolloutClient(http, url).watch(request, GROW_SECONDS, hear)


async def _grown(growing: Growing, model: Path, request: GrowRequest, hear: Hear) -> ScoredTree:
    if growing.url is not None:
        return await _watch(growing.url, request, growing.token, hear)
    with tempfile.TemporaryDirectory(prefix="ibtpo-grow-") as folder:
        async with serving(Serving(model, 1, Path(folder))) as (url,):
            return await _watch(url, request, None, hear)


def _request(growing: Growing, model: Path) -> GrowRequest:
    spelled = sort_out(growing.settings, {"growth": Growth})["growth"]
    growth = load_config(Growth, "growth", None, ["growth.sampler=ib", *spelled])
    answer = growing.answer
    if answer is None and model == checkpoint_directory():
        answer = answer_of(growing.prompt)
    judged: dict[str, Any] = {} if answer is None else {"kind": growing.kind, "answer_key": {"gold": answer}}
    return GrowRequest(prompt=growing.prompt, growth=growth, seed=growing.seed, **judged)


@contextmanager
def _told(console: Console) -> Iterator[Hear]:
    """Says what is heard, as long as the tree grows."""
    num_draws = 0
    with Status("starting a verifier and a rollout replica", console=console) as status:

        def hear(event: GrowthEvent) -> None:
            nonlocal num_draws
            if isinstance(event, DrawGrown):
                num_draws += 1
                status.update(f"{num_draws} answers grown")
            elif isinstance(event, BranchesChosen):
                status.update(f"{num_draws} answers grown, round {event.round}")

        yield hear
