"""The embedded engine against transformers' generate, and growing trees against its own independent answers.

python -m benchmarks.engine            all tables (several minutes of one core)
python -m benchmarks.engine --quick    the demo's model, one seed (about half a minute)

All figures are per CPU-second of this process, one thread. A ratio divides two runs made one right after the other.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, Qwen3Config
from transformers.utils import logging as transformers_logging

from services.demo.difficulty import Difficulty
from services.demo.expressions import prompt_of
from services.demo.split import Split, generate_in
from services.demo.task import checkpoint_directory
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Request, Sampling
from services.rollout.grower import TreeGrower
from services.rollout.vocabulary import Vocabulary
from shared.protocol.task import Growth, Task
from shared.tree.draw import WeightVersion
from shared.tree.expansion import IBSampler
from shared.tree.segmentation import Segmenter

LARGER_VOCAB = 4096


@dataclass(frozen=True, slots=True)
class Workload:
    """A model with prompts for it. `answers` rows decode together; `trees` grown at once keep as many rows busy."""

    name: str
    snapshot: Path
    vocabulary: Vocabulary
    prompts: tuple[tuple[int, ...], ...]
    max_tokens: int
    answers: int
    trees: int


def demo(seed: int) -> Workload:
    """The demo's starting policy (0.56M parameters) on the demo's problems; its answers end by themselves."""
    vocabulary = Vocabulary.load(checkpoint_directory())
    rng, difficulty = random.Random(seed), Difficulty()
    prompts = {vocabulary.encode(prompt_of(generate_in(Split.TRAIN, rng, difficulty))) for _ in range(2000)}
    longest = max(map(len, prompts))  # of one length, so that generate's batch has no padding
    chosen = tuple(sorted(prompt for prompt in prompts if len(prompt) == longest))
    return Workload("demo", checkpoint_directory(), vocabulary, chosen, difficulty.max_answer_tokens, 64, 64)


def larger(seed: int, directory: Path) -> Workload:
    """Random weights, d = 256, 8 layers, 4,096 tokens, of which 1 in 64 ends an answer and 1 in 16 a step."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=LARGER_VOCAB,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    rng = random.Random(seed)
    stop_ids = frozenset(range(1, 1 + LARGER_VOCAB // 64))
    texts = tuple(b"\n\n" if token % 16 == 9 else b"x" for token in range(LARGER_VOCAB))
    tokenizer = Tokenizer.from_file(str(checkpoint_directory() / "tokenizer.json"))
    vocabulary = Vocabulary(texts, stop_ids, Segmenter(texts, stop_ids), tokenizer)
    prompts = tuple(tuple(rng.randrange(100, LARGER_VOCAB) for _ in range(32)) for _ in range(512))
    return Workload("larger", directory, vocabulary, prompts, 128, 32, 32)


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens generated and what they cost."""

    tokens: int
    cpu_seconds: float
    rows: float = 0.0
    cached_share: float = 0.0

    @property
    def per_second(self) -> float:
        return self.tokens / self.cpu_seconds


class Engines:
    """Starts an engine per measurement and serves a workload with it."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._workload = workload
        self._seed = seed

    async def started(self, max_rows: int) -> EmbeddedEngine:
        engine = EmbeddedEngine(EmbeddedSettings(max_rows=max_rows))
        await engine.load(self._workload.snapshot, WeightVersion(1, 0))
        return engine

    def requests(self) -> Iterator[Request]:
        """Independent answers, each to another prompt as long as there are some."""
        work = self._workload
        for index in range(1_000_000):
            prompt = work.prompts[index % len(work.prompts)]
            seed = self._seed * 1_000_000 + index
            yield Request(prompt, work.max_tokens, Sampling(), work.vocabulary.stop_ids, seed)

    def tasks(self) -> Iterator[Task]:
        """Trees (4, 9, 1, 1)."""
        work = self._workload
        growth = Growth(sampler=IBSampler(first=4, levels=9, width=1, branches=1), max_tokens=work.max_tokens)
        for index, request in enumerate(self.requests()):
            yield Task(
                run="bench",
                id=f"0-{index}",
                problem_id=str(index),
                prompt_ids=request.token_ids,
                kind="math",
                answer_key={},
                growth=growth,
                seed=request.seed,
            )

    async def batch(self) -> Rate:
        """One batch of independent answers, from the first to the last; the engine has served another before."""
        engine, requests = await self.started(self._workload.answers), self.requests()
        for _ in range(2):
            before, tokens = time.process_time(), engine.counters.generated_tokens
            batch = [next(requests) for _ in range(self._workload.answers)]
            await asyncio.gather(*(engine.complete(request) for request in batch))
        seconds, tokens = time.process_time() - before, engine.counters.generated_tokens - tokens
        await engine.close()
        return Rate(tokens, seconds)

    async def answers_flow(self) -> Rate:
        """Independent answers with all rows busy."""
        engine, requests = await self.started(self._workload.answers), self.requests()
        return await _flow(engine, lambda: engine.complete(next(requests)), self._workload.answers)

    async def trees_flow(self) -> Rate:
        """Trees with all rows busy; each advances on its own."""
        engine, tasks = await self.started(self._workload.answers), self.tasks()
        grower = TreeGrower(engine, RandomRewards(self._seed), "bench")
        return await _flow(engine, lambda: grower.grow(next(tasks), self._workload.vocabulary), self._workload.trees)


class RandomRewards:
    """A coin instead of a verifier."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> float | None:
        return float(self._rng.random() < 0.4)


FLOW_WARM_TOKENS, FLOW_TOKENS = 20_000, 50_000


async def _flow(engine: EmbeddedEngine, start: Callable[[], Awaitable[object]], in_flight: int) -> Rate:
    """Keeps `in_flight` jobs going and measures between two moments at which all of them are."""

    async def worker() -> None:
        while True:
            await start()

    workers = [asyncio.create_task(worker()) for _ in range(in_flight)]
    counters = engine.counters
    while counters.generated_tokens < FLOW_WARM_TOKENS:
        await asyncio.sleep(0.01)
    began, tokens, steps = time.process_time(), counters.generated_tokens, counters.steps
    cached, computed = counters.cached_tokens, counters.prefilled_tokens
    while counters.generated_tokens < tokens + FLOW_TOKENS:
        await asyncio.sleep(0.01)
    seconds, generated = time.process_time() - began, counters.generated_tokens - tokens
    cached, computed = counters.cached_tokens - cached, counters.prefilled_tokens - computed
    for task in workers:
        task.cancel()
    await asyncio.wait(workers)
    rows = generated / (counters.steps - steps)
    await engine.close()
    return Rate(generated, seconds, rows, cached / max(cached + computed, 1))


def generate_batch(workload: Workload, seed: int) -> Rate:
    """The same batch through transformers' generate; tokens after an answer's end are not counted."""
    model = AutoModelForCausalLM.from_pretrained(workload.snapshot, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    stop_ids = workload.vocabulary.stop_ids
    for first in (0, workload.answers):
        ids = torch.tensor([workload.prompts[(first + i) % len(workload.prompts)] for i in range(workload.answers)])
        before = time.process_time()
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=workload.max_tokens,
            eos_token_id=sorted(stop_ids),
            pad_token_id=0,
        )
        seconds = time.process_time() - before
    answers = output[:, ids.shape[1] :].tolist()
    tokens = sum(next((i + 1 for i, token in enumerate(row) if token in stop_ids), len(row)) for row in answers)
    return Rate(tokens, seconds)


def spread(values: list[float], digits: int = 2) -> str:
    """min / median / max."""
    return " / ".join(f"{value:,.{digits}f}" for value in (min(values), median(values), max(values)))


def report(workload: Workload, seeds: list[int], remake: Callable[[int], Workload]) -> None:
    """Prints both tables of one workload."""
    generate, batch, answers, trees = [], [], [], []
    for seed in seeds:
        workload = remake(seed)
        engines = Engines(workload, seed)
        generate.append(generate_batch(workload, seed))
        batch.append(asyncio.run(engines.batch()))
        answers.append(asyncio.run(engines.answers_flow()))
        trees.append(asyncio.run(engines.trees_flow()))
    print(f"\n## {workload.name}: {len(seeds)} seeds, min / median / max, tokens per CPU-second")
    print(f"{workload.answers} independent answers, one batch")
    print(f"  generate            {spread([rate.per_second for rate in generate], 0)}")
    print(f"  engine              {spread([rate.per_second for rate in batch], 0)}")
    print(f"  ratio               {spread([b.per_second / g.per_second for b, g in zip(batch, generate, strict=True)])}")
    print(f"rows always busy ({workload.answers})")
    print(f"  independent answers {spread([rate.per_second for rate in answers], 0)}")
    print(f"  trees (4, 9, 1, 1)  {spread([rate.per_second for rate in trees], 0)}")
    print(f"  ratio               {spread([t.per_second / a.per_second for t, a in zip(trees, answers, strict=True)])}")
    print(f"  rows, answers       {spread([rate.rows for rate in answers], 1)}")
    print(f"  rows, trees         {spread([rate.rows for rate in trees], 1)}")
    print(f"  prefix from cache   {spread([rate.cached_share for rate in trees])} of the trees' request tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    quick, num_seeds = (arguments := parser.parse_args()).quick, arguments.seeds
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    seeds = list(range(1 if quick else num_seeds))
    report(demo(0), seeds, demo)
    if not quick:
        with tempfile.TemporaryDirectory() as directory:
            report(larger(0, Path(directory)), seeds, lambda seed: larger(seed, Path(directory)))


if __name__ == "__main__":
    main()
