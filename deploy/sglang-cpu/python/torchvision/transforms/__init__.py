"""Names of torchvision.transforms, to be imported only."""

import enum
from typing import NoReturn

InterpolationMode = enum.Enum(
    "InterpolationMode", [(name.upper().replace("-", "_"), name) for name in (
        "nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"
    )]
)  # fmt: skip


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"torchvision.{name} is a stand-in: install torchvision for models that see")

    return missing
