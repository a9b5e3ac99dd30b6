"""Checkpoints: whole or not there, wherever the process that wrote them died."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

from services.learner.ledger import Ledger, TaskId
from services.learner.model.policy import Policy
from services.learner.model.prefix_rows import PrefixRows
from services.learner.model.sharding.moments import write_moments
from services.learner.record.checkpoint import Checkpoint, CheckpointStore
from services.learner.record.state import LearnerState, RunTotals, SavedLedger, SavedProgress
from shared.errors import InvalidInput
from shared.protocol.tree import TreeUsage
from shared.tree.draw import WeightVersion
from tests.learner.conftest import Configure
from tests.learner.synthetic import draws, scored, task, trie_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def policy(configure: Configure) -> Policy:
    config = configure()
    return Policy(config.model, 1.0, config.optimizer)


def train(policy: Policy) -> None:
    """One update."""
    policy.model.statistics(PrefixRows.collate([trie_of([3, 4, 5])])).logprobs_RS.sum().backward()
    policy.apply_gradients(0.01)


def save(store: CheckpointStore, policy: Policy, state: LearnerState) -> Checkpoint:
    """As a run does, which goes on meanwhile."""
    draft = store.draft(state.progress.step)
    policy.write_kept(policy.copy(), draft)
    return store.finish(draft, state)


def state(step: int, fed: int = 3) -> LearnerState:
    """With outstanding tasks and figures."""
    ledger = Ledger()
    for index in range(fed):
        ledger.feed(TaskId(0, index), TaskId(0, index + 1))
    tree = scored(task(), draws(random.Random(0)))
    totals = RunTotals().plus(tree.figures(), TreeUsage(generated_tokens=7))
    progress = SavedProgress(step=step, version=WeightVersion(2, step), data="x", totals=totals)
    return LearnerState(progress=progress, ledger=SavedLedger.of(ledger))


def test_what_was_saved_is_what_is_found(policy: Policy, configure: Configure, root: Path) -> None:
    train(policy)
    save(CheckpointStore(root, 2), policy, state(4))
    found = CheckpointStore(root, 2).latest()
    assert found is not None
    assert found.state() == state(4)
    assert found.state().ledger.load().outstanding == {TaskId(0, 0): 0, TaskId(0, 1): 0, TaskId(0, 2): 0}
    loaded = Policy(found.policy, 1.0, configure().optimizer)
    found.restore_optimizer(loaded)
    ours, theirs = policy.copy().moments, loaded.copy().moments
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_checkpoint_whose_weights_do_not_fit_is_refused_by_name(
    policy: Policy, configure: Configure, root: Path
) -> None:
    save(CheckpointStore(root, 2), policy, state(4))
    found = CheckpointStore(root, 2).latest()
    assert found is not None
    weights = load_file(found.policy / "model.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in weights.items()}, found.policy / "model.safetensors")
    with pytest.raises(InvalidInput, match=r"missing from its files.*module\."):
        Policy(found.policy, 1.0, configure().optimizer)


def test_the_newest_few_stay(policy: Policy, root: Path) -> None:
    store = CheckpointStore(root, 2)
    for step in (0, 3, 12, 9):
        save(store, policy, state(step))
    assert sorted(path.name for path in root.iterdir()) == ["12", "9"]
    latest = store.latest()
    assert latest is not None
    assert latest.directory.name == "12"


def test_a_later_checkpoint_of_the_same_step_replaces_it(policy: Policy, root: Path) -> None:
    store = CheckpointStore(root, 2)
    save(store, policy, state(3, fed=1))
    save(store, policy, state(3, fed=2))
    latest = store.latest()
    assert latest is not None
    assert latest.state().ledger.accounts.fed == 2


def test_what_was_left_half_way_does_not_count(policy: Policy, root: Path) -> None:
    save(CheckpointStore(root, 2), policy, state(3))
    shutil.copytree(root / "3", root / ".6.partial")
    latest = CheckpointStore(root, 2).latest()
    assert latest is not None
    assert latest.directory.name == "3"
    assert [path.name for path in root.iterdir()] == ["3"]


@pytest.mark.parametrize("has_replacement", [True, False])
def test_a_replacement_that_was_cut_short_leaves_the_old_or_the_new_one(
    has_replacement: bool, policy: Policy, root: Path
) -> None:
    save(CheckpointStore(root, 2), policy, state(3))
    (root / "3").rename(root / ".3.old")
    if has_replacement:
        shutil.copytree(root / ".3.old", root / "3")
    latest = CheckpointStore(root, 2).latest()
    assert latest is not None
    assert latest.state() == state(3)
    assert [path.name for path in root.iterdir()] == ["3"]


def test_a_checkpoint_of_another_release_is_refused(policy: Policy, root: Path) -> None:
    saved = save(CheckpointStore(root, 2), policy, state(3))
    (saved.directory / "state.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"cannot be read \(progress: Field required\); remove it to resume"):
        saved.state()


@pytest.mark.parametrize("damage", ["gone", "cut", "of other weights"])
def test_an_optimizer_that_cannot_be_read_is_refused(damage: str, policy: Policy, root: Path) -> None:
    train(policy)
    saved = save(CheckpointStore(root, 2), policy, state(3))
    (path,) = (saved.directory / "optimizer").glob("*.distcp")
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        shutil.rmtree(path.parent)
        moments = {name: tensor for name, tensor in policy.copy().moments.items() if "norm" not in name}
        write_moments(moments, path.parent, None)
    with pytest.raises(InvalidInput, match=r"the optimizer's state in .* cannot be read .* remove the checkpoint"):
        saved.restore_optimizer(policy)


def test_a_checkpoint_of_an_earlier_release_is_resumed(policy: Policy, configure: Configure, root: Path) -> None:
    """Which kept AdamW's state whole, in one file."""
    train(policy)
    saved = save(CheckpointStore(root, 2), policy, state(3))
    shutil.rmtree(saved.directory / "optimizer")
    module, optimizer = policy.model.module, policy._optimizer
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    torch.save(get_optimizer_state_dict(module, optimizer, options=options), saved.directory / "optimizer.pt")
    resumed = Policy(saved.policy, 1.0, configure().optimizer)
    saved.restore_optimizer(resumed)
    ours, theirs = policy.copy().moments, resumed.copy().moments
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_there_is_none_at_first(root: Path) -> None:
    assert CheckpointStore(root / "nowhere", 1).latest() is None
