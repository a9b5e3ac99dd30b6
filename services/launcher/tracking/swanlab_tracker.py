"""SwanLab: online, or in the run's folder."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import swanlab

from services.launcher.tracking.tracker import Scalar, TrackedRun, TrackedTree

FOLDER = "swanlab"


class SwanlabTracker:
    """SwanLab goes on with a run online only: offline, each start is a folder of its own."""

    def __init__(
        self,
        project: str,
        entity: str = "",
        name: str = "",
        group: str = "",
        tags: Sequence[str] = (),
        mode: str | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "project": project,
            "workspace": entity or None,
            "group": group or None,
            "tags": list(tags) or None,
            "mode": mode,
        }
        self._name = name
        self._run: Any = None

    def start(self, run: TrackedRun, config: Mapping[str, Scalar]) -> tuple[str, str]:
        run_id = run.id or secrets.token_hex(4)
        is_online = (self._options["mode"] or os.environ.get("SWANLAB_MODE", "online")) == "online"
        online = {"id": run_id, "resume": "allow"} if is_online else {}
        directory = run.directory / FOLDER
        directory.mkdir(exist_ok=True)
        name = self._name or run.name
        self._run = swanlab.init(**self._options, **online, name=name, log_dir=str(directory), config=dict(config))
        return run_id, str(self._run.url) if is_online else str(directory)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def trees(self, step: int, trees: Sequence[TrackedTree]) -> None:
        drawn = {f"trees/{number}": swanlab.Text(tree.text, caption=tree.name) for number, tree in enumerate(trees, 1)}
        self._run.log(drawn, step=step)

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        if summary is not None:
            self._run.log({"summary": swanlab.Text(str(dict(summary)))})
        swanlab.finish()
