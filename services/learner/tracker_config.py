"""Which trackers get a run's figures, and their settings."""

import importlib
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.errors import InvalidInput

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "swanlab": "swanlab"}
"""The built-in ones, each with the module that it needs."""
_REMEDY = {
    "tensorboard": "pip install 'ibtpo[learner]', or tracker=none",
    "wandb": "pip install 'ibtpo[wandb]'",
    "mlflow": "pip install 'ibtpo[mlflow]'",
    "swanlab": "pip install 'ibtpo[swanlab]'",
}
_KEYS = {
    "wandb": (
        ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"),
        ("~/.netrc", "~/_netrc", "~/.config/wandb/settings"),
    ),
    "swanlab": (("SWANLAB_API_KEY", "NETRC"), ("~/.swanlab/.netrc", "~/.netrc")),
}
"""Variables and files that may hold the key of one that is online."""
_DEEDS = ("start", "log", "trees", "finish")
_PATH = re.compile(r"[\w.]+:\w+")


def _check_open_uri(uri: str) -> str:
    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise ValueError(
            "holds a user or a password, which a run's folder would keep: give those in MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return uri


OpenUri = Annotated[str, AfterValidator(_check_open_uri)]
"""A URI without a password in it."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    project: str = Field("ibtpo", min_length=1, description="Where the tracker puts the run; MLflow: its experiment")
    name: str = Field("", description="What the tracker calls the run; empty: the run's name")
    tags: tuple[str, ...] = Field((), description="Words to find the run by")


class WandbConfig(_Table):
    """Weights & Biases. Its key is in WANDB_API_KEY, or where `wandb login` put it."""

    entity: str = Field("", description="Team or user; empty: the key's own")
    group: str = Field("", description="Runs of one group are drawn together")
    mode: Literal["online", "offline"] | None = Field(
        None, description="offline: only into the run's folder, for `wandb sync`; none: WANDB_MODE, or online"
    )
    uri: OpenUri = Field("", description="A server of one's own; empty: WANDB_BASE_URL, or wandb.ai")


class MlflowConfig(_Table):
    """MLflow. User and password are in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""

    uri: OpenUri = Field("", description="Of the tracking server; empty: MLFLOW_TRACKING_URI, or mlruns beside the run")


class SwanlabConfig(_Table):
    """SwanLab. Its key is in SWANLAB_API_KEY, or where `swanlab login` put it."""

    entity: str = Field("", description="Workspace; empty: the key's own")
    group: str = Field("", description="Runs of one group are drawn together")
    mode: Literal["online", "offline"] | None = Field(
        None, description="offline: only into the run's folder, for `swanlab sync`; none: SWANLAB_MODE, or online"
    )


def tracker_names(value: object) -> object:
    """One name as a tuple of one; none or an empty text as none."""
    if not isinstance(value, str):
        return value
    return () if value in ("", "none") else (value,)


def check_names(names: Sequence[str]) -> None:
    """ValueError for what names no tracker."""
    for name in names:
        if name not in TRACKERS and not _PATH.fullmatch(name):
            raise ValueError(
                f"learner.tracker: {name!r} is no tracker: give {', '.join(TRACKERS)}, none, or "
                "package.module:Class of your own"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"learner.tracker names a tracker twice: {', '.join(names)}")


def check_trackers(names: Sequence[str], modes: Mapping[str, str | None] = MappingProxyType({})) -> None:
    """InvalidInput for one that is not installed, that has no key for its `modes`, or that is no tracker, before
    anything starts."""
    for name in names:
        if name not in TRACKERS:
            load_own(name)
        elif importlib.util.find_spec(TRACKERS[name]) is None:
            raise InvalidInput(f"learner.tracker {name} is not installed: {_REMEDY[name]}")
        elif name in _KEYS and not _has_key(name, modes.get(name)):
            raise InvalidInput(
                f"learner.tracker {name} has no key: `{name} login`, or {name.upper()}_API_KEY, or {name}.mode=offline"
            )


def _has_key(name: str, mode: str | None) -> bool:
    """Whether it needs none, or there is something that may hold one."""
    variables, files = _KEYS[name]
    if (mode or os.environ.get(f"{name.upper()}_MODE") or "online") != "online":
        return True
    return any(os.environ.get(one) for one in variables) or any(Path(one).expanduser().exists() for one in files)


def load_own(path: str) -> type:
    """The class at `package.module:Class`; InvalidInput for what is none, or lacks a method of a tracker."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        raise InvalidInput(
            f"learner.tracker {path} cannot be imported: {type(error).__name__}: {error}; it is looked for on the "
            "Python path and in the working directory"
        ) from error
    if missing := [deed for deed in _DEEDS if not callable(getattr(found, deed, None))]:
        raise InvalidInput(f"learner.tracker {path} is no tracker: it has no method {', '.join(missing)}")
    return found  # type: ignore[no-any-return]
