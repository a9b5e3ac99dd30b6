"""Trees in files: the record of a tree, and the texts of its tokens, so that it can be read without its model."""

from pathlib import Path
from typing import Any

import msgpack

from services.launcher.runs.model_files import TokenTable, read_token_table
from shared.errors import InvalidInput
from shared.protocol.tree import ScoredTree


def save_tree(path: Path, scored: ScoredTree, tokens: TokenTable) -> None:
    """Writes the packed tree with the texts of its tokens. InvalidInput for a file that cannot be written."""
    used = {*scored.task.prompt_ids, *(token for draw in scored.draws for token in draw.token_ids)}
    body: dict[str, Any] = msgpack.unpackb(scored.pack())
    body["ends_are_text"] = tokens.ends_are_text
    body["tokens"] = [[token, tokens.bytes_of(token), token in tokens.special_ids] for token in sorted(used)]
    try:
        path.write_bytes(msgpack.packb(body))
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error


def read_tree(path: Path, model: Path | None) -> tuple[ScoredTree, TokenTable]:
    """The tree in a file and its tokens: those in the file or, where it has none, the model's. InvalidInput where the
    file holds no tree, or neither has the tokens."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read the tree {path}: {error.strerror}") from error
    scored = ScoredTree.unpack(data)
    if (tokens := _tokens_in(data, path)) is not None:
        return scored, tokens
    if model is None:
        raise InvalidInput(f"{path} does not hold the texts of its tokens: name its model, with model=DIRECTORY")
    return scored, read_token_table(model)


def _tokens_in(data: bytes, path: Path) -> TokenTable | None:
    body = msgpack.unpackb(data)
    rows = body.get("tokens")
    if rows is None:
        return None
    try:
        bytes_of_token = {int(token): bytes(text) for token, text, _ in rows}
        special_ids = frozenset(int(token) for token, _, is_special in rows if is_special)
        table = tuple(bytes_of_token.get(token, b"") for token in range(max(bytes_of_token) + 1))
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{path} is no tree: its tokens cannot be read ({error})") from error
    return TokenTable(table, special_ids, bool(body.get("ends_are_text")))
