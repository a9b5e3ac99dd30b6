"""Why a process ended, from its status, what it used and what the service did."""

import fcntl
import os
import signal
from collections.abc import Iterator

import pytest

from services.verifier.sandbox.messages import EXIT_MEMORY, READY_SEAL, ProcessEnded
from services.verifier.sandbox.sandbox import EndReason, Limits, Program
from services.verifier.sandbox.service_side.job_files import JobFiles
from services.verifier.sandbox.service_side.process_runner import read_run

LIMITS = Limits(cpu_seconds=2.0, memory_bytes=100 << 20, output_bytes=1000)


@pytest.fixture
def files() -> Iterator[JobFiles]:
    files = JobFiles(Program(b"print(1)", stdin=b"input"), None)
    yield files
    files.close()


def _exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("status", "cpu_seconds", "memory_mib", "killed_for", "reason"),
    [
        (_exited(0), 0.1, 10, None, EndReason.EXITED),
        (_exited(7), 0.1, 10, None, EndReason.EXITED),
        (_exited(EXIT_MEMORY), 0.1, 10, None, EndReason.OUT_OF_MEMORY),
        (signal.SIGSYS, 0.1, 10, None, EndReason.VIOLATION),
        (signal.SIGXFSZ, 0.1, 10, None, EndReason.OUTPUT_LIMIT),
        (signal.SIGSEGV, 0.1, 10, None, EndReason.CRASHED),
        (signal.SIGXCPU, 1.0, 10, None, EndReason.TIMED_OUT),
        # It caught the kernel's warning, and was killed a second later or ended by itself.
        (signal.SIGKILL, 2.95, 10, None, EndReason.TIMED_OUT),
        (_exited(0), 2.6, 10, None, EndReason.TIMED_OUT),
        (_exited(0), 2.4, 10, None, EndReason.EXITED),
        # Somebody killed it: the kernel for want of memory, or we know not who.
        (signal.SIGKILL, 0.1, 90, None, EndReason.OUT_OF_MEMORY),
        (signal.SIGKILL, 0.1, 10, None, EndReason.LOST),
        # We killed it, perhaps too late.
        (signal.SIGKILL, 0.1, 10, EndReason.TIMED_OUT, EndReason.TIMED_OUT),
        (signal.SIGKILL, 0.1, 10, EndReason.STOPPED, EndReason.STOPPED),
        (_exited(0), 0.1, 10, EndReason.STOPPED, EndReason.EXITED),
        (signal.SIGSEGV, 0.1, 10, EndReason.STOPPED, EndReason.CRASHED),
    ],
)
def test_the_reason_of_an_end(
    files: JobFiles,
    status: int,
    cpu_seconds: float,
    memory_mib: int,
    killed_for: EndReason | None,
    reason: EndReason,
) -> None:
    fcntl.fcntl(files.stdout, fcntl.F_ADD_SEALS, READY_SEAL)
    ended = ProcessEnded(1, int(status), cpu_seconds, memory_mib << 20)
    run = read_run(ended, 3.0, killed_for, files, LIMITS)
    assert run.end_reason is reason
    assert (run.exit_code is None) != (run.signal is None)
    assert (run.seconds, run.cpu_seconds, run.peak_memory_bytes) == (3.0, cpu_seconds, memory_mib << 20)


def test_a_process_that_did_not_get_to_its_program_is_lost(files: JobFiles) -> None:
    os.write(files.stderr, b"OSError: no jail")
    run = read_run(ProcessEnded(1, _exited(113), 0.1, 0), 0.1, None, files, LIMITS)
    assert (run.end_reason, run.exit_code, run.stderr) == (EndReason.LOST, 113, b"OSError: no jail")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_up_to_the_limit_counts_as_too_much(files: JobFiles, stream: str) -> None:
    fcntl.fcntl(files.stdout, fcntl.F_ADD_SEALS, READY_SEAL)
    os.write(getattr(files, stream), b"x" * LIMITS.output_bytes)
    run = read_run(ProcessEnded(1, _exited(0), 0.1, 0), 0.1, None, files, LIMITS)
    assert run.end_reason is EndReason.OUTPUT_LIMIT
    assert run.stdout == (b"x" * 1000 if stream == "stdout" else b"")


def test_inputs_are_sealed_and_only_the_end_of_the_errors_is_read(files: JobFiles) -> None:
    assert os.read(files.stdin, 100) == b"input"
    for descriptor in (files.stdin, files.job):
        with pytest.raises(PermissionError):
            os.write(descriptor, b"x")
    os.write(files.stderr, b"x" * 20_000 + b"the end")
    assert files.count_error_bytes() == 20_007
    assert files.read_errors().endswith(b"xthe end")
    assert len(files.read_errors()) == 8192
