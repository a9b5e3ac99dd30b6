"""Names of torchvision.transforms.v2.functional, to be imported only."""

from torchvision.transforms import InterpolationMode, __getattr__

__all__ = ["InterpolationMode", "__getattr__"]
