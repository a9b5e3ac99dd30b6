"""Commands that train on this machine: demo, train, check, status and stop."""

from pathlib import Path
from typing import Annotated

import typer

from services.launcher.cli.options import (
    TRAIN,
    AsJson,
    Fresh,
    Plain,
    PresetConfig,
    RedisUrl,
    Resume,
    RunArgument,
    RunName,
    RunRedis,
    Runs,
    Settings,
    Task,
    Token,
    with_task,
)

commands = typer.Typer()


@commands.command(rich_help_panel=TRAIN)
def demo(
    settings: Settings = None,
    run: RunName = None,
    resume: Resume = False,
    fresh: Fresh = False,
    plain: Plain = False,
    redis_url: RedisUrl = None,
    runs: Runs = Path("runs"),
) -> None:
    """Trains a small model with IB-TPO: all services on this machine, a few minutes on 2 cores.

    Ctrl-C saves the state and stops every service; the same command then continues the run.

    - `ibtpo demo`

    - `ibtpo demo --fresh sampler=independent advantage=grpo` – trains with GRPO instead

    - `ibtpo demo launcher.replicas=3 seed=1 --run three`
    """
    train(settings, "demo", None, run, resume, fresh, plain, redis_url, runs)


@commands.command(rich_help_panel=TRAIN)
def train(
    settings: Settings = None,
    config: PresetConfig = "demo",
    task: Task = None,
    run: RunName = None,
    resume: Resume = False,
    fresh: Fresh = False,
    plain: Plain = False,
    redis_url: RedisUrl = None,
    runs: Runs = Path("runs"),
) -> None:
    """Trains a model, with every service on this machine.

    The directory runs/NAME/ then holds report.html, summary.json, metrics.jsonl, plots, trees, logs and the policy.

    - `ibtpo train sampler=ib advantage=ibtpo seed=1` – the demo's task with other settings

    - `ibtpo train --config grpo --run baseline`

    - `ibtpo train --config ibtpo-paper --task demo` – a method, on the demo's task

    - `ibtpo train --config my.toml learner.model=models/mine data=problems.jsonl`

    - `ibtpo train --run baseline --resume max_generated_tokens=2000000`
    """
    from services.launcher.commands.train import train as train_run
    from services.launcher.settings.plan import RunRequest, StartMode

    request = RunRequest(run, config, with_task(task, settings), StartMode.of(resume=resume, fresh=fresh))
    raise typer.Exit(train_run(request, runs, redis_url, plain=plain))


@commands.command(rich_help_panel=TRAIN)
def check(
    settings: Settings = None,
    config: PresetConfig = "demo",
    task: Task = None,
    run: RunName = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Files, problems and own parts alone; no service is started.")
    ] = False,
    no_sample: Annotated[bool, typer.Option("--no-sample", help="Do not have the model answer problems.")] = False,
    problems: Annotated[int, typer.Option(min=1, help="How many problems it answers.")] = 16,
    k: Annotated[int, typer.Option("--k", min=1, help="How many answers it gives to each.")] = 4,
    as_json: AsJson = False,
    redis_url: RedisUrl = None,
    runs: Runs = Path("runs"),
) -> None:
    """Says what a run would meet, before it begins: model, tokenizer, template, problems, memory, disk, and how often
    the untrained model is right. Takes what `train` takes, and writes nothing. Exit code 1 where something fails.

    - `ibtpo check --config grpo learner.model=models/mine data=problems.jsonl total_steps=100`

    - `ibtpo check --quick learner.model=Qwen/Qwen2.5-0.5B-Instruct --config my.toml`
    """
    from services.launcher.check.examination import CheckRequest
    from services.launcher.check.sampling import SampleSize
    from services.launcher.commands.check import check as check_run
    from services.launcher.settings.plan import RunRequest

    size = None if no_sample or quick else SampleSize(problems, k)
    how = CheckRequest(size, quick, redis_url)
    raise typer.Exit(check_run(runs, RunRequest(run, config, with_task(task, settings)), how, as_json=as_json))


@commands.command(rich_help_panel=TRAIN)
def status(
    run: RunArgument = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until the run has ended.")] = False,
    redis_url: RunRedis = None,
    runs: Runs = Path("runs"),
    token: Token = None,
) -> None:
    """Shows how a run is going, or its results.

    - `ibtpo status` – the latest run of this machine

    - `ibtpo status mine --redis-url redis://10.0.0.5/0` – a run whose services are elsewhere
    """
    from services.launcher.commands.status import RunQuery
    from services.launcher.commands.status import status as show_status

    raise typer.Exit(show_status(RunQuery(runs, run, redis_url, token), watch=watch))


@commands.command(rich_help_panel=TRAIN)
def stop(run: RunArgument = None, redis_url: RunRedis = None, runs: Runs = Path("runs"), token: Token = None) -> None:
    """Stops a run after the step in progress and a checkpoint.

    - `ibtpo stop demo` – later, `ibtpo train --run demo --resume` continues it
    """
    from services.launcher.commands.status import RunQuery
    from services.launcher.commands.status import stop as stop_run

    raise typer.Exit(stop_run(RunQuery(runs, run, redis_url, token)))
