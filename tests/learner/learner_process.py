"""The learner as a process of its own: `python learner_process.py CONFIG.json`.

With LEARNER_DIES_BEFORE=MOMENT it kills itself before it publishes its sixth version, at that moment.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from services.learner.config import LearnerConfig
from services.learner.model.policy import Policy
from services.learner.ranks import RankWorkers
from services.learner.serving.delivery import WeightDelivery
from services.learner.wiring import main
from shared.weights import Lineage, SnapshotStore

MOMENTS: dict[str, tuple[type[Any], str]] = {
    "copy": (RankWorkers, "copy_for_serving"),
    "write": (RankWorkers, "write_for_serving"),
    "tokenizer": (Policy, "_write_tokenizer"),
    "adopt": (SnapshotStore, "adopt"),
    "delta": (Lineage, "add"),
    "offer": (WeightDelivery, "offer"),
}


def die_before(moment: str) -> None:
    owner, name = MOMENTS[moment]
    work, calls = getattr(owner, name), itertools.count(1)

    def work_or_die(*arguments: Any, **more: Any) -> Any:
        if next(calls) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*arguments, **more)

    setattr(owner, name, work_or_die)


if __name__ == "__main__":
    if wanted := os.environ.get("LEARNER_DIES_BEFORE"):
        die_before(wanted)
    sys.exit(main(LearnerConfig.model_validate_json(Path(sys.argv[1]).read_text())))
