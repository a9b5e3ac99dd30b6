"""The policy's model: a transformers causal LM on the CPU whose attention works on rows.

Shapes: B rows, N new tokens of each, V vocabulary.
"""

from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from services.rollout.engines.embedded.attention import ATTENTION_NAME, ShapeProbe
from services.rollout.engines.embedded.forward import EagerPass, ForwardPass, trace
from services.rollout.engines.embedded.half import halve_products, should_halve
from services.rollout.engines.embedded.in_place import BundleWeights, Placement, is_finite
from services.rollout.engines.embedded.kv import KVShape, RowKV
from services.rollout.engines.engine import EngineLimits
from shared.errors import InvalidInput
from shared.hub import log_loading
from shared.runtime.logs import event_logger
from shared.weights import ContextBounds, TensorShape, require_same_tensors

log = event_logger(__name__)

PROBE_TOKENS = 12
PROBE_TOLERANCE = 1e-3


class PolicyModel:
    """`prefill` computes the keys and values of rows' prefixes, `decode` the logits after each row's newest token, and
    `score` those after each of several."""

    def __init__(self, model: PreTrainedModel, context_length: int | None, snapshot: Path, *, halve: bool) -> None:
        """Raises InvalidInput if the model, just loaded from `snapshot`, computes something else over rows than with
        its own attention. `halve`: matrix products in bfloat16, else all is float32."""
        self.limits = EngineLimits(
            vocab_size=model.get_input_embeddings().num_embeddings,
            context_length=_context_length(model.config, context_length),
        )
        self._model = model.eval().requires_grad_(False)
        # With a padding token GPT-2 searches every batch for padding; rows have none.
        self._model.config.pad_token_id = None
        # It says which gradient is 0, but torch checks it against the weight, which a trace cannot follow.
        for embedding in (part for part in model.modules() if isinstance(part, torch.nn.Embedding)):
            embedding.padding_idx = None
        self._should_trace = False
        self.kv_shape = _kv_shape(model)
        self._prefill_pass: ForwardPass = EagerPass(model.base_model, self.kv_shape)
        self._decode_pass: ForwardPass = EagerPass(model, self.kv_shape)
        self._check_row_attention()
        self._shapes = _shapes(model)
        self.is_halved = halve
        self._computation = _computation(model) | {"halved": halve}
        self._placement = Placement.find(model, snapshot, self._probe_ids())
        if halve:  # after the checks: rounding would hide what they look for
            halve_products(model)

    @property
    def is_traced(self) -> bool:
        return not isinstance(self._decode_pass, EagerPass)

    def trace(self) -> None:
        """Makes the passes faster if the model allows it; takes as long as some hundred passes."""
        self._should_trace = True
        self._prefill_pass = trace(EagerPass(self._model.base_model, self.kv_shape), self.kv_shape)
        self._decode_pass = trace(EagerPass(self._model, self.kv_shape), self.kv_shape)

    def check_successor(self, new: "PolicyModel") -> None:
        """Raises InvalidInput unless `new` is the same model with other weights: it must serve the same requests."""
        require_same_tensors(self._shapes, new._shapes)
        if (new.limits, new.kv_shape) != (self.limits, self.kv_shape):
            raise InvalidInput(f"{new.limits}, served are {self.limits}: one run, one model")

    def open_weights(self, snapshot: Path) -> BundleWeights | None:
        """The weights of another bundle, ready to be adopted; None if it must be loaded. See Placement.open."""
        return self._placement.open(snapshot) if self._placement is not None else None

    @torch.inference_mode()
    def adopt(self, new: "NewWeights") -> "PolicyModel":
        """The model that serves from now on: this one with the weights of `new`, its trace kept, if they differ in
        nothing else; otherwise `new`."""
        if isinstance(new, BundleWeights):
            new.copy_into(self._model.state_dict())
            return self
        if new._computation != self._computation:
            if self._should_trace:
                new.trace()
            return new
        new_weights = new._model.state_dict()
        for name, weight in self._model.state_dict().items():
            weight.copy_(new_weights[name])
        self._placement = new._placement
        return self

    @torch.inference_mode()
    def prefill(self, rows: RowKV, first_row: int, starts: Sequence[int], token_ids: Sequence[Sequence[int]]) -> None:
        """Computes keys and values of token_ids[b], at the positions from starts[b] on in row `first_row + b`."""
        self._prefill_pass(*_pack(rows, first_row, starts, token_ids))

    @torch.inference_mode()
    def score(
        self, rows: RowKV, first_row: int, starts: Sequence[int], token_ids: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        """As `prefill`, and returns the logits after each token [N, V] of each row."""
        logits_XV = self._decode_pass(*_pack(rows, first_row, starts, token_ids))
        logits_BNV = logits_XV.view(len(token_ids), -1, logits_XV.shape[-1])
        return [logits_NV[: len(ids)] for logits_NV, ids in zip(logits_BNV, token_ids, strict=True)]

    @torch.inference_mode()
    def decode(self, rows: RowKV, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Feeds one token to each of the first B rows at its position; returns the logits [B, V]."""
        tokens_B1, positions_B1 = torch.tensor(token_ids)[:, None], torch.tensor(positions)[:, None]
        time_T = torch.arange(max(positions) + 1)
        return self._decode_pass(tokens_B1, positions_B1, time_T, rows.kv_MRHTD[:, : len(positions)])

    def _check_row_attention(self) -> None:
        """Compares a prefill and a decode over rows with the model's own attention."""
        token_ids = self._probe_ids()
        last = len(token_ids) - 1
        self._model.set_attn_implementation("eager")
        with torch.inference_mode():
            expected_V = self._model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0, -1]
        self._model.set_attn_implementation(ATTENTION_NAME)
        rows = RowKV(self.kv_shape, 1)
        self.prefill(rows, 0, [0], [token_ids[:last]])
        logits_V = self.decode(rows, token_ids[last:], [last])[0]
        error, scale = float((logits_V - expected_V).abs().max()), float(expected_V.abs().max())
        if not error <= PROBE_TOLERANCE * max(scale, 1.0):
            raise InvalidInput(
                f"{self._model.config.model_type} is off by {error:g} on row attention (logits up to {scale:g}): "
                "the embedded engine serves causal LMs with plain softmax attention and finite logits"
            )

    def _probe_ids(self) -> list[int]:
        return [index % self.limits.vocab_size for index in range(min(PROBE_TOKENS, self.limits.context_length))]


def _pack(
    rows: RowKV, first_row: int, starts: Sequence[int], token_ids: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, ...]:
    """What a pass takes to feed token_ids[b] to row `first_row + b` from position starts[b] on."""
    width = max(map(len, token_ids))
    # A shorter row repeats its last token at its last position, which changes nothing.
    tokens_BN = torch.tensor([[*ids, *repeat(ids[-1], width - len(ids))] for ids in token_ids])
    last_B1 = torch.tensor([[start + len(ids) - 1] for start, ids in zip(starts, token_ids, strict=True)])
    positions_BN = torch.minimum(torch.tensor(starts)[:, None] + torch.arange(width), last_B1)
    time_T = torch.arange(int(last_B1.max()) + 1)
    return tokens_BN, positions_BN, time_T, rows.kv_MRHTD[:, first_row : first_row + len(starts)]


@torch.inference_mode()
def _kv_shape(model: PreTrainedModel) -> KVShape:
    """The shape of keys and values, from a pass over one token."""
    probe = ShapeProbe()
    model(input_ids=torch.tensor([[0]]), use_cache=False, row_attention=probe)
    return probe.kv_shape()


def _context_length(config: PreTrainedConfig, wanted: int | None) -> int:
    """The longest context with plain attention; windowed attention is plain up to the window's length."""
    length = ContextBounds.of(config.to_dict()).context_length(wanted)
    if length is None:
        raise InvalidInput(f"{config.model_type} does not say how long a context may be: set context_length")
    return length


def _shapes(model: PreTrainedModel) -> dict[str, TensorShape]:
    return {name: TensorShape(str(weight.dtype), tuple(weight.shape)) for name, weight in model.state_dict().items()}


def _computation(model: PreTrainedModel) -> dict[str, Any]:
    """The part of the configuration that decides what the model computes."""
    bookkeeping = {"_name_or_path", "transformers_version", "dtype", "architectures"}
    return {key: value for key, value in model.config.to_dict().items() if key not in bookkeeping}


NewWeights: TypeAlias = PolicyModel | BundleWeights


def load_model(snapshot: Path, context_length: int | None, *, halve: bool | None = False) -> PolicyModel:
    """Reads a directory in Hugging Face layout (config.json, model.safetensors); InvalidInput if it is unfit.

    `halve`: as `PolicyModel` has it; None: where that is quicker and loses nothing of the weights.
    """
    model = _read_model(snapshot)
    if isinstance(model, str):
        raise InvalidInput(model)
    return PolicyModel(model, context_length, snapshot, halve=should_halve(snapshot) if halve is None else halve)


def _read_model(snapshot: Path) -> PreTrainedModel | str:
    """The model in float32, or why the directory is unfit: an exception raised here would hold on to its files."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with log_loading(snapshot):
            model, report = AutoModelForCausalLM.from_pretrained(
                snapshot,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=ATTENTION_NAME,
                output_loading_info=True,
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        return f"{snapshot} cannot be read as a causal LM: {error}; save or push the whole model again"
    for finding in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := report[finding]:
            return (
                f"{snapshot}: {finding.replace('_', ' ')} {sorted(map(str, found))[:4]}: weights must fit config.json"
            )
    for name, weight in model.state_dict().items():
        if not is_finite(weight):
            return f"{snapshot}: {name} holds NaN or infinity; the update that made it failed"
    for weight in (*model.parameters(), *model.buffers()):
        weight.data = weight.data.clone()  # where nothing was converted, it lies in the file
    return model


def load_successor(
    served: PolicyModel,
    snapshot: Path,
    context_length: int | None,
    *,
    halve: bool | None = False,
    afresh: bool = False,
) -> NewWeights:
    """Reads and checks what `served` can adopt: weights alone where nothing else has changed, else a second model, as
    also where they shall come `afresh`."""
    weights = None if afresh else served.open_weights(snapshot)
    if weights is not None:
        return weights
    log.info("weights_load_as_a_second_model", snapshot=str(snapshot))
    new = load_model(snapshot, context_length, halve=halve)
    served.check_successor(new)
    return new
