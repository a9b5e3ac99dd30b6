"""`ibtpo eval`: avg@k, pass@k and maj@k of models on held-out sets, through the services that train them."""

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from services.launcher.display.accuracy_table import (
    AVERAGE,
    ModelAccuracy,
    ModelDifference,
    render_accuracy,
    render_difference,
)
from services.launcher.display.answer_progress import AnswerProgress
from services.launcher.processes.evaluation import Services, answer_sets
from services.launcher.runs.evaluated_models import EvaluatedModel, SetResults, begin_results
from services.launcher.runs.imported_problems import load_prompt_model
from services.launcher.runs.model_digest import digest_model
from services.launcher.runs.model_files import check_model, check_stop_tokens, load_prompt_encoder, read_limits
from services.launcher.settings.evaluation import EvaluateArguments, choose_sets
from services.learner.config import LearnerConfig
from services.learner.data.run_files import problem_files
from services.learner.held_out.measure import average_figures, average_reward, compare, measure_set, vote
from services.learner.held_out.problem_set import HeldOutProblems, import_name, source_of
from services.learner.held_out.results import ProblemResult, ResultsFile
from services.learner.held_out_config import SetPlan
from services.learner.queue.problems import read_problems
from shared.errors import InvalidInput, Unavailable
from shared.files import atomic_write
from shared.protocol.verdict import explain_no_answers
from shared.tree.accuracy import Estimate

_UNFIT = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class EvaluatedModels:
    """What an evaluation found: of every model its answers and its figures, and of every pair the difference."""

    arguments: EvaluateArguments
    models: tuple[EvaluatedModel, ...]
    measured: tuple[ModelAccuracy, ...]
    differences: tuple[ModelDifference, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every problem is answered."""
        return not any(one.missing for model in self.models for one in model.sets)

    def as_json(self) -> dict[str, Any]:
        """The figures, and how they were measured."""
        return _as_json(self.arguments, self.models, self.measured, self.differences)

    def render(self) -> RenderableType:
        """A table for each model, with what is to be said of it, and one for each pair."""
        parts: list[RenderableType] = []
        for model, accuracy in zip(self.models, self.measured, strict=True):
            parts += [render_accuracy(accuracy), *map(Text, _remarks(model))]
        return Group(*parts, *map(render_difference, self.differences))


def evaluate(arguments: EvaluateArguments) -> int:
    """Answers every problem k times and prints the figures; returns the exit code."""
    found = measure_models(arguments)
    if arguments.as_json:
        print(json.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        Console(highlight=False).print(found.render())
    return 0 if found.is_complete else 1


Call = Callable[[Coroutine[Any, Any, None]], None]
"""Waits for it."""


def measure_models(arguments: EvaluateArguments, call: Call = asyncio.run) -> EvaluatedModels:
    """Answers every problem k times, and measures. With a folder for the results, what is there already is kept."""
    directories = [check_model(model) for model in arguments.models]
    for directory in directories:
        check_stop_tokens(directory)
    config, given = arguments.load()
    with _folder(arguments) as folder:
        plans = choose_sets(arguments, config, folder)
        models = _prepare(arguments, config, plans, directories, folder)
        for model in models:
            begin_results(model, {"seed": arguments.seed, "chat_template_kwargs": config.chat_template_kwargs})
        services = Services(
            arguments.config, tuple(given["rollout"]), tuple(given["verifier"]), replicas=arguments.replicas
        )
        _answer(arguments, models, services, call)
        measured = tuple(map(measure_model, models))
        differences = tuple(compare_models(*pair) for pair in combinations(models, 2))
        found = EvaluatedModels(arguments, tuple(models), measured, differences)
        if arguments.out:
            text = json.dumps(found.as_json(), indent=1, ensure_ascii=False)
            atomic_write(arguments.out / "summary.json", text + "\n")
    return found


@contextmanager
def _folder(arguments: EvaluateArguments) -> Iterator[Path]:
    """Where results lie: as asked for, else only for now."""
    if arguments.out is not None:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"--out {arguments.out} can be no folder: {error.strerror}; give another") from error
        yield arguments.out
        return
    with tempfile.TemporaryDirectory(prefix="ibtpo-eval-") as name:
        yield Path(name)


def _prepare(
    arguments: EvaluateArguments,
    config: LearnerConfig,
    plans: Sequence[SetPlan],
    directories: Sequence[Path],
    folder: Path,
) -> list[EvaluatedModel]:
    models: list[EvaluatedModel] = []
    for (weights, model), directory in zip(_digest_each(arguments.models, directories), directories, strict=True):
        at = folder / f"{_name_folder(model, directory)}-{weights[:8]}"
        sets = tuple(
            SetResults(_read_set(plan, config, directory, at / "data"), ResultsFile(at, plan.name)) for plan in plans
        )
        models.append(EvaluatedModel(str(model), directory, weights, sets))
    return models


def _digest_each(models: Sequence[Path], directories: Sequence[Path]) -> list[tuple[str, Path]]:
    """Each model with its hash; InvalidInput where two are the same."""
    known: dict[str, Path] = {}
    for model, directory in zip(models, directories, strict=True):
        weights = digest_model(directory)
        if weights in known:
            raise InvalidInput(f"{known[weights]} and {model} are the same model: their answers would be, too")
        known[weights] = model
    return list(known.items())


def _name_folder(model: Path, directory: Path) -> str:
    """What a model's results lie in, the same from wherever it is named."""
    name = "-".join(directory.resolve().parts[-2:]) if model.is_dir() else str(model)
    return _UNFIT.sub("_", name).strip("_.-")


def _read_set(plan: SetPlan, config: LearnerConfig, directory: Path, folder: Path) -> HeldOutProblems:
    """The first problems of a set that the model can be asked, as its own template has them."""
    max_tokens, kwargs = plan.growth.max_tokens, config.chat_template_kwargs
    files = problem_files(
        (source_of(plan.source),),
        folder,
        import_name(plan.name),
        lambda: load_prompt_model(directory, max_tokens, kwargs),
        (),
        _rarely(lambda rows: print(f"reading {plan.name}: {rows} rows", file=sys.stderr)),
    )
    encode = load_prompt_encoder(directory, kwargs)
    found = read_problems(files, encode, read_limits(directory, max_tokens))
    if found.note:
        print(f"{plan.name}: {found.note}", file=sys.stderr)
    return HeldOutProblems.of(plan, found.problems)


def _rarely(say: Callable[[int], None]) -> Callable[[Any], None]:
    """Hears how far an import is, and says so every so many rows."""
    return lambda progress: say(progress.rows) if progress.rows and progress.rows % 10_000 == 0 else None


def _answer(arguments: EvaluateArguments, models: Sequence[EvaluatedModel], services: Services, call: Call) -> None:
    """Answers what is missing. Where it is interrupted, it says how to go on."""
    sets = [one for model in models for one in model.sets]
    total, answered = sum(len(one.held_out.problems) for one in sets), sum(len(one.results) for one in sets)
    if answered:
        print(f"{answered} of {total} problems are answered already", file=sys.stderr)
    if answered == total:
        return
    try:
        with AnswerProgress(total, answered) as progress:
            call(answer_sets(models, services, arguments.seed, progress.say, progress.add))
    except KeyboardInterrupt:
        done = sum(len(one.results) for one in sets)
        how = "the same command goes on" if arguments.out else "with --out FOLDER it could go on later"
        raise Unavailable(f"interrupted with {done} of {total} problems answered; {how}") from None
    for one in sets:
        for refusal in one.refusals[:3]:
            print(f"not answered: {refusal}", file=sys.stderr)


def measure_model(model: EvaluatedModel) -> ModelAccuracy:
    measured = [measure_set(one.held_out.plan, one.in_order) for one in model.sets]
    found = tuple(one for one in measured if one)
    if not found:
        reasons = [refusal for one in model.sets for refusal in one.refusals]
        raise Unavailable(
            f"no answer of {model.name} was judged; is `kind` right for these problems, and is the verifier up?"
            + (f" The first problem: {reasons[0]}" if reasons else "")
        )
    return ModelAccuracy(model.name, found, average_figures(found))


def compare_models(first: EvaluatedModel, second: EvaluatedModel) -> ModelDifference:
    """What the second has more than the first."""
    pairs = list(zip(first.sets, second.sets, strict=True))
    avg = _differences(pairs, average_reward)
    plans = [one.held_out.plan for one in first.sets]
    have_maj = all(
        one and one.maj_at_k is not None
        for model in (first, second)
        for one in (measure_set(each.held_out.plan, each.in_order) for each in model.sets)
    )
    maj = _differences(pairs, vote) if have_maj else {}
    problems = {plan.name: len({*a.results} & {*b.results}) for plan, (a, b) in zip(plans, pairs, strict=True)}
    return ModelDifference(second.name, first.name, avg, maj, problems | {AVERAGE: sum(problems.values())})


def _differences(
    pairs: Sequence[tuple[SetResults, SetResults]], of: Callable[[ProblemResult], float]
) -> dict[str, Estimate]:
    found = {
        a.held_out.plan.name: estimate
        for a, b in pairs
        if (estimate := compare(a.in_order, b.in_order, of)) is not None
    }
    return found | ({AVERAGE: Estimate.average(list(found.values()))} if len(found) > 1 else {})


def _remarks(model: EvaluatedModel) -> Iterator[str]:
    """What is to be said of its answers beside their figures."""
    for one in model.sets:
        name, results = one.held_out.plan.name, one.in_order
        if one.missing:
            yield f"{name}: {len(one.missing)} of {len(one.held_out.problems)} problems are not answered"
        unjudged = sum(reward is None for result in results for reward in result.rewards)
        if unjudged:
            yield f"{name}: {unjudged} answers have no verdict, and count in no figure"
        ended = [
            answer
            for result in results
            for answer, reward, end in zip(result.answers, result.rewards, result.finish, strict=True)
            if reward is not None and end == "stop"
        ]
        if remark := explain_no_answers(sum(answer == "" for answer in ended), len(ended)):
            yield f"{name}: {remark}"


def _as_json(
    arguments: EvaluateArguments,
    models: Sequence[EvaluatedModel],
    measured: Sequence[ModelAccuracy],
    differences: Sequence[ModelDifference],
) -> dict[str, Any]:
    return {
        "seed": arguments.seed,
        "models": [
            {
                "model": model.name,
                "weights": model.weights,
                "sets": [one.model_dump() | _settings_of(model, one.name) for one in accuracy.sets],
                "average": accuracy.average.model_dump(),
            }
            for model, accuracy in zip(models, measured, strict=True)
        ],
        "differences": [
            {
                "model": one.model,
                "less": one.other,
                "avg_at_k": _estimates(one.avg),
                "maj_at_k": _estimates(one.maj),
                "problems": one.problems,
            }
            for one in differences
        ],
    }


def _settings_of(model: EvaluatedModel, name: str) -> dict[str, Any]:
    """How a set was measured, and how much of it was not."""
    one = next(each for each in model.sets if each.held_out.plan.name == name)
    plan = one.held_out.plan
    return {**plan.settings, "source": str(plan.source), "missing": len(one.missing)}


def _estimates(found: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: {"value": one.value, "error": one.error} for name, one in found.items()}
