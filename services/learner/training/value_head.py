"""A value head: from the policy's hidden state where a node ends to the probability that an answer through it is right.

Shapes: N nodes, D units of the policy's last layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from services.learner.value_config import ValueHeadConfig

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class ValueHead:
    """A linear or two-layer head with its own AdamW, on the CPU of the rank that takes trees in.

    It learns by binary cross-entropy with the nodes' counts, each node weighed by its leaves. States come without a
    gradient: the policy does not learn from it.
    """

    def __init__(self, width: int, config: ValueHeadConfig, seed: int) -> None:
        """`width`: D. The first values are 1/2."""
        self._updates = config.updates
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            layers: list[nn.Module] = [nn.LayerNorm(width, elementwise_affine=False)]
            if config.hidden:
                layers += [nn.Linear(width, config.hidden), nn.GELU()]
            last = nn.Linear(config.hidden or width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self._layers = nn.Sequential(*layers, last)
        self._optimizer = torch.optim.AdamW(
            self._layers.parameters(), lr=config.head_lr, weight_decay=config.head_weight_decay
        )

    @torch.no_grad()
    def values(self, states_ND: Tensor) -> list[float]:
        found: list[float] = self._logits(states_ND).sigmoid().tolist()
        return found

    def learn(self, states_ND: Tensor, values: Sequence[float], num_leaves: Sequence[float]) -> None:
        """Some optimizer steps on −Σ n·(v·log p + (1 − v)·log(1 − p))/Σ n; none where a gradient is not finite."""
        values_N, weights_N = torch.tensor(values), torch.tensor(num_leaves, dtype=torch.float32)
        for _ in range(self._updates):
            losses_N = nn.functional.binary_cross_entropy_with_logits(
                self._logits(states_ND), values_N, reduction="none"
            )
            self._optimizer.zero_grad()
            ((losses_N * weights_N).sum() / weights_N.sum()).backward()  # type: ignore[no-untyped-call]
            gradients = [one.grad for one in self._layers.parameters() if one.grad is not None]
            if not all(bool(one.isfinite().all()) for one in gradients):
                return
            self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """A copy of all that a checkpoint keeps, by name."""
        tensors = {f"head.{name}": one.detach().clone() for name, one in self._layers.named_parameters()}
        for name, parameter in self._layers.named_parameters():
            moments = self._optimizer.state.get(parameter, {})
            tensors |= {f"moments.{name}.{moment}": value.clone() for moment, value in moments.items()}
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Goes on as `state` had it. KeyError or ValueError where it is of a head of another shape."""
        for name, parameter in self._layers.named_parameters():
            saved = tensors[f"head.{name}"]
            if saved.shape != parameter.shape:
                raise ValueError(f"{name} is {[*saved.shape]}, and {[*parameter.shape]} is wanted")
            parameter.data.copy_(saved)
            moments = {one: tensors[f"moments.{name}.{one}"] for one in _MOMENTS if f"moments.{name}.{one}" in tensors}
            if moments:
                self._optimizer.state[parameter] = {one: value.clone() for one, value in moments.items()}

    def _logits(self, states_ND: Tensor) -> Tensor:
        logits_N1: Tensor = self._layers(states_ND)
        return logits_N1[:, 0]
