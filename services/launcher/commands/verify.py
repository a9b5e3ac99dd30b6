"""`ibtpo verify`: asks a verifier to judge one answer."""

import asyncio

from rich.console import Console

from services.launcher.processes.model_services import ModelServices, ServiceAddresses
from shared.protocol.verdict import Outcome, Verdict, VerdictItem


def verify(item: VerdictItem, url: str | None, token: str | None) -> int:
    """Prints the verdict of the verifier at `url`, or of one that is started for it; the exit code is 0 for a right
    answer, 1 for any other."""
    with Console(stderr=True).status("asking the verifier" if url else "starting a verifier"):
        verdict = asyncio.run(_judge(item, url, token))
    is_right = verdict.outcome is Outcome.RIGHT
    reward = "no reward" if verdict.reward is None else f"reward {verdict.reward:g}"
    parts = (f"by {verdict.rule}" if verdict.rule else "", reward, f"{1000 * verdict.seconds:.1f} ms", verdict.reason)
    console = Console()
    console.print(verdict.outcome.value.replace("_", " "), style="bold green" if is_right else "bold red", end="  ")
    console.print(" · ".join(part for part in parts if part), highlight=False, markup=False)
    return 0 if is_right else 1


async def _judge(item: VerdictItem, url: str | None, token: str | None) -> Verdict:
    async with ModelServices(None, ServiceAddresses(verifier_url=url, token=token)) as services:
        (verdict,) = await services.judge((item,))
    return verdict
