"""Imports problems: reads sources row by row, converts, filters, samples, and reports."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeAlias

from services.learner.data.filters import Fingerprint, HeldOutIndex, SeenProblems
from services.learner.data.formats.base import ConvertedRow, Format, Unusable, refuse_pictures
from services.learner.data.formats.catalogue import find_format
from services.learner.data.prompting import Prompt, PromptModel, PromptWriter, asked_extraction
from services.learner.data.reading.opening import open_rows
from services.learner.data.reading.rows import BrokenRow, Placed, RowStream
from services.learner.data.rendering import measure, render
from services.learner.data.report import ImportReport, LengthHistogram, SourceReport
from services.learner.data.sampling import BottomSample
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

_PEEKED = 50
"""Rows whose columns decide the format."""
_MEASURED = 2000
_ROWS_PER_REPORT = 500
_SHOWN_ANSWER = 500
_LONGEST_ID = 256
_LONGEST_NAME = 200
_NAMES = ("id", "prompt", "kind", "answer_key")


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far the import of a source is."""

    source: str
    rows: int
    taken: int
    total: int | None


Listener: TypeAlias = Callable[[ImportProgress], None]


@dataclass(frozen=True, slots=True)
class ImportedProblem:
    """A problem that is taken: its line, and what is compared."""

    id: str
    prompt: Prompt
    instruction: str
    answer: str
    fingerprint: Fingerprint
    line: bytes


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is kept of a problem for the report."""

    id: str
    prompt: Prompt
    answer: str


class Importer:
    """One import of several sources, which share what came before and what is held out."""

    def __init__(self, model: PromptModel | None = None, listener: Listener = lambda _: None) -> None:
        self.report = ImportReport()
        self._model = model
        self._listener = listener
        self._held_out = HeldOutIndex()
        self._seen = SeenProblems()
        self._ids: set[str] = set()
        self._names: set[str] = set()
        self._sample = BottomSample[_Shown](_MEASURED)

    def hold_out(self, source: DataSource) -> None:
        """Problems of this source are dropped wherever they come again."""
        stream, form = _open(source)
        count = 0
        for _, row in _convert(stream.rows, form, SourceReport(source=str(source))):
            self._held_out.add(str(source), row.text)
            count += 1
        self.report.held_out[str(source)] = count

    def take(self, source: DataSource) -> Iterator[ImportedProblem]:
        """The problems of a source that are taken. InvalidInput where none is."""
        stream, form = _open(source)
        said = SourceReport(source=str(source), format=form.name)
        self.report.sources.append(said)
        writer, instructions = PromptWriter.of(source, form, self._model), Counter[str]()
        for problem in self._choose(self._candidates(stream, form, writer, said), said, source):
            self._seen.add(problem.fingerprint)
            self._sample.offer(problem.id, _Shown(problem.id, problem.prompt, problem.answer[:_SHOWN_ANSWER]))
            instructions[problem.instruction] += 1
            said.taken += 1
            yield problem
        if not said.taken:
            raise InvalidInput(f"no row of {source} can be taken ({form.name}): {said.explain_dropped()}")
        said.notes += _notes(source, form, instructions)
        said.notes += writer.notes()

    def finish(self, num_prompts: int = 3) -> ImportReport:
        """The report, with prompts as the model reads them and their lengths."""
        problems = self._sample.items()
        if problems:
            lengths = [measure(problem.prompt, self._model) for problem in problems]
            self.report.lengths = LengthHistogram.of(lengths, "tokens" if self._model else "characters")
            shown = problems[:: max(1, len(problems) // num_prompts)][:num_prompts]
            self.report.prompts = [render(one.id, one.prompt, one.answer, self._model) for one in shown]
        return self.report

    def _choose(
        self, candidates: Iterator[ImportedProblem], said: SourceReport, source: DataSource
    ) -> Iterator[ImportedProblem]:
        if source.limit is None:
            return candidates
        sample = BottomSample[ImportedProblem](source.limit, source.seed)
        for problem in candidates:
            sample.offer(problem.id, problem)
        chosen = sample.items()
        if len(chosen) < sample.num_offered:
            said.notes.append(f"{len(chosen):,} of {sample.num_offered:,} are chosen by limit and seed {source.seed}")
        return iter(chosen)

    def _candidates(
        self, stream: RowStream, form: Format, writer: PromptWriter, said: SourceReport
    ) -> Iterator[ImportedProblem]:
        """The problems that nothing speaks against; of a sampled source, duplicates are found before the sampling."""
        source, name = writer.source, self._name(stream.name)
        within = SeenProblems() if source.limit else self._seen
        for where, row in _convert(stream.rows, form, said):
            if said.rows % _ROWS_PER_REPORT == 0:
                self._listener(ImportProgress(str(source), said.rows, said.taken, stream.total))
            try:
                answer = str(row.answer_key.get("gold") or json.dumps(row.answer_key, sort_keys=True, default=str))
                fingerprint = Fingerprint.of(row.text, answer)
                self._refuse_known(row.text, fingerprint, source, within)
                row_id = self._id_of(row, f"{name}/{said.rows}")
                problem = _make_problem(row, row_id, answer, fingerprint, writer)
            except Unusable as error:
                said.drop(str(error), where)
                continue
            within.add(problem.fingerprint)
            yield problem

    def _name(self, name: str) -> str:
        """A name for ids that no source before has."""
        name = name[:_LONGEST_NAME]
        number, free = 1, name
        while free in self._names:
            number += 1
            free = f"{name}-{number}"
        self._names.add(free)
        return free

    def _id_of(self, row: ConvertedRow, numbered: str) -> str:
        if not row.id:
            return numbered
        if row.id in self._ids:
            raise Unusable("its id came before")
        if len(row.id) > _LONGEST_ID:
            raise Unusable(f"its id has more than {_LONGEST_ID} characters")
        self._ids.add(row.id)
        return row.id

    def _refuse_known(self, text: str, problem: Fingerprint, source: DataSource, within: SeenProblems) -> None:
        """Unusable for a duplicate, and for a problem of a held-out set."""
        if source.deduplicate:
            for seen in {within, self._seen}:
                if reason := seen.find(problem):
                    raise Unusable(reason)
        if source.decontaminate and (reason := self._held_out.find(problem, text, source.overlap_words)):
            raise Unusable(reason)


def _make_problem(
    row: ConvertedRow, row_id: str, answer: str, fingerprint: Fingerprint, writer: PromptWriter
) -> ImportedProblem:
    """Unusable for a prompt that the model cannot take, and for what is no text."""
    prompt, instruction = writer.write(row)
    source, key = writer.source, row.answer_key
    if source.extraction:
        key = key | {"extraction": list(source.extraction)}
    elif row.kind == "math" and "extraction" not in key and (asked := asked_extraction(row.whole_text)):
        key = key | {"extraction": asked}
    columns = {name: value for name, value in row.columns.items() if name not in _NAMES}
    made = {"id": row_id, "prompt": prompt, "kind": source.kind or row.kind, "answer_key": key} | columns
    try:
        line = json.dumps(made, ensure_ascii=False, default=str).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise Unusable("holds half of a surrogate pair, which is no text") from error
    return ImportedProblem(row_id, prompt, instruction, answer, fingerprint, line)


def _notes(source: DataSource, form: Format, instructions: Counter[str]) -> Iterator[str]:
    if source.format == "auto" and not source.fields:
        yield f"read as {form.name}, by its columns"
    if form.note:
        yield form.note
    if source.instruction is None:
        for text, count in instructions.items():
            if text:
                yield f'behind {count:,} problems stands "{text}" (instruction="" leaves it out)'


def _open(source: DataSource) -> tuple[RowStream, Format]:
    """The rows, all of them, and the format that the first of them have."""
    stream = open_rows(source)
    peeked = list(islice(stream.rows, _PEEKED))
    readable = [row for _, row in peeked if not isinstance(row, BrokenRow)]
    if not peeked:
        raise InvalidInput(f"{source} is empty: it has no rows")
    if not readable:
        where, row = peeked[0]
        reason = row.reason if isinstance(row, BrokenRow) else ""
        raise InvalidInput(f"no row of {source} can be read; the first, {where}, {reason}")
    return RowStream(stream.name, chain(peeked, stream.rows), stream.total), find_format(source, readable)


def _convert(rows: Iterator[Placed], form: Format, said: SourceReport) -> Iterator[tuple[str, ConvertedRow]]:
    """The rows that the format can read; the report has the others."""
    for where, row in rows:
        said.rows += 1
        try:
            if isinstance(row, BrokenRow):
                raise Unusable(row.reason)
            if not form.is_written:
                refuse_pictures(row)
            yield where, form.convert(row)
        except Unusable as error:
            said.drop(str(error), where)
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # a column holds what no such set has
            said.drop(f"is no row of {form.name}: {type(error).__name__}: {str(error)[:80]}", where)
