"""What the launcher reads of a model directory."""

import json
from pathlib import Path

from shared.errors import InvalidInput
from shared.tree.vocabulary import bytes_of_tokens


def read_token_bytes(model: Path) -> tuple[bytes, ...]:
    """The bytes of every token; InvalidInput when the directory holds no tokenizer that can be read."""
    try:
        return bytes_of_tokens(json.loads((model / "tokenizer.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"{model} has no tokenizer.json that can be read ({error}): give a model directory as transformers saves it"
        ) from error


def check_model(model: Path) -> Path:
    """The directory, when it looks like a model's; else InvalidInput, before any process is started for it."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (model / name).is_file()]
    if missing:
        raise InvalidInput(
            f"{model} is no model directory: {' and '.join(missing)} missing; give one as transformers saves it"
        )
    return model
