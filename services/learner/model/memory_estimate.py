"""How much memory training takes, told before anything is loaded: from config.json and the settings alone.

Of one rank of n, with P parameters, of which T are trained, in passes of C columns, over V tokens of D units, in bytes:

    weights 4P/n, gradients 4T/n, AdamW's moments 8T/n, reference 4P/n (2P/n in bfloat16)
    activations C·a, where a is what autograd keeps of one column: counted on a model without weights
    head: 2·min(128 MiB, 4·C·V) of logits, and 4·V·D for the gradient of its weights
    and in the machine's memory: while a checkpoint is written 4P + 8T/n; of rank 0, two copies of what is published

Adapters are trained on a frozen model in the precision of the products, 2P or 4P, which is their reference, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from services.learner.config import ALL_LINEAR, LearnerConfig, Precision
from services.learner.model.head import CHUNK_BYTES

_FEW, _MANY = 32, 96
"""Columns of two passes: what the second keeps beyond the first is of the columns between."""
_HALVED = 0.7
"""Of the activations in float32, what is kept where products are in bfloat16: norms and residuals stay as they are."""
_PUBLISHED_COPIES = 2
"""Of the policy, as `serving.publisher` has them."""
_FEWEST_COLUMNS, _TRAJECTORIES = 2048, 8
"""As `training.packing.default_budget` has it."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What memory depends on, in float32."""

    num_parameters: int
    num_trained: int
    vocab_size: int
    hidden_size: int
    num_layers: int
    column_bytes: float
    """What autograd keeps of one column."""

    @classmethod
    def of(cls, config: PreTrainedConfig, lora: Any = None) -> "ModelSize":
        """Of the text model that the configuration describes; `lora` is an AdapterConfig."""
        text = config.get_text_config()
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(text)
        num_parameters = sum(one.numel() for one in module.parameters())
        num_trained = num_parameters if lora is None else _count_adapters(module, lora.target_modules, lora.rank)
        per_column = (_saved_bytes(module, _MANY) - _saved_bytes(module, _FEW)) / (_MANY - _FEW)
        return cls(num_parameters, num_trained, text.vocab_size, text.hidden_size, text.num_hidden_layers, per_column)

    def activation_bytes(self, columns: int, *, are_computed_again: bool, is_half: bool) -> int:
        """With `are_computed_again` (activation_checkpointing), the inputs of all layers, and all of one layer."""
        kept = self.column_bytes * (_HALVED if is_half else 1.0)
        if are_computed_again:
            kept = kept / self.num_layers + 4 * self.hidden_size * self.num_layers
        return int(columns * kept)


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """In bytes, of one rank."""

    weights: int
    gradients: int
    moments: int
    reference: int
    activations: int
    head: int
    checkpoint: int
    """In the machine's memory, while a checkpoint is written beside training."""
    publishing: int
    """The same of rank 0: a copy of the policy, as replicas get it, that is written, and one that waits."""

    @classmethod
    def of(cls, size: ModelSize, config: LearnerConfig, columns: int, num_ranks: int = 1) -> "TrainingMemory":
        """Of passes with so many columns."""
        is_half = config.precision is Precision.BFLOAT16
        frozen = 2 if is_half and config.lora is not None else 4
        of_reference = 2 if config.reference.precision is Precision.BFLOAT16 else 4
        keeps_reference = config.needs_reference and config.lora is None and not config.reference.offload
        logits = 2 * min(CHUNK_BYTES, 4 * columns * size.vocab_size)
        return cls(
            weights=(frozen * size.num_parameters + (4 * size.num_trained if config.lora else 0)) // num_ranks,
            gradients=4 * size.num_trained // num_ranks,
            moments=8 * size.num_trained // num_ranks,
            reference=of_reference * size.num_parameters // num_ranks if keeps_reference else 0,
            activations=size.activation_bytes(
                columns, are_computed_again=config.activation_checkpointing, is_half=is_half
            ),
            head=logits + (4 * size.vocab_size * size.hidden_size if config.lora is None else 0),
            checkpoint=4 * (size.num_trained if config.lora else size.num_parameters)
            + 8 * size.num_trained // num_ranks,
            publishing=_PUBLISHED_COPIES * (2 if is_half else 4) * size.num_parameters,
        )

    @property
    def lasting(self) -> int:
        """What is there between passes, too."""
        return self.weights + self.gradients + self.moments + self.reference

    @property
    def copies(self) -> int:
        """In the machine's memory, beside training: what is written meanwhile."""
        return self.checkpoint + self.publishing

    @property
    def peak(self) -> int:
        return self.lasting + self.activations + self.head


def most_columns(config: LearnerConfig, longest: int) -> int:
    """Of a pass, where the longest trajectory has so many tokens."""
    budget = config.objective.micro_batch_tokens or max(_FEWEST_COLUMNS, _TRAJECTORIES * longest)
    in_a_step = config.batch_size * config.growth.sampler.num_draws * longest
    return max(longest, min(budget, in_a_step))


def _count_adapters(module: PreTrainedModel, targets: Sequence[str], rank: int) -> int:
    """Parameters of LoRA adapters on these layers."""
    head = module.get_output_embeddings()
    layers = {
        name: one for name, one in module.named_modules() if isinstance(one, nn.Linear | Conv1D) and one is not head
    }
    wanted = [one for name, one in layers.items() if ALL_LINEAR in targets or name.rpartition(".")[2] in targets]
    return sum(rank * sum(one.weight.shape) for one in wanted)


def _saved_bytes(module: PreTrainedModel, columns: int) -> int:
    """What autograd keeps of a pass through all layers, the weights apart."""
    own = {one.untyped_storage()._cdata for one in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module.base_model(
            input_ids=torch.zeros(1, columns, dtype=torch.long),
            attention_mask=torch.zeros(1, 1, columns, columns),
            position_ids=torch.arange(columns)[None],
            use_cache=False,
        )
    return sum(storage.nbytes() for storage in kept.values())
