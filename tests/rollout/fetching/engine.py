"""An engine that serves bytes, in a module that imports little: processes are started for it."""

from hashlib import sha256
from pathlib import Path

from shared.tree.draw import WeightVersion


class EngineOfBytes:
    """Serves the bytes of the directory that it loaded, as a model would its tensors."""

    def __init__(self) -> None:
        self.version: WeightVersion | None = None
        self.served: dict[str, bytes] = {}
        self.error: Exception | None = None

    async def load(self, directory: Path, version: WeightVersion, *, afresh: bool = False) -> None:
        if self.error is not None:
            raise self.error
        files = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "manifest.json"}
        self.served, self.version = files, version


def digest_of(files: dict[str, bytes]) -> str:
    """Of all names and bytes."""
    named = (name.encode() + b"\0" + content for name, content in sorted(files.items()))
    return sha256(b"\0\0".join(named)).hexdigest()
