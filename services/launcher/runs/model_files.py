"""What the launcher reads of a model directory."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from services.learner.queue.problems import ProblemLimits
from shared.errors import InvalidInput
from shared.hub import Download, ResolvedModel, now_and_then, resolve_model
from shared.protocol.message import JsonObject
from shared.tree.vocabulary import bytes_of_tokens
from shared.weights import ContextBounds, Encoder, prompt_encoder, read_json_object, stop_token_ids

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
)


def check_model(model: Path) -> Path:
    """The directory of the model, of one of the hub that in its cache, if it can be loaded by its looks; else an error,
    before any process is started for it."""
    return find_model(model).directory


def check_stop_tokens(directory: Path) -> None:
    """InvalidInput where a model names no token that ends an answer, or one that it does not have."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more special
        raise InvalidInput(f"{directory / 'tokenizer.json'} cannot be read: {error}; save the model again") from error
    num_tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    stop_token_ids(directory, num_tokens, tokenizer.token_to_id)


def locate_tokenizer(model: Path) -> Path:
    """A directory with the model's tokenizer, which may be all that is in it."""
    return model if model.is_dir() else check_model(model)


@cache
def find_model(model: Path) -> ResolvedModel:
    """As `resolve_model`, showing what is fetched; asked once for all."""
    console = Console(stderr=True)
    bar = Progress(*_COLUMNS, console=console, transient=True)
    task = bar.add_task("", total=None)

    def on_progress(download: Download) -> None:
        bar.start()
        name = f"fetching {download.model}"
        bar.update(task, description=name, total=download.total_bytes, completed=download.done_bytes)

    try:
        in_words = now_and_then(lambda download: print(download, file=sys.stderr))
        return resolve_model(model, on_progress if console.is_terminal else in_words, _refuse_unknown)
    finally:
        if bar.live.is_started:
            bar.stop()


def _refuse_unknown(directory: Path) -> None:
    """InvalidInput for an architecture that transformers does not know, or knows as no causal language model."""
    config = read_json_object(directory / "config.json")
    kind = config.get("model_type")
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if kind not in CONFIG_MAPPING_NAMES:
        by_itself = "it brings its own code, which is not run; " if config.get("auto_map") else ""
        raise InvalidInput(
            f"{directory / 'config.json'}: transformers {__version__} knows no model_type {kind!r}: {by_itself}give a "
            "model of an architecture that transformers has, or install a release that has this one"
        )
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InvalidInput(
            f"{directory / 'config.json'}: {kind} is no causal language model in transformers {__version__}: give one "
            "that continues text (…ForCausalLM)"
        )


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of a model."""

    bytes_of_token: tuple[bytes, ...]
    special_ids: frozenset[int]
    """The tokens that part the messages of a chat, and others that stand for no text."""
    ends_are_text: bool = False
    """Whether an answer's last token is text, too, and no stop token: in a tree made by hand."""

    def bytes_of(self, token: int) -> bytes:
        """The text of a token; none of one that the model does not have."""
        return self.bytes_of_token[token] if token < len(self.bytes_of_token) else b""

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of these tokens; those that the model does not have are left out."""
        return b"".join(map(self.bytes_of, token_ids)).decode("utf-8", "replace")


def read_token_table(model: Path) -> TokenTable:
    """The tokens of the model; InvalidInput when the directory holds no tokenizer that can be read."""
    try:
        tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
        special = frozenset(token["id"] for token in tokenizer.get("added_tokens") or () if token.get("special"))
        return TokenTable(bytes_of_tokens(tokenizer), special)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{model} has no tokenizer.json that can be read ({error}): give a model directory as transformers saves it"
        ) from error


def load_prompt_encoder(model: Path, settings: JsonObject) -> Encoder:
    """Encodes text and chat messages into the token ids on which the learner would train with these
    `chat_template_kwargs`."""
    return prompt_encoder(load_tokenizer(model), settings)


def load_tokenizer(model: Path) -> Any:
    """The tokenizer of a model directory, as transformers reads it."""
    from transformers import AutoTokenizer  # takes seconds, and most commands do not need it

    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True)
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
