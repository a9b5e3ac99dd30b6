"""What the launcher reads of a model directory."""

import json
from pathlib import Path

from services.learner.queue.problems import ProblemLimits
from shared.errors import InvalidInput
from shared.protocol.message import JsonObject
from shared.tree.vocabulary import bytes_of_tokens
from shared.weights import ContextBounds, Encoder, prompt_encoder


def check_model(model: Path) -> Path:
    """The directory, if it looks like a model's; else InvalidInput, before any process is started for it."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (model / name).is_file()]
    if missing:
        raise InvalidInput(
            f"{model} is no model directory: {' and '.join(missing)} missing; give one as transformers saves it"
        )
    return model


def read_token_bytes(model: Path) -> tuple[bytes, ...]:
    """The bytes of every token; InvalidInput when the directory holds no tokenizer that can be read."""
    try:
        return bytes_of_tokens(json.loads((model / "tokenizer.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"{model} has no tokenizer.json that can be read ({error}): give a model directory as transformers saves it"
        ) from error


def read_special_ids(model: Path) -> frozenset[int]:
    """The tokens that part the messages of a chat, and others that stand for no text."""
    added = json.loads((model / "tokenizer.json").read_text(encoding="utf-8")).get("added_tokens", ())
    return frozenset(token["id"] for token in added if token.get("special"))


def load_prompt_encoder(model: Path, settings: JsonObject) -> Encoder:
    """Encodes text and chat messages into the token ids on which the learner would train with these
    `chat_template_kwargs`."""
    from transformers import AutoTokenizer  # takes seconds, and most commands do not need it

    try:
        return prompt_encoder(AutoTokenizer.from_pretrained(model, local_files_only=True), settings)
    except Exception as error:  # transformers raises whatever a wrong value in a file leads to
        raise InvalidInput(f"{model} has no tokenizer that transformers can read: {error}") from error


def read_limits(model: Path, max_answer_tokens: int) -> ProblemLimits:
    """What the model can take of a problem; answers have at most `max_answer_tokens`."""
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity(logging.CRITICAL)  # what is wrong is an error, or of no matter here
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
    except Exception as error:  # transformers raises whatever a wrong value in a file leads to
        raise InvalidInput(f"{model} has no config.json that transformers can read: {error}") from error
    context_length = ContextBounds.of(config.to_dict()).context_length()
    if context_length is None:
        raise InvalidInput(f"{model / 'config.json'} does not say how long a text may be: add max_position_embeddings")
    return ProblemLimits(config.get_text_config().vocab_size, context_length, max_answer_tokens)
