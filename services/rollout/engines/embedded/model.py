"""The policy: a transformers causal LM in float32 on the CPU, whose attention works on rows.

Shapes: B rows, N new tokens, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from services.rollout.engines.embedded.attention import (
    ATTENTION_NAME,
    DecodeAttention,
    PrefillAttention,
    RowAttention,
    ShapeProbe,
    Span,
)
from services.rollout.engines.embedded.kv import KVShape, RowKV
from services.rollout.engines.engine import EngineLimits
from shared.errors import InvalidInput

PROBE_TOKENS = 12
PROBE_TOLERANCE = 1e-3


class Policy:
    """Weights that serve. `prefill` computes a row's prefix, `decode` the logits after each row's newest token."""

    def __init__(self, model: PreTrainedModel, context_length: int | None = None) -> None:
        """Raises InvalidInput when the model does not compute over rows what it computes by itself."""
        own_context = int(model.config.max_position_embeddings)
        self.limits = EngineLimits(
            vocab_size=model.get_input_embeddings().num_embeddings,
            context_length=min(context_length or own_context, own_context),
        )
        self._model = model.eval().requires_grad_(False)
        # Without it GPT-2 looks for padding in every batch; rows have none.
        self._model.config.pad_token_id = None
        self.kv_shape = self._check_fitness()

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name; the next weights must have the same."""
        return {name: tuple(weight.shape) for name, weight in self._model.named_parameters()}

    @torch.inference_mode()
    def prefill(self, rows: RowKV, spans: Sequence[Span], token_ids: Sequence[int]) -> None:
        """Computes keys and values of the spans' tokens, which `token_ids` lists one span after the other."""
        positions = [position for span in spans for position in range(span.start, span.end)]
        self._forward(self._model.base_model, PrefillAttention(rows, spans), token_ids, positions)

    @torch.inference_mode()
    def decode(self, rows: RowKV, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Feeds one token to each of the first B rows at its position; the logits that follow, [B, V]."""
        logits: torch.Tensor = self._forward(
            self._model, DecodeAttention(rows, positions), token_ids, positions
        ).logits[0]
        return logits

    def _forward(
        self, model: torch.nn.Module, attention: RowAttention, token_ids: Sequence[int], positions: Sequence[int]
    ) -> Any:
        return model(
            input_ids=torch.tensor([token_ids]),
            position_ids=torch.tensor([positions]),
            use_cache=False,
            row_attention=attention,
        )

    def _check_fitness(self) -> KVShape:
        """Compares a prefill and a decode over rows with the model's own forward pass, and learns its KV shape."""
        token_ids = [index % self.limits.vocab_size for index in range(min(PROBE_TOKENS, self.limits.context_length))]
        last = len(token_ids) - 1
        with torch.inference_mode():
            probe = ShapeProbe()
            self._forward(self._model, probe, token_ids, range(last + 1))
            shape = probe.kv_shape()
            self._model.set_attn_implementation("eager")
            expected_V = self._model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0, -1]
            self._model.set_attn_implementation(ATTENTION_NAME)
        rows = RowKV(shape, 1)
        self.prefill(rows, [Span(0, 0, last)], token_ids[:last])
        logits_V = self.decode(rows, token_ids[last:], [last])[0]
        error, scale = float((logits_V - expected_V).abs().max()), float(expected_V.abs().max())
        if not error <= PROBE_TOLERANCE * max(scale, 1.0):
            raise InvalidInput(
                f"{self._model.config.model_type} is off by {error:g} on row attention (logits up to {scale:g}): "
                "the embedded engine serves causal LMs with plain softmax attention and finite logits"
            )
        return shape


def load_policy(snapshot: Path, context_length: int | None) -> Policy:
    """Reads a Hugging Face layout directory (config.json, model.safetensors); InvalidInput when it is unfit."""
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            snapshot,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation=ATTENTION_NAME,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(f"{snapshot} cannot be read as a causal LM: {error}; push a whole bundle again") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := report[kind]:
            raise InvalidInput(
                f"{snapshot}: {kind.replace('_', ' ')} {sorted(map(str, found))[:4]}: weights must fit config.json"
            )
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise InvalidInput(f"{snapshot}: {name} holds NaN or infinity; the training step that made it has failed")
    return Policy(model, context_length)
