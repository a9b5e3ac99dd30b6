"""Judges code in the sandbox: programs by their output, functions by tests."""

import asyncio
import sysconfig
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from services.verifier.checks.check import Case, Check, Judgement, ReportJudgement, judge_concurrently
from services.verifier.checks.code.extraction import Language, find_program
from services.verifier.checks.code.function import judge_function
from services.verifier.checks.code.key import (
    MAX_READ_HERE,
    PreparedFunction,
    PreparedTests,
    find_fault,
    prepare_tests,
    work,
)
from services.verifier.checks.code.needs import Files, Needs
from services.verifier.checks.code.outcome import outcome_of, reason_of
from services.verifier.checks.code.reference import References
from services.verifier.checks.code.stdio import judge_stdio
from services.verifier.config import CodeConfig
from services.verifier.metrics import VerifierMetrics
from services.verifier.sandbox.jail_sandbox import open_jail
from services.verifier.sandbox.judge_script import JudgeScript
from services.verifier.sandbox.messages import ON, SCRATCH_FOLDERS, JailOptions
from services.verifier.sandbox.sandbox import Limits, Program, ProgramRun, Sandbox
from services.verifier.sandbox.service_side.cxx import CxxCompiler
from services.verifier.sandbox.service_side.javascript import javascript_program
from services.verifier.sandbox.unsafe_sandbox import UnsafeSandbox
from services.verifier.workers.pool import PoolSettings, ReplyStatus, WorkerPool, open_worker_pool
from shared.errors import InvalidInput, Unavailable
from shared.protocol.verdict import ItemLimits, Outcome, VerdictItem

_MAX_RESPONSE_CHARACTERS = 1 << 20
_MAX_PROGRAM_BYTES = 1 << 18
_FILE_BYTES = 16 << 20
# Below this, not even an empty program runs.
_MIN_MEMORY_BYTES = 16 << 20
# A longer response is read by a worker: parsing it would hold up the event loop.
_MAX_READ_HERE = 2_000
_FINDER = f"{work.__module__}:{work.__name__}"
_FINDER_SECONDS = 5.0
_FINDER_BYTES = 1 << 29
_CALLS_PER_FINDER = 1_000


@asynccontextmanager
async def open_code_check(config: CodeConfig, metrics: VerifierMetrics | None = None) -> AsyncIterator["CodeCheck"]:
    """The check, with a sandbox that has tested itself; `refusal` says what is missing.

    With `metrics` it has workers that find the programs in long responses.
    """
    async with AsyncExitStack() as stack:
        sandbox: Sandbox = UnsafeSandbox(config.concurrency, config.slow_runs)
        cxx: CxxCompiler | None = None
        if not config.unsafe:
            cxx = await asyncio.to_thread(CxxCompiler.find, config.cxx) if config.cxx else None
            jail = await stack.enter_async_context(open_jail(_jail_options(config, cxx)))
            if cxx and jail.refusal is None:
                jail.refusal = await cxx.find_gap(jail)
            sandbox = jail
        finders = None
        if metrics is not None:
            settings = PoolSettings("code", _FINDER, config.concurrency, _FINDER_BYTES, _CALLS_PER_FINDER)
            finders = await stack.enter_async_context(open_worker_pool(settings, metrics))
        yield CodeCheck(sandbox, config, finders, cxx)


def _jail_options(config: CodeConfig, cxx: CxxCompiler | None = None) -> JailOptions:
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    folders = [str(config.packages_path.resolve())] if config.packages_path else list(dict.fromkeys(installed))
    return JailOptions(
        config.concurrency,
        config.namespaces,
        readable=cxx.readable if cxx else (),
        executable=(*((config.node,) if config.node else ()), *(cxx.executable if cxx else ())),
        packages=config.packages,
        package_folders=folders,
        slow_runs=config.slow_runs,
    )


class CodeCheck(Check[PreparedTests]):
    """Runs the program of each response against its key's tests."""

    kind = "code"

    def __init__(
        self,
        sandbox: Sandbox,
        config: CodeConfig,
        finders: WorkerPool | None = None,
        cxx: CxxCompiler | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._cxx = cxx
        self._config = config
        self._finders = finders
        self._references = References()
        self._vetted: deque[JudgeScript] = deque(maxlen=64)  # the leaves of a tree share their tests

    def refusal(self) -> str | None:
        return self._sandbox.refusal

    def health(self) -> Mapping[str, Any]:
        return {
            "ready": self._sandbox.refusal is None,
            "isolated": self._sandbox.is_isolated,
            "layers": dict(self._sandbox.layers),
            "concurrency": self._sandbox.concurrency,
            "slow_runs": self._sandbox.num_slow,
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
        if tests.language is Language.CPP and self._cxx is None:
            raise InvalidInput(f"item {item.id!r}: this verifier runs no C++; give it the path of g++ (code.cxx)")
        return Case(item.response, tests, item.limits)

    async def vet(self, cases: Sequence[Case[PreparedTests]]) -> None:
        keys = [case.key for case in cases if isinstance(case.key, PreparedFunction)]
        scripts = {key.script for key in keys if isinstance(key.script, JudgeScript)}
        for script in scripts:
            if script.num_characters > MAX_READ_HERE and script not in self._vetted:
                if fault := await self._find_fault(script):
                    raise InvalidInput(f"tests that begin {script.tests[0][:80]!r}: {fault}")
                self._vetted.append(script)

    async def _find_fault(self, script: JudgeScript) -> str:
        if self._finders is None:
            return find_fault(script)
        reply = await self._finders.call(("fault", script.pack().decode()), _FINDER_SECONDS)
        if reply.status is ReplyStatus.ANSWERED and isinstance(reply.value, str):
            return reply.value
        if reply.status in (ReplyStatus.TIMED_OUT, ReplyStatus.MEMORY):
            return f"they take too long to read: {reply.detail}"
        raise Unavailable(f"tests could not be read: {reply.detail}; send the batch again")

    async def judge(self, cases: Sequence[Case[PreparedTests]], report: ReportJudgement) -> None:
        await judge_concurrently(cases, self._sandbox.concurrency + self._sandbox.slow_runs, self._judge, report)

    async def _judge(self, case: Case[PreparedTests]) -> Judgement:
        tests = case.key
        if lack := self._find_lack(tests.needs):
            return Judgement(None, Outcome.UNSUPPORTED, lack, tests.rule)
        found = await self._find_program(case.response, tests)
        if isinstance(found, Judgement):
            return found

        async def judge_source(source: str) -> Judgement:
            return await self._judge_source(source, tests, case.limits)

        return await self._references.excuse(await judge_source(found), tests, judge_source)

    async def _judge_source(self, text: str, tests: PreparedTests, asked: ItemLimits | None) -> Judgement:
        source = text.encode("utf-8", "replace")
        if not source.strip():
            return self._without_running(Outcome.NO_ANSWER, "the response holds no program", tests)
        if len(source) > _MAX_PROGRAM_BYTES:
            return self._without_running(Outcome.RUNTIME_ERROR, f"a program of {len(source)} bytes is too long", tests)
        limits, item_seconds = self._limits(asked)
        if tests.needs.files is not Files.NO and self._has_files:
            limits = replace(limits, file_bytes=_FILE_BYTES)
        if isinstance(tests, PreparedFunction):
            return await judge_function(self._sandbox, source, tests, limits)
        program = Program(source)
        if tests.language is Language.JAVASCRIPT:
            program, limits = javascript_program(str(self._config.node), source, limits)
        elif tests.language is Language.CPP and self._cxx is not None:
            compiled = await self._cxx.compile(self._sandbox, source)
            if isinstance(compiled, ProgramRun):
                return self._not_compiled(compiled, tests)
            program = compiled
        return await judge_stdio(self._sandbox, program, tests, limits, item_seconds)

    @property
    def _has_files(self) -> bool:
        return self._sandbox.layers.get(SCRATCH_FOLDERS) == ON

    def _find_lack(self, needs: Needs) -> str:
        """What the key says that the problem needs, and is not here; with the remedy."""
        missing = [name for name in needs.packages if name not in self._config.packages]
        if missing:
            return f"the problem needs {', '.join(missing)}; name what is installed in code.packages"
        if needs.files is Files.REQUIRED and not self._has_files:
            obstacle = self._sandbox.layers.get(SCRATCH_FOLDERS, "the sandbox is switched off")
            return f"the problem needs files, and the sandbox offers none here ({obstacle})"
        return ""

    def _not_compiled(self, run: ProgramRun, tests: PreparedTests) -> Judgement:
        outcome, reason = outcome_of(run) or Outcome.RUNTIME_ERROR, f"it was not compiled: {reason_of(run)}"
        if outcome is Outcome.INFRASTRUCTURE:
            return Judgement.failure(reason, tests.rule)
        return self._without_running(outcome, reason, tests)

    async def _find_program(self, response: str, tests: PreparedTests) -> str | Judgement:
        if self._finders is None or len(response) <= _MAX_READ_HERE:
            return find_program(response, tests.entry_point, tests.language)
        arguments = ("program", response, tests.entry_point, tests.language.name, _MAX_PROGRAM_BYTES + 1)
        reply = await self._finders.call(arguments, _FINDER_SECONDS)
        if reply.status is ReplyStatus.ANSWERED and isinstance(reply.value, str):
            return reply.value
        if reply.status is ReplyStatus.TIMED_OUT:
            return self._without_running(Outcome.TIMED_OUT, "its program was not found in time", tests)
        if reply.status is ReplyStatus.MEMORY:
            return self._without_running(Outcome.MEMORY, "its program was not found in bounded memory", tests)
        return Judgement.failure(f"its program was not found: {reply.detail}", tests.rule)

    def _without_running(self, outcome: Outcome, reason: str, tests: PreparedTests) -> Judgement:
        return Judgement(0.0, outcome, reason, tests.rule, isolated=self._sandbox.is_isolated)

    def _limits(self, asked: ItemLimits | None) -> tuple[Limits, float]:
        """The limits of each process, and the seconds that all cases of the item share."""
        config = self._config
        asked = asked or ItemLimits()
        limits = Limits(
            wall_seconds=asked.wall_seconds or config.wall_seconds,
            cpu_seconds=asked.cpu_seconds or config.cpu_seconds,
            memory_bytes=max(asked.memory_bytes or config.memory_bytes, _MIN_MEMORY_BYTES),
            output_bytes=asked.output_bytes or config.output_bytes,
        )
        return limits, asked.wall_seconds or config.item_seconds
