"""Writes a problem's prompt as a model will read it: system prompt, instruction, chat messages or text."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias

from services.learner.data.formats.base import ConvertedRow, Format, Messages, Unusable
from services.learner.data.source import DataSource
from shared.errors import InvalidInput
from shared.weights import Encoder, prompt_encoder

Prompt: TypeAlias = str | Messages
INSTRUCTIONS = {
    "math": r"Please reason step by step, and put your final answer within \boxed{}.",
    "choice": r"Please reason step by step, and put the letter of your answer within \boxed{}.",
    "function": "Write the function in Python. Put the whole program into one ```python block.",
    "stdio": "Write a Python program that reads standard input and writes standard output. "
    "Put it into one ```python block.",
}
_ASKS_FOR_LINE = re.compile(r"of the form:? [\"'`*]*Answer:|after [\"'`*]+Answer:", re.IGNORECASE)
"""A problem that asks for its answer on a line "Answer: …", which is no box."""
_ASKS_ITSELF = {
    "math": re.compile(r"\\boxed|\\fbox|####|" + _ASKS_FOR_LINE.pattern + "|<answer>", re.IGNORECASE),
    "choice": re.compile(r"\\boxed|(?:answer|respond|reply) with (?:only )?(?:the|one|a) letter", re.IGNORECASE),
    "code": re.compile(r"```python\b.*```|(?:in|within|using|into) (?:a |one )?```", re.IGNORECASE | re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class PromptModel:
    """How the model to train reads prompts, and how long they may be."""

    encode: Encoder
    decode: Callable[[Sequence[int]], str]
    has_template: bool
    max_prompt_tokens: int
    reads_system: bool
    """Whether its template takes a system message, and shows it."""
    overhead: int
    """Tokens of a prompt of one character: what the template and the tokenizer put around it."""

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        max_prompt_tokens: int,
        settings: Mapping[str, Any] = MappingProxyType({}),
        today: datetime | None = None,
    ) -> "PromptModel":
        encode = prompt_encoder(tokenizer, settings, today)
        has_template = tokenizer.chat_template is not None
        reads_system = has_template and _reads_system(encode)
        shortest: Prompt = ({"role": "user", "content": "1"},) if has_template else "1"
        try:
            overhead = len(encode(shortest))
        except ValueError:  # a template that refuses a lone user says so with the first problem
            overhead = max_prompt_tokens
        return cls(encode, tokenizer.decode, has_template, max_prompt_tokens, reads_system, overhead)

    def refusal(self, prompt: Prompt, at_most: int | None) -> str:
        """Why a prompt cannot be taken; empty if it can. What is surely short enough is not encoded."""
        most = min(at_most or self.max_prompt_tokens, self.max_prompt_tokens)
        texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
        if len(texts) <= 2 and sum(len(text.encode()) for text in texts) + self.overhead <= most:
            return ""  # a token has at least a byte
        try:
            length = len(self.encode(prompt))
        except ValueError as error:
            return str(error)
        return f"its prompt has more than {most} tokens" if length > most else ""


def _append(text: str, instruction: str) -> str:
    return f"{text}\n\n{instruction}" if instruction else text


def _reads_system(encode: Encoder) -> bool:
    user = {"role": "user", "content": "1 + 1"}
    try:
        with_system = encode(({"role": "system", "content": "Be brief, please."}, user))
        return with_system != encode(({"role": "system", "content": "Use few words."}, user))
    except ValueError:
        return False


def asked_extraction(text: str) -> list[str]:
    """Where final answers are looked for if a problem asks for another place than the verifier's own."""
    if "<answer>" in text:
        return ["answer_tag", "box"]
    return ["answer_is", "box"] if _ASKS_FOR_LINE.search(text) else []


@dataclass(frozen=True, slots=True)
class PromptWriter:
    """Writes the prompts of one source."""

    source: DataSource
    is_written: bool
    """Whether the rows' prompts are whole already."""
    model: PromptModel | None

    @classmethod
    def of(cls, source: DataSource, form: Format, model: PromptModel | None) -> "PromptWriter":
        """InvalidInput where the source wants chat messages, and the model has no template for them."""
        if source.chat and model is not None and not model.has_template:
            raise InvalidInput(f"{source}: chat=true, but the model's tokenizer has no chat template: leave out chat")
        return cls(source, form.is_written, model)

    def write(self, row: ConvertedRow) -> tuple[Prompt, str]:
        """The prompt, and what is put behind the problem in it. Unusable for one that is too long for the model, or
        that its template refuses."""
        instruction = self._instruction_for(row)
        if isinstance(row.prompt, str) and self.is_written and self.source.chat is None:
            prompt: Prompt = _append(row.prompt, instruction)
        else:
            prompt = self._write(row, instruction)
        if self.model is not None and (reason := self.model.refusal(prompt, self.source.max_prompt_tokens)):
            raise Unusable(reason)
        return prompt, instruction

    def notes(self) -> list[str]:
        """What is to be known of all prompts."""
        notes = []
        if self.is_chat and self.source.system_prompt and self.model is not None and not self.model.reads_system:
            notes.append(
                "the chat template has no system role: the system prompt stands before the user's first message"
            )
        if self.model is None:
            notes.append(
                "no model is given: prompts are not measured" + ("" if self.is_written else ", and are chat messages")
            )
        elif not self.is_chat and not self.is_written:
            notes.append("prompts are plain text: the model has no chat template, or chat=false")
        return notes

    def _write(self, row: ConvertedRow, instruction: str) -> Prompt:
        messages = (
            [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else [dict(m) for m in row.prompt]
        )
        system = self.source.system_prompt
        if not system and messages[0]["role"] == "system":
            system = messages[0]["content"]
        messages = [message for message in messages if message["role"] != "system"]
        messages[-1]["content"] = _append(messages[-1]["content"], instruction)
        return self._in_chat(system, messages) if self.is_chat else self._in_text(system, messages)

    @property
    def is_chat(self) -> bool:
        if self.source.chat is not None:
            return self.source.chat
        return self.model is None or self.model.has_template

    def _instruction_for(self, row: ConvertedRow) -> str:
        """What is put behind this problem, where it does not ask for it itself."""
        if self.source.instruction is not None:
            return self.source.instruction
        asks = _ASKS_ITSELF.get(row.kind)
        text = f"{self.source.system_prompt}\n{row.whole_text}"
        if self.is_written or self.source.extraction or (asks and asks.search(text)):
            return ""
        if row.kind == "code":
            is_stdio = row.answer_key.get("tests", {}).get("type") == "stdio"
            return INSTRUCTIONS["stdio" if is_stdio else "function"]
        return INSTRUCTIONS.get(row.kind, "")

    def _in_chat(self, system: str, messages: list[dict[str, str]]) -> Messages:
        if not system:
            return tuple(messages)
        if self.model is None or self.model.reads_system:
            return ({"role": "system", "content": system}, *messages)
        first, *others = messages
        return (first | {"content": f"{system}\n\n{first['content']}"}, *others)

    def _in_text(self, system: str, messages: list[dict[str, str]]) -> str:
        if len(messages) > 1:
            raise Unusable("a conversation of several turns, and the model has no chat template")
        return "\n\n".join(filter(None, (system, messages[0]["content"])))
