"""The policy under training: a causal language model, its optimizer, and its layout on disk.

Shapes: R rows of S slots (`slots.py`), V tokens of the vocabulary.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from services.learner.config import OptimizerConfig
from services.learner.loss import entropies
from services.learner.slots import Slots
from shared.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of each slot's token given those it follows; of no meaning where a sequence begins."""

    logprobs_RS: Tensor
    entropies_RS: Tensor


class LanguageModel:
    """Log-probabilities of the temperature-scaled full softmax, of weights in training or frozen (a reference)."""

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        self.module = model.eval()  # dropout stays off: the engine that sampled had none
        self._temperature = temperature

    @classmethod
    def load(cls, directory: Path, temperature: float) -> "LanguageModel":
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
        return cls(module, temperature)

    def frozen(self) -> "LanguageModel":
        """A copy of it as it is now, that never changes: the reference of the KL term."""
        return LanguageModel(copy.deepcopy(self.module).requires_grad_(False), self._temperature)

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
        """One forward pass. Padding comes last in its row, where no real token sees it."""
        token_ids_RS, previous_RS = slots.token_ids_RS, slots.previous_RS
        logits_RSV = self.module(
            input_ids=token_ids_RS, attention_mask=slots.sees_R1SS, position_ids=slots.positions_RS, use_cache=False
        ).logits
        logits_RSV = logits_RSV.float() / self._temperature
        normalisers_RS = logits_RSV.logsumexp(-1)
        rows_R1 = torch.arange(len(token_ids_RS))[:, None]
        logprobs_RS = logits_RSV[rows_R1, previous_RS, token_ids_RS] - normalisers_RS[rows_R1, previous_RS]
        with torch.no_grad():
            entropies_RS = entropies(logits_RSV, normalisers_RS)[rows_R1, previous_RS]
        return TokenStatistics(logprobs_RS, entropies_RS)


class Policy:
    """A language model with AdamW. Matrices decay, vectors (norms, biases) do not."""

    def __init__(self, directory: Path, temperature: float, config: OptimizerConfig) -> None:
        self.model = LanguageModel.load(directory, temperature)
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
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm, foreach=True))
        is_finite = norm - norm == 0
        if is_finite:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm if is_finite else None

    def save(self, directory: Path) -> None:
        """Writes configuration, tokenizer and weights, as transformers and a rollout replica read them."""
        self.model.module.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def optimizer_state(self) -> dict[str, Any]:
        """For `restore_optimizer`; of tensors and plain values alone."""
        return self._optimizer.state_dict()

    def restore_optimizer(self, state: dict[str, Any]) -> None:
        """Goes on where `optimizer_state` was taken."""
        self._optimizer.load_state_dict(state)
