"""The manifest of a policy bundle: version, files, checksums."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from shared.protocol.message import Message
from shared.tree.draw import WeightVersion

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def _check_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"a bundle's file has a plain name, not {name!r}")
    return name


class BundleFile(Message):
    """One file of a bundle."""

    name: Annotated[str, AfterValidator(_check_name)]
    num_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Message):
    """A policy bundle: model configuration, tokenizer, chat template and weights (safetensors), in the layout that
    `transformers` reads. `content_hash` is the sha256 over the files' names and checksums, in their order."""

    run: str
    version: WeightVersion
    encoding: Literal["full"] = "full"
    files: tuple[BundleFile, ...] = Field(min_length=1, max_length=256)
    content_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
