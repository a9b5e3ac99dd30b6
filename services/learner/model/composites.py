"""The language model of a composite, such as one that sees images: what of it can be trained on text."""

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from shared.errors import InvalidInput

_TOLERANCE = 1e-5
"""Of a logit against the largest; both compute the same operations."""


def language_model_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or of a composite its language model as a causal language model of its own, which computes the
    same of text. InvalidInput where there is none, or it computes something else."""
    config = model.config.get_text_config()
    if config is model.config:
        return model
    refusal = InvalidInput(
        f"{model.config.model_type} is a composite of a language model and others; save its language model alone, as "
        f"{config.model_type}, and give that directory"
    )
    head = model.get_output_embeddings()
    try:
        alone = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except ValueError as error:  # no causal language model has this configuration
        raise refusal from error
    decoders = [part for part in model.modules() if type(part) is type(alone.base_model)]
    if len(decoders) != 1 or head is None:
        raise refusal
    alone.base_model.load_state_dict(decoders[0].state_dict())
    alone.get_output_embeddings().load_state_dict(head.state_dict())
    alone.tie_weights()
    alone.generation_config = model.generation_config
    if not _agree(model, alone):
        raise refusal
    return alone


@torch.no_grad()
def _agree(model: PreTrainedModel, alone: PreTrainedModel) -> bool:
    input_ids = torch.arange(min(12, alone.config.vocab_size))[None]

    def logits_of(one: PreTrainedModel) -> Tensor:
        logits: Tensor = one.eval()(input_ids=input_ids, use_cache=False).logits
        return logits

    expected, found = logits_of(model), logits_of(alone)
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp(min=1.0))
