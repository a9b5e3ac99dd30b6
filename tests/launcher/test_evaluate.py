"""`ibtpo eval` before and after its services: which sets, which results, which figures."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from services.demo.task import checkpoint_directory
from services.launcher.commands.evaluate import compare_models, evaluate, measure_model
from services.launcher.display.accuracy_table import render_accuracy, render_difference
from services.launcher.runs.evaluated_models import EvaluatedModel, SetResults, begin_results
from services.launcher.runs.model_digest import digest_model
from services.launcher.settings.evaluation import EvaluateArguments, choose_sets
from services.learner.held_out.problem_set import HeldOutProblems, problem_hash
from services.learner.held_out.results import ProblemResult, ResultsFile
from services.learner.queue.problems import EncodedProblem
from shared.errors import InvalidInput, Unavailable
from tests.learner.evaluations import result, set_plan

CONFIG = """
[learner]
total_steps = 1
[learner.growth]
sampler = "ib"
max_tokens = 9
[learner.evaluation]
k = 4
problems = 5
[learner.held_out]
gsm8k = "gsm8k.jsonl"
aime = { source = "aime.jsonl", k = 32, temperature = 0.6, top_p = 0.95 }
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "mine.toml").write_text(CONFIG)
    return str(tmp_path / "mine.toml")


def plans_of(arguments: EvaluateArguments, folder: Path) -> dict[str, tuple[int, int, float, int]]:
    """(k, problems, temperature, token limit) of each set."""
    plans = choose_sets(arguments, arguments.load()[0], folder)
    return {one.name: (one.k, one.problems, one.growth.temperature, one.growth.max_tokens) for one in plans}


MODEL = (checkpoint_directory(),)


def test_the_sets_are_those_of_the_configuration(config: str, tmp_path: Path) -> None:
    every = EvaluateArguments(MODEL, preset=config)
    assert plans_of(every, tmp_path) == {"gsm8k": (4, 5, 1.0, 9), "aime": (32, 5, 0.6, 9)}
    one = EvaluateArguments(
        MODEL, sets=("aime",), preset=config, settings=("held_out.aime.k=2", "evaluation.problems=7")
    )
    assert plans_of(one, tmp_path) == {"aime": (2, 7, 0.6, 9)}
    with pytest.raises(InvalidInput, match="no held-out set 'math'; there are: gsm8k, aime"):
        plans_of(EvaluateArguments(MODEL, sets=("math",), preset=config), tmp_path)


def test_what_is_said_for_all_sets_counts_for_those_with_their_own(config: str, tmp_path: Path) -> None:
    said = (("k", 2), ("temperature", 0.0), ("max_tokens", 5))
    plans = plans_of(EvaluateArguments(MODEL, preset=config, overrides=said), tmp_path)
    assert plans == {"gsm8k": (2, 5, 0.0, 5), "aime": (2, 5, 0.0, 5)}


def test_data_are_sets_of_their_own(config: str, tmp_path: Path) -> None:
    arguments = EvaluateArguments(MODEL, data=("a/test.jsonl", "b/test.jsonl"), preset=config)
    assert list(plans_of(arguments, tmp_path)) == ["a-test", "b-test"]


@pytest.mark.parametrize("said", [("k", 0), ("temperature", 1e-9), ("max_tokens", 0), ("top_p", 0.0)])
def test_what_cannot_be_said_for_a_set_is_refused(config: str, tmp_path: Path, said: tuple[str, float]) -> None:
    with pytest.raises(InvalidInput, match=said[0]):
        plans_of(EvaluateArguments(MODEL, preset=config, overrides=(said,)), tmp_path)


def test_a_model_is_not_compared_with_itself(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint_directory(), copy)
    with pytest.raises(InvalidInput, match="the same model"):
        evaluate(EvaluateArguments((*MODEL, copy), overrides=(("problems", 2),)))
    (copy / "tokenizer_config.json").write_text("{}")
    assert digest_model(copy) != digest_model(checkpoint_directory()), "another template is another model"


def problem(name: str, gold: str = "1") -> EncodedProblem:
    return EncodedProblem(name, (1, 2), "math", {"gold": gold}, source=name)


def results_of(folder: Path, *found: ProblemResult, k: int = 2, problems: int = 3) -> SetResults:
    held_out = HeldOutProblems.of(set_plan("gsm8k", k=k), [problem(str(number)) for number in range(problems)])
    one = SetResults(held_out, ResultsFile(folder, "gsm8k"))
    hash_of = {each.id: problem_hash(each) for each in held_out.problems}
    one.results = {each.id: each.model_copy(update={"problem": hash_of[each.id]}) for each in found}
    return one


def model_of(name: str, folder: Path, *found: ProblemResult, k: int = 2) -> EvaluatedModel:
    return EvaluatedModel(name, folder, f"{name}-weights", (results_of(folder, *found, k=k),))


def test_results_are_gone_on_with_unless_they_are_of_something_else(tmp_path: Path) -> None:
    first = model_of("a", tmp_path)
    begin_results(first, {"seed": 0})
    kept = results_of(tmp_path, result(1, [1.0, 0.0])).results["1"]
    first.sets[0].file.append(kept)
    again = model_of("a", tmp_path)
    begin_results(again, {"seed": 0})
    assert again.sets[0].results == {"1": kept}
    assert [one.id for one in again.sets[0].missing] == ["0", "2"]
    for other, settings, reason in (
        (model_of("a", tmp_path, k=4), {"seed": 0}, "k: 2 there, 4 now"),
        (model_of("a", tmp_path), {"seed": 1}, "seed: 0 there, 1 now"),
        (model_of("b", tmp_path), {"seed": 0}, "model: a-weights there, b-weights now"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            begin_results(other, settings)
    changed = HeldOutProblems.of(set_plan("gsm8k", k=2), [problem("1", gold="2")])
    edited = EvaluatedModel("a", tmp_path, "a-weights", (SetResults(changed, ResultsFile(tmp_path, "gsm8k")),))
    with pytest.raises(InvalidInput, match="another problem '1'"):
        begin_results(edited, {"seed": 0})
    begin_results(again, {"seed": 0})
    assert again.sets[0].results == {"1": kept}, "a refusal changes nothing"


def shown(*parts: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_two_models_are_compared_over_the_same_problems(tmp_path: Path) -> None:
    texts = ["1", "2"]
    first = model_of("a", tmp_path, *(result(n, [1.0, 0.0], texts) for n in range(3)))
    second = model_of("b", tmp_path, result(0, [1.0, 1.0], ["1", "1"]), result(2, [1.0, 1.0], ["1", "1"]))
    difference = compare_models(first, second)
    table = shown(render_accuracy(measure_model(first)), render_difference(difference))
    assert "gsm8k  3  2  0.500 ± 0.000   1.000  0.500       2  0.0%       0.0%" in table
    assert "gsm8k: pass@1 0.500  pass@2 1.000" in table
    assert "b less a, over the same problems" in table
    assert "gsm8k  2  +0.500 ± 0.000  +0.500 ± 0.000" in table
    assert max(map(len, table.splitlines())) <= 80


def test_a_model_none_of_whose_answers_is_judged_has_no_figures(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no answer of a was judged"):
        measure_model(model_of("a", tmp_path, result(0, [None, None])))
