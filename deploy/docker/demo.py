"""Puts the demo into an image: `python demo.py DIRECTORY` writes its problems and a link to its model there."""

import sys
from pathlib import Path

from services.demo.data import write_data
from services.demo.difficulty import Difficulty
from services.demo.task import checkpoint_directory


def main(directory: Path) -> None:
    """The same problems as `ibtpo demo` writes."""
    write_data(directory, Difficulty(), 4096, 200, seed=0)
    (directory / "model").symlink_to(checkpoint_directory())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
