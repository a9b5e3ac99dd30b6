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
    """Seconds of copies, in turn, all of one thread."""

    num_bytes: int
    """Of the published weights."""
    first_seconds: float
    """Of the first copy for serving, which takes new memory."""
    seconds: tuple[float, ...]
    """Of the later ones, which take that of an earlier one."""
    memcpy_seconds: tuple[float, ...]
    """Of as many bytes as are published, into memory that was written before."""
    whole_seconds: tuple[float, ...]
    """The same of the fp32 weights, twice the bytes: a copy for serving reads them all."""

    @property
    def copies(self) -> float:
        """How many copies in memory of the published bytes a publication blocks training for."""
        return median(a / b for a, b in zip(self.seconds, self.memcpy_seconds, strict=True))

    @property
    def whole_copies(self) -> float:
        """The same in copies of the fp32 weights."""
        return median(a / b for a, b in zip(self.seconds, self.whole_seconds, strict=True))


def measure(directory: Path, num_rounds: int) -> Blocked:
    """Of the fp32 weights of a model, which replicas get in bfloat16."""
    group = ProcessGroup(torch.device("cpu"), precision=Precision.BFLOAT16)
    policy = Policy(directory, 1.0, OptimizerConfig(lr=1e-6), group)
    trainer: Any = None  # it takes no part
    ranks = RankWorkers(group, policy, trainer)
    started = time.perf_counter()
    kept = ranks.copy_for_serving()
    first_seconds = time.perf_counter() - started
    published = torch.cat([weights.flatten() for weights in kept.values()])
    whole = torch.cat([one.detach().flatten() for one in policy.model.module.parameters()])
    targets = published.clone(), whole.clone()
    series: tuple[list[float], ...] = ([], [], [])
    for _ in range(num_rounds):
        times = [time.perf_counter()]
        kept = ranks.copy_for_serving(kept)
        times.append(time.perf_counter())
        for source, target in zip((published, whole), targets, strict=True):
            target.copy_(source)
            times.append(time.perf_counter())
        for values, begin, end in zip(series, times, times[1:], strict=False):
            values.append(end - begin)
    return Blocked(published.nbytes, first_seconds, *map(tuple, series))


def make(directory: Path, is_large: bool) -> Path:
    """A model of random weights, with the demo's tokenizer."""
    LlamaForCausalLM(LlamaConfig(**SHAPE if is_large else TOY)).save_pretrained(directory)
    AutoTokenizer.from_pretrained(checkpoint_directory()).save_pretrained(directory)
    return directory
