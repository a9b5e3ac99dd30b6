"""A policy bundle on the disk, checked before SGLang loads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.rollout.engines.sglang.nonfinite import refuse_nonfinite
from shared.errors import InvalidInput
from shared.tree.draw import WeightVersion
from shared.weights import TensorShape, read_json_object, require_same_tensors, tensor_shapes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is fit to be served."""

    directory: Path
    version: WeightVersion
    vocab_size: int
    shapes: Mapping[str, TensorShape]

    @classmethod
    def read(cls, directory: Path, version: WeightVersion) -> "Bundle":
        """InvalidInput for a bundle that no server should load. Blocking: reads all weights once."""
        directory = directory.resolve()
        config = read_json_object(directory / "config.json")
        text_config = config.get("text_config", config)
        vocab_size = text_config.get("vocab_size") if isinstance(text_config, dict) else None
        if not isinstance(vocab_size, int) or vocab_size < 1:
            raise InvalidInput(f"{directory / 'config.json'} names no vocab_size")
        shapes = tensor_shapes(directory)
        refuse_nonfinite(directory)
        return cls(directory, version, vocab_size, shapes)

    def check_successor(self, new: "Bundle") -> None:
        """InvalidInput unless `new` is the same model with other weights: SGLang reads the configuration only when it
        starts, and its behaviour with other shapes is undefined."""
        if new.vocab_size != self.vocab_size:
            raise InvalidInput(
                f"vocab_size is {new.vocab_size}, that of the served model {self.vocab_size}: a run has one model"
            )
        require_same_tensors(self.shapes, new.shapes)
