"""The problem files of a run: its sources as they are, or imported into the run's own folder."""

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from services.learner.data.formats.catalogue import detect_format
from services.learner.data.importer import Importer, Listener
from services.learner.data.prompting import PromptModel
from services.learner.data.reading.rows import BrokenRow
from services.learner.data.reading.text import TABLES, holds_json_array, read_text_rows, suffix_of
from services.learner.data.report import ImportReport
from services.learner.data.source import DataSource
from shared.errors import InvalidInput
from shared.files import atomic_write, atomic_writer

_PEEKED = 20


def is_problem_file(source: DataSource) -> bool:
    """Whether a source is a file of problems, read as it stands. So is what no format fits, for its own errors."""
    path = source.path
    if not source.states_only_a_file or path.is_dir():
        return False
    if not path.exists():
        return path.suffix == ".jsonl"
    if suffix_of(path) in (*TABLES, ".parquet", ".arrow") or path.suffix == ".gz" or holds_json_array(path):
        return False
    found = [row for _, row in islice(read_text_rows(path), _PEEKED)]
    rows = [row for row in found if not isinstance(row, BrokenRow)]
    if found and not rows:  # nothing can be read: the import says it in one line
        return False
    form = detect_format(rows)
    return form is None or form.name == "ibtpo"


def imported_file(sources: Sequence[DataSource], folder: Path, name: str) -> Path:
    """Where the import of these sources lies; other sources, or the same with other settings, have another file."""
    settings = json.dumps([source.model_dump(mode="json") for source in sources], sort_keys=True)
    return folder / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:10]}.jsonl"


def problem_files(
    sources: Sequence[DataSource],
    folder: Path,
    name: str,
    load_model: Callable[[], PromptModel | None],
    held_out: Sequence[DataSource] = (),
    listener: Listener = lambda _: None,
) -> tuple[Path, ...]:
    """The files from which these problems are read. What was imported into `folder` before is not read again, nor is
    the model loaded for it."""
    path = imported_file(sources, folder, name)
    if not path.is_file():
        if all(map(is_problem_file, sources)):
            return tuple(source.path for source in sources)
        folder.mkdir(parents=True, exist_ok=True)
        import_to_file(sources, path, load_model(), held_out, listener)
    return (path,)


def import_to_file(
    sources: Sequence[DataSource],
    path: Path,
    model: PromptModel | None,
    held_out: Sequence[DataSource] = (),
    listener: Listener = lambda _: None,
) -> ImportReport:
    """Writes the problems of these sources, and beside them the report as JSON and Markdown; all of it or nothing."""
    importer = Importer(model, listener)
    for source in held_out:
        importer.hold_out(source)
    try:
        with atomic_writer(path) as file:
            for source in sources:
                file.writelines(problem.line for problem in importer.take(source))
            report = importer.finish()
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror or error}") from error
    write_report(report, path)
    return report


def write_report(report: ImportReport, path: Path) -> None:
    atomic_write(path.with_suffix(".report.json"), report.model_dump_json(indent=2))
    atomic_write(path.with_suffix(".report.md"), report.as_markdown())


def move_files(folder: Path, target: Path) -> None:
    """Moves what was imported to where it stays, the problems last."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir(), reverse=True):
        path.replace(target / path.name)
