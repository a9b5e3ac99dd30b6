"""Requests to the verifier, and its answers."""

from enum import StrEnum
from typing import Annotated

from pydantic import FailFast, Field

from shared.protocol.message import JsonObject, Message
from shared.protocol.names import Kind
from shared.protocol.thought import find_opened_thought


class Outcome(StrEnum):
    """How judging an answer ended. The last two have no reward: they say nothing about the answer."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    RUNTIME_ERROR = "runtime_error"
    TIMED_OUT = "timed_out"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    SANDBOX_VIOLATION = "sandbox_violation"
    UNSUPPORTED = "unsupported"
    """Tests that the verifier cannot run: nothing is known about the answer."""
    INFRASTRUCTURE = "infrastructure"
    """A failure of the verifier itself."""

    @property
    def is_judged(self) -> bool:
        """Whether such a verdict has a reward."""
        return self not in (Outcome.UNSUPPORTED, Outcome.INFRASTRUCTURE)


class ItemLimits(Message):
    """What one item may use; None: the verifier's own default."""

    wall_seconds: float | None = Field(None, gt=0, le=600)
    cpu_seconds: float | None = Field(None, gt=0, le=600)
    memory_bytes: int | None = Field(None, gt=0, lt=2**40)
    output_bytes: int | None = Field(None, gt=0, le=1 << 30)


class VerdictItem(Message):
    """One answer to judge. The shape of `answer_key` belongs to `kind` (docs/verifier.md).

    `prompt`: the rendered text that the response continues, or its end. A thought that it opens is the response's.
    """

    id: str = Field(max_length=256)
    kind: Kind
    response: str
    answer_key: JsonObject
    limits: ItemLimits | None = None
    prompt: str = ""

    def with_opened_thought(self) -> "VerdictItem":
        """The item whose response begins with the tag of the thought that its prompt opens, if it opens one."""
        tag = find_opened_thought(self.prompt) if self.prompt else ""
        return self.model_copy(update={"response": tag + self.response, "prompt": ""}) if tag else self


MAX_ITEMS = 4096
"""Of a batch."""


class VerdictRequest(Message):
    """A batch; `deadline_seconds` counts from its arrival."""

    items: Annotated[tuple[VerdictItem, ...], FailFast()] = Field(min_length=1, max_length=MAX_ITEMS)
    deadline_seconds: float | None = Field(None, gt=0, le=3600, strict=True)


class TestVerdict(Message):
    """How one test of a program ended: the head of what it printed, or what failed; time, and memory where known."""

    outcome: Outcome
    said: str = ""
    seconds: float = 0.0
    peak_memory_bytes: int | None = None


MAX_FINAL_ANSWER = 256
"""Characters; a longer one is cut and ends with a hash of the whole."""


class Verdict(Message):
    """The judgement of one item. `reward` is null when it could not be judged: such an answer is never trained on.

    `final_answer`: what the response states as its answer, for votes among answers: empty if it states none, null for
    kinds whose answers are not compared with one another (code, and your own unless your endpoint says it).
    """

    id: str
    reward: float | None = Field(ge=0, le=1)
    outcome: Outcome
    reason: str = ""
    rule: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    isolated: bool = True
    tests: tuple[TestVerdict, ...] = ()
    final_answer: str | None = Field(None, max_length=MAX_FINAL_ANSWER)


class VerdictResponse(Message):
    """The verdicts of a batch, in the order of its items."""

    verdicts: tuple[Verdict, ...]


_MANY = 0.2


def explain_no_answers(num_no_answer: int, num_judged: int) -> str:
    """What to do where many answers state no final answer; "" where few do."""
    if num_no_answer < _MANY * max(num_judged, 1):
        return ""
    return (
        f"{num_no_answer} of {num_judged} answers state no final answer: a reward of 0. If the model states it "
        'in other words than \\boxed{}, name them: "extraction" in the answer keys, or verifier.math.extraction '
        "(docs/verifier.md, Where the final answer is looked for)"
    )
