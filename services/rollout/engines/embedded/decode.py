"""One decode pass as a function of tensors, traced where that is safe.

For small models most of a pass is Python between tensor operations; a trace does without it and holds no interpreter
lock (docs/results/engine.md). A trace is wrong where the model's Python looks into a tensor, as routing to experts may:
torch warns of that, and such a model is run as it is.
"""

import logging
import warnings
from collections.abc import Callable

import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from transformers import PreTrainedModel

from services.rollout.engines.embedded.attention import DecodeAttention
from services.rollout.engines.embedded.kv import KVShape, RowKV

log = logging.getLogger(__name__)

DecodePass = Callable[..., torch.Tensor]


class EagerDecode(torch.nn.Module):
    """The model's own forward pass over the rows that a DecodeAttention describes; logits [B, V]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        token_ids_1B: torch.Tensor,
        positions_1B: torch.Tensor,
        bias_P1T: torch.Tensor,
        place_P: torch.Tensor,
        keys_LRHTD: torch.Tensor,
        values_LRHTD: torch.Tensor,
    ) -> torch.Tensor:
        attention = DecodeAttention(bias_P1T, place_P, keys_LRHTD, values_LRHTD)
        logits_1BV: torch.Tensor = self.model(
            input_ids=token_ids_1B, position_ids=positions_1B, use_cache=False, row_attention=attention
        ).logits
        return logits_1BV[0]


def traced(eager: EagerDecode, shape: KVShape) -> DecodePass:
    """`eager` as a trace that shares its weights, or `eager` itself where no trace can stand for it."""
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", TracerWarning)
            trace: DecodePass = torch.jit.trace(eager, _example(shape, [1, 0, 1]), check_trace=False)  # type: ignore[no-untyped-call]
            expected, found = (decode(*_example(shape, [4, 0, 1, 1, 2])) for decode in (eager, trace))
    except (RuntimeError, TypeError, ValueError, TracerWarning) as error:
        log.warning("decode_not_traced", extra={"reason": str(error)[:200]})
        return eager
    return trace if torch.allclose(expected, found, atol=1e-5) else eager


def _example(shape: KVShape, positions: list[int]) -> tuple[torch.Tensor, ...]:
    """One token at each of `positions`, which serve as token ids too."""
    rows = RowKV(shape, len(positions))
    at = DecodeAttention.at(rows, positions)
    positions_1B = torch.tensor([positions])
    return positions_1B, positions_1B, at.bias_P1T, at.place_P, at.keys_LRHTD, at.values_LRHTD
