"""Run as a program by test_ordinary_user.py: a jail of whoever runs this, over the programs on standard input."""

import asyncio
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from services.verifier.sandbox.jail_sandbox import open_jail
from services.verifier.sandbox.judge_script import JudgeScript
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import Limits, Program, Role


async def main() -> None:
    asked = json.load(sys.stdin)
    limits = Limits(wall_seconds=10.0, memory_bytes=256 << 20, output_bytes=1 << 20)
    options = JailOptions(concurrency=2, uses_namespaces=asked["namespaces"])
    async with open_jail(options) as sandbox:
        told = {"refusal": sandbox.refusal, "layers": dict(sandbox.layers()), "uid": os.geteuid()}
        if sandbox.refusal is None:
            runs = [await sandbox.run(Program(source.encode(), stdin=b"21\n"), limits) for source in asked["programs"]]
            told["runs"] = [[run.end_reason.value, run.stdout.decode()] for run in runs]
            solution = Program(b"def add(a, b):\n    return a + b", Role.SOLUTION)
            script = JudgeScript("", ("assert add(1, 2) == 3",), "add", calls_check=False, is_partial=False)
            _, judged = await sandbox.run_pair(solution, Program(script.pack(), Role.JUDGE), limits)
            told["report"] = json.loads(judged.stdout)
    print(json.dumps(told))


asyncio.run(main())
