"""Weights & Biases: online, or offline in the run's folder."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from services.launcher.tracking.tracker import Scalar, TrackedRun, TrackedTree


class WandbTracker:
    """Rows are drawn over their `step`, so that each can be sent when it is known, also after later ones."""

    def __init__(
        self,
        project: str,
        entity: str = "",
        name: str = "",
        group: str = "",
        tags: Sequence[str] = (),
        mode: str | None = None,
        uri: str = "",
    ) -> None:
        self._options: dict[str, Any] = {
            "project": project,
            "entity": entity or None,
            "group": group or None,
            "tags": list(tags),
            "mode": mode,
        }
        self._name = name
        self._run: Any = None
        if uri:
            os.environ["WANDB_BASE_URL"] = uri

    def start(self, run: TrackedRun, config: Mapping[str, Scalar]) -> tuple[str, str]:
        run_id = run.id or secrets.token_hex(4)
        self._run = wandb.init(
            **self._options,
            id=run_id,
            resume="allow",
            name=self._name or run.name,
            dir=run.directory,
            config=dict(config),
            allow_val_change=True,
            settings=wandb.Settings(console="off"),
        )
        self._run.define_metric("*", step_metric="step")
        return run_id, str(run.directory / "wandb") if self._run.offline else str(self._run.url or "")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({"step": step, **figures})

    def trees(self, step: int, trees: Sequence[TrackedTree]) -> None:
        drawn = {f"trees/{number}": wandb.Html(tree.svg, inject=False) for number, tree in enumerate(trees, 1)}
        self._run.log({"step": step, **drawn})

    def finish(self, summary: Mapping[str, Scalar] | None) -> None:
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0)
