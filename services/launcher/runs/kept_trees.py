"""The trees that a run kept as files, with the tokens' texts that make them readable."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.launcher.runs.model_files import read_token_bytes
from services.launcher.runs.run_dir import RunDirectory
from shared.errors import InvalidInput
from shared.protocol.tree import ScoredTree


@dataclass(frozen=True, slots=True)
class KeptTree:
    """A tree, its file, and the bytes of its policy's tokens."""

    path: Path
    scored: ScoredTree
    bytes_of_token: Sequence[bytes]

    @property
    def prompt(self) -> str:
        """The problem's text; tokens that the model does not have are left out."""
        table = self.bytes_of_token
        known = (table[token] for token in self.scored.task.prompt_ids if token < len(table))
        return b"".join(known).decode("utf-8", "replace")


def load_kept_trees(run: RunDirectory) -> tuple[KeptTree, ...]:
    """The trees in the run's directory, the newest first; a file that is no tree is ignored."""
    files = sorted(run.trees.glob("*.msgpack"), key=lambda path: path.stat().st_mtime, reverse=True)
    if not files:
        return ()
    bytes_of_token = read_token_bytes(find_model(run))
    found = ((path, _read(path)) for path in files)
    return tuple(KeptTree(path, scored, bytes_of_token) for path, scored in found if scored is not None)


def load_tree(path: Path, model: Path) -> KeptTree:
    """The tree in a file; InvalidInput when the file holds none."""
    try:
        return KeptTree(path, ScoredTree.unpack(path.read_bytes()), read_token_bytes(model))
    except OSError as error:
        raise InvalidInput(f"cannot read the tree {path}: {error.strerror}") from error


def find_model(run: RunDirectory) -> Path:
    """A directory with the tokenizer of the run's policy."""
    if (run.policy / "tokenizer.json").exists():
        return run.policy
    try:
        return Path(tomllib.loads(run.config.read_text(encoding="utf-8"))["learner"]["model"])
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{run.config} does not name the model of the run: {error}") from error


def _read(path: Path) -> ScoredTree | None:
    try:
        return ScoredTree.unpack(path.read_bytes())
    except (OSError, InvalidInput):
        return None
