"""How a model of the hub is named: OWNER/NAME, perhaps with @REVISION."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_PREFIX = r"(?:hf:/{0,2}|https:/{1,2}huggingface\.co/)?"
"""Path makes one slash of two."""
_NAME = re.compile(rf"{_PREFIX}(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^@\s]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/?$")


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model of the hub, without a revision its newest commit."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, name: str | Path) -> "HubModel | None":
        """The model of this name; None for what can only be a directory."""
        found = _NAME.fullmatch(str(name))
        return cls(found["repo"], found["revision"]) if found else None

    @property
    def is_pinned(self) -> bool:
        """Whether it is one commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> "HubModel":
        return replace(self, revision=commit)

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def describe_model(directory: Path) -> str:
    """How people know the model of a directory: OWNER/NAME@COMMIT where it lies in the hub's cache, else the path."""
    found = _SNAPSHOT.search(directory.as_posix())
    return f"{found['owner']}/{found['name']}@{found['commit']}" if found else str(directory)
