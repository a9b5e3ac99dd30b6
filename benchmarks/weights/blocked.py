"""How long a publication stops training: the copy of the policy that is made in the training thread."""

import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from services.demo.task import checkpoint_directory
from services.learner.config import OptimizerConfig, Precision
from services.learner.model.policy import Policy
from services.learner.model.process_group import ProcessGroup
from services.learner.ranks import RankWorkers

SHAPE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
"""SmolLM2-135M's."""
TOY = SHAPE | {"vocab_size": 128, "hidden_size": 18, "intermediate_size": 36, "num_hidden_layers": 2}


class Blocked(NamedTuple):
    """A copy for serving, and a copy of as many bytes, both into memory that is new; in turn."""

    num_bytes: int
    seconds: tuple[float, ...]
    memcpy_seconds: tuple[float, ...]
    warm_seconds: tuple[float, ...]
    """Of a copy into memory that was written before."""

    @property
    def copies(self) -> float:
        """How many copies in memory a publication blocks training for."""
        return median(a / b for a, b in zip(self.seconds, self.memcpy_seconds, strict=True))


def measure(directory: Path, num_rounds: int) -> Blocked:
    """Of the fp32 weights of a model, which replicas get in bfloat16."""
    group = ProcessGroup(torch.device("cpu"), precision=Precision.BFLOAT16)
    policy = Policy(directory, 1.0, OptimizerConfig(lr=1e-6), group)
    trainer: Any = None  # it takes no part
    ranks = RankWorkers(group, policy, trainer)
    source = torch.cat([weights.flatten().view(torch.uint8) for weights in ranks.copy_for_serving().values()])
    target = source.clone()
    seconds, memcpy_seconds, warm_seconds = [], [], []
    for _ in range(num_rounds):
        times = [time.perf_counter()]
        kept = ranks.copy_for_serving()
        times.append(time.perf_counter())
        again = source.clone()
        times.append(time.perf_counter())
        target.copy_(source)
        times.append(time.perf_counter())
        for series, begin, end in zip((seconds, memcpy_seconds, warm_seconds), times, times[1:], strict=False):
            series.append(end - begin)
        del kept, again
    return Blocked(len(source), tuple(seconds), tuple(memcpy_seconds), tuple(warm_seconds))


def make(directory: Path, is_large: bool) -> Path:
    """A model of random weights, with the demo's tokenizer."""
    LlamaForCausalLM(LlamaConfig(**SHAPE if is_large else TOY)).save_pretrained(directory)
    AutoTokenizer.from_pretrained(checkpoint_directory()).save_pretrained(directory)
    return directory
