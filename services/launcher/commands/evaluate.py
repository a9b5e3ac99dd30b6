"""`ibtpo eval`: avg@k and pass@k of a model on problems, through the same services that train it."""

import asyncio
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from services.demo.data import write_data
from services.demo.difficulty import Difficulty
from services.launcher.processes.serving import Serving, serving
from services.launcher.runs.model_files import check_model
from shared.clients import RolloutClient
from shared.errors import InvalidInput, Unavailable
from shared.files import read_rows
from shared.protocol.grow import GrowRequest
from shared.protocol.task import Growth, Problem
from shared.protocol.tree import ScoredTree
from shared.runtime.client import http_client
from shared.tree.expansion import IndependentSampler

ANSWER_SECONDS = 600.0
IN_FLIGHT_PER_REPLICA = 16


@dataclass(frozen=True, slots=True)
class Evaluating:
    """The command's arguments. Without `data` the demo's held-out problems are answered."""

    model: Path
    data: Path | None
    k: int
    problems: int
    max_tokens: int
    temperature: float
    seed: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """avg@k: mean share of right answers; pass@k: share of problems with one. The error is avg@k's, over problems."""

    k: int
    problems: int
    avg_at_k: float
    pass_at_k: float
    standard_error: float
    unjudged: int
    tokens_per_answer: float


def evaluate(evaluating: Evaluating) -> int:
    """Answers every problem k times and prints the accuracy; returns the exit code."""
    console = Console()
    check_model(evaluating.model)
    with tempfile.TemporaryDirectory(prefix="ibtpo-eval-") as folder:
        problems = _problems(evaluating, Path(folder))
        trees = asyncio.run(_answered(evaluating, problems, Path(folder), console))
    result = accuracy(trees, evaluating.k)
    k = evaluating.k
    console.print(
        f"avg@{k} {result.avg_at_k:.3f} ± {result.standard_error:.3f}   pass@{k} {result.pass_at_k:.3f}   "
        f"({result.problems} problems, {result.tokens_per_answer:.0f} tokens an answer, {result.unjudged} not judged)",
        highlight=False,
    )
    return 0


def accuracy(trees: Sequence[ScoredTree], k: int) -> Accuracy:
    """What the judged answers say; Unavailable when none was judged."""
    judged = [rewards for tree in trees if (rewards := [d.reward for d in tree.draws if d.reward is not None])]
    if not judged:
        raise Unavailable("no answer was judged; does `kind` of the problems fit, and is the verifier up?")
    shares = [sum(rewards) / len(rewards) for rewards in judged]
    mean = sum(shares) / len(shares)
    variance = sum((share - mean) ** 2 for share in shares) / max(1, len(shares) - 1)
    num_answers = sum(len(tree.draws) for tree in trees)
    return Accuracy(
        k=k,
        problems=len(judged),
        avg_at_k=mean,
        pass_at_k=sum(max(rewards) >= 1 for rewards in judged) / len(judged),
        standard_error=math.sqrt(variance / len(shares)),
        unjudged=num_answers - sum(map(len, judged)),
        tokens_per_answer=sum(len(draw.token_ids) for tree in trees for draw in tree.draws) / num_answers,
    )


async def _answered(
    evaluating: Evaluating, problems: Sequence[Problem], folder: Path, console: Console
) -> list[ScoredTree]:
    wanted = Serving(evaluating.model, evaluating.replicas, folder)
    async with serving(wanted) as urls, http_client(None, ANSWER_SECONDS) as http:
        places = asyncio.Semaphore(IN_FLIGHT_PER_REPLICA * len(urls))
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("answering", total=len(problems))

            async def answer(url: str, request: GrowRequest) -> ScoredTree:
                async with places:
                    tree = await RolloutClient(http, url).grow(request, ANSWER_SECONDS)
                progress.advance(bar)
                return tree

            requests = [_request(evaluating, problem, index) for index, problem in enumerate(problems)]
            pairs = zip(cycle(urls), requests, strict=False)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(url, request)) for url, request in pairs]
    return [task.result() for task in tasks]


def _request(evaluating: Evaluating, problem: Problem, index: int) -> GrowRequest:
    if not isinstance(problem.prompt, str):
        raise InvalidInput(f"problem {problem.id!r} has chat messages for a prompt; `ibtpo eval` takes text prompts")
    growth = Growth(
        sampler=IndependentSampler(first=evaluating.k),
        temperature=evaluating.temperature,
        max_tokens=evaluating.max_tokens,
    )
    seed = evaluating.seed * 1_000_003 + index
    return GrowRequest(
        prompt=problem.prompt, kind=problem.kind, answer_key=problem.answer_key, growth=growth, seed=seed
    )


def _problems(evaluating: Evaluating, folder: Path) -> list[Problem]:
    data = evaluating.data
    if data is None:
        data = write_data(folder, Difficulty(), 1, evaluating.problems, evaluating.seed).heldout
    problems = [problem for _, problem in islice(read_rows(data, Problem), evaluating.problems)]
    if not problems:
        raise InvalidInput(f"{data} holds no problem")
    return problems
