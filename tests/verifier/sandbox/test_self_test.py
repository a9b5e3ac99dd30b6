"""The self-test decides by behaviour: what lets anything through is refused, and the layer named."""

import json

from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun
from services.verifier.sandbox.self_test import find_gap
from services.verifier.sandbox.unsafe_sandbox import UnsafeSandbox


async def test_processes_without_a_jail_are_found_out() -> None:
    unsafe = UnsafeSandbox(1)
    gap = await find_gap(unsafe.run, lambda: unsafe.layers)
    assert gap is not None
    assert "the sandbox lacks the layer 'landlock or a namespace': model code could read /etc/passwd" in gap
    assert "isolation: none" in gap


async def test_a_missing_system_call_filter_is_named() -> None:
    unsafe = UnsafeSandbox(1)

    async def run(program: Program, limits: Limits) -> ProgramRun:
        # The survey as in a jail; the violations as they are without a filter.
        if program.stdin:
            return ProgramRun(EndReason.EXITED, 0, stdout=b"[]\n")
        return await unsafe.run(program, limits)

    gap = await find_gap(run, lambda: unsafe.layers)
    assert gap is not None
    assert "lacks the layer 'system calls': model code could ptrace (it exited)" in gap


async def test_any_single_thing_that_works_is_enough() -> None:
    async def run(program: Program, limits: Limits) -> ProgramRun:
        return ProgramRun(EndReason.EXITED, 0, stdout=json.dumps(["limits", "raise a limit"]).encode() + b"\n[]\n")

    gap = await find_gap(run, lambda: {"limits": "on"})
    assert gap is not None
    assert "'limits': model code could raise a limit (layers: limits: on" in gap


async def test_a_survey_that_dies_is_a_gap() -> None:
    async def run(program: Program, limits: Limits) -> ProgramRun:
        return ProgramRun(EndReason.LOST, 113, stderr=b"OSError: no")

    gap = await find_gap(run, dict)
    assert gap is not None
    assert gap.startswith("the self-test did not run (lost, exit code 113): OSError: no")
