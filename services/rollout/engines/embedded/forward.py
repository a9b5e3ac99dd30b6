"""One forward pass over rows as a function of tensors, traced where that is safe.

For small models most of a pass is Python between tensor operations; a trace does without it, and lets go of the
interpreter lock for the whole pass (docs/results/engine.md). A trace is wrong where the model's Python looks into a
tensor, as routing to experts may: torch warns of that, and such a model is run as it is.
"""

import logging
import warnings
from collections.abc import Callable

import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from services.rollout.engines.embedded.attention import RowAttention
from services.rollout.engines.embedded.kv import KVShape, RowKV

log = logging.getLogger(__name__)

ForwardPass = Callable[..., torch.Tensor]


class EagerPass(torch.nn.Module):
    """The forward pass of a transformers model for the packed new tokens of a RowAttention; its first output."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        token_ids_1X: torch.Tensor,
        positions_1X: torch.Tensor,
        bias_PQT: torch.Tensor,
        place_PN: torch.Tensor,
        kv_MBHTD: torch.Tensor,
    ) -> torch.Tensor:
        output: torch.Tensor = self.model(
            input_ids=token_ids_1X,
            position_ids=positions_1X,
            use_cache=False,
            row_attention=RowAttention(bias_PQT, place_PN, kv_MBHTD),
        )[0]
        return output[0]


def inputs_at(
    rows: RowKV, first_row: int, token_ids_BN: torch.Tensor, positions_BN: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What a pass takes to feed N tokens to each of the B rows from `first_row` on."""
    at = RowAttention.at(rows, first_row, positions_BN)
    return token_ids_BN.view(1, -1), positions_BN.view(1, -1), at.bias_PQT, at.place_PN, at.kv_MBHTD


def traced(eager: EagerPass, shape: KVShape) -> ForwardPass:
    """`eager` as a trace that shares its weights, or `eager` itself where no trace can stand for it."""
    examples = [_example(shape, [[1, 2], [0, 1], [2, 3]]), _example(shape, [[2], [5], [0], [3]])]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", TracerWarning)
            trace: ForwardPass = torch.jit.trace(eager, examples[0], check_trace=False)  # type: ignore[no-untyped-call]
            if all(torch.allclose(eager(*example), trace(*example), atol=1e-4) for example in examples):
                return trace
            reason = "it computes something else"
    except (RuntimeError, TypeError, ValueError, SystemError, TracerWarning) as error:
        reason = str(error)[:200]
    log.warning("forward_pass_not_traced", extra={"reason": reason})
    return eager


def _example(shape: KVShape, positions: list[list[int]]) -> tuple[torch.Tensor, ...]:
    """Tokens at these positions of each row; the positions serve as token ids too."""
    positions_BN = torch.tensor(positions)
    return inputs_at(RowKV(shape, len(positions)), 0, positions_BN, positions_BN)
