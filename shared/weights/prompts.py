"""How a policy's tokenizer makes a prompt of a text or of chat messages: one rule for runs, requests and commands."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias

from shared.tree.prompt import prompt_ids

_NOW = re.compile(r"""strftime_now\(\s*(["'])(?P<format>[^"']*)\1\s*\)""")
Messages: TypeAlias = tuple[dict[str, str], ...]
Prompt: TypeAlias = str | Messages
Encoder: TypeAlias = Callable[[Prompt], tuple[int, ...]]


def prompt_encoder(
    tokenizer: Any, settings: Mapping[str, Any] = MappingProxyType({}), today: datetime | None = None
) -> Encoder:
    """Encodes text by the rule of `prompt_ids`, and chat messages by the tokenizer's template, up to where the answer
    begins. A template that writes the date writes `today`."""
    today = today or datetime.now()

    def encode(prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            plain = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            return prompt_ids(plain, tokenizer(prompt)["input_ids"])
        if tokenizer.chat_template is None:
            raise ValueError("the prompt is chat messages, but the policy's tokenizer has no chat template; give text")
        from jinja2 import TemplateError  # those who encode text need no jinja2

        template = _date(tokenizer.get_chat_template(), today)
        try:
            text = tokenizer.apply_chat_template(
                list(prompt), chat_template=template, tokenize=False, add_generation_prompt=True, **settings
            )
        except (TemplateError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(
                f"the chat template refuses these messages: {error}; change them, or chat_template_kwargs"
            ) from error
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def _date(template: str, today: datetime) -> str:
    """The template with `today` for each date that it would look up."""
    return _NOW.sub(lambda call: repr(today.strftime(call["format"])), template)
