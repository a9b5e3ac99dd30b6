"""What hostile programs try gets nowhere."""

from pathlib import Path

import pytest

from services.verifier.sandbox.jail_sandbox import JailSandbox
from services.verifier.sandbox.sandbox import EndReason, Limits, Program
from tests.verifier.sandbox.programs import CONTAINED, VIOLATIONS, hostile_program

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = Limits(wall_seconds=5.0, cpu_seconds=5.0, memory_bytes=256 << 20, output_bytes=1 << 20)


def _program(statements: str) -> Program:
    return Program(hostile_program(statements).encode(), stdin=b"xyz")


@pytest.mark.parametrize("name", CONTAINED)
async def test_an_escape_gets_nowhere(jail: JailSandbox, name: str) -> None:
    run = await jail.run(_program(CONTAINED[name]), LIMITS)
    assert run.end_reason is EndReason.EXITED, run
    assert run.stdout == b"contained\n"


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_call_that_no_honest_program_makes_is_a_violation(jail: JailSandbox, name: str) -> None:
    assert (await jail.run(_program(VIOLATIONS[name]), LIMITS)).end_reason is EndReason.VIOLATION


async def test_no_file_was_left_behind(jail: JailSandbox) -> None:
    assert not [*Path("/tmp").glob("VERIFIER*"), *Path("/dev/shm").glob("VERIFIER*")]
