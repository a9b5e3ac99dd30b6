"""The head in chunks against a whole logits tensor: processor time and peak memory of a forward and backward pass.

python -m benchmarks.head                             4,096 slots, V = 151,936 (the whole tensor takes 12 GB)
python -m benchmarks.head --slots 1024                a quarter of that

Every measurement is a process of its own, one thread. Peak memory is what the pass adds to parameters and gradients.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from services.learner.model.head import Head, entropies
from services.learner.model.memory import peak_memory_bytes

VOCAB_SIZE = 151_936
ROUNDS = 3


def whole_logits(hidden_ND: Tensor, layer: nn.Linear, token_ids_N: Tensor) -> Tensor:
    """Log-probabilities, and entropies that nobody reads, as a learner without chunks has them."""
    logits_NV = layer(hidden_ND).float()
    log_normalizers_N = logits_NV.logsumexp(-1)
    with torch.no_grad():
        entropies(logits_NV, log_normalizers_N)
    return logits_NV.gather(1, token_ids_N[:, None])[:, 0] - log_normalizers_N


def measure(form: str, num_slots: int, num_hidden: int) -> dict[str, float]:
    """One pass in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = nn.Linear(num_hidden, VOCAB_SIZE, bias=False)
    layer.weight.grad = torch.zeros_like(layer.weight)
    hidden_ND = torch.randn(num_slots, num_hidden, requires_grad=True)
    token_ids_N, weights_N = torch.randint(VOCAB_SIZE, (num_slots,)), torch.randn(num_slots)
    before, start = peak_memory_bytes(layer.weight.device), time.process_time()
    if form == "chunks":
        logprobs_N, _ = Head(1.0, None, 1.0).statistics(hidden_ND, layer, token_ids_N)
    else:
        logprobs_N = whole_logits(hidden_ND, layer, token_ids_N)
    (logprobs_N * weights_N).sum().backward()  # type: ignore[no-untyped-call]
    return {"seconds": time.process_time() - start, "peak": peak_memory_bytes(layer.weight.device) - before}


def measure_apart(form: str, num_slots: int, num_hidden: int) -> dict[str, float]:
    """The same in a process of its own."""
    arguments = [sys.executable, "-m", "benchmarks.head", "--one", form, str(num_slots), str(num_hidden)]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True, encoding="utf-8", timeout=600).stdout
    found: dict[str, float] = json.loads(output)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=4096)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        form, *sizes = arguments.one
        print(json.dumps(measure(form, *map(int, sizes))))
        return
    print(f"{arguments.slots} slots, V = {VOCAB_SIZE}, float32\n")
    print("| hidden units | whole: MiB | chunks: MiB | ratio | CPU-seconds, chunks / whole (min, median, max) |")
    print("|---|---|---|---|---|")
    for num_hidden in (64, 896):
        rounds = [
            [measure_apart(form, arguments.slots, num_hidden) for form in ("whole", "chunks")] for _ in range(ROUNDS)
        ]
        whole, chunks = (max(one[form]["peak"] for one in rounds) for form in (0, 1))
        times = [one[1]["seconds"] / one[0]["seconds"] for one in rounds]
        spread = ", ".join(f"{pick(times):.2f}" for pick in (min, median, max))
        print(f"| {num_hidden} | {whole / 2**20:.0f} | {chunks / 2**20:.0f} | {chunks / whole:.3f} | {spread} |")


if __name__ == "__main__":
    main()
