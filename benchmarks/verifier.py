"""The cost of judging mathematical answers beside math-verify alone, and what HTTP adds to it.

python -m benchmarks.verifier            all tables (about a minute of one core)
python -m benchmarks.verifier --quick    fewer rounds (some seconds)

Both sides alternate within one run, so that other work on the machine slows both; ratios are per round.
The answers are those of the tests (tests/verifier/data).
"""

import argparse
import asyncio
import gc
import gzip
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import httpx
from math_verify import parse, verify

from services.verifier.checks.check import Judgement
from services.verifier.config import MathConfig, VerifierConfig
from services.verifier.wiring import VerifierService
from shared.protocol.verdict import VerdictItem, VerdictRequest

DATA = Path(__file__).resolve().parents[1] / "tests" / "verifier" / "data"
CORPORA = {
    "GSM8K chains": "gsm8k.jsonl.gz",
    "MATH-500 solutions": "math500.jsonl.gz",
    "answers of a model": "labelled_answers.jsonl.gz",
    "hard: public answers": "public_answers.jsonl.gz",
    "hard: olympiad golds": "competition_answers.jsonl.gz",
}
ROWS_OF_A_ROUND = 100
ITEMS_OF_A_BATCH = 1_000


def load_items(name: str) -> list[VerdictItem]:
    """The rows of a corpus as items. GSM8K's final line becomes a box, as a model would write it."""
    rows = [json.loads(line) for line in gzip.decompress((DATA / name).read_bytes()).splitlines()]
    items = []
    for number, row in enumerate(rows):
        chain, hashes, final = row["response"].rpartition("#### ")
        response = rf"{chain}\boxed{{{final}}}" if hashes else row["response"]
        items.append(VerdictItem(id=str(number), kind="math", response=response, answer_key={"gold": row["gold"]}))
    return items


async def judge_items(service: VerifierService, items: Sequence[VerdictItem]) -> list[Judgement]:
    """Judges without HTTP."""
    judgements: dict[int, Judgement] = {}
    await service.judge.judge(await service.judge.admit(items), 60, judgements.__setitem__)
    return [judgements[position] for position in range(len(items))]


def workers_cpu_seconds(judgements: Sequence[Judgement]) -> float:
    """What math-verify's workers took, which this process's own clock does not show."""
    return sum(judgement.cpu_seconds for judgement in judgements if judgement.rule == "math-verify")


def judge_with_math_verify(items: Sequence[VerdictItem]) -> None:
    """Judges as math-verify's README says."""
    for item in items:
        verify(parse(f"${item.answer_key['gold']}$"), parse(item.response))


async def measure_rounds(
    service: VerifierService, items: list[VerdictItem], num_rounds: int
) -> tuple[list[float], list[float]]:
    """CPU seconds per answer of the verifier, and of math-verify, round by round."""
    ours, theirs = [], []
    for seed in range(num_rounds):
        sample = random.Random(seed).sample(items, ROWS_OF_A_ROUND)
        gc.collect()  # each side pays for its own garbage
        start = time.process_time()
        judgements = await judge_items(service, sample)
        middle = time.process_time()
        judge_with_math_verify(sample)
        ours.append((middle - start + workers_cpu_seconds(judgements)) / len(sample))
        theirs.append((time.process_time() - middle) / len(sample))
    return ours, theirs


def format_spread(values: Sequence[float], pattern: str = "{:.1f}") -> str:
    """min | median | max, as cells of a table."""
    return " | ".join(pattern.format(pick(values)) for pick in (min, median, max))


async def print_math_table(service: VerifierService, num_rounds: int) -> None:
    print("## Math beside math-verify 0.9.0 alone\n")
    print("| | answers | by workers | CPU µs each: min | median | max | math-verify's / ours: min | median | max |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, file in CORPORA.items():
        items = load_items(file)
        rules = [judgement.rule for judgement in await judge_items(service, items)]
        ours, theirs = await measure_rounds(service, items, num_rounds)
        ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
        micros = [1e6 * seconds for seconds in ours]
        share = rules.count("math-verify") / len(rules)
        print(
            f"| {name} | {len(items):,} | {share:.1%} | {format_spread(micros)} | {format_spread(ratios, '{:.0f}')} |"
        )


async def print_service_table(service: VerifierService, client: httpx.AsyncClient, num_rounds: int) -> None:
    print(f"\n## What the service adds, in a batch of {ITEMS_OF_A_BATCH:,}\n")
    items = load_items(CORPORA["GSM8K chains"])[:ITEMS_OF_A_BATCH]
    body = VerdictRequest(items=tuple(items)).model_dump_json().encode()
    direct, whole = [], []
    for _ in range(num_rounds + 1):
        gc.collect()
        start = time.process_time()
        await judge_items(service, items)
        middle = time.process_time()
        response = await client.post("/v1/verdicts", content=body, headers={"content-type": "application/json"})
        response.raise_for_status()
        direct.append(1e6 * (middle - start) / len(items))
        whole.append(1e6 * (time.process_time() - middle) / len(items))
    added = [over - under for over, under in zip(whole, direct, strict=True)]
    print("| CPU µs per item | min | median | max |\n|---|---|---|---|")
    rows = (("the judge, called directly", direct), ("POST /v1/verdicts, its client included", whole), ("added", added))
    for name, micros in rows:
        print(f"| {name} | {format_spread(micros[1:])} |")  # the first round builds what later ones have


@asynccontextmanager
async def open_verifier() -> AsyncIterator[tuple[VerifierService, httpx.AsyncClient]]:
    """A verifier without a cache, and a client of it."""
    service = VerifierService(VerifierConfig(cache_entries=0, math=MathConfig(workers=1)))
    transport = httpx.ASGITransport(service.app)
    async with (
        service.app.router.lifespan_context(service.app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield service, client


async def main(num_rounds: int) -> None:
    logging.disable(logging.CRITICAL)
    async with open_verifier() as (service, client):
        await judge_items(
            service, [VerdictItem(id="1", kind="math", response=r"\boxed{x}", answer_key={"gold": "|x|"})]
        )
        await print_math_table(service, num_rounds)
        await print_service_table(service, client, num_rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(2 if parser.parse_args().quick else 9))
