"""How many reference solutions of public sets of code the verifier accepts, and what becomes of the others.

python -m benchmarks.code_sets [--packages numpy,pandas,… --packages-path DIR] [--references]

With `--references` the keys have them; without, only what they need, so that the table shows what keys alone come to.
"""

import argparse
import asyncio
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.check import open_code_check
from services.verifier.checks.code.needs import find_needs
from services.verifier.config import CodeConfig
from shared.protocol.verdict import VerdictItem

_DATA = Path(__file__).resolve().parents[1] / "tests" / "verifier" / "data"


def load_items(name: str, *, with_references: bool = False) -> Iterator[VerdictItem]:
    """Each row's reference solution with its tests, and with what it needs or itself as the key's reference."""
    with gzip.open(_DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            solution = row.get("prompt", "") + row.get("canonical_solution", row.get("code", ""))
            key = _KEY_OF_SET[name](row) | ({"reference": solution} if with_references else find_needs(solution))
            identifier = str(row.get("id", row.get("task_id")))
            yield VerdictItem(id=identifier, kind="code", response=f"```python\n{solution}\n```", answer_key=key)


def _check_key(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"test": row["test"], "entry_point": row["entry_point"]}


_KEY_OF_SET = {
    "humaneval": _check_key,
    "mbpp": lambda row: {"test_list": row["test_list"], "test_setup_code": row["test_setup_code"]},
    "leetcode": _check_key,
    "classeval": lambda row: {"tests": {"type": "unittest", "test": row["test"]}},
}


async def judge_set(config: CodeConfig, name: str, *, with_references: bool = False) -> dict[str, Judgement]:
    """The judgements of a set's reference solutions, by the rows' names."""
    items = list(load_items(name, with_references=with_references))
    judgements: dict[str, Judgement] = {}
    async with open_code_check(config) as check:
        if check.refusal() is not None:
            raise SystemExit(check.refusal())
        await check.judge(
            [check.prepare(item) for item in items], lambda n, judged: judgements.update({items[n].id: judged})
        )
    return judgements


async def main(config: CodeConfig, *, with_references: bool) -> None:
    """Prints one row for each set, then each row without full reward and why."""
    print("| set | solutions | right | null | charged |\n|---|---|---|---|---|")
    others = []
    for name in _KEY_OF_SET:
        judgements = await judge_set(config, name, with_references=with_references)
        rewards = [judgement.reward for judgement in judgements.values()]
        print(f"| {name} | {len(rewards)} | {rewards.count(1.0)} | {rewards.count(None)} | {rewards.count(0.0)} |")
        others += [f"{row}: {each.outcome}: {each.reason}" for row, each in judgements.items() if each.reward != 1.0]
    print("", *others, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", default="", help="packages that programs may import, with commas")
    parser.add_argument("--packages-path", type=Path, help="the folder that holds them")
    parser.add_argument("--references", action="store_true", help="give keys their reference solution")
    options = parser.parse_args()
    names = tuple(filter(None, options.packages.split(",")))
    asyncio.run(
        main(CodeConfig(packages=names, packages_path=options.packages_path), with_references=options.references)
    )
