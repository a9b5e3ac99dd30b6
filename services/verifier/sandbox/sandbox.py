"""What a sandbox is asked to run, what it may use, and how a run ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

# By which a jailed Python child says that it ran out of memory.
EXIT_MEMORY = 112


class Role(IntEnum):
    """What the child does with its program."""

    SCRIPT = 0
    """Runs it as `__main__`, with standard input and output."""
    SOLUTION = 1
    """Loads it as a module, then answers calls that come over the channel with plain data."""
    JUDGE = 2
    """Runs tests (a judge's script) that call a solution over the channel; its output is its report."""
    COMMAND = 3
    """Executes the interpreter of another language on it."""


@dataclass(frozen=True, slots=True)
class Program:
    """Source and input of one process. `command` starts the interpreter of a COMMAND program, which finds the
    source in descriptor 3, where it stands; it must be among what the sandbox may execute."""

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
    """What one process may use. The memory is address space beyond that of a bare interpreter.

    The wall clock is for programs that wait. One that would work but got no processor is forgiven that time, up to
    `starved_seconds`: a busy machine must not end what is right.
    """

    wall_seconds: float = 15.0
    starved_seconds: float = 45.0
    cpu_seconds: float = 10.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 4 << 20
    num_threads: int = 32

    def __post_init__(self) -> None:
        numbers = (self.wall_seconds, self.cpu_seconds, self.memory_bytes, self.output_bytes, self.num_threads)
        if min(numbers) <= 0 or self.starved_seconds < 0:
            raise ValueError(f"{self}: every limit must be above zero, the patience not below")


class EndReason(Enum):
    """How a process ended."""

    EXITED = "exited"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    VIOLATION = "violation"
    STOPPED = "stopped"
    """Ended by us because its partner was done."""
    LOST = "lost"
    """The sandbox itself failed: nothing is known about the program."""


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """One finished process. `exit_code` belongs to EXITED and OUT_OF_MEMORY, `signal` to those that a signal ended."""

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
        """A run about which nothing is known."""
        return cls(EndReason.LOST, stderr=reason.encode())


class Sandbox(Protocol):
    """Runs programs and bounds how many run at once; waiting for a place costs a program none of its time."""

    @property
    def is_isolated(self) -> bool:
        """Whether what runs here is kept from the machine."""
        ...

    @property
    def refusal(self) -> str | None:
        """Why nothing may run here (the missing layer and the remedy), or None."""
        ...

    @property
    def concurrency(self) -> int:
        """How many items can run at once; each may hold a solution and its judge."""
        ...

    def layers(self) -> Mapping[str, str]:
        """Each layer of isolation and its state."""
        ...

    async def run(self, program: Program, limits: Limits) -> ProgramRun:
        """Runs one program to its end. Cancelling kills it."""
        ...

    async def run_pair(self, solution: Program, judge: Program, limits: Limits) -> tuple[ProgramRun, ProgramRun]:
        """Runs both with a channel between them until the judge is done; each may use all of `limits`."""
        ...
