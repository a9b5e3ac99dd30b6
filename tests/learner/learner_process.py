"""The learner as a process of its own: `python learner_process.py CONFIG.json`."""

import sys
from pathlib import Path

from services.learner.config import LearnerConfig
from services.learner.wiring import main

if __name__ == "__main__":
    sys.exit(main(LearnerConfig.model_validate_json(Path(sys.argv[1]).read_text())))
