"""Shows what was found: as a list for people, or as JSON."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.launcher.display.finding import Diagnosis, Finding, Level, Section
from shared.runtime.app import installed_release

_COLORS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "bold red"}


def to_json(found: Diagnosis) -> dict[str, object]:
    """All of it, as `--json` prints it."""
    return {
        "level": found.level,
        "release": installed_release(),
        "counts": {level: found.count(level) for level in Level},
        "sections": [
            {
                "subject": section.subject,
                "where": section.where,
                "findings": [
                    {"check": one.check, "level": one.level, "found": one.found, "remedy": one.remedy}
                    for one in section.findings
                ],
            }
            for section in found.sections
        ],
        "not_asked": found.not_asked,
    }


def print_diagnosis(found: Diagnosis) -> None:
    """A line for each finding, with its remedy below."""
    console = Console(highlight=False)
    widest = max((len(one.check) for section in found.sections for one in section.findings), default=0)
    for section in found.sections:
        print_section(console, section, widest)
    print_counts(console, found)
    if found.not_asked:
        console.print(Text(f"not asked: {', '.join(found.not_asked)}", "dim"))


def print_section(console: Console, section: Section, widest: int) -> None:
    """The findings about one part; names of checks have a column of at least so many letters."""
    console.print(Text(" · ".join(filter(None, (section.subject, section.where))), style="bold"), soft_wrap=True)
    table = Table.grid(padding=(0, 1))
    table.add_column(min_width=9)
    table.add_column(min_width=widest)
    table.add_column(ratio=1, overflow="fold")
    for finding in section.findings:
        table.add_row(Text(f"  {finding.level}", _COLORS[finding.level]), Text(finding.check), _describe(finding))
    console.print(table)


def print_counts(console: Console, found: Diagnosis) -> None:
    counts = ", ".join(f"{found.count(level)} {level}" for level in reversed(Level) if found.count(level))
    console.print(Text(counts, _COLORS[found.level]))


def _describe(finding: Finding) -> Text:
    text = Text(finding.found)
    return text.append(f"\n→ {finding.remedy}", "italic") if finding.remedy else text
