"""What tokenizer, chat template and stop tokens do with prompts and answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.launcher.check.model import ModelFacts
from services.launcher.display.finding import Section
from services.launcher.runs.model_files import read_token_table
from shared.errors import InvalidInput
from shared.protocol.message import JsonObject
from shared.protocol.thought import find_opened_thought
from shared.weights import Prompt, prompt_encoder, read_json_object, stop_token_ids

_SAMPLES = (
    "2+3*4 = 14\n\nSo the answer is \\boxed{14}.",
    "x² − 3·y ≤ 0,5 €",
    "def f(x):\n    return x\n",
    "中文 и кириллица",
)
_USER, _SYSTEM = {"role": "user", "content": "What is 2+2?"}, {"role": "system", "content": "Be brief."}
_ANSWER = "It is 4 indeed."
_SHOWN = 400
_DATES = re.compile(r"strftime_now|date_string|now\(")


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """A tokenizer whose files are in order."""

    tokenizer: Any
    stop_ids: frozenset[int]
    special_ids: frozenset[int]


def examine_tokenizer(section: Section, facts: ModelFacts) -> TokenizerFacts | None:
    """Its vocabulary, special tokens and stop tokens; None where there is none that can be read."""
    from services.learner.model.model_files import read_tokenizer, require_vocabulary

    try:
        tokenizer = read_tokenizer(facts.directory)
        require_vocabulary(facts.directory, tokenizer, facts.vocab_size)
        num_tokens = max(tokenizer.get_vocab().values()) + 1
        stops = stop_token_ids(facts.directory, num_tokens, tokenizer.backend_tokenizer.token_to_id)
    except InvalidInput as error:
        section.failed("tokenizer", str(error), "")
        return None
    section.ok("vocabulary", f"{num_tokens:,} tokens; the model has room for {facts.vocab_size:,}")
    specials = {name: getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad", "unk")}
    added = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    puts = f"; it puts {tokenizer.convert_ids_to_tokens(added[0])[0]!r} before a text" if added[0] != added[1] else ""
    section.ok("special tokens", ", ".join(f"{name} {token!r}" for name, token in specials.items() if token) + puts)
    _examine_stops(section, facts, tokenizer, stops)
    return TokenizerFacts(tokenizer, stops, read_token_table(facts.directory).special_ids)


def examine_round_trip(section: Section, facts: ModelFacts, tokens: TokenizerFacts, prompts: Sequence[Prompt]) -> None:
    """Whether the text of the problems comes back from its tokens, as the verifier reads the tokens of answers."""
    table = read_token_table(facts.directory)
    texts = list(dict.fromkeys(text for prompt in prompts for text in _texts(prompt))) or list(_SAMPLES)

    def comes_back(text: str) -> bool:
        ids = tokens.tokenizer(text, add_special_tokens=False)["input_ids"]
        return table.decode(ids).strip() == text.strip()

    lost = [text for text in texts if not comes_back(text)]
    whose = "of the first problems" if prompts else "of some samples"
    if lost:
        section.warning(
            "round trip",
            f"{len(lost)} of {len(texts)} texts {whose} come back otherwise, the first {lost[0][:_SHOWN]!r}",
            "a tokenizer that folds or lacks these letters, or that of another model: what is lost cannot be answered",
        )
    else:
        section.ok("round trip", f"{len(texts)} texts {whose} come back as they were")


def _texts(prompt: Prompt) -> tuple[str, ...]:
    return (prompt,) if isinstance(prompt, str) else tuple(message.get("content", "") for message in prompt)


def _examine_stops(section: Section, facts: ModelFacts, tokenizer: Any, stops: frozenset[int]) -> None:
    named = read_json_object(facts.directory / "generation_config.json").get("eos_token_id")
    words = ", ".join(f"{tokenizer.convert_ids_to_tokens(one)!r} ({one})" for one in sorted(stops))
    by_whom = "generation_config.json and the tokenizer" if named is not None else "config.json or the tokenizer"
    own = tokenizer.eos_token_id
    if own is None:
        section.warning(
            "stop tokens",
            f"{words} of {by_whom}; the tokenizer has no end token",
            "add eos_token to tokenizer_config.json if answers of the model end otherwise",
        )
    else:
        section.ok("stop tokens", f"{words}, of {by_whom}")


def examine_template(
    section: Section, tokens: TokenizerFacts, settings: JsonObject, prompts: Sequence[Prompt], max_tokens: int
) -> None:
    """How chat messages become a prompt, shown of the first problem, or of a sample."""
    chats = [prompt for prompt in prompts if not isinstance(prompt, str)]
    tokenizer = tokens.tokenizer
    if tokenizer.chat_template is None:
        if chats:
            section.failed(
                "chat template",
                f"none, and {len(chats)} of {len(prompts)} problems are chat messages",
                "give their prompts as text, or a model with a template",
            )
        else:
            section.ok("chat template", "none; the prompts are text, as a model without one wants them")
        return
    if prompts and not chats:
        section.warning(
            "chat template",
            "there is one, and the prompts are text, which goes to the model as it is",
            "if it was tuned for chats, give messages: prompt = [{role = 'user', content = '…'}]",
        )
    encode = prompt_encoder(tokenizer, settings)
    try:
        ids = encode(chats[0] if chats else (_USER,))
    except ValueError as error:
        section.failed("chat template", str(error), "")
        return
    text = tokenizer.decode(ids)
    shown = text if len(text) <= _SHOWN else f"…{text[-_SHOWN:]}"
    section.ok(
        "rendered", f"{len(ids)} tokens of the {'first problem' if chats else 'question What is 2+2?'}: {shown!r}"
    )
    _examine_rendered(section, tokenizer, ids, text, max_tokens)
    _examine_roles(section, tokens, encode, settings)


def _examine_rendered(section: Section, tokenizer: Any, ids: Sequence[int], text: str, max_tokens: int) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and list(ids[:2]) == [bos, bos]:
        section.warning(
            "begin token", f"{tokenizer.bos_token!r} stands twice at the front", "take it out of the template"
        )
    if _DATES.search(str(tokenizer.chat_template)):
        section.ok("date", "the template may write today's; a run keeps that of its first day")
    if tag := find_opened_thought(text):
        section.ok(
            "thought",
            f"the prompt ends within {tag}: an answer counts only behind the thought's end, within {max_tokens} tokens",
        )


def _examine_roles(section: Section, tokens: TokenizerFacts, encode: Any, settings: JsonObject) -> None:
    try:
        with_system = encode((_SYSTEM, _USER))
    except ValueError as error:
        section.warning("system role", f"refused: {error}", "write what it should say into the user's message")
    else:
        kept = _SYSTEM["content"] in tokens.tokenizer.decode(with_system)
        if kept:
            section.ok("system role", "accepted")
        else:
            section.warning("system role", "left out in silence", "write what it should say into the user's message")
    if encode((_USER,)) == _render(tokens.tokenizer, (_USER,), settings):
        section.warning(
            "answer's start",
            "the template does not heed add_generation_prompt: a prompt ends where the user's turn does",
            "if the model continues the user's words, add the start of the assistant's turn to the template",
        )
    _examine_turn_end(section, tokens, settings)


def _examine_turn_end(section: Section, tokens: TokenizerFacts, settings: JsonObject) -> None:
    """Whether the token with which the template ends an answer is one at which answers stop."""
    ids = _render(tokens.tokenizer, (_USER, {"role": "assistant", "content": _ANSWER}), settings)
    ends = (number for number in range(1, len(ids) + 1) if _ANSWER in tokens.tokenizer.decode(ids[:number]))
    end = next(ends, len(ids))
    behind = [one for one in ids[end:] if one in tokens.special_ids | tokens.stop_ids]
    if behind and not tokens.stop_ids & set(behind):
        token = tokens.tokenizer.convert_ids_to_tokens(behind[0])
        section.warning(
            "end of an answer",
            f"the template ends a turn with {token!r}, which is no stop token: answers may run on to the limit",
            f"add {behind[0]} to eos_token_id in generation_config.json",
        )
    elif behind:
        section.ok("end of an answer", "the template ends a turn with a stop token")


def _render(tokenizer: Any, messages: tuple[dict[str, str], ...], settings: JsonObject) -> tuple[int, ...]:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, **settings)
    except (TemplateError, TypeError, LookupError, AttributeError):
        return ()
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
