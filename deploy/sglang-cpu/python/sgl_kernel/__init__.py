"""Stands in for SGLang's kernel package where there is no accelerator: names to import, and nothing to call.

On a CPU without these kernels SGLang computes everything with torch, but still imports this package by name.
"""

from typing import NoReturn


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} is a stand-in: there are no kernels on this CPU")

    return missing
