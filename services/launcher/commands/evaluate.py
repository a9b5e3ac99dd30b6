"""`ibtpo eval`: avg@k and pass@k of a model on problems, through the same services that train it."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from services.demo.data import write_data
from services.demo.difficulty import Difficulty
from services.launcher.processes.temporary_services import run_replicas, run_verifier
from services.launcher.runs.model_files import check_model, load_prompt_encoder, read_limits
from services.learner.config import LearnerConfig
from services.learner.queue.problems import EncodedProblem, read_problems
from services.learner.queue.vetting import KeyVetting
from shared.clients import RolloutClient, VerifierClient
from shared.errors import IbtpoError, Unavailable
from shared.protocol.grow import GrowRequest
from shared.protocol.task import Growth
from shared.protocol.tree import ScoredTree
from shared.protocol.verdict import explain_no_answers
from shared.runtime.client import http_client
from shared.runtime.config import load_config
from shared.tree.accuracy import measure_accuracy
from shared.tree.draw import Finish
from shared.tree.expansion import IndependentSampler

ANSWER_SECONDS = 600.0
PROBLEMS_PER_REPLICA = 16


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """The command's arguments. Without `data`, the demo's held-out problems are answered."""

    model: Path
    data: Path | None
    preset: str | None
    settings: tuple[str, ...]
    """What is given of the learner's settings."""
    temperature: float | None
    seed: int
    replicas: int

    @property
    def config(self) -> str | Path:
        """The preset or file, else the config.toml of the run whose policy the model is, else the demo's preset."""
        beside = self.model.resolve().parent / "config.toml"
        return self.preset or (beside if beside.is_file() else "demo")

    def load(self) -> LearnerConfig:
        """How the run of this configuration evaluates."""
        data = str(self.data or "unused")
        fixed = (f"learner.model={self.model}", f"learner.data={data}", "learner.total_steps=1")
        return load_config(LearnerConfig, "learner", self.config, (*fixed, *self.settings))


def evaluate(arguments: EvaluateArguments) -> int:
    """Answers every problem k times and prints the accuracy; returns the exit code."""
    console = Console()
    arguments = replace(arguments, model=check_model(arguments.model))
    config = arguments.load()
    probe = {"sampler": IndependentSampler(initial_draws=config.evaluation.k), "merge_equal_draws": False}
    probe |= {"max_tokens": config.evaluation.max_tokens} if config.evaluation.max_tokens else {}
    probe |= {"temperature": arguments.temperature} if arguments.temperature is not None else {}
    growth = config.growth.model_copy(update=probe)
    with tempfile.TemporaryDirectory(prefix="ibtpo-eval-") as folder:
        problems = _load_problems(arguments, config, growth, Path(folder))
        trees, num_no_answer = asyncio.run(_answer_problems(arguments, growth, problems, Path(folder), console))
    console.print(summarize_answers(trees, config.evaluation.k, num_no_answer), highlight=False, markup=False)
    return 0


def summarize_answers(trees: Sequence[ScoredTree], k: int, num_no_answer: int) -> str:
    """The accuracy of k independent answers per problem, in one line, and a second one where many of them state no
    final answer; Unavailable when no answer was judged."""
    accuracy = measure_accuracy(tree.rewards for tree in trees)
    if accuracy is None:
        raise Unavailable("no answer was judged; is `kind` right for these problems, and is the verifier up?")
    draws = [draw for tree in trees for draw in tree.draws]
    tokens_per_answer = sum(len(draw.token_ids) for draw in draws) / len(draws)
    num_unjudged = sum(draw.counted_reward is None for draw in draws)
    num_cut = sum(draw.finish is Finish.LENGTH for draw in draws)
    summary = (
        f"avg@{k} {accuracy.avg_at_k:.3f} ± {accuracy.avg_error:.3f}   pass@{k} {accuracy.pass_at_k:.3f}   "
        f"({accuracy.num_problems} problems, {tokens_per_answer:.0f} tokens per answer, {num_cut} of "
        f"{len(draws)} cut at {trees[0].task.growth.max_tokens}, {num_no_answer} without a final answer, "
        f"{num_unjudged} not judged)"
    )
    remark = explain_no_answers(num_no_answer, len(draws) - num_cut - num_unjudged)
    return f"{summary}\n{remark}" if remark else summary


async def _answer_problems(
    arguments: EvaluateArguments, growth: Growth, problems: Sequence[EncodedProblem], folder: Path, console: Console
) -> tuple[list[ScoredTree], int]:
    """The trees, and how many of their answers state no final answer."""
    async with AsyncExitStack() as services:
        http = await services.enter_async_context(http_client(None, ANSWER_SECONDS))
        verifier_url = await services.enter_async_context(run_verifier(folder, arguments.config))
        verifier = VerifierClient(http, verifier_url)
        await KeyVetting(verifier, problems).vet()
        num_before = await verifier.count_no_answers()
        replicas = run_replicas(arguments.model, arguments.replicas, folder, verifier_url)
        urls = await services.enter_async_context(replicas)
        capacity = asyncio.Semaphore(PROBLEMS_PER_REPLICA * len(urls))
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task("answering", total=len(problems))

            async def answer(url: str, request: GrowRequest) -> ScoredTree:
                async with capacity:
                    tree = await RolloutClient(http, url).grow(request, ANSWER_SECONDS)
                progress.advance(bar)
                return tree

            requests = [
                GrowRequest(
                    prompt_ids=problem.prompt_ids,
                    kind=problem.kind,
                    answer_key=problem.answer_key,
                    growth=growth,
                    seed=arguments.seed * 1_000_003 + index,
                )
                for index, problem in enumerate(problems)
            ]
            try:
                async with asyncio.TaskGroup() as group:
                    pairs = zip(cycle(urls), requests, strict=False)
                    tasks = [group.create_task(answer(url, request)) for url, request in pairs]
            except ExceptionGroup as errors:
                raise next((error for error in errors.exceptions if isinstance(error, IbtpoError)), errors) from None
        return [task.result() for task in tasks], await verifier.count_no_answers() - num_before


def _load_problems(
    arguments: EvaluateArguments, config: LearnerConfig, growth: Growth, folder: Path
) -> tuple[EncodedProblem, ...]:
    num_problems = config.evaluation.problems
    paths = (arguments.data,) if arguments.data else tuple(Path(one.source) for one in config.held_out.values())
    if not paths:
        write_data(folder, Difficulty(), 1, num_problems, arguments.seed)
        paths = (folder / "heldout.jsonl",)
    limits = read_limits(arguments.model, growth.max_tokens)
    encode = load_prompt_encoder(arguments.model, config.chat_template_kwargs)
    return read_problems(paths, encode, limits, num_problems).problems
