"""Judges code: programs by their output, functions by tests, all of it in the sandbox."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.verifier.checks.check import Case, Judgement, ReportJudgement
from services.verifier.checks.code.extraction import Language, find_program
from services.verifier.checks.code.function import judge_function
from services.verifier.checks.code.key import PreparedStdio, PreparedTests, prepare_tests
from services.verifier.checks.code.stdio import judge_stdio
from services.verifier.sandbox.jail_sandbox import open_jail
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import Limits, Program, Sandbox
from services.verifier.sandbox.service_side.javascript import javascript_program
from services.verifier.sandbox.unsafe_sandbox import UnsafeSandbox
from shared.errors import InvalidInput
from shared.protocol.verdict import ItemLimits, Outcome, VerdictItem

# Below this, not even an empty program runs.
_LEAST_MEMORY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class CodeSettings:
    """How code is run: how many items at once, what each process may use, how long all cases of an item may take.

    JavaScript is judged where `node` is the path of its interpreter.
    """

    concurrency: int = 2
    is_unsafe: bool = False
    uses_namespaces: bool = True
    readable: tuple[str, ...] = ()
    node: str | None = None
    limits: Limits = field(default_factory=Limits)
    item_seconds: float = 60.0
    max_response_characters: int = 1 << 20
    max_program_bytes: int = 1 << 18


@asynccontextmanager
async def open_code_check(settings: CodeSettings) -> AsyncIterator["CodeCheck"]:
    """The check over a sandbox that has tested itself; its refusal says what is missing."""
    if settings.is_unsafe:
        yield CodeCheck(UnsafeSandbox(settings.concurrency), settings)
        return
    options = JailOptions(
        concurrency=settings.concurrency,
        uses_namespaces=settings.uses_namespaces,
        readable=settings.readable,
        executable=(settings.node,) if settings.node else (),
    )
    async with open_jail(options) as sandbox:
        yield CodeCheck(sandbox, settings)


class CodeCheck:
    """Runs the program of each response against its key's tests."""

    kind = "code"
    is_repeatable = False

    def __init__(self, sandbox: Sandbox, settings: CodeSettings) -> None:
        self._sandbox = sandbox
        self._settings = settings

    def refusal(self) -> str | None:
        return self._sandbox.refusal

    def health(self) -> Mapping[str, Any]:
        return {
            "ready": self._sandbox.refusal is None,
            "refusal": self._sandbox.refusal,
            "isolated": self._sandbox.is_isolated,
            "layers": dict(self._sandbox.layers()),
            "concurrency": self._sandbox.concurrency,
        }

    def prepare(self, item: VerdictItem) -> Case[PreparedTests]:
        if len(item.response) > self._settings.max_response_characters:
            raise InvalidInput(
                f"item {item.id!r}: a response of {len(item.response)} characters; this verifier takes "
                f"{self._settings.max_response_characters}"
            )
        tests = prepare_tests(item)
        if tests.language is Language.JAVASCRIPT and (self._settings.node is None or not self._sandbox.is_isolated):
            raise InvalidInput(f"item {item.id!r}: this verifier runs no JavaScript; give it node's path (code.node)")
        return Case(item.response, tests, item.limits)

    async def judge(self, cases: Sequence[Case[PreparedTests]], report: ReportJudgement) -> None:
        """As many cases at once as the sandbox has places."""
        waiting = iter(enumerate(cases))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(cases), self._sandbox.concurrency)):
                group.create_task(self._work_through(waiting, report))

    async def _work_through(self, waiting: Iterator[tuple[int, Case[PreparedTests]]], report: ReportJudgement) -> None:
        for position, case in waiting:
            report(position, await self._judge(case))

    async def _judge(self, case: Case[PreparedTests]) -> Judgement:
        tests = case.key
        source = find_program(case.response, tests.entry_point, tests.language).encode("utf-8", "replace")
        if not source.strip():
            return self._refused(Outcome.NO_ANSWER, "the response holds no program", tests)
        if len(source) > self._settings.max_program_bytes:
            return self._refused(Outcome.RUNTIME_ERROR, f"a program of {len(source)} bytes is too long", tests)
        limits, item_seconds = self._limits(case.limits)
        if isinstance(tests, PreparedStdio):
            if tests.language is Language.PYTHON or self._settings.node is None:
                return await judge_stdio(self._sandbox, Program(source), tests, limits, item_seconds)
            program, limits = javascript_program(self._settings.node, source, limits)
            return await judge_stdio(self._sandbox, program, tests, limits, item_seconds)
        return await judge_function(self._sandbox, source, tests, limits)

    def _refused(self, outcome: Outcome, reason: str, tests: PreparedTests) -> Judgement:
        return Judgement(0.0, outcome, reason, tests.rule, isolated=self._sandbox.is_isolated)

    def _limits(self, asked: ItemLimits | None) -> tuple[Limits, float]:
        """Each process's limits, and the seconds of the item as a whole."""
        own = self._settings.limits
        if asked is None:
            return own, self._settings.item_seconds
        item_seconds = asked.wall_seconds or self._settings.item_seconds
        limits = Limits(
            asked.wall_seconds or own.wall_seconds,
            0.0 if asked.wall_seconds else own.starved_seconds,
            asked.cpu_seconds or own.cpu_seconds,
            max(asked.memory_bytes or own.memory_bytes, _LEAST_MEMORY_BYTES),
            asked.output_bytes or own.output_bytes,
            own.num_threads,
        )
        return limits, item_seconds
