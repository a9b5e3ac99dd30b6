"""Judges code in the sandbox: programs by their output, functions by tests."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from services.verifier.checks.check import Case, Judgement, ReportJudgement, judge_concurrently
from services.verifier.checks.code.extraction import Language, find_program
from services.verifier.checks.code.function import judge_function
from services.verifier.checks.code.key import PreparedStdio, PreparedTests, prepare_tests
from services.verifier.checks.code.stdio import judge_stdio
from services.verifier.config import CodeConfig
from services.verifier.sandbox.jail_sandbox import open_jail
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import Limits, Program, Sandbox
from services.verifier.sandbox.service_side.javascript import javascript_program
from services.verifier.sandbox.unsafe_sandbox import UnsafeSandbox
from shared.errors import InvalidInput
from shared.protocol.verdict import ItemLimits, Outcome, VerdictItem

_MAX_RESPONSE_CHARACTERS = 1 << 20
_MAX_PROGRAM_BYTES = 1 << 18
# Below this, not even an empty program runs.
_MIN_MEMORY_BYTES = 16 << 20


@asynccontextmanager
async def open_code_check(config: CodeConfig) -> AsyncIterator["CodeCheck"]:
    """The check, with a sandbox that has tested itself; `refusal` says what is missing."""
    if config.unsafe:
        yield CodeCheck(UnsafeSandbox(config.concurrency), config)
        return
    options = JailOptions(
        concurrency=config.concurrency,
        uses_namespaces=config.namespaces,
        executable=(config.node,) if config.node else (),
    )
    async with open_jail(options) as sandbox:
        yield CodeCheck(sandbox, config)


class CodeCheck:
    """Runs the program of each response against its key's tests."""

    kind = "code"
    is_repeatable = False

    def __init__(self, sandbox: Sandbox, config: CodeConfig) -> None:
        self._sandbox = sandbox
        self._config = config

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
        if len(item.response) > _MAX_RESPONSE_CHARACTERS:
            raise InvalidInput(
                f"item {item.id!r}: a response of {len(item.response)} characters; this verifier takes "
                f"{_MAX_RESPONSE_CHARACTERS}"
            )
        tests = prepare_tests(item)
        if tests.language is Language.JAVASCRIPT and (self._config.node is None or not self._sandbox.is_isolated):
            raise InvalidInput(f"item {item.id!r}: this verifier runs no JavaScript; give it node's path (code.node)")
        return Case(item.response, tests, item.limits)

    async def judge(self, cases: Sequence[Case[PreparedTests]], report: ReportJudgement) -> None:
        await judge_concurrently(cases, self._sandbox.concurrency, self._judge, report)

    async def _judge(self, case: Case[PreparedTests]) -> Judgement:
        tests = case.key
        source = find_program(case.response, tests.entry_point, tests.language).encode("utf-8", "replace")
        if not source.strip():
            return self._without_running(Outcome.NO_ANSWER, "the response holds no program", tests)
        if len(source) > _MAX_PROGRAM_BYTES:
            return self._without_running(Outcome.RUNTIME_ERROR, f"a program of {len(source)} bytes is too long", tests)
        limits, item_seconds = self._limits(case.limits)
        if isinstance(tests, PreparedStdio):
            if tests.language is Language.PYTHON or self._config.node is None:
                return await judge_stdio(self._sandbox, Program(source), tests, limits, item_seconds)
            program, limits = javascript_program(self._config.node, source, limits)
            return await judge_stdio(self._sandbox, program, tests, limits, item_seconds)
        return await judge_function(self._sandbox, source, tests, limits)

    def _without_running(self, outcome: Outcome, reason: str, tests: PreparedTests) -> Judgement:
        return Judgement(0.0, outcome, reason, tests.rule, isolated=self._sandbox.is_isolated)

    def _limits(self, asked: ItemLimits | None) -> tuple[Limits, float]:
        """The limits of each process, and the seconds that all cases of the item share."""
        config = self._config
        if asked is None:
            asked = ItemLimits()
        limits = Limits(
            wall_seconds=asked.wall_seconds or config.wall_seconds,
            starved_seconds=0.0 if asked.wall_seconds else config.starved_seconds,
            cpu_seconds=asked.cpu_seconds or config.cpu_seconds,
            memory_bytes=max(asked.memory_bytes or config.memory_bytes, _MIN_MEMORY_BYTES),
            output_bytes=asked.output_bytes or config.output_bytes,
        )
        return limits, asked.wall_seconds or config.item_seconds
