"""Shows an import of problems: how far it is, and what it took and dropped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from services.learner.data.importer import ImportProgress
from services.learner.data.report import ImportReport, RenderedPrompt, SourceReport

_SECONDS_BETWEEN_LINES = 10.0
_SHOWN_REASONS = 8
_SHOWN_CHARACTERS = 1500


class ImportView:
    """A bar on a terminal; elsewhere a line now and then. It is shown on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = time.monotonic()
        self._bar: Progress | None = None

    def say(self, text: str) -> None:
        self._console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the bar while the block runs."""
        if not self._console.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True) as bar:
            bar.add_task("opening", total=None)
            self._bar = bar
            yield
        self._bar = None

    def on_progress(self, progress: ImportProgress) -> None:
        name = progress.source if len(progress.source) <= 32 else f"…{progress.source[-31:]}"
        if self._bar is not None:
            (task,) = self._bar.task_ids
            self._bar.update(task, description=f"reading {name}", completed=progress.rows, total=progress.total)
        elif time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            of = f" of {progress.total:,}" if progress.total else ""
            self.say(f"read {progress.rows:,}{of} rows of {progress.source}, taken {progress.taken:,}")


def render_report(report: ImportReport, *, is_whole: bool = True) -> RenderableType:
    """The report; where it is not of whole sources, without their counts."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("source", overflow="fold")
    for name in ("format", "rows", "taken", "dropped"):
        table.add_column(name, justify="left" if name == "format" else "right", no_wrap=True)
    for one in report.sources:
        numbers = (f"{number:,}" for number in (one.rows, one.taken, one.num_dropped))
        table.add_row(Text(one.source), one.format, *numbers)
    parts: list[RenderableType] = [table if is_whole else Text(report.describe_formats())]
    parts += [line for one in report.sources for line in _render_dropped(one)]
    parts += [Text(f"checked against {count:,} held-out problems of {name}") for name, count in report.held_out.items()]
    notes = dict.fromkeys(note for one in report.sources for note in one.notes)
    parts += [Text(note, style="dim") for note in notes]
    parts += [Text(line) for line in (report.lengths.line() if report.lengths else "", report.vetting) if line]
    parts += [_render_prompt(prompt) for prompt in report.prompts]
    return Group(*parts)


def _render_dropped(source: SourceReport) -> Iterator[Text]:
    reasons = sorted(source.dropped, key=lambda one: -one.count)
    for one in reasons[:_SHOWN_REASONS]:
        more = ", …" if one.count > len(one.examples) else ""
        yield Text.assemble((f"{one.count:>7,} ", "yellow"), one.reason, (f"  {', '.join(one.examples)}{more}", "dim"))
    if len(reasons) > _SHOWN_REASONS:
        yield Text(f"        and {len(reasons) - _SHOWN_REASONS} other reasons, in the report", style="dim")


def _render_prompt(prompt: RenderedPrompt) -> RenderableType:
    text = prompt.text
    if len(text) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters …\n{text[-half:]}"
    body = Text(text)
    body.append(f"\n→ {prompt.answer}", style="green")
    if prompt.tokens is not None:
        body.append(f"\n{prompt.describe_ends()}", style="dim")
    return Panel(body, title=Text(prompt.id), title_align="left", border_style="dim")
