"""A pass with weights that no model holds: does what a model computes with them stay finite?"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

WeightOf = Callable[[str, torch.Size], torch.Tensor]
"""The weight that a state names so, of this shape."""


class DryRun:
    """A model's modules without weights: each is given its own while it computes, so that there is no second model."""

    def __init__(self, model: PreTrainedModel, token_ids: Sequence[int]) -> None:
        """`model` stays as it is."""
        without_memory = {
            id(weight): torch.nn.Parameter(weight.to("meta"), requires_grad=False) for weight in model.parameters()
        }
        self._model = copy.deepcopy(model, dict(without_memory))
        self._model.set_attn_implementation("eager")
        self._token_ids = torch.tensor([token_ids])
        self._weight_of: WeightOf | None = None
        for path, module in self._model.named_modules():
            if names := _stored_names(module):
                self._lend_weights(module, path, names)

    @torch.inference_mode()
    def has_finite_logits(self, weight_of: WeightOf) -> bool:
        """Over a few tokens, computed in the type of the weights. RuntimeError if the model takes weights in some other
        way than a module its own."""
        self._weight_of = weight_of
        try:
            logits = self._model(input_ids=self._token_ids, use_cache=False).logits
        finally:
            self._weight_of = None
        return bool(torch.isfinite(logits).all())

    def _lend_weights(self, module: torch.nn.Module, path: str, names: Sequence[str]) -> None:
        """Has the module take its weights before it computes, and give them back after."""
        stores = {name: module._parameters if name in module._parameters else module._buffers for name in names}
        empty = {name: store[name] for name, store in stores.items()}

        def take(*_: Any) -> None:
            assert self._weight_of is not None
            for name, store in stores.items():
                key = f"{path}.{name}" if path else name
                store[name] = self._weight_of(key, empty[name].shape)  # type: ignore[assignment, union-attr]

        def give_back(*_: Any) -> None:
            for name, store in stores.items():
                store[name] = empty[name]  # type: ignore[assignment]

        module.register_forward_pre_hook(take)
        module.register_forward_hook(give_back, always_call=True)


def _stored_names(module: torch.nn.Module) -> list[str]:
    """Of the module's own parameters and buffers, those that a state has."""
    own = {**module._parameters, **module._buffers}
    return [
        name for name, tensor in own.items() if tensor is not None and name not in module._non_persistent_buffers_set
    ]
