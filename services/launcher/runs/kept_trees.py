"""The trees that a run kept as files, with the tokens' texts that make them readable."""

import contextlib
import re
import tomllib
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

from services.launcher.runs.model_files import TokenTable, locate_tokenizer, read_token_table
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.runs.tree_files import read_tree
from shared.errors import InvalidInput
from shared.protocol.tree import ScoredTree


@dataclass(frozen=True, slots=True)
class KeptTree:
    """A tree, its file, and its policy's tokens."""

    path: Path
    scored: ScoredTree
    tokens: TokenTable

    @property
    def prompt(self) -> str:
        """All of the problem's text."""
        return self.tokens.decode(self.scored.task.prompt_ids)

    @property
    def message(self) -> str:
        """What the user says in a chat prompt, without the template; all of the text where there is none.

        A template parts its messages by special tokens and names their roles.
        """
        runs = groupby(self.scored.task.prompt_ids, self.tokens.special_ids.__contains__)
        parts = [self.tokens.decode(token_ids).strip() for is_special, token_ids in runs if not is_special]
        users = [part for role, part in pairwise(parts) if role.lower() == "user"]
        users += [part[4:] for part in parts if re.match(r"user\s", part, re.IGNORECASE)]
        return (users[-1] if users else max(parts, key=len, default="")).strip()


def load_kept_trees(run: RunDirectory) -> tuple[KeptTree, ...]:
    """The trees in the run's directory, the newest first; a file that is no tree is ignored."""
    files = sorted(run.trees.glob("*.msgpack"), key=lambda path: path.stat().st_mtime, reverse=True)
    if not files:
        return ()
    tokens, found = read_token_table(find_model(run)), []
    for path in files:
        with contextlib.suppress(OSError, InvalidInput):
            found.append(KeptTree(path, ScoredTree.unpack(path.read_bytes()), tokens))
    return tuple(found)


def why_unreadable(run: RunDirectory) -> str:
    """What is wrong with the newest kept tree, such as a sampler of the user's own that is not here; empty if there is
    none."""
    files = sorted(run.trees.glob("*.msgpack"), key=lambda path: path.stat().st_mtime)
    try:
        for path in files[-1:]:
            ScoredTree.unpack(path.read_bytes())
    except (OSError, InvalidInput) as error:
        return f"{files[-1].name}: {error}"
    return ""


def load_tree(path: Path, model: Path | None) -> KeptTree:
    """The tree in a file; InvalidInput when the file holds none, or `model` is needed for its tokens and is None."""
    return KeptTree(path, *read_tree(path, model))


def find_model(run: RunDirectory) -> Path:
    """A directory with the tokenizer of the run's policy."""
    if (run.policy / "tokenizer.json").exists():
        return run.policy
    try:
        model = Path(tomllib.loads(run.config.read_text(encoding="utf-8"))["learner"]["model"])
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{run.config} does not name the model of the run: {error}") from error
    return locate_tokenizer(model)
