"""One forward pass over rows as a function of tensors, traced where that is safe.

For small models most of a pass is Python between tensor operations. A trace skips it and releases the interpreter lock
for the whole pass (docs/results/engine.md). A trace is wrong if the model's Python depends on tensor values, as routing
to experts may; torch warns of that, and such a model runs untraced.
"""

import warnings
from collections.abc import Callable

import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from services.rollout.engines.embedded.attention import RowAttention
from services.rollout.engines.embedded.kv import KVShape, RowKV
from shared.runtime.logs import event_logger

log = event_logger(__name__)

ForwardPass = Callable[..., torch.Tensor]


class EagerPass(torch.nn.Module):
    """Feeds N tokens to each of B rows of a transformers model; returns its first output for the B * N tokens."""

    def __init__(self, model: torch.nn.Module, shape: KVShape) -> None:
        super().__init__()
        self.model = model
        self.group_size = shape.group_size

    def forward(
        self, token_ids_BN: torch.Tensor, positions_BN: torch.Tensor, time_T: torch.Tensor, kv_MBHTD: torch.Tensor
    ) -> torch.Tensor:
        output: torch.Tensor = self.model(
            input_ids=token_ids_BN.view(1, -1),
            position_ids=positions_BN.view(1, -1),
            use_cache=False,
            row_attention=RowAttention.at(positions_BN, time_T, kv_MBHTD, self.group_size),
        )[0]
        return output[0]


def trace(eager: EagerPass, shape: KVShape) -> ForwardPass:
    """A trace of `eager` that shares its weights, or `eager` itself if a trace computes something else."""
    examples = [_example(shape, [[1, 2], [0, 1], [2, 3]]), _example(shape, [[2], [5], [0], [3]])]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", TracerWarning)
            traced: ForwardPass = torch.jit.trace(eager, examples[0], check_trace=False)  # type: ignore[no-untyped-call]
            if all(torch.allclose(eager(*example), traced(*example), atol=1e-4) for example in examples):
                return traced
            reason = "it computes something else"
    except (RuntimeError, TypeError, ValueError, SystemError, TracerWarning) as error:
        reason = str(error)[:200]
    log.warning("forward_pass_not_traced", reason=reason)
    return eager


def _example(shape: KVShape, positions: list[list[int]]) -> tuple[torch.Tensor, ...]:
    """Inputs with tokens at these positions of each row; the positions are the token ids too."""
    positions_BN = torch.tensor(positions)
    kv_MBHTD = RowKV(shape, len(positions)).kv_MRHTD
    return positions_BN, positions_BN, torch.arange(int(positions_BN.max()) + 1), kv_MBHTD
