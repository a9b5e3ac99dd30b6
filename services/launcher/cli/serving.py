"""Commands that run one service: rollout, verifier and learner."""

from importlib import import_module

import typer

from services.launcher.cli.options import SERVE, Config, Settings
from shared.errors import explain_missing_packages

commands = typer.Typer()


@commands.command(rich_help_panel=SERVE)
def rollout(settings: Settings = None, config: Config = None) -> None:
    """Runs a rollout replica: it grows trees for the tasks of a run and for problems that it gets over HTTP.

    - `ibtpo rollout model=models/mine verifier_url=http://127.0.0.1:8002` – for POST /v1/trees only

    - `IBTPO_TOKEN=… ibtpo rollout host=0.0.0.0 run=mine redis_url=redis://10.0.0.5/0` – adds a replica to a run
    """
    _serve("rollout", config, settings)


@commands.command(rich_help_panel=SERVE)
def verifier(settings: Settings = None, config: Config = None) -> None:
    """Runs the verifier: it judges answers over HTTP, POST /v1/verdicts.

    - `ibtpo verifier port=8002 math.workers=4`
    """
    _serve("verifier", config, settings)


@commands.command(rich_help_panel=SERVE)
def learner(settings: Settings = None, config: Config = None) -> None:
    """Runs the learner of one run: it hands out problems, trains on trees and pushes weights; exits 0 at the end.

    - `ibtpo learner --config grpo run=mine model=models/mine data=problems.jsonl redis_url=redis://10.0.0.5/0`
    """
    _serve("learner", config, settings)


def _serve(service: str, preset: str | None, settings: list[str] | None) -> None:
    """Runs a service, whose code, which takes seconds to import, is imported once its configuration is right."""
    from shared.runtime.config import load_config

    model = getattr(import_module(f"services.{service}.config"), f"{service.capitalize()}Config")
    config = load_config(model, service, preset, settings or ())
    with explain_missing_packages("rollout,embedded" if service == "rollout" else service):
        raise typer.Exit(import_module(f"services.{service}.wiring").main(config))
