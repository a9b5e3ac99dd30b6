"""Loss terms by import path: added to the others, and refused in one line where they fail."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import torch
from pydantic import ValidationError

from services.learner.loss_terms import SURROGATES, TERMS, LossTerm, Surrogate, TokenTensors
from services.learner.objective_config import ObjectiveConfig
from services.learner.training.objective import Objective, TokenLosses
from services.learner.training.terms import EntropyAdvantageTerm, EntropyTerm, KLTerm
from shared.errors import InvalidInput
from shared.plugins.deadline import Deadline
from tests.learner.training.test_objective import micro_batch, policy_entropies, policy_logprobs

HERE = __name__
BATCH = micro_batch(1)


@dataclass(frozen=True)
class Square(LossTerm):
    """coef·log π²."""

    coef: Annotated[float, "Weight"] = 0.5

    def __post_init__(self) -> None:
        if self.coef < 0:
            raise ValueError(f"coef is at least 0: {self.coef}")

    def loss(self, tokens: TokenTensors) -> torch.Tensor:
        return self.coef * tokens.logprobs_BT.square()


@dataclass(frozen=True)
class ToReference(LossTerm):
    reads_reference = True

    def loss(self, tokens: TokenTensors) -> torch.Tensor:
        assert tokens.reference_logprobs_BT is not None
        return (tokens.logprobs_BT - tokens.reference_logprobs_BT).square()


@dataclass(frozen=True)
class PlainGradient(Surrogate):
    """−A·log π."""

    def loss(self, tokens: TokenTensors) -> torch.Tensor:
        return -tokens.advantages_BT * tokens.logprobs_BT


BAD: dict[str, tuple[Callable[[TokenTensors], Any], str]] = {
    "raises": (lambda tokens: 1 / 0, "loss failed: ZeroDivisionError: division by zero"),
    "exits": (lambda tokens: exit("bye"), "loss failed: SystemExit: bye"),
    "loops": (lambda tokens: [None for _ in iter(int, 1)], "loss failed: TimeoutError: it took longer than 0.1 s"),
    "no tensor": (lambda tokens: 3.0, "loss returned 3.0, not a tensor"),
    "nothing": (lambda tokens: None, "loss returned None, not a tensor"),
    "a mean": (lambda tokens: tokens.logprobs_BT.mean(), "loss returned the shape []"),
    "per answer": (lambda tokens: tokens.logprobs_BT.sum(1, keepdim=True), "loss returned the shape [8, 1]"),
    "elsewhere": (lambda tokens: tokens.logprobs_BT.to("meta"), "a tensor on meta, and tokens are on cpu"),
    "NaN": (lambda tokens: tokens.logprobs_BT * float("nan"), "returned a loss that is NaN or infinite"),
    "infinite": (lambda tokens: tokens.logprobs_BT / 0.0, "returned a loss that is NaN or infinite"),
    "integers": (lambda tokens: tokens.logprobs_BT.long(), "a tensor of torch.int64, and a loss is of"),
    "in place": (lambda tokens: tokens.advantages_BT.mul_(2.0), "loss changed a tensor that it was given"),
}


@dataclass(frozen=True)
class Bad(LossTerm):
    how: str = "raises"

    def loss(self, tokens: TokenTensors) -> Any:
        return BAD[self.how][0](tokens)


@dataclass(frozen=True)
class BadSurrogate(PlainGradient):
    def is_clipped(self, tokens: TokenTensors) -> Any:
        return tokens.ratios_BT


def losses(deadline_seconds: float = 20.0, **settings: Any) -> TokenLosses:
    config = ObjectiveConfig.model_validate(settings)
    logprobs_BT, entropies_BT = policy_logprobs(BATCH, 2).requires_grad_(), policy_entropies(BATCH, 8).requires_grad_()
    deadline = Deadline(deadline_seconds)
    return Objective(config, deadline).of_tokens(logprobs_BT, entropies_BT, BATCH)


def test_a_term_is_added_to_the_loss() -> None:
    plain, more = losses(), losses(terms=[{"kind": f"{HERE}:Square", "coef": 2.0}])
    squares_BT = 2.0 * policy_logprobs(BATCH, 2).square().where(BATCH.is_answer_BT, 0.0)
    assert torch.allclose(more.loss_BT, plain.loss_BT + squares_BT)
    assert [torch.equal(own_BT, squares_BT) for own_BT in more.own_terms_BT] == [True]
    assert plain.own_terms_BT == ()


def test_the_usual_keys_stand_for_the_built_in_terms() -> None:
    keys = {"kl_coef": 0.3, "kl_estimator": "k1", "kl_max": None, "unbiased_kl": True}
    table = {"kind": "kl", "coef": 0.3, "estimator": "k1", "max": None, "unbiased": True}
    assert torch.equal(losses(**keys).loss_BT, losses(kl_coef=0.0, terms=table).loss_BT)
    entropies = [{"kind": "entropy", "coef": 0.2}, {"kind": "entropy-advantage", "coef": 0.1}]
    by_key = losses(kl_coef=0.0, entropy_coef=0.2, entropy_advantage_coef=0.1)
    assert torch.equal(by_key.loss_BT, losses(kl_coef=0.0, terms=entropies).loss_BT)
    config = ObjectiveConfig(entropy_coef=0.2, entropy_advantage_coef=0.1)
    assert config.all_terms == (KLTerm(), EntropyTerm(0.2), EntropyAdvantageTerm(0.1))


def test_the_reference_is_read_where_a_term_says_so() -> None:
    assert ObjectiveConfig().reads_reference
    assert not ObjectiveConfig(kl_coef=0.0, terms=(Square(),)).reads_reference
    assert ObjectiveConfig(kl_coef=0.0, terms=(Square(), ToReference())).reads_reference


def test_several_terms_of_one_kind_are_told_apart() -> None:
    config = ObjectiveConfig(terms=(Square(1.0), ToReference(), Square(2.0), EntropyTerm()))
    assert Objective(config).own_terms == (f"{HERE}:Square 1", f"{HERE}:ToReference", f"{HERE}:Square 2")


def test_surrogates_are_chosen_the_same_way() -> None:
    surrogate_BT = -BATCH.advantages_BT * policy_logprobs(BATCH, 2)
    own = losses(surrogate=f"{HERE}:PlainGradient", kl_coef=0.0, tis_level="off")
    assert torch.allclose(own.loss_BT, surrogate_BT.where(BATCH.is_answer_BT, 0.0))
    assert not own.is_clipped_BT.any()
    assert not losses(surrogate="none", kl_coef=0.0).loss_BT.any()
    with pytest.raises(InvalidInput, match="is_clipped returned a tensor of"):
        losses(surrogate=f"{HERE}:BadSurrogate")


@pytest.mark.parametrize("how", BAD)
def test_a_term_that_fails_ends_the_step_with_one_line(how: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^loss term {HERE}:Bad .*{re.escape(BAD[how][1])}") as refused:
        losses(0.1, terms=[{"kind": f"{HERE}:Bad", "how": how}])
    assert "\n" not in str(refused.value)
    BATCH.advantages_BT.copy_(micro_batch(1).advantages_BT)


def test_a_term_may_be_anything_at_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BAD, "padding", (lambda tokens: tokens.logprobs_BT / tokens.is_answer_BT, ""))
    assert losses(terms=[{"kind": f"{HERE}:Bad", "how": "padding"}]).loss_BT.isfinite().all()


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ("no_such_package:Term", "no_such_package:Term is not here"),
        (f"{HERE}:Gone", "is not there"),
        (f"{HERE}:HERE", "is no loss term"),
        ("kll", "no loss term is named 'kll': choose from kl, entropy, entropy-advantage"),
        ({"kind": f"{HERE}:Square", "coef": -1.0}, "coef is at least 0"),
        ({"kind": f"{HERE}:Square", "koef": 1.0}, "unknown key"),
        ({"kind": f"{HERE}:Square", "coef": "much"}, "valid number"),
    ],
)
def test_a_term_that_cannot_be_made_is_refused(terms: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        ObjectiveConfig.model_validate({"terms": terms})


def test_terms_travel_as_tables() -> None:
    config = ObjectiveConfig(terms=(Square(2.0), KLTerm(0.1)), surrogate=PlainGradient())
    assert ObjectiveConfig.model_validate(config.model_dump(mode="json")) == config
    assert TERMS.dump(Square(2.0)) == {"kind": f"{HERE}:Square", "coef": 2.0}
    assert SURROGATES.names == ("clip", "cispo", "none")
