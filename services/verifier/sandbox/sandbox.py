"""What a sandbox runs, what a program may use, and how it ended."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple


class Role(IntEnum):
    """What a child process does with its program."""

    SCRIPT = 0
    """Runs it as `__main__`, with standard input and output."""
    SOLUTION = 1
    """Loads it as a module, then answers calls from its judge."""
    JUDGE = 2
    """Runs tests (a `JudgeScript`) that call a solution; writes a `JudgeReport` to standard output."""
    COMMAND = 3
    """Executes another language's interpreter on it."""
    NATIVE = 4
    """Executes it: it is an executable file that needs no other."""


@dataclass(frozen=True, slots=True)
class Program:
    """Source and input of one process.

    `command` starts the interpreter of a COMMAND program, which reads the source from descriptor 3. The sandbox must
    allow that interpreter.
    """

    source: bytes
    role: Role = Role.SCRIPT
    stdin: bytes = b""
    argv: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.role is Role.COMMAND) != bool(self.command):
            raise ValueError(f"role {self.role.name} with command {self.command}: exactly COMMAND programs have one")
        if any({"\0", "\n"} & set(argument) for argument in (*self.command, *self.argv)):
            raise ValueError(f"arguments {self.command} {self.argv}: they may hold no null byte and no new line")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may use. `memory_bytes` is address space on top of a bare interpreter's.

    With `file_bytes` it works in a folder for that many bytes of files, which a solution and its judge share.

    Time for which a process is ready to run but gets no processor does not count: a busy machine must not fail right
    answers.
    """

    wall_seconds: float = 15.0
    cpu_seconds: float = 6.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 4 << 20
    num_threads: int = 32
    file_bytes: int = 0

    def __post_init__(self) -> None:
        numbers = (self.wall_seconds, self.cpu_seconds, self.memory_bytes, self.output_bytes, self.num_threads)
        if min(numbers) <= 0:
            raise ValueError(f"{self}: every limit must be above zero")
        if self.file_bytes < 0:
            raise ValueError(f"file_bytes={self.file_bytes}: it must be zero, for no files, or above")

    @property
    def whole_cpu_seconds(self) -> int:
        """The limit that the kernel is given: it counts whole seconds."""
        return math.ceil(self.cpu_seconds)

    @property
    def for_kernel(self) -> "KernelLimits":
        return KernelLimits(
            self.whole_cpu_seconds, self.memory_bytes, self.output_bytes, self.num_threads, self.file_bytes
        )


class KernelLimits(NamedTuple):
    """The limits that the kernel holds, in its units."""

    cpu_seconds: int
    memory_bytes: int
    output_bytes: int
    num_threads: int
    file_bytes: int


class EndReason(Enum):
    """Why a process ended."""

    EXITED = "exited"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    VIOLATION = "violation"
    STOPPED = "stopped"
    """We killed it because it was no longer needed."""
    LOST = "lost"
    """The sandbox itself failed; nothing is known about the program."""


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """One finished process. `signal` is set if a signal ended it, `exit_code` if not."""

    end_reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    @property
    def is_clean(self) -> bool:
        return self.end_reason is EndReason.EXITED and self.exit_code == 0

    @classmethod
    def lost(cls, reason: str) -> "ProgramRun":
        """A run of which nothing is known."""
        return cls(EndReason.LOST, stderr=reason.encode())


class Sandbox(ABC):
    """Runs programs, a bounded number at once. Time spent waiting to start does not count against a program.

    `concurrency` programs run at once; up to `slow_runs` more that take longer are kept beside them.

    `is_isolated`: whether programs are kept away from the machine. `refusal`: why nothing may run here (the missing
    layer and the remedy), or None. `layers`: each layer of isolation and its state.
    """

    is_isolated: bool
    refusal: str | None = None
    layers: Mapping[str, str]
    concurrency: int
    slow_runs: int = 0

    @property
    def num_slow(self) -> int:
        """How many of those there are now."""
        return 0

    async def run(self, program: Program, limits: Limits) -> ProgramRun:
        """Runs one program to its end. Cancelling kills it."""
        return (await self.run_together((program,), limits))[0]

    async def run_pair(self, solution: Program, judge: Program, limits: Limits) -> tuple[ProgramRun, ProgramRun]:
        """Runs both, connected by a socket, until the judge ends. Each may use all of `limits`."""
        solution_run, judge_run = await self.run_together((solution, judge), limits)
        return solution_run, judge_run

    @abstractmethod
    async def run_together(self, programs: Sequence[Program], limits: Limits) -> list[ProgramRun]:
        """Runs a program, or a solution and its judge. Raises Unavailable if there is a refusal."""
