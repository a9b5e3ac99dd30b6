"""Held-out sets: how they are named, and what they take from where."""

from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

from services.learner.config import LearnerConfig
from services.learner.data.source import DataSource
from services.learner.held_out.problem_set import HeldOutProblems, source_of
from services.learner.queue.problems import EncodedProblem
from shared.runtime.config import load_config
from tests.learner.conftest import Configure
from tests.learner.evaluations import set_plan


@pytest.mark.parametrize(
    ("held_out", "names"),
    [
        ("data/gsm8k.jsonl", ["gsm8k"]),
        (["a.jsonl", "b.parquet"], ["a", "b"]),
        (["gsm8k/test.jsonl", "math/test.jsonl"], ["gsm8k-test", "math-test"]),
        (["x/test.jsonl", "x/test.csv"], ["x-test", "x-test-2"]),
        (["two words.jsonl", "测试.jsonl", "...jsonl"], ["two_words", "测试", "set"]),
        (["hf:openai/gsm8k:main@abc#test", "folder/saved#test"], ["gsm8k", "saved"]),
        ({"source": "a.jsonl", "k": 4}, ["a"]),
        ([{"source": "a.jsonl"}, "b.jsonl"], ["a", "b"]),
        ({"aime-24": "a.jsonl", "math": {"source": "hf:x/y", "k": 4}}, ["aime-24", "math"]),
        ([], []),
        ({}, []),
    ],
)
def test_sets_are_named(configure: Configure, held_out: Any, names: list[str]) -> None:
    config = configure(held_out=held_out)
    assert list(config.held_out) == names
    assert [plan.name for plan in config.held_out_plans] == names


@pytest.mark.parametrize(
    ("held_out", "reason"),
    [
        ({"a/b": "x.jsonl"}, "a held-out set is named with letters"),
        ({"a": {"k": 4}}, "source"),
        ({"a": {"source": "x.jsonl", "k": 0}}, "greater than 0"),
        ({"a": {"source": "x.jsonl", "metrics": ["acc"]}}, "'acc' is no metric"),
        ({"a": {"source": "x.jsonl", "metrics": ["pass@64"]}}, "held_out.a: pass@64 is wanted of k = 8 answers"),
        ({"a": {"source": "x.jsonl", "k": 8, "metrics": ["maj@4"]}}, "set k = 4"),
        ({"a": {"source": "x.jsonl", "temperature": 1e-9}}, "as good as 0"),
        ({"a": {"source": "x.jsonl", "size": 3}}, "size"),
    ],
)
def test_a_set_that_cannot_be_is_refused(configure: Configure, held_out: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        configure(held_out=held_out)


def test_a_set_takes_what_it_does_not_state_from_the_evaluation_and_then_from_training(configure: Configure) -> None:
    config = configure(
        growth={"sampler": "ib", "max_tokens": 16, "temperature": 0.9, "top_k": 5},
        evaluation={"k": 4, "every": 10, "temperature": 0.5},
        held_out={
            "own": {"source": "a.jsonl", "k": 2, "temperature": 0, "max_tokens": 99, "every": 3},
            "none": "b.jsonl",
        },
    )
    own, none = config.held_out_plans
    assert (own.k, own.every, own.problems) == (2, 3, 128)
    assert (own.growth.temperature, own.growth.max_tokens, own.growth.top_k) == (0.0, 99, 5)
    assert (none.k, none.every, none.growth.temperature, none.growth.max_tokens) == (4, 10, 0.5, 16)
    assert own.growth.sampler.num_draws == 2
    assert [step for step in range(10) if own.is_due(step)] == [0, 3, 6, 9]


def test_a_saved_configuration_has_the_same_sets(configure: Configure, tmp_path: Any) -> None:
    held_out = {"gsm8k": {"source": "hf:openai/gsm8k:main#test", "k": 4, "metrics": "avg@k"}, "own": "b.jsonl"}
    config = configure(held_out=held_out)
    text = tomli_w.dumps({"learner": config.model_dump(mode="json", exclude_none=True)})
    (tmp_path / "config.toml").write_text(text)
    assert '[learner.held_out.gsm8k]\nsource = "hf:openai/gsm8k:main#test"\nk = 4\n' in text
    loaded = load_config(LearnerConfig, "learner", tmp_path / "config.toml", ["held_out.own.k=3"])
    assert loaded.held_out["gsm8k"] == config.held_out["gsm8k"]
    assert loaded.held_out["own"].k == 3


def test_only_what_says_where_problems_come_from_is_their_source(configure: Configure) -> None:
    one = configure(held_out={"a": {"source": "x.csv", "format": "gsm8k", "k": 4}}).held_out["a"]
    assert one.data == DataSource(source="x.csv", format="gsm8k")
    assert source_of(one).deduplicate is False, "a set has all its rows"
    plain = configure(held_out=["x.jsonl"]).held_out["x"]
    assert source_of(plain).states_only_a_file


def test_a_problem_is_answered_alike_wherever_it_stands() -> None:
    first, second = (EncodedProblem(id, (1, 2), "math", {"gold": "1"}, source=id) for id in "ab")
    together, alone = HeldOutProblems.of(set_plan(k=4), [first, second]), HeldOutProblems.of(set_plan(k=8), [second])
    assert together.request(second, 0).seed == alone.request(second, 0).seed
    seeds = {together.request(one, seed).seed for one in (first, second) for seed in (0, 1)}
    assert len(seeds) == 4
