"""A hub on this machine that speaks what `datasets` asks: a data set's listing, its tree, its files."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub_handler import HubHandler, serve

COMMIT = "c" * 40
_API = re.compile(
    r"/api/datasets/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+)(?P<below>/.*)?)?"
)
_FILE = re.compile(r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class DataHub:
    """Data sets by OWNER/NAME, each its files by path; and those that are gated."""

    sets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve_data_hub() -> Iterator[DataHub]:
    hub = DataHub()

    class Handler(HubHandler):
        commit = COMMIT

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {self.path}")
            found = _API.fullmatch(path) or _FILE.fullmatch(path)
            if not found:
                return self.refuse(404, "EntryNotFound")
            repo = found["repo"]
            if repo not in hub.sets:
                return self.refuse(401, "RepoNotFound")
            if found["revision"] not in (None, "main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            files = hub.sets[repo]
            if "file" in found.groupdict():
                if repo in hub.gated:
                    return self.refuse(403, "GatedRepo")
                return self.send(files[found["file"]]) if found["file"] in files else self.refuse(404, "EntryNotFound")
            return self.send(json.dumps(_listing(repo, found, files, body, repo in hub.gated)).encode())

    with serve(Handler) as hub.url:
        yield hub


def _listing(repo: str, asked: re.Match[str], files: dict[str, bytes], body: bytes, is_gated: bool) -> Any:
    entries = [
        {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}
        for name, content in files.items()
    ]
    folders = sorted({name.rpartition("/")[0] for name in files} - {""})
    entries += [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in folders]
    if asked["what"] == "tree":
        below = (asked["below"] or "/").strip("/")
        return [one for one in entries if one["path"].startswith(f"{below}/" if below else "")]
    if asked["what"] == "paths-info":
        wanted = json.loads(body)["paths"] if body[:1] == b"{" else re.findall(r"paths=([^&]*)", unquote(body.decode()))
        return [one for one in entries if one["path"] in wanted]
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
    return {"id": repo, "sha": COMMIT, "siblings": siblings, "gated": "manual" if is_gated else False, "private": False}
