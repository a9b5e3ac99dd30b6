"""What honest programs do: the jail is in nobody's way."""

import os
import signal

import pytest

from services.verifier.sandbox.jail_sandbox import JailSandbox
from services.verifier.sandbox.sandbox import EndReason, Limits, Program
from tests.verifier.sandbox.programs import HONEST

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("name", HONEST)
async def test_an_honest_program_runs(jail: JailSandbox, name: str) -> None:
    run = await jail.run(Program(HONEST[name].encode(), stdin=b"21\n"), Limits())
    assert run.is_clean, run.stderr.decode()
    assert run.stdout.strip() == b"42", run


async def test_arguments_and_errors_come_through(jail: JailSandbox) -> None:
    program = Program(
        b"import sys\nprint(sys.argv[1:])\nprint('oops', file=sys.stderr)\nsys.exit('bad')", argv=("a", "b")
    )
    run = await jail.run(program, Limits())
    assert (run.end_reason, run.exit_code, run.stdout, run.stderr) == (
        EndReason.EXITED,
        1,
        b"['a', 'b']\n",
        b"oops\nbad\n",
    )


async def test_two_runs_do_not_draw_the_same_random_numbers(jail: JailSandbox) -> None:
    program = Program(b"import random\nprint(random.random())")
    outputs = {(await jail.run(program, Limits())).stdout for _ in range(5)}
    assert len(outputs) == 5


async def test_a_run_sees_nothing_of_the_one_before(jail: JailSandbox) -> None:
    await jail.run(Program(b"import builtins, sys\nbuiltins.print = None\nsys.modules['json'] = None"), Limits())
    run = await jail.run(Program(b"import json\nprint(json.dumps([1]))"), Limits())
    assert run.stdout == b"[1]\n"


async def test_sets_have_one_order_in_all_runs(jail: JailSandbox) -> None:
    program = Program(b"print(list({'a', 'b', 'c', 'd', 'e'}), hash('x'))")
    outputs = {(await jail.run(program, Limits())).stdout for _ in range(3)}
    assert jail.fork_server_pid is not None
    os.kill(jail.fork_server_pid, signal.SIGKILL)
    outputs.add((await jail.run(program, Limits())).stdout)
    assert len(outputs) == 1


async def test_a_process_sees_no_other_by_its_number(jail: JailSandbox) -> None:
    program = Program(b"import os\nprint([n for n in range(1, 400) if os.path.exists(f'/proc/{n}')], os.getpid())")
    run = await jail.run(program, Limits())
    if jail.layers()["namespaces"] == "on":
        seen, _, own = run.stdout.decode().strip().rpartition(" ")
        assert seen == f"[{own}]"
