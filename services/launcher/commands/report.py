"""`ibtpo report`: the page of one run, or of several next to each other."""

from collections.abc import Sequence
from pathlib import Path

from services.launcher.report.groups import read_groups
from services.launcher.report.page import write_page, write_report
from services.launcher.runs.run_dir import find_run
from shared.errors import InvalidInput

COMPARISON = "comparison.html"


def report(runs: Path, arguments: Sequence[str], out: Path | None) -> int:
    """Writes the page and prints where: of one run into its folder, of several beside the runs."""
    groups = read_groups(runs, arguments or [str(find_run(runs, None).root)])
    if not groups:
        raise InvalidInput("name at least one run")
    only = groups[0].runs[0].directory if len(groups) == 1 and len(groups[0].runs) == 1 else None
    for run in () if only else (run for group in groups for run in group.runs):
        if not run.directory.report.exists():
            write_report(run.directory)
    print(write_page(groups, out or (only.report if only else runs / COMPARISON)))
    return 0
