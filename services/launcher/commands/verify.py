"""`ibtpo verify`: asks a verifier to judge one answer."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.launcher.processes.temporary_services import run_verifier
from shared.clients import VerifierClient
from shared.protocol.verdict import Outcome, Verdict, VerdictItem
from shared.runtime.client import http_client

JUDGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class VerifyArguments:
    """The command's arguments. Without `url`, a verifier is started for this answer."""

    response: str
    answer: str
    kind: str
    url: str | None
    token: str | None


def verify(arguments: VerifyArguments) -> int:
    """Prints the verdict; the exit code is 0 for a right answer, 1 for any other."""
    verdict = asyncio.run(_judge(arguments))
    is_right = verdict.outcome is Outcome.RIGHT
    reward = "no reward" if verdict.reward is None else f"reward {verdict.reward:g}"
    parts = (f"by {verdict.rule}" if verdict.rule else "", reward, f"{1000 * verdict.seconds:.1f} ms", verdict.reason)
    console = Console()
    console.print(verdict.outcome.value.replace("_", " "), style="bold green" if is_right else "bold red", end="  ")
    console.print(" · ".join(part for part in parts if part), highlight=False, markup=False)
    return 0 if is_right else 1


async def _judge(arguments: VerifyArguments) -> Verdict:
    if arguments.url is not None:
        return await _request_verdict(arguments.url, arguments)
    with tempfile.TemporaryDirectory(prefix="ibtpo-verify-") as folder:
        async with run_verifier(Path(folder)) as url:
            return await _request_verdict(url, arguments)


async def _request_verdict(url: str, arguments: VerifyArguments) -> Verdict:
    item = VerdictItem(
        id="answer", kind=arguments.kind, response=arguments.response, answer_key={"gold": arguments.answer}
    )
    async with http_client(arguments.token, JUDGE_SECONDS) as http:
        (verdict,) = await VerifierClient(http, url).judge((item,), JUDGE_SECONDS)
    return verdict
