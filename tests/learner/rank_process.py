"""One rank that trains on random trees: `torchrun … rank_process.py CONFIG.json STEPS OUT [CHECKPOINT]`.

A checkpoint is the directory `first` that another left."""

import json
import random
import sys
from pathlib import Path

import torch

from services.learner.config import LearnerConfig
from services.learner.model.adapters import Adapters
from services.learner.model.memory import checkpoint_activations
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.process_group import ProcessGroup
from services.learner.ranks import RankWorkers
from services.learner.training.trainer import Trainer
from shared.protocol.tree import ScoredTree
from shared.tree.draw import WeightVersion
from tests.learner.synthetic import V0, build_all, draws, scored, task


def trees(seed: int, count: int) -> list[ScoredTree]:
    """Trees with mixed rewards, of one prompt each."""
    rng = random.Random(seed)
    return [
        scored(task(number, prompt_ids=(3, 4 + number)), draws(rng, rewards=(1.0, 0.0, 0.0))) for number in range(count)
    ]


def run_on_rank0(ranks: RankWorkers, first: int, steps: int, out: Path) -> None:
    """Trains, and writes all results; a checkpoint after its first step, too."""
    updates = {}
    for number in range(first, steps):
        step = ranks.step(build_all(trees(number, 5)), WeightVersion(1, number), 0.01, str(number))
        updates[number] = step.model_dump()
        if number == first:
            save(ranks, out / "first")
            (out / "first" / "steps").write_text(str(number + 1))
    gap = ranks.engine_gap(trees(99, 3), V0)
    save(ranks, out)
    ranks.save_for_serving(out / "served")
    reading = ranks.read_act(V0)
    act = None if reading is None else reading.logprob
    (out / "figures.json").write_text(json.dumps({"updates": updates, "gap": gap, "act": act}))
    ranks.shutdown()


def save(ranks: RankWorkers, checkpoint: Path) -> None:
    """What a later run goes on from."""
    checkpoint.mkdir(exist_ok=True)
    ranks.begin_checkpoint(checkpoint).result(60)


def main(config: LearnerConfig, steps: int, out: Path, checkpoint: Path | None) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    group = ProcessGroup.join(config.device, config.precision)
    saved, adapters = checkpoint / "policy" if checkpoint else None, None
    if config.lora is not None:
        adapters = Adapters(config.lora, config.model, saved=saved)
    directory = config.model if adapters or saved is None else saved
    policy = Policy(directory, 1.0, config.optimizer, group, adapters=adapters)
    if config.objective.router_coef:
        policy.model.balance_routers()
    if config.activation_checkpointing:
        checkpoint_activations(policy.model.module)
    if checkpoint:
        policy.restore(checkpoint / "optimizer")
    if adapters:
        reference = policy.model.without_adapters()
    else:
        reference = LanguageModel.load(config.model, 1.0, group, is_frozen=True)
    trainer = Trainer(policy, reference, config, group)
    if checkpoint:
        trainer.values.restore(checkpoint)
    ranks = RankWorkers(group, policy, trainer)
    if group.is_rank0:
        run_on_rank0(ranks, int((checkpoint / "steps").read_text()) if checkpoint else 0, steps, out)
    else:
        ranks.serve()
    group.exit_together(0)


if __name__ == "__main__":
    main(
        LearnerConfig.model_validate_json(Path(sys.argv[1]).read_text()),
        int(sys.argv[2]),
        Path(sys.argv[3]),
        Path(sys.argv[4]) if len(sys.argv) > 4 else None,
    )
