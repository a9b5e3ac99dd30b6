"""Starts programs of the learner's tests as one process or as several ranks."""

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}


def rank_command(size: int, script: Path, *arguments: object) -> list[str]:
    """The command that runs `script` as so many ranks."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
    return [sys.executable, *torchrun, str(script), *map(str, arguments)]
