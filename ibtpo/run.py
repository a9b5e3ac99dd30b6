"""A run's folder as an object: its figures, trees, results and files."""

import tomllib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ibtpo.notebook import to_html, to_text
from ibtpo.table import Table
from ibtpo.tree import Tree
from services.launcher.display.run_summary import render_summary
from services.launcher.report.page import write_report
from services.launcher.runs.history import History
from services.launcher.runs.kept_trees import load_kept_trees
from services.launcher.runs.run_dir import RunDirectory, find_run, known_runs
from shared.errors import InvalidInput

Folder = str | PathLike[str]


class Run:
    """One training: `Run("demo")` for runs/demo. It reads the folder anew at every use, so it may be going on."""

    def __init__(self, name: Folder | None = None, *, runs: Folder = "runs") -> None:
        """`name` is a run's name, or its folder; None: the latest under `runs`. InvalidInput where there is none."""
        self._directory = find_run(Path(runs), None if name is None else str(name))

    @property
    def name(self) -> str:
        return self._directory.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._directory.root

    @property
    def is_finished(self) -> bool:
        """Whether its last step is done."""
        return self._directory.is_finished

    @property
    def is_running(self) -> bool:
        """Whether it is going on, on this machine."""
        return self._directory.is_running()

    @property
    def config(self) -> dict[str, Any]:
        """The settings of all its services, by section."""
        try:
            return tomllib.loads(self._directory.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{self._directory.config} cannot be read: {error}") from error

    @property
    def metrics(self) -> Table:
        """The figures of every step: `run.metrics["avg_rate"]` is a column. docs/protocol.md says what each means."""
        figures = History.read(self._directory.metrics).figures
        return Table.of_rows((one.model_dump() for one in figures), ("step",))

    @property
    def evaluations(self) -> Table:
        """The held-out accuracy, by step: avg@k, pass@k and the standard error of avg@k."""
        found = History.read(self._directory.metrics).evaluations
        rows = (one.model_dump(exclude={"files", "version"}) for one in found)
        return Table.of_rows(rows, ("step", "k", "avg_at_k", "pass_at_k", "standard_error", "problems"))

    @property
    def summary(self) -> Mapping[str, Any]:
        """The results of the whole run; empty until it is finished."""
        return self._directory.read_summary()

    @property
    def trees(self) -> tuple[Tree, ...]:
        """The trees that it kept, the newest first."""
        return tuple(Tree(one.scored, one.tokens, one.message) for one in load_kept_trees(self._directory))

    @property
    def report(self) -> Path:
        """Its report.html, written now: a page of its own."""
        return write_report(self._directory)

    @property
    def policy(self) -> Path:
        """The trained policy, as transformers loads it. InvalidInput until there is one."""
        if not self._directory.policy.exists():
            raise InvalidInput(
                f"run {self.name!r} has no policy yet: its last step writes it; "
                f"ibtpo.train(run={self.name!r}, resume=True) goes on"
            )
        return self._directory.policy

    def __repr__(self) -> str:
        state = "running" if self.is_running else "finished" if self.is_finished else "not finished"
        return f"<Run {self.name} in {self.path}, {state}>"

    def __str__(self) -> str:
        return to_text(self)

    def __rich__(self) -> RenderableType:
        return render_summary(self._directory)

    def _repr_html_(self) -> str:
        return to_html(self)


def runs(folder: Folder = "runs") -> list[Run]:
    """The runs under a folder, the latest first."""
    return [Run(one.root) for one in known_runs(Path(folder))]


def of_directory(directory: RunDirectory) -> Run:
    """The run in that folder."""
    return Run(directory.root)
