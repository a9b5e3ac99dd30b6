"""The compiled filter, run by a small BPF interpreter, does what its policy says."""

import errno
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.sandbox.jail.syscall_filter import ALLOW, KILL, Instructions, compile_filter, refuse
from services.verifier.sandbox.jail.syscall_policy import AARCH64, X86_64, Machine, Purpose, build_syscall_policy

MACHINES = [X86_64, AARCH64]
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def decide(program: Instructions, number: int, audit_number: int, arguments: Sequence[int] = ()) -> int:
    """What the kernel would do with the call."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    words = {0: number, 4: audit_number}
    for index, argument in enumerate(padded):
        words[16 + 8 * index] = argument & 0xFFFFFFFF
        words[20 + 8 * index] = argument >> 32
    position, accumulator = 0, 0
    while True:
        instruction = program[position]
        position += 1
        match instruction.code:
            case 0x20:
                accumulator = words[instruction.k]
            case 0x54:
                accumulator &= instruction.k
            case 0x06:
                return instruction.k
            case code:
                holds = {
                    0x15: accumulator == instruction.k,
                    0x35: accumulator >= instruction.k,
                    0x45: bool(accumulator & instruction.k),
                }[code]
                position += instruction.if_true if holds else instruction.if_false


def _call(machine: Machine, name: str, *arguments: int, purpose: Purpose = Purpose.PYTHON) -> int:
    policy = build_syscall_policy(machine, purpose)
    numbers = policy.allowed | policy.checked | policy.absent | policy.violations
    return decide(compile_filter(policy), numbers[name], machine.audit_number, arguments)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_every_number_gets_the_action_that_the_policy_names(machine: Machine) -> None:
    policy = build_syscall_policy(machine)
    program = compile_filter(policy)
    checked = set(policy.checked.values())
    actions: Mapping[int, int] = (
        dict.fromkeys(policy.allowed.values(), ALLOW)
        | dict.fromkeys(policy.absent.values(), refuse(errno.ENOSYS))
        | dict.fromkeys(policy.violations.values(), KILL)
    )
    for number in range(1000):
        if number not in checked:
            assert decide(program, number, machine.audit_number) == actions.get(number, refuse(errno.EPERM))


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
@given(number=st.integers(0, 2**32 - 1), audit=st.integers(0, 2**32 - 1))
def test_calls_by_another_machines_numbers_are_killed(machine: Machine, number: int, audit: int) -> None:
    program = compile_filter(build_syscall_policy(machine))
    if audit != machine.audit_number:
        assert decide(program, number, audit) == KILL
    if machine.has_x32 and number >= 0x40000000:
        assert decide(program, number, machine.audit_number) == KILL


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_arguments_decide_where_they_should(machine: Machine) -> None:
    no = refuse(errno.EPERM)
    thread = 0x3D0F00
    assert _call(machine, "clone", thread) == ALLOW
    assert _call(machine, "clone", 0x01200011) == no
    assert _call(machine, "clone", thread & ~0x100) == no
    assert all(_call(machine, "clone", thread | flag) == no for flag in (0x10000000, 0x20000, 0x40000000, 0x2000))
    assert _call(machine, "mmap", 0, 4096, 3, 0x22) == ALLOW
    assert all(_call(machine, "mmap", 0, 4096, 4 | more, 0x02) == no for more in range(4))
    assert _call(machine, "mprotect", 0, 4096, 1) == ALLOW
    assert _call(machine, "mprotect", 0, 4096, 5) == no
    assert _call(machine, "fcntl", 0, 3) == ALLOW
    assert all(_call(machine, "fcntl", 0, command) == no for command in (8, 10, 15, 1024, 1031))
    assert _call(machine, "ioctl", 0, 0x5401) == ALLOW
    assert _call(machine, "ioctl", 0, 0x8901) == refuse(errno.ENOTTY)
    assert _call(machine, "socketpair", 1, 1) == ALLOW
    assert _call(machine, "socketpair", 1, 0x80801) == ALLOW
    assert all(_call(machine, "socketpair", *pair) == no for pair in ((1, 2), (2, 1), (1, 5), (16, 1)))


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_limits_are_asked_and_only_harmless_ones_set(machine: Machine) -> None:
    no = refuse(errno.EPERM)
    assert _call(machine, "prlimit64", 0, 0, 0, 0x7FFF_0000_0000) == ALLOW
    assert _call(machine, "prlimit64", 0, 3, 0x7FFF_0000_0000) == ALLOW
    assert _call(machine, "prlimit64", 0, 9, 0x7FFF_0000_0010) == ALLOW
    assert _call(machine, "prlimit64", 0, 0, 0x7FFF_0000_0000) == no
    assert _call(machine, "prlimit64", 0, 0, 0x10) == no
    assert _call(machine, "prlimit64", 1, 3, 0) == no


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_only_commands_may_execute(machine: Machine) -> None:
    number = {"x86_64": 59, "aarch64": 221}[machine.name]
    for purpose in Purpose:
        program = compile_filter(build_syscall_policy(machine, purpose))
        action = ALLOW if purpose is Purpose.COMMAND else refuse(errno.EPERM)
        assert decide(program, number, machine.audit_number) == action


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_a_compiled_program_starts_from_a_descriptor_and_maps_no_code(machine: Machine) -> None:
    assert _call(machine, "execveat", 3, 0, 0, 0, 0x1000, purpose=Purpose.NATIVE) == ALLOW
    assert _call(machine, "execveat", 3, 0, 0, 0, 0, purpose=Purpose.NATIVE) == refuse(errno.EPERM)
    assert _call(machine, "mmap", 0, 4096, 5, 0x02, purpose=Purpose.NATIVE) == refuse(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_commands_map_code_from_files_alone(machine: Machine) -> None:
    def mmap(protection: int, flags: int) -> int:
        return _call(machine, "mmap", 0, 4096, protection, flags, purpose=Purpose.COMMAND)

    assert [mmap(5, 0x02), mmap(3, 0x22), mmap(3, 0x01)] == [ALLOW] * 3
    assert [mmap(7, 0x02), mmap(5, 0x22), mmap(5, 0x01), mmap(5, 0x03)] == [refuse(errno.EPERM)] * 4


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_no_number_has_two_actions(machine: Machine) -> None:
    policy = build_syscall_policy(machine)
    numbers = [*policy.allowed.values(), *policy.checked.values(), *policy.absent.values(), *policy.violations.values()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_the_numbers_are_the_kernels(machine: Machine) -> None:
    header = HEADERS[machine.name]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    known = {
        name: int(number)
        for name, number in re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.M)
    }
    # The generic table calls it by its older name.
    known.setdefault("newfstatat", known.get("fstatat", -1))
    policy = build_syscall_policy(machine, Purpose.NATIVE)
    for numbers in (policy.allowed, policy.checked, policy.absent, policy.violations):
        for name, number in numbers.items():
            assert known.get(name, number) == number, name


def test_this_machine_is_known() -> None:
    assert platform.machine() in {machine.name for machine in MACHINES}
