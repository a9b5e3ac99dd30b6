"""Keyword arguments: settings of the command line under the same names, and what is said of wrong ones."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ibtpo
from ibtpo.settings import to_toml

TREE = ibtpo.Tree.from_answers(["a", "b"], [1, 0])


@pytest.mark.parametrize(
    "value",
    [
        True,
        3,
        1e-7,
        float("inf"),
        'a "text" \\ = ü\n\x01\x7f',
        "5",
        [1, 2.5, "x"],
        {"kind": "ib", "a b": {"c": [True]}},
    ],
)
def test_a_value_is_the_same_in_toml(value: object) -> None:
    assert tomllib.loads(f"value = {to_toml(value, 'key')}")["value"] == value


def test_paths_and_numbers_of_numpy_are_values() -> None:
    assert to_toml(Path("a b/c"), "key") == '"a b/c"'
    assert to_toml(np.float32(0.5), "key") == "0.5"
    assert to_toml(np.int64(3), "key") == "3"
    assert to_toml((np.bool_(True),), "key") == "[true]"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ibtpo.score(TREE, confidense="joint"), "did you mean confidence"),
        (lambda: ibtpo.score(TREE, beta="much"), "learner.method.beta = 'much'"),
        (lambda: ibtpo.score(TREE, lr=1), r"score\(\) has no setting learner.optimizer.lr"),
        (lambda: ibtpo.score(TREE, beta=object()), "a setting is a number"),
        (lambda: ibtpo.credit(TREE, "gpro"), "choose from ibtpo, grpo, dr-grpo"),
        (lambda: ibtpo.credit(TREE, advantge="grpo"), "did you mean advantage"),
        (lambda: ibtpo.credit(TREE, prior="reference"), "needs the reference policy"),
        (lambda: ibtpo.grow("2+3=", ronds=3), "did you mean rounds"),
        (lambda: ibtpo.grow("2+3=", anwser=5), "did you mean answer"),
        (lambda: ibtpo.grow("2+3=", answer=5, key={"gold": "5"}), "give answer, or key"),
        (lambda: ibtpo.grow({"prompt": "2+3="}), "a row of a data set has prompt, kind and answer_key"),
        (lambda: ibtpo.grow({"prompt": "x", "kind": "math", "answer_key": {}}, answer=1), "has its own answer key"),
        (lambda: ibtpo.grow(5), "a problem is a text"),  # type: ignore[arg-type]
        (lambda: ibtpo.grow("2+3=", rollout_url="localhost:8001"), "is no URL of a service"),
        (lambda: ibtpo.grow("2+3=", "no/such/model"), "no/such/model"),
        (lambda: ibtpo.Session().score_tokens("2+3=", "5"), r"give a list, \['5'\]"),
        (lambda: ibtpo.Session().score_tokens("2+3=", []), "cannot be scored: items"),
        (lambda: ibtpo.Session().score_tokens("2+3=", [""]), "cannot be scored: items.0.continuation"),
        (lambda: ibtpo.Session().score_tokens("2+3=", ["5"], temperature=-1), "cannot be scored: temperature"),
        (lambda: ibtpo.verify("4", None), "the right answer is a text"),  # type: ignore[call-overload]
        (lambda: ibtpo.verify(4, "4"), "a response is a text"),  # type: ignore[call-overload]
        (lambda: ibtpo.train("demoo"), "did you mean demo"),
        (lambda: ibtpo.train("demo", lrr=1), "did you mean lr"),
        (lambda: ibtpo.train("demo", rn="x"), "did you mean run"),
        (lambda: ibtpo.train({"lr": -1}), "learner.optimizer.lr = -1"),
        (lambda: ibtpo.train({"learner": {"lr": 1}}), "did you mean learner.optimizer.lr"),
        (lambda: ibtpo.train(3), "config is a preset's name"),  # type: ignore[arg-type]
        (lambda: ibtpo.train("demo", resume=True, fresh=True), "resume=True and fresh=True"),
        (lambda: ibtpo.evaluate(problms=3), "did you mean problems"),
        (lambda: ibtpo.evaluate(data=5), "data is a name or path, or several"),  # type: ignore[arg-type]
        (lambda: ibtpo.evaluate(data=[{"prompt": "2+3="}]), "data:1: kind: Field required"),
        (lambda: ibtpo.evaluate(data="no.jsonl"), "no.jsonl"),
        (lambda: ibtpo.evaluate("no/such/model"), "no/such/model"),
        (lambda: ibtpo.Run("nothing"), "there is no run 'nothing'"),
    ],
)
def test_a_wrong_argument_is_one_line_that_says_what_was_meant(
    call: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ibtpo.InvalidInput, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
