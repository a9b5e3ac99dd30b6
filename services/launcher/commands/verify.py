"""`ibtpo verify`: has one answer judged by a verifier."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.launcher.processes.serving import verifying
from shared.clients import VerifierClient
from shared.protocol.verdict import Outcome, Verdict, VerdictItem
from shared.runtime.client import http_client

JUDGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Judging:
    """The command's arguments. Without `url` a verifier is started for the one answer."""

    response: str
    answer: str
    kind: str
    url: str | None
    token: str | None


def judge(judging: Judging) -> int:
    """Prints the verdict; the exit code is 0 for a right answer, 1 for any other."""
    verdict = asyncio.run(_judged(judging))
    is_right = verdict.outcome is Outcome.RIGHT
    reward = "no reward" if verdict.reward is None else f"reward {verdict.reward:g}"
    parts = (f"by {verdict.rule}" if verdict.rule else "", reward, f"{1000 * verdict.seconds:.1f} ms", verdict.reason)
    console = Console()
    console.print(verdict.outcome.value.replace("_", " "), style="bold green" if is_right else "bold red", end="  ")
    console.print(" · ".join(part for part in parts if part), highlight=False, markup=False)
    return 0 if is_right else 1


async def _judged(judging: Judging) -> Verdict:
    if judging.url is not None:
        return await _asked(judging.url, judging)
    with tempfile.TemporaryDirectory(prefix="ibtpo-verify-") as folder:
        async with verifying(Path(folder)) as url:
            return await _asked(url, judging)


async def _asked(url: str, judging: Judging) -> Verdict:
    item = VerdictItem(id="answer", kind=judging.kind, response=judging.response, answer_key={"gold": judging.answer})
    async with http_client(judging.token, JUDGE_SECONDS) as http:
        (verdict,) = await VerifierClient(http, url).judge((item,), JUDGE_SECONDS)
    return verdict
