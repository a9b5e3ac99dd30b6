"""Commands about runs, and about the deployment that they are in: doctor, runs, report and track."""

from pathlib import Path
from typing import Annotated

import typer

from services.launcher.cli.options import INSPECT, AsJson, RunArgument, RunRedis, Runs, Settings, Token

commands = typer.Typer()


@commands.command(rich_help_panel=INSPECT)
def doctor(
    run: RunArgument = None,
    run_name: Annotated[str | None, typer.Option("--run", envvar="IBTPO_RUN", help="The same, as an option.")] = None,
    redis_url: RunRedis = None,
    rollout_url: Annotated[
        list[str] | None, typer.Option(help="A replica; repeatable; default: those of the run.")
    ] = None,
    verifier_url: Annotated[str | None, typer.Option(envvar="IBTPO_VERIFIER_URL", help="The verifier.")] = None,
    learner_url: Annotated[str | None, typer.Option(envvar="IBTPO_LEARNER_URL", help="The learner.")] = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="A preset or file that names them.")] = None,
    kubernetes_env: Annotated[bool, typer.Option("--kubernetes-env", help="Find them as this pod does.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Look for GPUs, too.")] = False,
    as_json: AsJson = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds for each question.")] = 5.0,
    runs: Runs = Path("runs"),
    token: Token = None,
) -> None:
    """Says what is wrong in a deployment, with the remedy. Exit code: 0 all is well, 1 a warning, 2 something fails.

    - `ibtpo doctor` – the latest run of this machine

    - `ibtpo doctor --redis-url redis://10.0.0.5/0 --verifier-url http://10.0.0.6:8002`

    - `docker compose exec rollout ibtpo doctor`

    - `kubectl -n ibtpo exec job/learner -- ibtpo doctor --kubernetes-env`
    """
    from services.launcher.commands.doctor import doctor as examine
    from services.launcher.doctor.targets import DoctorRequest

    request = DoctorRequest(
        run=run or run_name,
        runs=runs,
        config=config,
        redis_url=redis_url or None,
        verifier_url=verifier_url or None,
        learner_url=learner_url or None,
        rollout_urls=tuple(rollout_url or ()),
        token=token,
        is_kubernetes=kubernetes_env,
        asks_gpus=gpu,
        seconds=timeout,
    )
    raise typer.Exit(examine(request, as_json=as_json))


@commands.command("runs", rich_help_panel=INSPECT)
def list_runs(
    runs: Runs = Path("runs"),
    sort: Annotated[str, typer.Option(help="By age, name, accuracy, steps or tokens.")] = "age",
    as_json: AsJson = False,
) -> None:
    """Lists the runs of this machine: state, method, held-out accuracy before and after, and how to go on.

    - `ibtpo runs --sort accuracy`
    """
    from services.launcher.commands.runs import list_runs as print_runs

    raise typer.Exit(print_runs(runs, sort, as_json=as_json))


@commands.command(rich_help_panel=INSPECT)
def report(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=]RUN…", help="Runs; NAME=RUN,RUN makes a group.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the page goes.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Writes one HTML page about a run, or about several next to each other.

    Runs that differ in nothing but their seed are one line of it.

    - `ibtpo report` – the latest run, into its folder

    - `ibtpo report ib-0 ib-1 grpo-0 grpo-1` – curves with bands, paired differences, what differs in their settings

    - `ibtpo report trees=ib-0,ib-1 answers=grpo-0 --out compare.html`
    """
    from services.launcher.commands.report import report as write_report

    raise typer.Exit(write_report(runs, names or (), out))


@commands.command(rich_help_panel=INSPECT)
def track(run: RunArgument = None, settings: Settings = None, runs: Runs = Path("runs")) -> None:
    """Sends to a run's trackers what they have not got of it.

    - `ibtpo track demo tracker=wandb wandb.project=mine` – also to one that the run did not have
    """
    from services.launcher.commands.track import track as track_run

    raise typer.Exit(track_run(runs, run, tuple(settings or ())))
