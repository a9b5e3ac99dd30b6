"""Stands in for torchvision: text models import its names and never call them."""

__version__ = "0.0.0"
