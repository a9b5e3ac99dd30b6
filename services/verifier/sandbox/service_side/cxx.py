"""C++ programs: how they are compiled in the jail, each of the compiler's stages as a process of its own.

g++ itself would start processes, which nothing in the jail may. So it is asked once, outside and without a program,
which commands it would run; later each runs alone, as an interpreter does, from standard input to standard output.
"""

import os
import re
import shlex
import subprocess
from dataclasses import dataclass, replace

from services.verifier.sandbox.sandbox import Limits, Program, ProgramRun, Role, Sandbox
from shared.errors import InvalidInput

_OPTIONS = ("-O2", "-std=gnu++20", "-static", "-s", "-pipe", "-w", "-fmax-errors=1", "-x", "c++", "-")
_STAGES = ("cc1plus", "as", "collect2")
_LIMITS = Limits(wall_seconds=30.0, cpu_seconds=20.0, memory_bytes=1 << 30, output_bytes=64 << 20)
_ERROR_LINE = re.compile(rb"^.*\berror: .*$", re.MULTILINE)
_SMALLEST = b"#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x * 2; }"


@dataclass(frozen=True, slots=True)
class CxxCompiler:
    """The command of each stage, and the folders of headers and libraries that they read. Made by `find`."""

    path: str
    stages: tuple[tuple[str, ...], ...]
    readable: tuple[str, ...]

    @property
    def executable(self) -> tuple[str, ...]:
        return tuple(stage[0] for stage in self.stages)

    @classmethod
    def find(cls, path: str) -> "CxxCompiler":
        """Asks the g++ at this path. Raises InvalidInput if it is none."""
        lines = [line for line in _ask(path, "-###", *_OPTIONS).splitlines() if line.startswith(" ")]
        commands = [shlex.split(line.rstrip("| ")) for line in lines]
        if [os.path.basename(command[0]) for command in commands] != list(_STAGES):
            raise InvalidInput(f"code.cxx: {path} runs {commands}, not the stages {_STAGES} of g++; give g++'s path")
        compiling, assembling, linking = commands
        stages = (
            (compiling[0], *compiling[1:]),
            (_find_program(path, "as"), *_redirect(assembling[1:])),
            (_find_program(path, "ld"), *_redirect(_without_plugins(linking[1:]))),
        )
        folder = os.path.dirname(os.path.realpath(_ask(path, "-print-libgcc-file-name").strip()))
        return cls(path, stages, ("/usr/include", "/usr/local/include", folder))

    async def compile(self, sandbox: Sandbox, source: bytes) -> Program | ProgramRun:
        """The executable program; or the stage that failed, with the compiler's first complaint as its last error."""
        content = source
        for command in self.stages:
            stage = Program(b"", Role.COMMAND, stdin=content, command=command)
            run = await sandbox.run(stage, _LIMITS)
            if not run.is_clean:
                complaint = _ERROR_LINE.search(run.stderr)
                return replace(run, stderr=complaint.group() if complaint else run.stderr)
            content = run.stdout
        return Program(content, Role.NATIVE)

    async def find_gap(self, sandbox: Sandbox) -> str | None:
        """Why programs cannot be compiled and run here, with the remedy; None if they can."""
        program = await self.compile(sandbox, _SMALLEST)
        run = program if isinstance(program, ProgramRun) else await sandbox.run(replace(program, stdin=b"21"), Limits())
        if run.is_clean and run.stdout == b"42":
            return None
        errors = run.stderr.decode(errors="replace").strip()[-500:]
        return f"code.cxx: {self.path} compiles no program in the jail ({run.end_reason.value}: {errors}); leave it out"


def _ask(path: str, *arguments: str) -> str:
    try:
        finished = subprocess.run(  # noqa: S603 - the operator's compiler, with our arguments
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidInput(
            f"code.cxx: {path} cannot be asked how it compiles ({error}); give the path of g++"
        ) from error
    return finished.stdout + finished.stderr


def _find_program(path: str, name: str) -> str:
    found = _ask(path, f"-print-prog-name={name}").strip()
    candidates = [found] if os.path.isabs(found) else [f"{folder}/{found}" for folder in ("/usr/bin", "/usr/local/bin")]
    for candidate in candidates:
        if os.path.exists(candidate):
            return os.path.realpath(candidate)
    raise InvalidInput(f"code.cxx: {path} finds no {name!r}; install binutils")


def _without_plugins(arguments: list[str]) -> list[str]:
    """Without what only link-time optimization needs, and collect2's own arguments."""
    kept = []
    skips_next = False
    for argument in arguments:
        if skips_next:
            skips_next = False
        elif argument == "-plugin":
            skips_next = True
        elif not argument.startswith("-plugin-opt="):
            kept.append(argument)
    return kept


def _redirect(arguments: list[str]) -> list[str]:
    """The object file comes from standard input; what `-o` names, or would be a.out, goes to standard output."""
    if "-o" in arguments:
        position = arguments.index("-o")
        arguments = [*arguments[:position], *arguments[position + 2 :]]
    inputs = ["/proc/self/fd/0" if a.startswith(("/tmp/", "/var/tmp/")) else a for a in arguments]  # noqa: S108 - a name only
    return ["-o", "/proc/self/fd/1", *inputs]
