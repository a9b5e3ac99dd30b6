"""A request to a rollout replica for one tree, and the events of its growth."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.protocol.message import BoundedErrors, JsonObject, Message
from shared.protocol.names import Kind
from shared.protocol.task import Growth


class GivenPrompt(BoundedErrors):
    """A text, chat messages for the policy's template, which gets `chat_template_kwargs`, or token ids."""

    prompt: str | None = Field(None, min_length=1)
    messages: tuple[dict[str, str], ...] | None = Field(None, min_length=1)
    chat_template_kwargs: JsonObject = Field(default_factory=dict)
    prompt_ids: tuple[int, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if sum(given is not None for given in (self.prompt, self.messages, self.prompt_ids)) != 1:
            raise ValueError("give one of prompt (text), messages (a chat) and prompt_ids (token ids)")
        if self.chat_template_kwargs and (self.messages is None or "chat_template" in self.chat_template_kwargs):
            raise ValueError("chat_template_kwargs are variables of the policy's own template for messages")
        return self


class GrowRequest(GivenPrompt):
    """A problem and how to grow it. Without `kind` and `answer_key` nothing is judged and every reward is null."""

    kind: Kind | None = None
    answer_key: JsonObject | None = None
    growth: Growth
    seed: int = Field(0, ge=0, lt=2**64)
    stream: bool = False

    @model_validator(mode="after")
    def _kind_with_key(self) -> Self:
        if (self.kind is None) != (self.answer_key is None):
            raise ValueError("kind and answer_key come together")
        return self


class BranchesChosen(Message):
    """The sampler chose where to draw from next; each branch is (parent draw or null, cut, count)."""

    event: Literal["branches"] = "branches"
    round: int
    branches: tuple[tuple[int | None, int, int], ...]


class DrawGrown(Message):
    """A draw ended and was judged (reward null: no verdict)."""

    event: Literal["draw"] = "draw"
    index: int
    parent: int | None
    cut: int
    token_ids: tuple[int, ...]
    text: str
    logprob: float
    finish: str
    reward: float | None


class TreeGrown(Message):
    """The end: the whole tree as base64 of its packed form, and its figures."""

    event: Literal["tree"] = "tree"
    tree: str
    root_value: float | None
    is_mixed: bool
    ib_score: float | None
    cov_eta: float | None


class GrowthFailed(Message):
    """The end, without a tree."""

    event: Literal["error"] = "error"
    title: str
    detail: str


GrowthEvent = Annotated[BranchesChosen | DrawGrown | TreeGrown | GrowthFailed, Field(discriminator="event")]
