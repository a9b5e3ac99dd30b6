"""A program for test_ordinary_user.py: runs the programs on standard input in a jail, as whoever runs this."""

import asyncio
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from services.verifier.sandbox.jail_sandbox import open_jail
from services.verifier.sandbox.judge_script import JudgeReport
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import Limits, Program, Role
from tests.verifier.sandbox.programs import judge_program


async def main() -> None:
    request = json.load(sys.stdin)
    limits = Limits(wall_seconds=10.0, memory_bytes=256 << 20, output_bytes=1 << 20)
    async with open_jail(JailOptions(uses_namespaces=request["namespaces"])) as sandbox:
        answer = {"refusal": sandbox.refusal, "layers": dict(sandbox.layers), "uid": os.geteuid()}
        if sandbox.refusal is None:
            runs = [
                await sandbox.run(Program(source.encode(), stdin=b"21\n"), limits) for source in request["programs"]
            ]
            answer["runs"] = [[run.end_reason.value, run.stdout.decode()] for run in runs]
            solution = Program(b"def add(a, b):\n    return a + b", Role.SOLUTION)
            _, judge_run = await sandbox.run_pair(solution, judge_program("assert add(1, 2) == 3"), limits)
            report = JudgeReport.unpack(judge_run.stdout)
            answer["num_passed"] = report and report.num_passed
    print(json.dumps(answer))


asyncio.run(main())
