"""One process of a crew that trains on random trees: `torchrun … crew_member.py CONFIG.json STEPS OUT [CHECKPOINT]`."""

import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from services.learner.config import LearnerConfig
from services.learner.ranks import Crew
from services.learner.training.policy import LanguageModel, Policy
from services.learner.training.process_group import World
from services.learner.training.trainer import Trainer
from shared.protocol.tree import ScoredTree
from shared.tree.draw import WeightVersion
from tests.learner.synthetic import V0, draws, scored, task


def trees(seed: int, count: int) -> list[ScoredTree]:
    """Trees with mixed rewards, of one prompt each."""
    rng = random.Random(seed)
    return [
        scored(task(number, prompt_ids=(3, 4 + number)), draws(rng, rewards=(1.0, 0.0, 0.0))) for number in range(count)
    ]


def lead(crew: Crew, steps: int, out: Path) -> None:
    """Trains, and writes down all that came of it."""
    updates = [
        asdict(crew.step(trees(number, 5), WeightVersion(1, number), 0.01, str(number))) for number in range(steps)
    ]
    gap = crew.engine_gap(trees(99, 3), V0)
    crew.save(out / "policy")
    crew.save_to_serve(out / "served")
    torch.save(crew.optimizer_state(), out / "optimizer.pt")
    (out / "figures.json").write_text(json.dumps({"updates": updates, "gap": gap}))
    crew.dismiss()


def main(config: LearnerConfig, steps: int, out: Path, checkpoint: Path | None) -> None:
    """A life of one process."""
    torch.set_num_threads(1)
    world = World.join(config.device, config.precision)
    policy = Policy(checkpoint / "policy" if checkpoint else config.model, 1.0, config.optimizer, world)
    if checkpoint:
        policy.restore_optimizer(torch.load(checkpoint / "optimizer.pt", weights_only=True))
    reference = LanguageModel.load(config.model, 1.0, world, is_frozen=True)
    crew = Crew(world, policy, Trainer(policy, reference, config, world))
    if world.is_first:
        lead(crew, steps, out)
    else:
        crew.follow()
    world.end(0)


if __name__ == "__main__":
    main(
        LearnerConfig.model_validate_json(Path(sys.argv[1]).read_text()),
        int(sys.argv[2]),
        Path(sys.argv[3]),
        Path(sys.argv[4]) if len(sys.argv) > 4 else None,
    )
