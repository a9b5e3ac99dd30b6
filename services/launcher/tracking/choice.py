"""Makes the tracker that a run names."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from services.launcher.tracking.tracker import Tracker
from services.learner.tracker_config import TRACKERS, load_own
from shared.runtime.logs import blank_secrets, spellings

_KEYS = ("WANDB_API_KEY", "SWANLAB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_MAX_REASON = 300


def make_tracker(name: str, options: Mapping[str, Any]) -> Tracker:
    """A built-in one, or that at `package.module:Class`, with its settings as keyword arguments."""
    if name in TRACKERS:
        module = import_module(f"services.launcher.tracking.{name}_tracker")
        return cast(Tracker, getattr(module, f"{name.capitalize()}Tracker")(**options))
    return cast(Tracker, load_own(name)(**options))


def without_keys(reason: str) -> str:
    """The reason in one line, without what the environment keeps secret."""
    secrets = spellings(os.environ[key] for key in _KEYS if key in os.environ)
    return blank_secrets(" ".join(reason.split()), secrets)[:_MAX_REASON]
