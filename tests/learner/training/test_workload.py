"""What a step computes, against counting by hand."""

import random
from pathlib import Path

import pytest

from services.learner.model.flops import ModelFlops
from services.learner.model.model_files import read_module
from services.learner.model.prefix_rows import Layout
from services.learner.training.packing import pack
from services.learner.training.workload import Workload, count_distinct, pass_size
from tests.learner.synthetic import credited_trajectories


@pytest.mark.parametrize("seed", range(5))
def test_distinct_tokens_are_distinct_prefixes(seed: int) -> None:
    trajectories = [one for number in range(3) for one in credited_trajectories(10 * seed + number)]
    random.Random(seed).shuffle(trajectories)
    ids = [(*one.prompt_ids, *one.token_ids.tolist()) for one in trajectories]
    assert count_distinct(trajectories) == len({one[:end] for one in ids for end in range(1, len(one) + 1)})


def test_a_tree_in_one_row_reaches_the_limit_and_single_trajectories_do_not(policy_dir: Path) -> None:
    trajectories = credited_trajectories(0)
    flops = ModelFlops.of(read_module(policy_dir))
    whole, apart = Workload(flops), Workload(flops)
    (rows,) = shared = pack(trajectories, 1 << 20, Layout.JOINED)
    whole.add_training(shared, trajectories)
    single = pack(trajectories, 1, Layout.APART)
    apart.add_training(single, trajectories)
    lengths = [len(one.prompt_ids) + len(one.token_ids) for one in trajectories]
    assert whole.packing_share == 1.0
    assert apart.packing_share == pytest.approx(count_distinct(trajectories) / sum(lengths))
    assert 0 < whole.flops < apart.flops
    assert sum(pass_size(one).context for one in single) == sum(length * (length + 1) // 2 for length in lengths)
    reading = Workload(flops)
    reading.add_reading(shared)
    assert reading.flops == flops.forward(pass_size(rows)) == whole.flops / 3
    assert reading.packing_share is None
