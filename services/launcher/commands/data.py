"""`ibtpo data`: imports problems into a file, shows them, lists the formats that are known."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.launcher.display.import_view import ImportView, render_report
from services.launcher.processes.problem_import import ProblemImport, staging_folder
from services.launcher.runs.imported_problems import load_prompt_model
from services.learner.data.formats.catalogue import FORMATS
from services.learner.data.importer import Importer
from services.learner.data.prompting import PromptModel
from services.learner.data.run_files import move_files
from services.learner.data.source import DataSource
from shared.errors import InvalidInput
from shared.protocol.message import JsonObject
from shared.runtime.config import load_config

INTERRUPTED = 130


class _Import(BaseModel):
    """What `KEY=VALUE` may say of an import: the keys of a source, and how the template is called."""

    model_config = ConfigDict(extra="forbid")

    data: DataSource
    chat_template_kwargs: JsonObject = {}


@dataclass(frozen=True, slots=True)
class DataArguments:
    """The arguments of `ibtpo data import` and `show`."""

    given: tuple[str, ...]
    """Sources, and settings of all of them as KEY=VALUE."""
    model: Path | None = None
    held_out: tuple[str, ...] = ()
    config: str | None = None
    max_tokens: int = 1
    is_vetted: bool = True

    def load(self) -> tuple[tuple[DataSource, ...], JsonObject]:
        """The sources with their settings, and `chat_template_kwargs`. InvalidInput where none is given."""
        keys = {*DataSource.model_fields, "chat_template_kwargs"}
        settings = [one for one in self.given if "=" in one and one.partition("=")[0].partition(".")[0].strip() in keys]
        names = [one for one in self.given if one not in settings]
        if not names:
            raise InvalidInput("give a file, a folder or hf:NAME; `ibtpo data import --help` has examples")
        prefixed = [f"import.{'' if one.startswith('chat_template_kwargs') else 'data.'}{one}" for one in settings]
        loaded = [
            load_config(_Import, "import", None, [f"import.data.source={_quote(name)}", *prefixed]) for name in names
        ]
        return tuple(one.data for one in loaded), loaded[0].chat_template_kwargs

    def load_model(self, settings: JsonObject) -> PromptModel | None:
        return load_prompt_model(self.model, self.max_tokens, settings) if self.model else None


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def import_data(arguments: DataArguments, out: Path) -> int:
    """Writes the problems of all sources to `out`, and its reports beside it; returns the exit code."""
    view = ImportView(Console(stderr=True))
    try:
        sources, settings = arguments.load()
        if out.is_dir():
            raise InvalidInput(f"--out {out} is a folder: give a file, such as {out / 'problems.jsonl'}")
        model = arguments.load_model(settings)
        held_out = tuple(DataSource(source=name) for name in arguments.held_out)
        with staging_folder(out) as folder:
            job = ProblemImport(sources, held_out, arguments.config, arguments.is_vetted)
            report = job.write(folder / out.name, model, view)
            move_files(folder, out.parent)
    except KeyboardInterrupt:
        view.say(f"interrupted: {out} is as it was")
        return INTERRUPTED
    console = Console()
    console.print(render_report(report))
    console.print(Text(f"{report.taken:,} problems in {out}; all reasons in {out.with_suffix('.report.md')}"))
    return 0


def show_data(arguments: DataArguments, num_rows: int) -> int:
    """Shows the first problems of each source as a model reads them."""
    sources, settings = arguments.load()
    model, console = arguments.load_model(settings), Console()
    for source in sources:
        importer = Importer(model)
        for _ in islice(importer.take(source.model_copy(update={"limit": None})), num_rows):
            pass
        report = importer.finish(num_rows)
        report.lengths = None
        console.print(render_report(report, is_whole=False))
    return 0


def list_formats() -> int:
    """Prints the formats, the sets that have them, and the columns that are read."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("format", no_wrap=True)
    table.add_column("sets", overflow="fold")
    table.add_column("columns", overflow="fold", style="dim")
    for one in FORMATS:
        table.add_row(*map(Text, (one.name, one.sets, one.columns)))
    console = Console()
    console.print(table)
    console.print(Text('\nOthers: fields.prompt=COLUMN fields.gold=COLUMN, with dotted paths such as "meta.answer".'))
    return 0
