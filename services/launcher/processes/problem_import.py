"""Imports problems before anything is started for them, and has a verifier read their answer keys."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from services.launcher.display.import_view import ImportView
from services.launcher.processes.temporary_services import run_verifier
from services.launcher.runs.imported_problems import imports_of, load_prompt_model
from services.launcher.runs.model_files import find_model
from services.launcher.settings.plan import RunPlan, prepare
from services.learner.data.prompting import PromptModel
from services.learner.data.report import ImportReport
from services.learner.data.run_files import import_to_file, write_report
from services.learner.data.source import DataSource
from services.learner.queue.vetting import find_refusals
from shared.clients import VerifierClient
from shared.errors import InvalidInput, Unavailable
from shared.files import atomic_writer
from shared.protocol.verdict import VerdictItem
from shared.runtime.client import http_client

_VERDICT_SECONDS = 120.0
_BATCH = 256


@dataclass(frozen=True, slots=True)
class ProblemImport:
    """What to import, for which model, and by which configuration answers are judged."""

    sources: tuple[DataSource, ...]
    held_out: tuple[DataSource, ...] = ()
    config: str | Path | None = None
    is_vetted: bool = True

    def write(self, path: Path, model: PromptModel | None, view: ImportView) -> ImportReport:
        """Writes file and reports into `path`'s folder, which is one of its own until all is done."""
        with view.live():
            report = import_to_file(self.sources, path, model, self.held_out, view.on_progress)
        if self.is_vetted:
            view.say("a verifier reads the answer keys")
            try:
                _run(_drop_refused(path, report, self.config))
            except Unavailable as error:  # of this machine: the learner asks again before the run begins
                report.vetting = f"no verifier has read the answer keys: {error}"
            write_report(report, path)
        return report


@contextmanager
def staging_folder(beside: Path) -> Iterator[Path]:
    """A folder beside a file or folder, from which finished files are moved; it is gone when the block ends."""
    is_new = not beside.parent.exists()
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{beside.name}.import-", dir=beside.parent)
    except OSError as error:
        raise InvalidInput(f"cannot write beside {beside}: {error.strerror}") from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it holds what was imported
                beside.parent.rmdir()


def import_and_prepare(plan: RunPlan, view: ImportView) -> None:
    """Imports the problems that a run needs and has not, then prepares its directory; all of it or nothing."""
    there = plan.run.root / "data"
    wanted = list(imports_of(plan.learner)) if plan.launcher.task == "files" else []
    wanted = [one for one in wanted if not (plan.resumes and one.file_in(there).is_file())]
    if not wanted:
        prepare(plan)
        return
    find_model(plan.learner.model)
    with staging_folder(plan.run.root) as folder:
        config, data = folder / "config.toml", folder / "data"
        config.write_text(plan.config_text, encoding="utf-8")
        data.mkdir()
        for one in wanted:
            model = load_prompt_model(plan.learner.model, one.max_tokens, plan.learner.chat_template_kwargs)
            report = ProblemImport(one.sources, one.held_out, config).write(one.file_in(data), model, view)
            view.say(f"imported {report.as_line()}")
        prepare(plan, data)


async def _drop_refused(path: Path, report: ImportReport, config: str | Path | None) -> None:
    """Leaves out the problems whose keys the verifier refuses. InvalidInput where none is left."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ibtpo-vet-")))
        url = await stack.enter_async_context(run_verifier(folder, config))
        verifier = VerifierClient(await stack.enter_async_context(http_client(None, _VERDICT_SECONDS)), url)
        lines = stack.enter_context(path.open("rb"))
        kept = stack.enter_context(atomic_writer(path))
        counts = [source.taken for source in report.sources]
        for source, count in zip(report.sources, counts, strict=True):
            of_source = islice(lines, count)
            while batch := list(islice(of_source, _BATCH)):
                items = [_empty_answer(json.loads(line)) for line in batch]
                refused = await find_refusals(verifier, items)
                for item, line in zip(items, batch, strict=True):
                    if item.id in refused:
                        source.taken -= 1
                        source.drop(f"the verifier refuses its key: {refused[item.id]}", item.id)
                    else:
                        kept.write(line)
            if not source.taken:
                raise InvalidInput(f"no row of {source.source} can be judged: {source.explain_dropped()}")
    report.vetting = (
        f"a verifier read the answer keys of {sum(counts):,} problems and refused {sum(counts) - report.taken:,}."
    )


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Also where a loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def _empty_answer(row: dict[str, Any]) -> VerdictItem:
    return VerdictItem(id=row["id"], kind=row["kind"], response="", answer_key=row["answer_key"])
