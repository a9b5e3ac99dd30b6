"""Calls to the verifier: judge answers."""

from collections.abc import Callable, Sequence

import httpx
from pydantic import TypeAdapter

from shared.errors import IbtpoError, MalformedAnswer
from shared.protocol.verdict import Verdict, VerdictItem, VerdictRequest, VerdictResponse
from shared.runtime.exchange import Exchange

_READY_SECONDS = 2.0
_VERDICT = TypeAdapter(Verdict)
_RESPONSE = TypeAdapter(VerdictResponse)


class VerifierClient:
    """One verifier. It stops judging after `deadline_seconds` (None: its own default), which the outcomes of late items
    say; `within_seconds` bounds the call."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._exchange = Exchange(http, url, f"the verifier at {url}")

    async def judge(
        self, items: Sequence[VerdictItem], within_seconds: float, deadline_seconds: float | None = None
    ) -> tuple[Verdict, ...]:
        """The verdicts, in the order of the items."""
        request = VerdictRequest(items=tuple(items), deadline_seconds=deadline_seconds)
        body = await self._exchange.request("POST", "/v1/verdicts", within_seconds, message=request)
        return self._exchange.read(_RESPONSE, body).verdicts

    async def judge_each(
        self,
        items: Sequence[VerdictItem],
        within_seconds: float,
        on_verdict: Callable[[Verdict], None],
        deadline_seconds: float | None = None,
    ) -> None:
        """Reports every verdict as soon as it is known. MalformedAnswer after the others if one cannot be read."""
        request = VerdictRequest(items=tuple(items), deadline_seconds=deadline_seconds)
        async with self._exchange.open_lines("/v1/verdicts", request, within_seconds) as lines:
            unreadable: MalformedAnswer | None = None
            async for line in lines:
                try:
                    verdict = self._exchange.read(_VERDICT, line)
                except MalformedAnswer as error:
                    unreadable = unreadable or error
                else:
                    on_verdict(verdict)
            if unreadable is not None:
                raise unreadable

    async def is_ready(self) -> bool:
        """Whether it answers and says that it can judge."""
        try:
            await self._exchange.request("GET", "/readyz", _READY_SECONDS)
        except IbtpoError:
            return False
        return True
