"""What the launcher reads of a model directory: the bytes of its tokens."""

import json
from pathlib import Path

from shared.errors import InvalidInput
from shared.tree.vocabulary import bytes_of_tokens


def bytes_of_model(model: Path) -> tuple[bytes, ...]:
    """The bytes of every token; InvalidInput when the directory holds no tokenizer that can be read."""
    try:
        return bytes_of_tokens(json.loads((model / "tokenizer.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"{model} has no tokenizer.json that can be read ({error}): give a model directory as transformers saves it"
        ) from error
