"""What scoring given tokens costs against computing their prefix, and how much of it comes from the cache.

python -m benchmarks.scores             the embedded engine, CPU time of one thread (two minutes)
python -m benchmarks.scores --sglang    the real server (`make sglang-cpu`), until all are answered (four minutes)

The prefixes are the step ends of answers, as Φ asks for them: one begins with the other. On the embedded engine what is
compared alternates; at the server one row follows the other.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import count, islice
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.engine import IB_TREE, RandomRewards, Workload, demo, larger, spread
from benchmarks.sglang import REAL, Rollout, flush, rollout
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Engine, Request, Sampling, ScoreRequest
from services.rollout.engines.sglang.connections import Connections
from services.rollout.engines.sglang.score_format import encode_score
from services.rollout.grower import TreeGrower
from shared.protocol.task import Growth, Task
from shared.tree.draw import WeightVersion
from shared.tree.likelihood import LikelihoodSettings

NUM_TREES = 16
NUM_ANSWERS, STEPS, STEP_TOKENS, GIVEN = 4, 8, 24, 8
FIRST = WeightVersion(1, 0)


def prefixes_of(rng: random.Random, vocab_size: int) -> list[tuple[int, ...]]:
    """The step ends of random answers to different problems, the longest of them first."""
    answers = [tuple(rng.randrange(4, vocab_size) for _ in range(STEPS * STEP_TOKENS)) for _ in range(NUM_ANSWERS)]
    return [answer[: end * STEP_TOKENS] for answer in answers for end in range(STEPS, 0, -1)]


def scores_of(
    rng: random.Random, prefixes: list[tuple[int, ...]], vocab_size: int, temperature: float = 1.0
) -> list[ScoreRequest]:
    return [
        ScoreRequest(prefix, tuple(rng.randrange(4, vocab_size) for _ in range(GIVEN)), temperature)
        for prefix in prefixes
    ]


async def complete_one(engine: Engine, prefixes: list[tuple[int, ...]]) -> float:
    """Computes the prefixes and samples a token after each; returns the share of them that came from the cache."""
    requests = (Request(prefix, 1, Sampling(), frozenset(), seed) for seed, prefix in enumerate(prefixes))
    completions = await asyncio.gather(*map(engine.complete, requests))
    return sum(one.cached_tokens for one in completions) / sum(map(len, prefixes))


async def embedded(work: Workload, repeats: int) -> None:
    """Prints CPU milliseconds of one prefix and of one score."""
    rng = random.Random(0)
    engine = EmbeddedEngine(EmbeddedSettings(max_running_requests=NUM_ANSWERS * STEPS, halve=False))
    await engine.load(work.snapshot, FIRST)
    vocab_size = engine.limits.vocab_size
    milliseconds: dict[str, list[float]] = {"prefix": [], "behind": [], "bare": []}
    shares: list[float] = []
    for repeat in range(-1, repeats):  # the first only warms up
        prefixes, others = prefixes_of(rng, vocab_size), prefixes_of(rng, vocab_size)
        asked = {
            "prefix": complete_one(engine, prefixes),
            "behind": gather_scores(engine, scores_of(rng, prefixes, vocab_size)),
            "bare": gather_scores(engine, scores_of(rng, others, vocab_size)),
        }
        for name, asking in asked.items():
            before = time.process_time()
            share = await asking
            if repeat >= 0:
                milliseconds[name].append(1e3 * (time.process_time() - before) / len(prefixes))
                shares += [share] if name == "behind" else []
    await engine.close()
    print(f"\n## {work.name}: {NUM_ANSWERS * STEPS} at once, prefixes of {STEP_TOKENS} to {STEPS * STEP_TOKENS} tokens")
    print("CPU ms each, min / median / max")
    print(f"  a token after the prefixes, nothing cached   {spread(milliseconds['prefix'])}")
    print(f"  {GIVEN} tokens scored, nothing cached             {spread(milliseconds['bare'])}")
    print(f"  {GIVEN} tokens scored behind the cache            {spread(milliseconds['behind'])}")
    ratios = [b / a for a, b in zip(milliseconds["prefix"], milliseconds["behind"], strict=True)]
    print(f"  behind the cache / the prefixes              {spread(ratios)}")
    print(f"  prefix from cache                            {spread(shares, 3)}", flush=True)


async def trees(work: Workload, repeats: int) -> None:
    """Prints CPU milliseconds of growing a tree with Φ at every step end, and without."""
    engine = EmbeddedEngine(EmbeddedSettings(halve=False))
    await engine.load(work.snapshot, FIRST)
    milliseconds: dict[bool, list[float]] = {False: [], True: []}
    numbers, num_scored, num_generated = count(), 0, 0
    for repeat in range(-1, repeats):
        for has_likelihoods, spent in milliseconds.items():
            growth = Growth(
                sampler=IB_TREE,
                max_tokens=work.max_tokens,
                likelihood=LikelihoodSettings() if has_likelihoods else None,
            )
            grower, before = TreeGrower(engine, RandomRewards(repeat), "bench"), time.process_time()
            tasks = [task_of(work.prompts[number], growth, number) for number in islice(numbers, NUM_TREES)]
            grown = await asyncio.gather(*(grower.grow(task, work.vocabulary) for task in tasks))
            num_scored += sum(tree.usage.scored_tokens for tree in grown)
            num_generated += has_likelihoods * sum(tree.usage.generated_tokens for tree in grown)
            if repeat >= 0:
                spent.append(1e3 * (time.process_time() - before) / NUM_TREES)
    await engine.close()
    ratios = [scored / plain for plain, scored in zip(milliseconds[False], milliseconds[True], strict=True)]
    print(f"\n## {work.name}: {NUM_TREES} trees of {IB_TREE.num_draws} draws at once, CPU ms each, min / median / max")
    print(f"  without likelihoods   {spread(milliseconds[False], 1)}")
    print(f"  with                  {spread(milliseconds[True], 1)}")
    print(f"  with / without        {spread(ratios)}")
    print(f"  scored tokens for each generated one {num_scored / num_generated:.2f}", flush=True)


def task_of(prompt_ids: tuple[int, ...], growth: Growth, seed: int) -> Task:
    key = {"gold": str(seed % 7)}
    return Task(
        run="bench",
        id=str(seed),
        problem_id=str(seed),
        prompt_ids=prompt_ids,
        kind="math",
        answer_key=key,
        growth=growth,
        seed=seed,
    )


async def gather_scores(engine: Engine, requests: list[ScoreRequest]) -> float:
    """Scores all at once; returns the share of prefix tokens that came from the cache."""
    scores = await asyncio.gather(*map(engine.score, requests))
    return sum(one.cached_tokens for one in scores) / sum(len(one.token_ids) for one in requests)


async def sglang(repeats: int) -> None:
    """Prints milliseconds of one score at the real server, and what comes from its cache."""
    print("what | cached share | ms each: min, median, max")
    print("---|---|---")
    async with rollout(REAL) as one:
        connections, rng = Connections(one.engine.server.url), random.Random(0)
        for name, is_cached, ask in (
            ("a token after the prefixes", False, _complete),
            (f"{GIVEN} tokens scored", False, _score(1.0)),
            (f"{GIVEN} tokens scored", True, _score(1.0)),
            (f"{GIVEN} tokens scored at temperature 0.7", True, _score(0.7)),
            (f"{GIVEN} tokens, `logprob_start_len` 0", True, _score_from_the_start),
        ):
            shares, milliseconds = [], []
            for repeat in range(-1, repeats):
                prefixes = prefixes_of(rng, one.engine.limits.vocab_size)
                await flush(connections)
                if is_cached:
                    await complete_one(one.engine, prefixes)
                before = time.perf_counter()
                share = await ask(one, connections, prefixes, rng)
                if repeat >= 0:
                    milliseconds.append(1e3 * (time.perf_counter() - before) / len(prefixes))
                    shares.append(share)
            state = "behind the cache" if is_cached else "nothing cached"
            spent = f"{min(milliseconds):.1f}, {median(milliseconds):.1f}, {max(milliseconds):.1f}"
            print(f"{name}, {state} | {median(shares):.3f} | {spent}", flush=True)
        connections.close()


_Ask = Callable[[Rollout, Connections, list[tuple[int, ...]], random.Random], Awaitable[float]]


async def _complete(one: Rollout, _: Connections, prefixes: list[tuple[int, ...]], rng: random.Random) -> float:
    return await complete_one(one.engine, prefixes)


def _score(temperature: float) -> _Ask:
    async def ask(one: Rollout, _: Connections, prefixes: list[tuple[int, ...]], rng: random.Random) -> float:
        requests = scores_of(rng, prefixes, one.engine.limits.vocab_size, temperature)
        return await gather_scores(one.engine, requests)

    return ask


async def _score_from_the_start(
    one: Rollout, connections: Connections, prefixes: list[tuple[int, ...]], rng: random.Random
) -> float:
    """As if the whole input's log-probabilities were wanted, of which the server can take nothing from its cache."""
    bodies = []
    for index, request in enumerate(scores_of(rng, prefixes, one.engine.limits.vocab_size)):
        body = json.loads(encode_score(request, f"whole-{time.time_ns()}-{index}", FIRST))
        bodies.append(json.dumps(body | {"logprob_start_len": 0, "extra_key": str(one.engine.version)}).encode())
    answers = await asyncio.gather(*(connections.request("POST", "/generate", body) for body in bodies))
    cached: int = sum(json.loads(answer.body)["meta_info"]["cached_tokens"] for answer in answers)
    return cached / sum(map(len, prefixes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sglang", action="store_true", help="the real server in place of the embedded engine")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if arguments.sglang:
        asyncio.run(sglang(arguments.repeats))
        return
    asyncio.run(embedded(demo(0), arguments.repeats))
    asyncio.run(trees(demo(0), arguments.repeats))
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(embedded(larger(0, Path(directory)), arguments.repeats))


if __name__ == "__main__":
    main()
