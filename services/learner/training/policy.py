"""The policy under training: a causal language model, its optimizer, and its layout on disk.

Shapes: R rows of S slots (`slots.py`), V tokens of the vocabulary.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from services.learner.config import OptimizerConfig
from services.learner.training.loss import entropies
from services.learner.training.prefix_rows import Slots
from services.learner.training.process_group import ALONE, World
from shared.errors import InvalidInput

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of each slot's token given those it follows; of no meaning where a sequence begins."""

    logprobs_RS: Tensor
    entropies_RS: Tensor


class LanguageModel:
    """Log-probabilities of the temperature-scaled full softmax, of weights in training or frozen (a reference)."""

    def __init__(self, module: PreTrainedModel, temperature: float, world: World) -> None:
        self.module = module
        self._temperature = temperature
        self._world = world

    @classmethod
    def load(
        cls, directory: Path, temperature: float, world: World = ALONE, *, is_frozen: bool = False
    ) -> "LanguageModel":
        """InvalidInput for a directory that transformers cannot read, or weights that are not finite."""
        try:
            module = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(f"learner.model {directory} is no policy that transformers can read: {error}") from error
        for name, tensor in module.named_parameters():
            if not torch.isfinite(tensor).all():
                raise InvalidInput(
                    f"learner.model {directory}: weight {name} holds NaN or infinity; take another checkpoint"
                )
        module.eval().requires_grad_(not is_frozen)  # dropout stays off: the engine that sampled had none
        world.place(module, _layers_of(module))
        return cls(module, temperature, world)

    @property
    def context_length(self) -> int:
        """The longest trajectory, prompt included."""
        return int(self.module.config.max_position_embeddings)

    @property
    def vocab_size(self) -> int:
        """Token ids lie below it."""
        return int(self.module.config.vocab_size)

    @property
    def shares_prefixes(self) -> bool:
        """Whether sequences that begin alike can be computed together: every layer sees all that a token follows."""
        config = self.module.config
        kinds = getattr(config, "layer_types", None) or ()
        return all(kind == "full_attention" for kind in kinds) and not getattr(config, "sliding_window", None)

    def statistics(self, slots: Slots) -> TokenStatistics:
        """One forward pass, on the model's device. Padding comes last in its row, where no real token sees it."""
        token_ids_RS, previous_RS = slots.token_ids_RS, slots.previous_RS
        with self._world.in_precision():
            logits_RSV = self.module(
                input_ids=token_ids_RS, attention_mask=slots.sees_R1SS, position_ids=slots.positions_RS, use_cache=False
            ).logits
        logits_RSV = logits_RSV.float() / self._temperature
        normalisers_RS = logits_RSV.logsumexp(-1)
        rows_R1 = torch.arange(len(token_ids_RS), device=token_ids_RS.device)[:, None]
        logprobs_RS = logits_RSV[rows_R1, previous_RS, token_ids_RS] - normalisers_RS[rows_R1, previous_RS]
        with torch.no_grad():
            entropies_RS = entropies(logits_RSV, normalisers_RS)[rows_R1, previous_RS]
        return TokenStatistics(logprobs_RS, entropies_RS)


class Policy:
    """A language model with AdamW. Matrices decay, vectors (norms, biases) do not.

    Where several processes train it, all of them apply gradients, and ask for weights and moments, together.
    """

    def __init__(self, directory: Path, temperature: float, config: OptimizerConfig, world: World = ALONE) -> None:
        self.model = LanguageModel.load(directory, temperature, world)
        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self._max_grad_norm = config.max_grad_norm
        self._parameters = list(self.model.module.parameters())
        groups = [
            {"params": [p for p in self._parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in self._parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)

    def apply_gradients(self, learning_rate: float) -> float | None:
        """One step of AdamW on the gradients so far, which it clears: their norm before clipping.

        None, with the weights as they were, when a gradient is NaN or infinite.
        """
        norm = float(_whole(torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm, foreach=True)))
        is_finite = norm - norm == 0
        if is_finite:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm if is_finite else None

    def weights(self) -> dict[str, Tensor]:
        """All weights, whole and on the CPU, tied ones once; of several processes the first alone gets them."""
        tied = self.model.module.all_tied_weights_keys
        state = get_model_state_dict(self.model.module, options=_WHOLE)
        return {name: cast(Tensor, tensor) for name, tensor in state.items() if name not in tied}

    def write(self, directory: Path, weights: dict[str, Tensor]) -> None:
        """Writes configuration, tokenizer and `weights`, as transformers and a rollout replica read them."""
        self.model.module.save_pretrained(directory, state_dict=weights)
        self.tokenizer.save_pretrained(directory)
        _note_dtype(directory / "config.json", next(iter(weights.values())).dtype)

    def save(self, directory: Path) -> None:
        """Writes the policy as it is in training. For a process that trains alone."""
        self.write(directory, self.weights())

    def optimizer_state(self) -> dict[str, Any]:
        """For `restore_optimizer`: whole, by the names of weights, of tensors and plain values alone; of several
        processes the first alone gets it. Nothing before the first step, which reading would take."""
        if not self._optimizer.state:
            return {}
        return get_optimizer_state_dict(self.model.module, self._optimizer, options=_WHOLE)

    def restore_optimizer(self, state: dict[str, Any]) -> None:
        """Goes on where `optimizer_state` was taken, by however many processes."""
        if state:
            set_optimizer_state_dict(
                self.model.module, self._optimizer, state, options=StateDictOptions(full_state_dict=True)
            )


def _layers_of(module: PreTrainedModel) -> list[nn.Module]:
    """What its architecture names as a unit: its decoder layers."""
    return [part for part in module.modules() if type(part).__name__ in (module._no_split_modules or ())]


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _note_dtype(path: Path, dtype: torch.dtype) -> None:
    """transformers notes the dtype of the module, an engine serves in the one that it finds there."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}, indent=2))
