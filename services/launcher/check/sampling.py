"""Grows some answers through the real services, and asks the verifier where else their final answers are."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import get_args

from services.launcher.check.answers import Sample, WayFound, answers_of
from services.launcher.check.model import ModelFacts
from services.launcher.check.tokenizer import TokenizerFacts
from services.launcher.display.finding import Section
from services.launcher.processes.temporary_services import run_replicas, run_verifier
from services.launcher.runs.model_files import read_token_table
from services.launcher.settings.plan import RunPlan
from services.learner.queue.problems import EncodedProblem
from services.learner.queue.vetting import KeyVetting
from services.verifier.config import ChoiceExtraction, ExactExtraction, MathExtraction
from shared.clients import RolloutClient, VerifierClient
from shared.errors import IbtpoError, InvalidInput
from shared.protocol.grow import GrowRequest
from shared.protocol.tree import ScoredTree
from shared.protocol.verdict import MAX_ITEMS, Outcome, Verdict, VerdictItem
from shared.runtime.client import http_client
from shared.tree.samplers import IndependentSampler

_SECONDS = 1800.0
"""Deadline of one problem's answers."""
_IN_FLIGHT = 16
_PROMPT_END = 4096
"""Characters of a prompt that a verifier looks at for an opened thought."""
WAYS = {"math": get_args(MathExtraction), "choice": get_args(ChoiceExtraction), "exact": get_args(ExactExtraction)}
"""Where final answers of a kind may be looked for."""


@dataclass(frozen=True, slots=True)
class SampleSize:
    num_problems: int
    num_answers: int
    """Of each problem."""


Advance = Callable[[str, int | None, int | None], object]
"""Hears what is being done, and how far it is, where that is known."""


async def sample_answers(
    section: Section,
    plan: RunPlan,
    facts: ModelFacts,
    tokens: TokenizerFacts,
    problems: Sequence[EncodedProblem],
    size: SampleSize | None,
    folder: Path,
    advance: Advance,
) -> tuple[Sample, tuple[WayFound, ...]] | None:
    """Vets all answer keys, then grows answers to some problems, spread over all; None without a size, and where that
    fails."""
    config = folder / "config.toml"
    config.write_text(plan.config_text, encoding="utf-8")
    async with AsyncExitStack() as services:
        try:
            advance("starting the verifier", None, None)
            http = await services.enter_async_context(http_client(None, _SECONDS))
            verifier_url = await services.enter_async_context(run_verifier(folder, config))
            verifier = VerifierClient(http, verifier_url)
            await KeyVetting(verifier, problems).vet()
            section.ok("answer keys", f"the verifier reads all {len(problems):,}")
            if size is None:
                return None
            chosen = problems[:: max(1, len(problems) // size.num_problems)][: size.num_problems]
            advance("starting rollout replicas", None, None)
            replicas = run_replicas(facts.directory, plan.launcher.replicas, folder, verifier_url, config=config)
            clients = [RolloutClient(http, url) for url in await services.enter_async_context(replicas)]
            requests = [_request(problem, plan, size, number) for number, problem in enumerate(chosen)]
            began = time.monotonic()
            trees = await _grow(clients, requests, advance)
            seconds = time.monotonic() - began
            texts = _texts(trees, facts, tokens)
            ways = await _look_elsewhere(verifier, trees, texts, facts)
        except IbtpoError as error:
            section.failed("sample", str(error), "")
            return None
    return Sample(answers_of(trees, texts), seconds), ways


def _request(problem: EncodedProblem, plan: RunPlan, size: SampleSize, number: int) -> GrowRequest:
    growth = plan.learner.growth.model_copy(
        update={
            "sampler": IndependentSampler(initial_draws=size.num_answers),
            "merge_equal_draws": False,
            "likelihood": None,
        }
    )
    return GrowRequest(
        prompt_ids=problem.prompt_ids,
        kind=problem.kind,
        answer_key=problem.answer_key,
        growth=growth,
        seed=1_000_003 * plan.learner.seed + number,
    )


async def _grow(
    clients: Sequence[RolloutClient], requests: Sequence[GrowRequest], advance: Advance
) -> list[ScoredTree]:
    capacity, num_done = asyncio.Semaphore(_IN_FLIGHT * len(clients)), 0
    advance("answering problems", 0, len(requests))

    async def grow_one(client: RolloutClient, request: GrowRequest) -> ScoredTree:
        nonlocal num_done
        async with capacity:
            tree = await client.grow(request, _SECONDS)
        num_done += 1
        advance("answering problems", num_done, len(requests))
        return tree

    try:
        async with asyncio.TaskGroup() as group:
            pairs = zip(cycle(clients), requests, strict=False)
            tasks = [group.create_task(grow_one(*pair)) for pair in pairs]
    except ExceptionGroup as errors:
        raise next((error for error in errors.exceptions if isinstance(error, IbtpoError)), errors) from None
    return [task.result() for task in tasks]


def _texts(trees: Sequence[ScoredTree], facts: ModelFacts, tokens: TokenizerFacts) -> dict[int, list[str]]:
    """Of every tree, its answers without stop tokens."""
    table = read_token_table(facts.directory)
    return {
        number: [table.decode(one for one in draw.token_ids if one not in tokens.stop_ids) for draw in tree.draws]
        for number, tree in enumerate(trees)
    }


async def _look_elsewhere(
    verifier: VerifierClient, trees: Sequence[ScoredTree], texts: dict[int, list[str]], facts: ModelFacts
) -> tuple[WayFound, ...]:
    """What the verifier says of the same answers, looked for in each other place."""
    table = read_token_table(facts.directory)
    found = []
    for way in dict.fromkeys(way for kind in WAYS for way in WAYS[kind]):
        items = list(_items(trees, texts, way, table.decode))
        verdicts: list[Verdict] = []
        try:
            for start in range(0, len(items), MAX_ITEMS):
                verdicts += await verifier.judge(items[start : start + MAX_ITEMS], _SECONDS)
        except InvalidInput:  # a kind of one's own may have taken the name
            continue
        if verdicts:
            num_found = sum(one.outcome in (Outcome.RIGHT, Outcome.WRONG) for one in verdicts)
            found.append(WayFound(way, num_found, sum(one.outcome is Outcome.RIGHT for one in verdicts)))
    return tuple(found)


def _items(
    trees: Sequence[ScoredTree], texts: dict[int, list[str]], way: str, decode: Callable[[Sequence[int]], str]
) -> Iterator[VerdictItem]:
    for number, tree in enumerate(trees):
        if way not in WAYS.get(tree.task.kind, ()):
            continue
        prompt = decode(tree.task.prompt_ids)[-_PROMPT_END:]
        for place, text in enumerate(texts[number]):
            key = tree.task.answer_key | {"extraction": way}
            yield VerdictItem(id=f"{number}/{place}", kind=tree.task.kind, response=text, answer_key=key, prompt=prompt)
