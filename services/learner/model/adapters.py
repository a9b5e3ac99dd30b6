"""LoRA adapters of a policy's linear layers: attached by peft, merged into a copy of the weights, and kept as files."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from services.learner.config import ALL_LINEAR, AdapterConfig, AdapterInit
from shared.errors import InvalidInput
from shared.hub import describe_model

_NAME = "default"
"""What peft calls the only adapter of a model."""
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_A, _B, _BASE = f".lora_A.{_NAME}.weight", f".lora_B.{_NAME}.weight", ".base_layer."
_FILE_PREFIX = "base_model.model."
"""Of the names in peft's files."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters to train on the model `base`: those in the directory `saved`, else new ones, drawn with `seed`."""

    config: AdapterConfig
    base: Path
    seed: int = 0
    saved: Path | None = None

    def attach(self, module: PreTrainedModel, dtype: torch.dtype) -> None:
        """Freezes the model in `dtype` and puts adapters in float32 on its linear layers. InvalidInput where they do
        not fit."""
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds, and most runs train all weights

        names = _target_names(module, self.config.target_modules)
        of_peft = LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=0.0,  # the engine that sampled had none
            target_modules=names,
            init_lora_weights="gaussian" if self.config.init is AdapterInit.GAUSSIAN else True,
            fan_in_fan_out=isinstance(module.get_submodule(names[0]), Conv1D),
            base_model_name_or_path=describe_model(self.base),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            inject_adapter_in_model(of_peft, module)
        for name, parameter in module.named_parameters():
            if not is_adapter(name):
                parameter.data = parameter.data.to(dtype)
        if self.saved is not None:
            self._load(module, self.saved)

    def _load(self, module: PreTrainedModel, directory: Path) -> None:
        """InvalidInput unless the directory's adapters are of this configuration and fit the module."""
        weights = _read_saved(directory, self.config)
        wanted = {_file_name(name): tensor for name, tensor in module.named_parameters() if is_adapter(name)}
        if differing := sorted(wanted.keys() ^ weights.keys()):
            where = "has adapters on other layers than" if weights.keys() - wanted.keys() else "lacks adapters of"
            targets = ", ".join(self.config.target_modules)
            raise InvalidInput(
                f"{directory} {where} learner.lora.target_modules=[{targets}] (the first: {differing[0]}): give the "
                "target_modules of the earlier run, or another run_dir for a new one"
            )
        for name, tensor in wanted.items():
            if weights[name].shape != tensor.shape:
                raise InvalidInput(
                    f"{directory}: {name} is {list(weights[name].shape)}, and {self.base} needs {list(tensor.shape)}: "
                    "it was trained on another model; give that as learner.model, or another run_dir for a new run"
                )
            tensor.data.copy_(weights[name])


def is_adapter(name: str) -> bool:
    """Whether a weight of this name is an adapter's."""
    return name.endswith((_A, _B))


def has_adapters(module: nn.Module) -> bool:
    return hasattr(module, "peft_config")


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Within it, the module computes what it did before `attach`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [one for one in module.modules() if isinstance(one, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The module's weights under the names they had before `attach`, W + (α/r)·BA in float32 where there is an adapter.
    `state` is the module's, unsharded; neither changes."""
    merged = {}
    for name, tensor in state.items():
        if is_adapter(name):
            continue
        layer_name, _, rest = name.rpartition(_BASE)
        if layer_name and rest == "weight":
            layer: Any = module.get_submodule(layer_name)
            delta = state[layer_name + _B].float() @ state[layer_name + _A].float()
            tensor = tensor.float() + (delta.T if layer.fan_in_fan_out else delta) * layer.scaling[_NAME]
        merged[f"{layer_name}.{rest}" if layer_name else name] = tensor
    return merged


def write_adapters(directory: Path, module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Writes the adapters' `weights`, by their names in the module, as `peft.PeftModel.from_pretrained` reads them."""
    config = copy.copy(cast(Any, module).peft_config[_NAME])
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(directory)
    named = {_file_name(name): tensor.contiguous() for name, tensor in weights.items()}
    try:
        save_file(named, directory / _WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{directory}: {error}") from error


def holds_adapters(directory: Path) -> bool:
    return (directory / _CONFIG).exists()


def _target_names(module: PreTrainedModel, wanted: tuple[str, ...]) -> list[str]:
    """The layers of which the configuration speaks: all linear ones but the head, or those whose names end so."""
    head = module.get_output_embeddings()
    linear = {name: one for name, one in module.named_modules() if isinstance(one, nn.Linear | Conv1D)}
    inner = [name for name, one in linear.items() if one is not head]
    if wanted == (ALL_LINEAR,):
        return inner
    names = []
    for target in wanted:
        found = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not found:
            known = sorted({name.rpartition(".")[2] for name in inner})
            raise InvalidInput(
                f"learner.lora.target_modules: {target!r} is no linear layer of {module.config.model_type}; it has "
                f"{', '.join(known)}"
            )
        if any(linear[name] is head for name in found):
            raise InvalidInput(
                f"learner.lora.target_modules: {target!r} is the head, which is computed in chunks and takes no "
                "adapter: leave it out"
            )
        names += found
    return list(dict.fromkeys(names))


def _read_saved(directory: Path, config: AdapterConfig) -> dict[str, Tensor]:
    """The weights of a directory's adapters. InvalidInput unless rank and alpha are those of `config`."""
    try:
        saved = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
        weights = load_file(directory / _WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidInput(
            f"{directory}: its adapters cannot be read ({error}); remove the checkpoint to resume from the one before"
        ) from error
    for key, ours in {"r": "rank", "lora_alpha": "alpha"}.items():
        if saved.get(key) != getattr(config, ours):
            raise InvalidInput(
                f"{directory} has adapters of {ours} {saved.get(key)}, and learner.lora.{ours} is "
                f"{getattr(config, ours)}: give lora.{ours}={saved.get(key)}, or another run_dir for a new run"
            )
    return weights


def _file_name(name: str) -> str:
    """A parameter's name in peft's files."""
    return _FILE_PREFIX + name.replace(f".{_NAME}.", ".")
