"""Launches SGLang on a plain CPU: python -m sglang_cpu [the arguments of sglang.launch_server]."""

import os
import sys

ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
}
ARGUMENTS = (
    "--device=cpu",
    "--attention-backend=torch_native",
    "--sampling-backend=pytorch",
    "--grammar-backend=none",
    "--disable-cuda-graph",
    "--dtype=float32",
    "--max-total-tokens=16384",
    "--max-running-requests=64",
    "--sleep-on-idle",
    "--skip-server-warmup",
)
"""Pure torch everywhere; a small cache and batch, as fits a small model. What the caller says comes after and holds."""


def main() -> None:
    """Becomes the server."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    command = [sys.executable, "-m", "sglang.launch_server", *ARGUMENTS, *sys.argv[1:]]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
