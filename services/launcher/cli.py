"""The `ibtpo` command. A service is imported only when its own command runs, so that each needs only its own extra."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import IbtpoError, InvalidInput

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Post-trains language models with IB-TPO: trees of answers, balanced by their information.\n\n"
    "`ibtpo demo` shows all of it on this machine in a few minutes.",
)

RUN, ONE_SERVICE, LOOK = "Train on this machine", "One service, anywhere", "Look"

Config = Annotated[str | None, typer.Option("--config", "-c", help="A preset's name, or the path of a TOML file.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings; see `ibtpo config`.")]
Runs = Annotated[Path, typer.Option(help="Where run directories lie.")]
RunName = Annotated[str | None, typer.Option("--run", help="The run's name; else the preset's.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew; the old run directory is kept aside.")]
Plain = Annotated[bool, typer.Option("--plain", help="A line per step instead of the live view.")]
RedisUrl = Annotated[str | None, typer.Option(envvar="REDIS_URL", help="A Redis to use instead of an own one.")]
Token = Annotated[str | None, typer.Option(envvar="IBTPO_TOKEN", help="The services' bearer token.", show_envvar=True)]
RunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help="A run's name or directory; else the latest.")]


@app.command(rich_help_panel=RUN)
def demo(
    settings: Settings = None,
    run: RunName = None,
    resume: Resume = False,
    fresh: Fresh = False,
    plain: Plain = False,
    redis_url: RedisUrl = None,
    runs: Runs = Path("runs"),
) -> None:
    """Trains a small model with IB-TPO here and now: all services, a few minutes on 2 cores.

    Ctrl-C stops it in good order, and the same command goes on with it.

    - `ibtpo demo`

    - `ibtpo demo --fresh sampler=independent advantage=grpo` – the same with GRPO

    - `ibtpo demo launcher.replicas=3 seed=1 --run three`
    """
    from services.launcher.commands.train import train
    from services.launcher.settings.plan import RunRequest, StartMode

    request = RunRequest(run, "demo", tuple(settings or ()), StartMode.of(resume=resume, fresh=fresh))
    _exit(train(request, runs, redis_url, plain=plain))


@app.command(rich_help_panel=RUN)
def train(
    settings: Settings = None,
    config: Config = "demo",
    run: RunName = None,
    resume: Resume = False,
    fresh: Fresh = False,
    plain: Plain = False,
    redis_url: RedisUrl = None,
    runs: Runs = Path("runs"),
) -> None:
    """Trains with every service on this machine, and leaves runs/NAME/ behind.

    There: summary.json, report.html, plots, metrics.jsonl, the trained policy, trees, logs.

    - `ibtpo train sampler=ib advantage=ibtpo seed=1` – the demo's task, other settings

    - `ibtpo train --config grpo --run baseline`

    - `ibtpo train --config my.toml learner.model=models/mine data=problems.jsonl`

    - `ibtpo train --run baseline --resume max_generated_tokens=2000000`
    """
    from services.launcher.commands.train import train as train_run
    from services.launcher.settings.plan import RunRequest, StartMode

    request = RunRequest(run, config or "demo", tuple(settings or ()), StartMode.of(resume=resume, fresh=fresh))
    _exit(train_run(request, runs, redis_url, plain=plain))


@app.command(rich_help_panel=ONE_SERVICE)
def rollout(settings: Settings = None, config: Config = None) -> None:
    """A rollout replica: grows trees for a run's tasks, and for whoever posts a problem.

    - `ibtpo rollout model=models/mine verifier_url=http://127.0.0.1:8002` – POST /v1/trees, without a run

    - `IBTPO_TOKEN=… ibtpo rollout host=0.0.0.0 run=mine redis_url=redis://10.0.0.5/0` – one more replica for a run
    """
    from services.rollout.config import RolloutConfig
    from shared.runtime.config import load_config

    loaded = load_config(RolloutConfig, "rollout", config, settings or ())
    from services.rollout.wiring import main as serve

    _exit(serve(loaded))


@app.command(rich_help_panel=ONE_SERVICE)
def verifier(settings: Settings = None, config: Config = None) -> None:
    """The verifier: judges answers over HTTP, POST /v1/verdicts.

    - `ibtpo verifier port=8002 math.workers=4`
    """
    from services.verifier.config import VerifierConfig
    from shared.runtime.config import load_config

    loaded = load_config(VerifierConfig, "verifier", config, settings or ())
    from services.verifier.wiring import main as serve

    _exit(serve(loaded))


@app.command(rich_help_panel=ONE_SERVICE)
def learner(settings: Settings = None, config: Config = None) -> None:
    """The learner of one run: feeds problems, learns from trees, pushes weights; exits 0 when the run is done.

    - `ibtpo learner --config grpo run=mine model=models/mine data=problems.jsonl redis_url=redis://10.0.0.5/0`
    """
    from services.learner.config import LearnerConfig
    from shared.runtime.config import load_config

    loaded = load_config(LearnerConfig, "learner", config, settings or ())
    from services.learner.wiring import main as serve

    _exit(serve(loaded))


@app.command(rich_help_panel=LOOK)
def grow(
    prompt: Annotated[str, typer.Argument(help="The problem, as the model reads it.")],
    settings: Settings = None,
    model: Annotated[Path | None, typer.Option(help="A model directory; else the demo's.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="The prompt is a user's message, for a chat model.")] = False,
    answer: Annotated[str | None, typer.Option(help="The right answer; the demo's is worked out.")] = None,
    kind: Annotated[str, typer.Option(help="How answers are judged.")] = "math",
    url: Annotated[str | None, typer.Option(help="A rollout replica to ask, instead of starting one.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    save: Annotated[Path | None, typer.Option(help="Where to keep the tree (.msgpack).")] = None,
    token: Token = None,
) -> None:
    """Grows one tree of answers and draws it: p̂, η₁, η₂, IB-Score, and where it branched when.

    - `ibtpo grow "2+3*4="`

    - `ibtpo grow "2+3*4=" sampler=independent initial_draws=12 temperature=0.7`

    - `ibtpo grow "…" --model models/mine --answer 42 max_tokens=512 rounds=4`
    """
    from services.launcher.commands.grow import GrowArguments
    from services.launcher.commands.grow import grow as grow_one

    _exit(grow_one(GrowArguments(prompt, chat, model, url, kind, answer, tuple(settings or ()), seed, token, save)))


@app.command("eval", rich_help_panel=LOOK)
def evaluate(
    model: Annotated[Path | None, typer.Option(help="A model directory; else the demo's.")] = None,
    data: Annotated[Path | None, typer.Option(help="Problems, JSON lines; else the demo's held-out ones.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Independent answers per problem.")] = 8,
    problems: Annotated[int, typer.Option(min=1, help="The first so many problems.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Limit of an answer.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    replicas: Annotated[int, typer.Option(min=1, help="Rollout replicas to start.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """avg@k and pass@k of a model, through the same rollout and verifier services that train it.

    - `ibtpo eval --model runs/demo/policy --k 8`

    - `ibtpo eval --model models/mine --data held_out.jsonl --max-tokens 512 --temperature 0.7`
    """
    from services.demo.task import checkpoint_directory
    from services.launcher.commands.evaluate import EvaluateArguments
    from services.launcher.commands.evaluate import evaluate as evaluate_model

    where = model or checkpoint_directory()
    _exit(evaluate_model(EvaluateArguments(where, data, k, problems, max_tokens, temperature, seed, replicas)))


@app.command(rich_help_panel=LOOK)
def show(
    what: Annotated[str | None, typer.Argument(metavar="RUN|FILE", help="A run, or a tree's file.")] = None,
    tree: Annotated[str | None, typer.Option(help="Which of the run's trees: its number or name.")] = None,
    model: Annotated[Path | None, typer.Option(help="For a file: whose tokens these are; else the demo's.")] = None,
    page: Annotated[bool, typer.Option("--report", help="Write the run's plots and report.html anew.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """The trees that a run kept: the last ones and a sample of all.

    - `ibtpo show` – those of the latest run

    - `ibtpo show runs/demo --tree 3`

    - `ibtpo show tree.msgpack --model models/mine`
    """
    from services.demo.task import checkpoint_directory
    from services.launcher.commands.show import rewrite_report, show_file, show_run

    if what is not None and Path(what).is_file():
        _exit(show_file(Path(what), model or checkpoint_directory()))
    _exit(rewrite_report(runs, what) if page else show_run(runs, what, tree))


@app.command(rich_help_panel=LOOK)
def verify(
    response: Annotated[str | None, typer.Argument(help="What the model answered.")] = None,
    answer: Annotated[str | None, typer.Option(help="The right answer.")] = None,
    kind: Annotated[str, typer.Option(help="How it is judged: math, choice or exact.")] = "math",
    input: Annotated[Path | None, typer.Option(help="JSON lines of {id, kind, response, answer_key}.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where their verdicts go, in the same order.")] = None,
    url: Annotated[str | None, typer.Option(help="A verifier to ask, instead of starting one.")] = None,
    token: Token = None,
) -> None:
    """Judges one answer, or a file of answers, as the verifier does.

    - `ibtpo verify "so it is \\boxed{\\frac{1}{2}}" --answer 0.5`

    - `ibtpo verify "The answer is (B)." --answer B --kind choice`

    - `ibtpo verify --input answers.jsonl --output verdicts.jsonl`
    """
    if input is not None and output is not None and response is None:
        from services.verifier.judge_file import judge_file

        _exit(judge_file(input, output, url, token))
    if response is None or answer is None or input is not None or output is not None:
        raise InvalidInput("give an answer and --answer, or both --input and --output")
    from services.launcher.commands.verify import VerifyArguments
    from services.launcher.commands.verify import verify as verify_answer

    _exit(verify_answer(VerifyArguments(response, answer, kind, url, token)))


@app.command(rich_help_panel=RUN)
def status(
    run: RunArgument = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until the run has ended.")] = False,
    redis_url: RedisUrl = None,
    runs: Runs = Path("runs"),
    token: Token = None,
) -> None:
    """How a run is going, or what it came to.

    - `ibtpo status` – the latest run of this machine

    - `ibtpo status mine --redis-url redis://10.0.0.5/0` – one whose services run elsewhere
    """
    from services.launcher.commands.status import RunQuery
    from services.launcher.commands.status import status as show_status

    _exit(show_status(RunQuery(runs, run, redis_url, token), watch=watch))


@app.command(rich_help_panel=RUN)
def stop(run: RunArgument = None, redis_url: RedisUrl = None, runs: Runs = Path("runs"), token: Token = None) -> None:
    """Ends a run in good order: the step in progress is finished, a checkpoint is written.

    - `ibtpo stop demo`, and later `ibtpo train --run demo --resume`
    """
    from services.launcher.commands.status import RunQuery
    from services.launcher.commands.status import stop as stop_run

    _exit(stop_run(RunQuery(runs, run, redis_url, token)))


@app.command(rich_help_panel=LOOK)
def config(settings: Settings = None, config: Config = None) -> None:
    """What every setting means; with a preset or settings, what they come to, as a TOML file.

    - `ibtpo config`

    - `ibtpo config --config demo sampler=random lr=1e-4 > mine.toml`
    """
    from services.launcher.commands.explain import explain

    _exit(explain(config, tuple(settings or ())))


def main() -> None:
    """The script's entry: an error of ours is one line on standard error, not a traceback."""
    try:
        app()
    except InvalidInput as error:
        _fail(error, 2)
    except IbtpoError as error:
        _fail(error, 1)


def _exit(code: int) -> None:
    raise typer.Exit(code)


def _fail(error: IbtpoError, code: int) -> None:
    print(f"ibtpo: {error.title}: {error}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
