"""Wrong answers that graders accept, right ones that they refuse, and what an answer costs them.

python -m benchmarks.graders                                   the verifier and math-verify, on the tests' answers
python -m benchmarks.graders --rows FILE [FILE ...]            on rows of one's own: id, gold, response, right
python -m benchmarks.graders --peers DIR [--peers-python P]    also the graders of the checkouts in DIR, run by P:
    Qwen2.5-Math (math_equal), verl (prime) and deepscaler (its reward)

Each grader extracts the answer from the response in its own way. CPU is that of all its processes, without their start.
"""

import argparse
import asyncio
import gzip
import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer_grader import PEERS
from benchmarks.verifier import DATA, judge_items, open_verifier, workers_cpu_seconds
from services.verifier.wiring import VerifierService
from shared.protocol.verdict import VerdictItem

LABELLED = ("labelled_answers.jsonl.gz", "public_answers.jsonl.gz", "math_verify_expectations.jsonl.gz")
# Right answers of labelled_answers that its harness calls wrong: 4:30 p.m. for 4:30 p.m., and 10000 for 10{,}000.
MISLABELLED = {*(f"3-{sample}" for sample in range(8)), "72-7"}
PEER_GRADER = Path(__file__).with_name("peer_grader.py")
WARM_UP = {"gold": r"\frac{1}{2}x", "response": r"\boxed{\frac{x}{2}}"}


@dataclass(frozen=True, slots=True)
class Row:
    """An answer and whether it is right."""

    set_name: str
    gold: str
    response: str
    is_right: bool


@dataclass(frozen=True, slots=True)
class Graded:
    """A grader's verdicts on rows (None: it had none), and its CPU seconds."""

    verdicts: Sequence[bool | None]
    seconds: float


def load_rows(path: Path) -> list[Row]:
    """The rows of a file. Those of several sources name it in their id, as in `hardverify-12`."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    rows = []
    for line in text.splitlines():
        row = json.loads(line)
        is_expectation = "pred" in row
        response = row["pred"] if is_expectation else row["response"]
        if is_expectation and "\\boxed" not in response:
            if len(response) >= 120:
                continue  # running text: what is compared here are boxed answers
            response = rf"\boxed{{{response}}}"
        is_right = bool(row["expected"] if is_expectation else row["right"] or row["id"] in MISLABELLED)
        source = str(row["id"]).split("-")[0]
        rows.append(Row(source if source.isalpha() else path.name.split(".")[0], row["gold"], response, is_right))
    return rows


async def grade_by_verifier(service: VerifierService, rows: Sequence[Row]) -> Graded:
    items = [
        VerdictItem(id=str(number), kind="math", response=row.response, answer_key={"gold": row.gold})
        for number, row in enumerate(rows)
    ]
    start = time.process_time()
    judgements = await judge_items(service, items)
    seconds = time.process_time() - start + workers_cpu_seconds(judgements)
    return Graded([None if found.reward is None else found.reward == 1 for found in judgements], seconds)


def grade_by_peer(command: Sequence[str], rows: Sequence[Row]) -> Graded | str:
    """The verdicts of benchmarks/peer_grader.py, or why there are none."""
    lines = [json.dumps(WARM_UP), *(json.dumps({"gold": row.gold, "response": row.response}) for row in rows)]
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, timeout=3600, errors="replace", check=False
    )
    found = [json.loads(line) for line in done.stdout.splitlines()][1:]
    if len(found) < len(rows):
        return (done.stderr.strip().splitlines() or ["ended early"])[-1]
    return Graded([verdict["right"] for verdict in found], sum(verdict["seconds"] for verdict in found))


def find_peers(folder: Path | None, python: str) -> Mapping[str, Sequence[str]]:
    """The command of each grader that is here."""
    commands = {}
    for name, (checkout, _) in PEERS.items():
        if not checkout:
            commands[name] = [sys.executable, str(PEER_GRADER), name]
        elif folder is not None and (folder / checkout).is_dir():
            commands[name] = [python, str(PEER_GRADER), name, str(folder / checkout)]
    return commands


def print_row(name: str, rows: Sequence[Row], graded: Graded | str) -> None:
    if isinstance(graded, str):
        print(f"| {name} | did not run: {graded[:100]} | | | |")
        return
    pairs = list(zip(rows, graded.verdicts, strict=True))
    wrong_accepted = sum(verdict is True and not row.is_right for row, verdict in pairs)
    right_refused = sum(verdict is False and row.is_right for row, verdict in pairs)
    num_none = graded.verdicts.count(None)
    milliseconds = 1e3 * graded.seconds / len(rows)
    print(f"| {name} | {wrong_accepted} | {right_refused} | {num_none} | {milliseconds:.2f} |")


async def main(paths: Sequence[Path], peers: Mapping[str, Sequence[str]]) -> None:
    logging.disable(logging.CRITICAL)
    sets: dict[str, list[Row]] = {}
    for row in (row for path in paths for row in load_rows(path)):
        sets.setdefault(row.set_name, []).append(row)
    async with open_verifier() as (service, _):
        warm_up = Row("", WARM_UP["gold"], WARM_UP["response"], is_right=True)
        await grade_by_verifier(service, [warm_up, Row("", "|x|", r"\boxed{x}", is_right=False)])
        for name, rows in sets.items():
            num_right = sum(row.is_right for row in rows)
            print(f"\n## {name}: {num_right} right answers, {len(rows) - num_right} wrong ones\n")
            print("| grader | wrong accepted | right refused | no verdict | CPU ms each |\n|---|---|---|---|---|")
            print_row("**this verifier**", rows, await grade_by_verifier(service, rows))
            for peer, command in peers.items():
                print_row(peer, rows, grade_by_peer(command, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, nargs="+", default=[DATA / name for name in LABELLED])
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--peers-python", default=sys.executable)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rows, find_peers(arguments.peers, arguments.peers_python)))
