"""The policy under training: a causal language model, its optimizer, and its layout on disk."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from services.learner.config import OptimizerConfig
from services.learner.loss import entropies
from shared.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of each token given those before it; column 0, which nothing predicts, is 0."""

    logprobs_BT: Tensor
    entropies_BT: Tensor


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

    def statistics(self, token_ids_BT: Tensor) -> TokenStatistics:
        """One forward pass. Rows are padded on the right: under a causal mask no real token sees the padding."""
        logits_BTV = self.module(input_ids=token_ids_BT[:, :-1], use_cache=False).logits
        distributions_BTV = torch.log_softmax(logits_BTV.float() / self._temperature, dim=-1)
        logprobs_BT = distributions_BTV.gather(-1, token_ids_BT[:, 1:, None]).squeeze(-1)
        with torch.no_grad():
            entropies_BT = entropies(distributions_BTV)
        return TokenStatistics(
            torch.nn.functional.pad(logprobs_BT, (1, 0)), torch.nn.functional.pad(entropies_BT, (1, 0))
        )


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
