"""A hub on this machine that speaks what huggingface_hub asks: a model's listing, its tree, its files."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from tests.hub_handler import HubHandler, serve

COMMIT, NEWER = "a" * 40, "b" * 40
_PATHS = re.compile(
    r"/(?:api/models/(?P<api>[^/]+/[^/?]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/?]+))?"
    r"|(?P<repo>[^/]+/[^/]+)/resolve/(?P<at>[^/]+)/(?P<file>[^?]+))(?:\?.*)?"
)


@dataclass
class Hub:
    """Models by OWNER/NAME, each a directory, or what the hub answers in its place: a status and an error code."""

    models: dict[str, Path] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    commit: str = COMMIT
    url: str = ""
    fetched: list[str] = field(default_factory=list)

    def is_revision(self, revision: str) -> bool:
        return revision in ("main", self.commit)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(HubHandler):
        @property
        def commit(self) -> str:
            return hub.commit

        def answer(self) -> None:
            found = _PATHS.fullmatch(self.path)
            repo = found and (found["api"] or found["repo"])
            if not found or repo in hub.refusals:
                return self.refuse(*hub.refusals.get(repo or "", (404, "")))
            if repo not in hub.models:
                return self.refuse(401, "RepoNotFound")
            if not hub.is_revision(found["revision"] or found["at"] or "main"):
                return self.refuse(404, "RevisionNotFound")
            files = {str(path.relative_to(hub.models[repo])): path for path in hub.models[repo].rglob("*")}
            files = {name: path for name, path in files.items() if path.is_file()}
            if found["api"]:
                return self.send(json.dumps(_listing(repo, found["what"], files, hub.commit)).encode())
            if repo in hub.gated:
                return self.refuse(403, "GatedRepo")
            if found["file"] not in files:
                return self.refuse(404, "EntryNotFound")
            if self.command == "GET":
                hub.fetched.append(found["file"])
            return self.send(files[found["file"]].read_bytes())

    with serve(Handler) as hub.url:
        yield hub


def _listing(repo: str, what: str | None, files: dict[str, Path], commit: str) -> Any:
    def oid(path: Path) -> str:
        return sha1(path.read_bytes()).hexdigest()

    if what == "tree":
        return [{"type": "file", "path": name, "size": path.stat().st_size, "oid": oid(path)}
                for name, path in files.items()]  # fmt: skip
    siblings = [{"rfilename": name, "size": path.stat().st_size, "blobId": oid(path)} for name, path in files.items()]
    return {"id": repo, "sha": commit, "siblings": siblings}


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path, *, is_offline: bool = False) -> None:
    """As the environment would have it before huggingface_hub is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
