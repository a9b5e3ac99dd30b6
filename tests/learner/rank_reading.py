"""A rank that compares models that rank 0 sends with their files: `torchrun … rank_reading.py DIRECTORY…`."""

import sys
from pathlib import Path

import torch

from services.learner.config import Device, Precision
from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import PrefixRows
from services.learner.model.process_group import SINGLE_PROCESS, ProcessGroup
from tests.learner.synthetic import trie_of


@torch.no_grad()
def main(directories: list[Path]) -> None:
    """Fails where a rank's log-probabilities, or what it knows of the model, differ from one process's."""
    torch.set_num_threads(1)
    group = ProcessGroup.join(Device.CPU, Precision.FLOAT32)
    rows = PrefixRows.collate([trie_of([3, 4, 5, 6], [3, 4, 7, 8, 9])])
    for directory in directories:
        alone, sent = (LanguageModel.load(directory, 1.0, one) for one in (SINGLE_PROCESS, group))
        assert torch.equal(alone.statistics(rows).logprobs_RS, sent.statistics(rows).logprobs_RS)
        assert (alone.sharing_fault, alone.cost) == (sent.sharing_fault, sent.cost)
        names = [[name for name, _ in one.module.named_parameters()] for one in (alone, sent)]
        assert names[0] == names[1]
    group.exit_together(0)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
