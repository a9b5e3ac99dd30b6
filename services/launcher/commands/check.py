"""`ibtpo check`: says what a run would meet, before it is begun; nothing is written."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.launcher.check.examination import CheckRequest, examine_run
from services.launcher.display.finding import Diagnosis, Level
from services.launcher.display.finding_view import print_counts, print_section, to_json
from services.launcher.settings.plan import RunRequest, draft_plan

_WIDEST = 16
"""Of the names of checks."""


def check(runs: Path, request: RunRequest, how: CheckRequest, *, as_json: bool) -> int:
    """0, or 1 where something fails."""
    on_screen, waiting = Console(highlight=False), Console(stderr=True)
    sections = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=waiting, transient=True, disable=not waiting.is_terminal) as bar:
        task = bar.add_task("looking", total=None)

        def advance(doing: str, done: int | None, total: int | None) -> None:
            bar.update(task, description=doing, completed=done, total=total)

        for section in examine_run(draft_plan(runs, request), how, advance):
            (shown,) = Diagnosis((section,)).presentable(()).sections
            sections.append(shown)
            if not as_json:
                print_section(on_screen, shown, _WIDEST)
    found = Diagnosis(tuple(sections))
    if as_json:
        print(json.dumps(to_json(found), ensure_ascii=False, indent=2))
    else:
        print_counts(on_screen, found)
    return int(found.level is Level.FAILED)
