"""Starts programs of the learner's tests as one process or as several ranks."""

import os
import sys
from pathlib import Path

_TORCHRUN = ["-m", "torch.distributed.run"]
_ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}


def rank_command(size: int, script: Path, *arguments: object) -> list[str]:
    """The command that runs `script` as so many ranks."""
    torchrun = [*_TORCHRUN, "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
    return [sys.executable, *torchrun, str(script), *map(str, arguments)]


def node_command(nodes: int, port: int, script: Path, *arguments: object) -> list[str]:
    """The command that runs `script` as one rank on each of so many nodes, which meet at a port of this machine."""
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test"]
    torchrun = [*_TORCHRUN, f"--nnodes={nodes}", "--nproc-per-node=1", *meeting]
    return [sys.executable, *torchrun, str(script), *map(str, arguments)]
