"""Which tokens end an answer of a policy: one rule for learner, replicas and evaluation."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.errors import InvalidInput

_KEY = "eos_token_id"


def stop_token_ids(directory: Path, num_tokens: int, id_of_token: Callable[[str], int | None]) -> frozenset[int]:
    """The stop tokens of a policy in Hugging Face layout, whose tokenizer has ids below `num_tokens`.

    They are those that generation_config.json names (config.json, where it names none), and the tokenizer's own end
    token, with which chat templates end a turn. InvalidInput where one of them can never be sampled, or none is named.
    """
    named = _named_ids(directory, num_tokens)
    own = _end_token(directory)
    own_id = None if own is None else id_of_token(own)
    stop_ids = named if own_id is None else named | {own_id}
    if not stop_ids:
        raise InvalidInput(
            f"neither generation_config.json nor config.json nor the tokenizer in {directory} names an {_KEY}: without "
            f'one no answer ends; add "{_KEY}" to generation_config.json'
        )
    return stop_ids


def _named_ids(directory: Path, num_tokens: int) -> frozenset[int]:
    for name in ("generation_config.json", "config.json"):
        config = read_json_object(directory / name)
        text_config = config.get("text_config")
        for table in (config, text_config if isinstance(text_config, dict) else {}):
            eos = table.get(_KEY)
            ids = frozenset(_checked(eos if isinstance(eos, list) else [eos], num_tokens, directory / name))
            if ids:
                return ids
    return frozenset()


def _checked(values: list[Any], num_tokens: int, path: Path) -> Iterator[int]:
    """The ids; a null names none."""
    for value in values:
        if value is None:
            continue
        if type(value) is not int:
            raise InvalidInput(
                f"{path}: {_KEY} {value!r} is no token id; give the number of the token, or a list of such numbers"
            )
        if not 0 <= value < num_tokens:
            raise InvalidInput(
                f"{path}: {_KEY} {value} is none of the tokenizer's {num_tokens} tokens, so it can never be sampled; "
                "correct it, or take the tokenizer of this model"
            )
        yield value


def _end_token(directory: Path) -> str | None:
    """The tokenizer's own end token, as its configuration writes it: text, or a table with the text."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_json_object(directory / name).get("eos_token")
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            return text
    return None


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a policy; empty where there is none."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}; save the model again") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} is not a JSON object; save the model again")
    return value
