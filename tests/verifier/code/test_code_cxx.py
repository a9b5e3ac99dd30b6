"""C++ programs, compiled and run in the jail."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.verifier.checks.code.check import CodeCheck, open_code_check
from services.verifier.config import CodeConfig
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome
from tests.verifier.code.judging import code_item, judge_code, stdio

CXX = shutil.which("g++")
TESTS = stdio(("21\n", "42\n"), ("5\n", "10\n")) | {"language": "cpp"}
C = "".join(
    f"#include <{header}>\n"
    for header in ("csignal", "cstdio", "cstdlib", "fcntl.h", "sys/mman.h", "sys/socket.h", "unistd.h")
)
DOUBLE = 'int main() { int x; scanf("%d", &x); printf("%d\\n", x * 2); }'

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CXX is None, reason="g++ is not installed"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def check() -> AsyncIterator[CodeCheck]:
    async with open_code_check(CodeConfig(cxx=CXX)) as check:
        assert check.refusal() is None
        yield check


RIGHT = {
    "a fence among others": f"So:\n```c++\n{C}{DOUBLE}\n```\nIt prints:\n```\n42\n```",
    "threads and exceptions": "#include <cstdio>\n#include <stdexcept>\n#include <thread>\nint x;\nint main() {\n"
    'std::thread t([] { try { throw std::runtime_error("x"); } catch (...) { scanf("%d", &x); } });\n'
    't.join(); printf("%d", x * 2); }',
}
NOT_RIGHT = {
    "wrong": ("int main() { puts(\"1\"); }", Outcome.WRONG),
    "no program": ("int main() { return y; }", Outcome.RUNTIME_ERROR),
    "fails": ("int main() { return 3; }", Outcome.RUNTIME_ERROR),
    "crashes": ("int main() { *(volatile int *)8 = 1; }", Outcome.RUNTIME_ERROR),
    "includes a secret": ("#include \"/etc/passwd\"\nint main() {}", Outcome.RUNTIME_ERROR),
    "assembles a secret": ("asm(\".incbin \\\"/etc/passwd\\\"\"); int main() {}", Outcome.RUNTIME_ERROR),
}  # fmt: skip
# Each holds if the program is out.
CONTAINED = {
    "fork": "fork() >= 0",
    "execute": 'execl("/bin/true", "true", nullptr) == 0',
    "execute the compiler": 'execl("/usr/bin/x86_64-linux-gnu-as", "as", nullptr) == 0',
    "open a socket": "socket(AF_INET, SOCK_STREAM, 0) >= 0",
    "read a secret": 'open("/etc/passwd", O_RDONLY) >= 0',
    "read a header": 'open("/usr/include/stdio.h", O_RDONLY) >= 0',
    "write a file": 'open("/tmp/VERIFIER_CXX", O_CREAT | O_WRONLY, 0600) >= 0',
    "new code": "mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, 1, 0) != MAP_FAILED",
    "signal": "kill(getppid(), 0) == 0",
}


@pytest.mark.parametrize("name", RIGHT)
async def test_a_right_program_is_rewarded(check: CodeCheck, name: str) -> None:
    judgement = await judge_code(check, RIGHT[name], TESTS)
    assert (judgement.outcome, judgement.reward, judgement.isolated) == (Outcome.RIGHT, 1.0, True), judgement


@pytest.mark.parametrize("name", NOT_RIGHT)
async def test_anything_else_earns_nothing(check: CodeCheck, name: str) -> None:
    source, outcome = NOT_RIGHT[name]
    judgement = await judge_code(check, C + source, TESTS)
    assert (judgement.outcome, judgement.reward) == (outcome, 0.0), judgement


async def test_a_compiler_s_first_complaint_is_the_reason(check: CodeCheck) -> None:
    judgement = await judge_code(check, "int main() { return y; }", TESTS)
    assert judgement.reason.startswith("it was not compiled: the program exited with code 1: <stdin>:1:21: error: ")


async def test_an_escape_gets_nowhere(check: CodeCheck) -> None:
    attempts = "\n".join(f'if ({condition}) puts("{name}");' for name, condition in CONTAINED.items())
    source = f'{C}int main() {{ {attempts}\nputs("contained"); }}'
    tests = stdio(("", "contained\n")) | {"language": "cpp"}
    assert (await judge_code(check, source, tests)).outcome is Outcome.RIGHT


@pytest.mark.slow
async def test_a_program_that_never_ends_to_compile_is_ended(check: CodeCheck) -> None:
    doubling = "".join(f"#define A{n + 1} A{n} A{n}\n" for n in range(40))
    judgement = await judge_code(check, f"#define A0 x+=1;\n{doubling}int x; int main() {{ A40 }}", TESTS)
    assert judgement.reward == 0.0
    assert judgement.reason.startswith("it was not compiled: ")


async def test_without_a_compiler_the_key_is_refused() -> None:
    async with open_code_check(CodeConfig()) as check:
        with pytest.raises(InvalidInput, match=r"runs no C\+\+; give it the path of g\+\+ \(code.cxx\)"):
            check.prepare(code_item("int main() {}", TESTS))


async def test_what_is_no_compiler_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"code.cxx: /bin/true runs \[\], not the stages"):
        async with open_code_check(CodeConfig(cxx="/bin/true")):
            pass
