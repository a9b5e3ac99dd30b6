"""What honest programs do works in the jail."""

import os
import signal
import sys

import pytest

from services.verifier.sandbox.jail_sandbox import JailSandbox, open_jail
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, Role
from tests.verifier.sandbox.programs import HONEST, judge_program

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
    if jail.layers["namespaces"] == "on":
        seen, _, own = run.stdout.decode().strip().rpartition(" ")
        assert seen == f"[{own}]"


async def test_a_child_holds_the_sandbox_and_the_standard_library_alone(jail: JailSandbox) -> None:
    run = await jail.run(Program(b"import sys\nprint(*sys.modules)"), Limits())
    modules = [name for name in run.stdout.decode().split() if not name.startswith("_sysconfigdata_")]
    ours = {name for name in modules if f"{name}.".startswith("services.")}
    assert {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names} - ours == {"__main__"}
    assert {name.split(".")[3] for name in ours if name.count(".") > 2} == {
        *("fork_server", "jail", "judge_script", "kernel", "messages", "sandbox")
    }


async def test_without_namespaces_the_other_layers_hold() -> None:
    async with open_jail(JailOptions(uses_namespaces=False)) as sandbox:
        assert sandbox.refusal is None
        assert (sandbox.layers["namespaces"], sandbox.layers["system calls"]) == ("switched off", "on")
        assert (await sandbox.run(Program(HONEST["input"].encode(), stdin=b"21\n"), Limits())).stdout == b"42\n"


async def test_a_solution_is_stopped_when_its_judge_ends(jail: JailSandbox) -> None:
    solution = Program(b"while True: pass", Role.SOLUTION)
    solution_run, judge_run = await jail.run_pair(solution, judge_program("assert 1"), Limits())
    assert (solution_run.end_reason, judge_run.is_clean) == (EndReason.STOPPED, True)
