"""What a policy's weights say of the act-probe: one forward pass, by the model's own head.

Shapes: T tokens, V of the vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from services.learner.model.process_group import ProcessGroup


@torch.no_grad()
def score_tokens(module: PreTrainedModel, token_ids: Sequence[int], process_group: ProcessGroup) -> list[float]:
    """log p of every token but the first, at temperature 1, whatever the policy trains at. Collective."""
    ids_1T = torch.tensor([token_ids], device=process_group.device)
    positions_1T = torch.arange(len(token_ids), device=process_group.device)[None]
    with process_group.autocast():
        logits_1TV: Tensor = module(
            input_ids=ids_1T, attention_mask=None, position_ids=positions_1T, use_cache=False
        ).logits
    logprobs_TV = logits_1TV[0, :-1].float().log_softmax(-1)
    found: list[float] = logprobs_TV.gather(1, ids_1T[0, 1:, None])[:, 0].tolist()
    return found
