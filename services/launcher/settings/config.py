"""The configuration of the launcher, section `[launcher]`: all services of a run on one machine."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.demo.difficulty import Difficulty


class DemoTask(BaseModel):
    """The demo's problems, which are written into the run directory before the run begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_problems: int = Field(4096, gt=0, description="Problems to train on")
    held_out_problems: int = Field(200, gt=0, description="Problems to evaluate on")
    difficulty: Difficulty = Field(Difficulty(), description="What the expressions look like")
    seed: int = Field(0, ge=0, description="Another seed gives other problems")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="The lr of a preset's method on these problems, unless one is given; None: that of the preset demo",
    )


class LauncherConfig(BaseModel):
    """How the services run on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(2, gt=0, le=256, description="Rollout replicas, each a process")
    threads_per_service: int = Field(1, gt=0, description="OMP_NUM_THREADS of every service")
    ready_seconds: float = Field(120.0, gt=0, description="How long a service may take to become ready")
    stop_seconds: float = Field(30.0, gt=0, description="How long the learner may take to save its state at the end")
    max_restarts: int = Field(5, ge=0, description="Restarts of one service within a minute before the run ends")
    refresh_seconds: float = Field(0.5, gt=0, description="Seconds between two reads of the run's status for the view")
    task: Literal["files", "demo"] | None = Field(
        None,
        description="files: the learner's model and data; demo: its own, and what is not given as in the preset demo; "
        "none: demo unless data are given",
    )
    demo: DemoTask = Field(DemoTask(), description="The problems of task=demo, and a method's rate for them")
