"""Routers of a mixture of experts, and the loss that keeps them from sending all tokens to a few experts.

Shapes: R rows of S columns (`prefix_rows.py`).
"""

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from shared.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Routers:
    """Each sends a token to `num_chosen` of `num_experts`."""

    num_experts: int
    num_chosen: int

    @classmethod
    def of(cls, module: PreTrainedModel) -> "Routers":
        """InvalidInput where the model is no mixture, or does not give its routers' logits."""
        config = module.config
        num_experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
        if not num_experts or not hasattr(config, "output_router_logits"):
            raise InvalidInput(
                f"learner.objective.router_coef balances the routers of a mixture of experts, and {config.model_type} "
                "gives none: leave it at 0"
            )
        return cls(num_experts, config.num_experts_per_tok)

    def balance_loss(self, router_logits: tuple[Tensor, ...], is_real_RS: Tensor) -> Tensor:
        """E·Σ_e f_e·P_e over the columns that are no padding and all layers: f_e the share of columns sent to expert e,
        times `num_chosen`; P_e its mean probability. It is `num_chosen` where all experts are used alike."""
        loss: Tensor = load_balancing_loss_func(router_logits, self.num_experts, self.num_chosen, is_real_RS)
        return loss
