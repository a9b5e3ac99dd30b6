"""JavaScript programs, judged by what they print in the same jail."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.verifier.checks.code.check import CodeCheck, open_code_check
from services.verifier.config import CodeConfig
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome
from tests.verifier.code.judging import code_item, judge_code, stdio

NODE = shutil.which("node")
TESTS = stdio(("21\n", "42\n"), ("5\n", "10\n")) | {"language": "javascript"}

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def check() -> AsyncIterator[CodeCheck]:
    async with open_code_check(CodeConfig(node=NODE, memory_bytes=128 << 20)) as check:
        yield check


RIGHT = {
    "read at once": "const n = parseInt(require('fs').readFileSync(0, 'utf8'));\nconsole.log(n * 2)",
    "read /dev/stdin": "console.log(require('fs').readFileSync('/dev/stdin', 'utf8') * 2)",
    "read lines": "require('readline').createInterface({input: process.stdin}).on('line', l => console.log(l * 2))",
    "await": "(async () => { for await (const part of process.stdin) console.log(part * 2) })()",
    "a main module": "if (require.main === module) console.log(require('fs').readFileSync(0) * 2)",
    "fenced": "So:\n```js\nconsole.log(require('fs').readFileSync(0) * 2)\n```\nRun it:\n```\nnode x.js\n```",
}
NOT_RIGHT = {
    "wrong": ("console.log(1)", Outcome.WRONG),
    "raises": ("throw new Error('no')", Outcome.RUNTIME_ERROR),
    "Python": ("print(int(input()) * 2)", Outcome.RUNTIME_ERROR),
    "endless": ("while (true);", Outcome.TIMED_OUT),
    "flood": ("while (true) require('fs').writeSync(1, 'x'.repeat(65536))", Outcome.OUTPUT_LIMIT),
    "memory": ("const a = []; while (true) a.push(new Array(1000).fill(1.5))", Outcome.RUNTIME_ERROR),
    "exit": ("process.exit(0)", Outcome.WRONG),
    "run a command": ("console.log(require('child_process').execSync('echo 42').toString())", Outcome.RUNTIME_ERROR),
    "read a file": ("console.log(require('fs').readFileSync('/etc/passwd', 'utf8'))", Outcome.RUNTIME_ERROR),
    "write a file": ("require('fs').writeFileSync('/tmp/VERIFIER_JS', 'x')", Outcome.RUNTIME_ERROR),
    "listen": ("require('net').createServer().listen(0)", Outcome.RUNTIME_ERROR),
    "run what it printed": ("process.dlopen({exports: {}}, '/proc/self/fd/1')", Outcome.RUNTIME_ERROR),
    "signal": ("process.kill(process.ppid, 0)", Outcome.RUNTIME_ERROR),
}


@pytest.mark.parametrize("name", RIGHT)
async def test_a_right_program_is_rewarded(check: CodeCheck, name: str) -> None:
    judgement = await judge_code(check, RIGHT[name], TESTS)
    assert (judgement.outcome, judgement.reward, judgement.isolated) == (Outcome.RIGHT, 1.0, True), judgement


@pytest.mark.parametrize("name", NOT_RIGHT)
async def test_anything_else_earns_nothing(check: CodeCheck, name: str) -> None:
    response, outcome = NOT_RIGHT[name]
    judgement = await judge_code(check, response, TESTS, seconds=3.0)
    assert (judgement.outcome, judgement.reward) == (outcome, 0.0), judgement


async def test_without_node_the_key_is_refused() -> None:
    async with open_code_check(CodeConfig()) as check:
        with pytest.raises(InvalidInput, match=r"runs no JavaScript; give it node's path \(code.node\)"):
            check.prepare(code_item("console.log(1)", TESTS))
