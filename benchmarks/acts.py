"""The act-probe (METHOD, W-3): what rounding moves, what one tensor that is zero moves, and what a reading costs.

python -m benchmarks.acts [MODEL]     a directory; without it the demo's (half a minute)

A learner in bfloat16 against engines that serve what it publishes (in float32, with products in bfloat16, all in
bfloat16), and against one in float32; of the model, and after gradient steps on random tokens, which spoil it quickly.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from services.demo.task import checkpoint_directory
from services.learner.config import OptimizerConfig, Precision
from services.learner.model.act_probe import score_tokens
from services.learner.model.policy import Policy
from services.learner.model.prefix_rows import PrefixRows, PrefixTrie
from services.learner.model.process_group import ProcessGroup
from shared.protocol.act_probe import ActReading, act_distance, probe_tokens
from shared.tree.draw import WeightVersion

CPU = torch.device("cpu")
FLOAT32, BFLOAT16 = ProcessGroup(CPU), ProcessGroup(CPU, Precision.BFLOAT16)
SPOILING_RATES = (0.0, 1e-4, 3e-4)
VERSION = WeightVersion(1, 0)


class Probe:
    """Reads one model's, computed in several ways."""

    def __init__(self, model: Policy) -> None:
        self.vocab_size = model.model.vocab_size
        self.tokens = probe_tokens(self.vocab_size, model.model.context_length)

    def read(self, module: PreTrainedModel, group: ProcessGroup) -> ActReading:
        return ActReading.of(VERSION, self.vocab_size, score_tokens(module, self.tokens, group), is_float32=False)


def distance(one: ActReading, other: ActReading) -> float:
    found = act_distance(one, other)
    if found is None:
        raise SystemExit("a log-probability is not finite")
    return found


def of_published(policy: Policy, probe: Probe) -> Iterator[ActReading]:
    """What engines read of the weights as they are published in bfloat16."""
    with tempfile.TemporaryDirectory() as directory:
        policy.write(Path(directory), policy.weights(torch.bfloat16))
        wide = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        yield probe.read(wide, FLOAT32)
        yield probe.read(wide, BFLOAT16)
        yield probe.read(wide.to(torch.bfloat16), FLOAT32)


def zeroed(module: PreTrainedModel, probe: Probe) -> tuple[float, float, int, int]:
    """With each tensor zero in turn: the least and the middle distance; how many means differ by less than 0.01, of."""
    sound, found, means = probe.read(module, FLOAT32), [], []
    for weight in module.parameters():
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
            read = probe.read(module, FLOAT32)
            weight.copy_(kept)
        found.append(distance(sound, read))
        means.append(abs((read.logprob or 0.0) - (sound.logprob or 0.0)))
    return min(found), median(found), sum(gap < 0.01 for gap in means), len(means)


def cpu_milliseconds(work: Callable[[], object], times: int = 20) -> float:
    taken = []
    for _ in range(times):
        started = time.thread_time()
        work()
        taken.append(time.thread_time() - started)
    return 1000 * median(taken)


def spoil(policy: Policy, lr: float) -> None:
    """Two steps towards random tokens."""
    for seed in range(2):
        torch.manual_seed(seed)
        trie, _ = PrefixTrie.of([torch.randint(policy.model.vocab_size, (24,)).tolist()])
        policy.model.statistics(PrefixRows.collate([trie])).logprobs_RS.sum().neg().backward()
        policy.apply_gradients(lr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=checkpoint_directory())
    directory = parser.parse_args().model
    torch.set_num_threads(1)
    for lr in SPOILING_RATES:
        policy = Policy(directory, 1.0, OptimizerConfig(lr=1e-4))
        probe, module = Probe(policy), policy.model.module
        if lr:
            spoil(policy, lr)
        in_float32, in_bfloat16 = probe.read(module, FLOAT32), probe.read(module, BFLOAT16)
        gaps = [distance(in_bfloat16, served) for served in of_published(policy, probe)]
        mixed = distance(in_float32, in_bfloat16)
        print(
            f"after two steps of {lr:g}: mean {in_float32.logprob:.2f}; both in bfloat16: {min(gaps):.3f} to "
            f"{max(gaps):.3f}; a learner in float32, an engine that rounds: {mixed:.3f}",
            flush=True,
        )
    policy = Policy(directory, 1.0, OptimizerConfig(lr=1e-4))
    probe, module = Probe(policy), policy.model.module
    least, middle, unseen, of = zeroed(module, probe)
    print(f"one tensor zero: {least:.3f} at least, {middle:.3f} in the middle")
    print(f"of {of} tensors that are zero {unseen} move the mean by less than 0.01")
    cost = cpu_milliseconds(lambda: probe.read(module, FLOAT32))
    print(f"a reading of {len(probe.tokens)} tokens: {cost:.1f} ms of CPU in float32, one thread")


if __name__ == "__main__":
    main()
