"""Loss terms of the user's own: each call is bounded, and what it returns is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from services.learner.loss_terms import SURROGATES, TERMS, LossTerm, Surrogate, TokenTensors
from services.learner.model.memory import is_out_of_memory
from shared.errors import InvalidInput, describe
from shared.kinds import is_path

if TYPE_CHECKING:
    from shared.plugins.deadline import Deadline


class CheckedTerm:
    """A loss term of the user's own. InvalidInput, which ends the run, where it fails: a step cannot be half done."""

    def __init__(self, term: LossTerm | Surrogate, kind: str, deadline: Deadline) -> None:
        self.kind = kind
        self.reads_reference = getattr(term, "reads_reference", False)
        self._term = term
        self._deadline = deadline

    def loss(self, tokens: TokenTensors) -> Tensor:
        """The loss of every token, 0 at the padding."""
        loss_BT = self._call("loss", tokens)
        if not loss_BT.is_floating_point():
            raise self._refusal(f"returned a tensor of {loss_BT.dtype}, and a loss is of {tokens.logprobs_BT.dtype}")
        loss_BT = loss_BT.where(tokens.is_answer_BT, 0.0)
        if not loss_BT.detach().isfinite().all():
            raise self._refusal("returned a loss that is NaN or infinite")
        return loss_BT

    def is_clipped(self, tokens: TokenTensors) -> Tensor:
        """Of a surrogate: whose gradient it took away."""
        is_clipped_BT = self._call("is_clipped", tokens)
        if is_clipped_BT.dtype is not torch.bool:
            raise self._refusal(f"is_clipped returned a tensor of {is_clipped_BT.dtype}, not of torch.bool")
        return is_clipped_BT

    def _call(self, name: str, tokens: TokenTensors) -> Tensor:
        given = [one for field in TokenTensors.__slots__ if isinstance(one := getattr(tokens, field), Tensor)]
        before = [one._version for one in given]
        try:
            found = self._deadline.call(_in_thread_of, tokens.logprobs_BT.device, getattr(self._term, name), tokens)
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything
            if isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error):
                raise
            raise self._refusal(f"{name} failed: {describe(error)}") from error
        wanted = tokens.logprobs_BT
        if not isinstance(found, Tensor):
            raise self._refusal(f"{name} returned {found!r:.80}, not a tensor")
        if found.shape != wanted.shape:
            raise self._refusal(f"{name} returned the shape {[*found.shape]}, not that of tokens, {[*wanted.shape]}")
        if found.device != wanted.device:
            raise self._refusal(f"{name} returned a tensor on {found.device}, and tokens are on {wanted.device}")
        if before != [one._version for one in given]:
            raise self._refusal(f"{name} changed a tensor that it was given: write x * 2, not x.mul_(2)")
        return found

    def _refusal(self, reason: str) -> InvalidInput:
        return InvalidInput(f"loss term {self.kind} {' '.join(reason.split()):.300}")


def _in_thread_of(device: torch.device, function: Callable[[TokenTensors], Any], tokens: TokenTensors) -> Any:
    """Calls the function in a thread that is new, to which this device is the current one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return function(tokens)


def check_term(term: LossTerm, deadline: Deadline) -> LossTerm:
    """The term, checked at every call if it is the user's own."""
    kind = TERMS.kind_of(term)
    return cast(LossTerm, CheckedTerm(term, kind, deadline)) if is_path(kind) else term


def check_surrogate(surrogate: Surrogate, deadline: Deadline) -> Surrogate:
    """The surrogate, checked at every call if it is the user's own."""
    kind = SURROGATES.kind_of(surrogate)
    return cast(Surrogate, CheckedTerm(surrogate, kind, deadline)) if is_path(kind) else surrogate
