"""Where rewards come from, as the grower sees it."""

from dataclasses import dataclass
from typing import Any, Protocol


class NoVerdict(Exception):
    """An answer has no reward, and why. `is_final`: the verifier refuses to judge it, so that no later try helps."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Reward:
    """In [0, 1], and the final answer that it was given for, as a verdict has it."""

    value: float
    final_answer: str | None = None


class Rewards(Protocol):
    """The verifier, or a stand-in in tests."""

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        """Raises NoVerdict if there is none."""
