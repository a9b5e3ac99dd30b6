"""Measures models on held-out sets, by the same path as `ibtpo eval`."""

import json
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ibtpo.calls import LoopThread
from ibtpo.notebook import to_html, to_text
from ibtpo.settings import to_settings
from ibtpo.table import Table
from services.demo.task import checkpoint_directory
from services.launcher.commands.evaluate import EvaluatedModels, measure_models
from services.launcher.settings.evaluation import EvaluateArguments
from services.launcher.settings.plan import SECTIONS
from shared.errors import InvalidInput

Source = str | PathLike[str]
Row = Mapping[str, Any]


class Evaluation:
    """What models were found to be worth on held-out sets: figures, differences, and the result of every problem."""

    def __init__(self, found: EvaluatedModels) -> None:
        self._found = found

    @property
    def figures(self) -> Table:
        """Of every model and set: avg@k, pass@k and maj@k with their standard errors over problems, and more."""
        rows = (
            {"model": accuracy.model, "set": one.name, **one.model_dump(exclude={"name"})}
            for accuracy in self._found.measured
            for one in accuracy.sets
        )
        return Table.of_rows(rows, ("model", "set", "k", "problems", "avg_at_k", "standard_error", "pass_at_k"))

    @property
    def differences(self) -> Table:
        """Of every two models, over the same problems: what the first has more than the second, with its error."""
        rows = (
            {"model": one.model, "less": one.other, "set": name, "avg_at_k": estimate.value, "error": estimate.error}
            for one in self._found.differences
            for name, estimate in one.avg.items()
        )
        return Table.of_rows(rows, ("model", "less", "set", "avg_at_k", "error"))

    @property
    def problems(self) -> Table:
        """The rewards of every problem's answers, and what these state."""
        rows = (
            {"model": model.name, "set": one.held_out.plan.name, **result.model_dump(exclude={"problem", "votes"})}
            for model in self._found.models
            for one in model.sets
            for result in one.in_order
        )
        return Table.of_rows(rows, ("model", "set", "id", "rewards"))

    @property
    def is_complete(self) -> bool:
        """Whether every problem was answered."""
        return self._found.is_complete

    def to_dict(self) -> dict[str, Any]:
        """All figures and how they were measured, as `ibtpo eval --json` prints them."""
        return self._found.as_json()

    def __repr__(self) -> str:
        shown = (f"{one.model}: avg@k {one.average.avg_at_k:.3f}" for one in self._found.measured)
        return f"<Evaluation, {', '.join(shown)}>"

    def __str__(self) -> str:
        return to_text(self)

    def __rich__(self) -> RenderableType:
        return self._found.render()

    def _repr_html_(self) -> str:
        return to_html(self)


def evaluate(
    model: Source | Sequence[Source] | None = None,
    data: Source | Sequence[Source] | Sequence[Row] | None = None,
    *,
    k: int | None = None,
    problems: int | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    config: Source | None = None,
    sets: Sequence[str] = (),
    seed: int = 0,
    replicas: int = 1,
    out: Source | None = None,
    **settings: Any,
) -> Evaluation:
    """avg@k, pass@k and maj@k of a model, or of several, which are compared.

    `data` is a file, `hf:NAME`, several of these, or rows; without it the held-out sets of `config` are answered: by
    default those of the run whose policy the model is, else the demo's. With a folder `out` an interrupted evaluation
    goes on where it was.

    >>> ibtpo.evaluate("runs/first/policy", "held_out.jsonl", k=8).figures
    """
    models = [checkpoint_directory()] if model is None else [Path(one) for one in _listed(model, "model")]
    said = {"k": k, "problems": problems, "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    given = to_settings(settings, SECTIONS, evaluate)
    with _sources(data) as sources:
        arguments = EvaluateArguments(
            tuple(models),
            sources,
            tuple(sets),
            None if config is None else fspath(config),
            given,
            tuple((key, value) for key, value in said.items() if value is not None),
            seed,
            replicas,
            None if out is None else Path(out),
        )
        return Evaluation(measure_models(arguments, _run_in_thread))


def _run_in_thread(work: Coroutine[Any, Any, None]) -> None:
    loop = LoopThread()
    try:
        loop.call(work)
    finally:
        loop.close()


@contextmanager
def _sources(data: Source | Sequence[Source] | Sequence[Row] | None) -> Iterator[tuple[str, ...]]:
    """The data as sources; rows as a file that is deleted when the block ends."""
    if data is None:
        yield ()
        return
    given = _listed(data, "data")
    rows = [one for one in given if isinstance(one, Mapping)]
    if not rows:
        yield tuple(fspath(one) for one in given)
        return
    if len(rows) != len(given):
        raise InvalidInput("data has rows beside files: give either")
    with tempfile.TemporaryDirectory(prefix="ibtpo-rows-") as folder:
        path = Path(folder) / "rows.jsonl"
        try:
            lines = [json.dumps({"id": f"row-{number}", **row}) for number, row in enumerate(rows)]
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"a row of data cannot be written as JSON: {error}") from error
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        try:
            yield (str(path),)
        except InvalidInput as error:
            raise InvalidInput(str(error).replace(str(path), "data")) from error


def _listed(given: Any, name: str) -> list[Any]:
    found = [given] if isinstance(given, str | PathLike | Mapping) else given
    if (
        not isinstance(found, Sequence)
        or not found
        or not all(isinstance(one, str | PathLike | Mapping) for one in found)
    ):
        raise InvalidInput(f"{name} is a name or path, or several: {given!r}")
    return list(found)
