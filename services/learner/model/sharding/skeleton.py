"""A model without weights, for ranks that do not read it: rank 0 describes it, and sends weights as it shards."""

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Description:
    """What another rank has to know of a model that rank 0 has read and tried."""

    architecture: str
    config: dict[str, Any]
    attention: str
    sharing_fault: str
    has_plain_head: bool
    attends_to_trees: bool

    @classmethod
    def of(
        cls, module: PreTrainedModel, *, sharing_fault: str, has_plain_head: bool, attends_to_trees: bool
    ) -> "Description":
        """`has_plain_head`: whether `Head` computes it."""
        config = json.loads(module.config.to_json_string(use_diff=False))
        attention = str(module.config._attn_implementation)
        return cls(type(module).__name__, config, attention, sharing_fault, has_plain_head, attends_to_trees)

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> "Description":
        return cls(**json.loads(data))

    def build(self) -> PreTrainedModel:
        """The model, its tensors on no device."""
        architecture: Any = getattr(transformers, self.architecture)
        config = AutoConfig.for_model(**self.config)
        with torch.device("meta"):
            return cast(PreTrainedModel, architecture._from_config(config, dtype=torch.float32))


def make_room(part: nn.Module, device: torch.device) -> None:
    """Puts weights that are on no device on `device`, with no values yet; what is tied stays tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in part.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if parameter not in made:
                    values = torch.empty_like(parameter, device=device)
                    made[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[parameter]
