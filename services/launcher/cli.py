"""The `ibtpo` command. Each command imports its service only when it runs, so that it needs only its own extra."""

import io
import os
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import IbtpoError, InvalidInput, explain_missing_packages

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Post-trains language models with IB-TPO: samples answers as trees and learns from every branch.\n\n"
    "`ibtpo demo` trains a small model on this machine in a few minutes.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"ibtpo {version('ibtpo')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Only has the options of the command itself; the help stands above."""


TRAIN, SERVE, INSPECT = "Train on this machine", "Run one service", "Inspect"

_CONFIG = typer.Option("--config", "-c", help="A preset's name, or the path of a TOML file.")
PresetConfig = Annotated[str, _CONFIG]
Config = Annotated[str | None, _CONFIG]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings; see `ibtpo config`.")]
Runs = Annotated[Path, typer.Option(help="The folder of the run directories.")]
RunName = Annotated[str | None, typer.Option("--run", help="The run's name; by default the preset's.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the existing run.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin the run again; the old directory is renamed.")]
Plain = Annotated[bool, typer.Option("--plain", help="Print a line per step instead of the live view.")]
RedisUrl = Annotated[str | None, typer.Option(envvar="REDIS_URL", help="Use this Redis instead of starting one.")]
RunRedis = Annotated[str | None, typer.Option("--redis-url", envvar="REDIS_URL", help="The Redis of the run.")]
Token = Annotated[str | None, typer.Option(envvar="IBTPO_TOKEN", help="The services' token.", show_envvar=True)]
Model = Annotated[Path | None, typer.Option(help="A directory, or OWNER/NAME of the hub; by default the demo's.")]
RunArgument = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run's name or directory; default: the latest.")
]


@app.command(rich_help_panel=TRAIN)
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
    train(settings, "demo", run, resume, fresh, plain, redis_url, runs)


@app.command(rich_help_panel=TRAIN)
def train(
    settings: Settings = None,
    config: PresetConfig = "demo",
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

    - `ibtpo train --config my.toml learner.model=models/mine data=problems.jsonl`

    - `ibtpo train --run baseline --resume max_generated_tokens=2000000`
    """
    from services.launcher.commands.train import train as train_run
    from services.launcher.settings.plan import RunRequest, StartMode

    request = RunRequest(run, config, tuple(settings or ()), StartMode.of(resume=resume, fresh=fresh))
    _exit(train_run(request, runs, redis_url, plain=plain))


@app.command(rich_help_panel=TRAIN)
def check(
    settings: Settings = None,
    config: PresetConfig = "demo",
    run: RunName = None,
    quick: Annotated[bool, typer.Option("--quick", help="Files and problems alone; nothing is started.")] = False,
    no_sample: Annotated[bool, typer.Option("--no-sample", help="Do not have the model answer problems.")] = False,
    problems: Annotated[int, typer.Option(min=1, help="How many problems it answers.")] = 16,
    k: Annotated[int, typer.Option("--k", min=1, help="How many answers it gives to each.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
    _exit(check_run(runs, RunRequest(run, config, tuple(settings or ())), how, as_json=as_json))


@app.command(rich_help_panel=SERVE)
def rollout(settings: Settings = None, config: Config = None) -> None:
    """Runs a rollout replica: it grows trees for the tasks of a run and for problems that it gets over HTTP.

    - `ibtpo rollout model=models/mine verifier_url=http://127.0.0.1:8002` – for POST /v1/trees only

    - `IBTPO_TOKEN=… ibtpo rollout host=0.0.0.0 run=mine redis_url=redis://10.0.0.5/0` – adds a replica to a run
    """
    _serve("rollout", config, settings)


@app.command(rich_help_panel=SERVE)
def verifier(settings: Settings = None, config: Config = None) -> None:
    """Runs the verifier: it judges answers over HTTP, POST /v1/verdicts.

    - `ibtpo verifier port=8002 math.workers=4`
    """
    _serve("verifier", config, settings)


@app.command(rich_help_panel=SERVE)
def learner(settings: Settings = None, config: Config = None) -> None:
    """Runs the learner of one run: it hands out problems, trains on trees and pushes weights; exits 0 at the end.

    - `ibtpo learner --config grpo run=mine model=models/mine data=problems.jsonl redis_url=redis://10.0.0.5/0`
    """
    _serve("learner", config, settings)


@app.command(rich_help_panel=INSPECT)
def grow(
    prompt: Annotated[str | None, typer.Argument(help="The problem, as the model gets it.")] = None,
    settings: Settings = None,
    data: Annotated[Path | None, typer.Option(help="Take the problem from this file, as training has it.")] = None,
    row: Annotated[int, typer.Option(min=1, help="Which one of --data, counted from 1.")] = 1,
    model: Model = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt to the model as a chat message.")] = False,
    answer: Annotated[str | None, typer.Option(help="The right answer; the demo computes its own.")] = None,
    kind: Annotated[str, typer.Option(help="How answers are judged: math, choice or exact.")] = "math",
    url: Annotated[str | None, typer.Option(help="Ask this rollout replica instead of starting one.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed grows another tree.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Save the tree: FILE.svg a picture, else its record.")] = None,
    token: Token = None,
) -> None:
    """Grows one tree of answers and shows it: the order of its branches, and p̂, η₁, η₂, IB-Score of every step.

    - `ibtpo grow "2+3*4-1*6=" seed=1 --save tree.svg` – the demo's model reckons modulo 7

    - `ibtpo grow "2+3*4=" sampler=independent initial_draws=12 temperature=0.7`

    - `ibtpo grow "…" --model models/mine --chat --answer 42 max_tokens=512 chat_template_kwargs='{thinking = false}'`

    - `ibtpo grow --data problems.jsonl --row 3 --model models/mine max_tokens=512`
    """
    from services.launcher.commands.grow import GrowArguments
    from services.launcher.commands.grow import grow as grow_one

    given = tuple(settings or ())
    if data is not None and (chat or answer is not None):
        raise typer.BadParameter("a row of --data has its own answer and messages: leave out --answer and --chat")
    if data is not None and prompt is not None:
        given, prompt = (prompt, *given), None
    problem = ({"role": "user", "content": prompt},) if chat and prompt else prompt
    _exit(grow_one(GrowArguments(problem, data, row, model, url, kind, answer, given, seed, token, save)))


@app.command("eval", rich_help_panel=INSPECT)
def evaluate(
    settings: Settings = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="A directory or hub name; several are compared. Default: the demo's."),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="Problems, a file or hf:NAME; each is a set.")] = None,
    set: Annotated[list[str] | None, typer.Option(help="A held-out set of --config by name; default: all.")] = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="Of kinds, growth, engine and sets.")] = None,
    k: Annotated[int | None, typer.Option("--k", min=1, help="Independent answers per problem.")] = None,
    problems: Annotated[int | None, typer.Option(min=1, help="Problems of each set, from the first.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Token limit of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Sampling temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(max=1.0, help="Sample from the likeliest tokens of this sum.")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Rollout replicas to start.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Another seed samples other answers.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Keep every answer's result here; begun before, it goes on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measures avg@k, pass@k and maj@k of models, through the same rollout and verifier services that train them.

    What is not given is as in --config: by default the config.toml beside the model, as a run has it, or the demo.

    - `ibtpo eval --model runs/demo/policy --k 8`

    - `ibtpo eval --model models/mine --data gsm8k.jsonl --data math500.jsonl --max-tokens 512 --out results`

    - `ibtpo eval --model models/mine --model runs/first/policy --config mine.toml --set gsm8k`
    """
    from services.demo.task import checkpoint_directory
    from services.launcher.commands.evaluate import evaluate as evaluate_models
    from services.launcher.settings.evaluation import EvaluateArguments

    given = {"k": k, "problems": problems, "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
    arguments = EvaluateArguments(
        tuple(model or (checkpoint_directory(),)),
        tuple(data or ()),
        tuple(set or ()),
        config,
        tuple(settings or ()),
        tuple((key, value) for key, value in given.items() if value is not None),
        seed,
        replicas,
        out,
        as_json,
    )
    _exit(evaluate_models(arguments))


@app.command(rich_help_panel=INSPECT)
def show(
    what: Annotated[str | None, typer.Argument(metavar="RUN|FILE", help="A run or a tree's file.")] = None,
    tree: Annotated[str | None, typer.Option(help="Show this tree of the run: its number or name.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="The model of a file without token texts; default: the demo's.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show all of every text, also the chat template's.")] = False,
    held_out: Annotated[str | None, typer.Option(help="Show what was answered to this held-out set.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="After so many steps; by default the last.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Shows the trees that a run kept: the last ones and a sample of all; or its answers to a held-out set.

    - `ibtpo show` – lists those of the latest run

    - `ibtpo show runs/demo --tree 3`

    - `ibtpo show tree.msgpack --model models/mine`

    - `ibtpo show demo --held-out heldout`, or a file that `ibtpo eval --out` wrote
    """
    from services.demo.task import checkpoint_directory
    from services.launcher.commands.show import show_file, show_held_out, show_results, show_run

    if held_out is not None:
        _exit(show_held_out(runs, what, held_out, step))
    if what is not None and Path(what).is_file() and what.endswith((".jsonl", ".jsonl.gz")):
        _exit(show_results(Path(what)))
    if what is not None and Path(what).is_file():
        _exit(show_file(Path(what), model or checkpoint_directory(), is_full=full))
    _exit(show_run(runs, what, tree, is_full=full))


@app.command(rich_help_panel=INSPECT)
def verify(
    response: Annotated[str | None, typer.Argument(help="The answer to judge.")] = None,
    answer: Annotated[str | None, typer.Option(help="The right answer.")] = None,
    kind: Annotated[str, typer.Option(help="How the answer is judged: math, choice or exact.")] = "math",
    extraction: Annotated[
        list[str] | None, typer.Option(help="Where the final answer is: box, answer_is, last_number … Repeatable.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="The rendered prompt, whose end may open a thought.")] = "",
    input: Annotated[Path | None, typer.Option(help="JSON lines: {id, kind, response, answer_key}.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write their verdicts here, in the same order.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask this verifier instead of starting one.")] = None,
    token: Token = None,
) -> None:
    """Judges one answer, or a file of answers, as the verifier does.

    - `ibtpo verify "so it is \\boxed{\\frac{1}{2}}" --answer 0.5`

    - `ibtpo verify "The answer is (B)." --answer B --kind choice`

    - `ibtpo verify "So it is 4." --answer 4 --extraction last_number`

    - `ibtpo verify --input answers.jsonl --output verdicts.jsonl`
    """
    if input is not None and output is not None and response is None:
        from services.verifier.judge_file import judge_file

        _exit(judge_file(input, output, url, token))
    if response is None or answer is None or input is not None or output is not None:
        raise InvalidInput("give an answer and --answer, or both --input and --output")
    from services.launcher.commands.verify import verify as verify_answer
    from shared.protocol.verdict import VerdictItem

    key = {"gold": answer, **({"extraction": extraction} if extraction else {})}
    item = VerdictItem(id="answer", kind=kind, response=response, answer_key=key, prompt=prompt)
    _exit(verify_answer(item, url, token))


@app.command(rich_help_panel=TRAIN)
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

    _exit(show_status(RunQuery(runs, run, redis_url, token), watch=watch))


@app.command(rich_help_panel=TRAIN)
def stop(run: RunArgument = None, redis_url: RunRedis = None, runs: Runs = Path("runs"), token: Token = None) -> None:
    """Stops a run after the step in progress and a checkpoint.

    - `ibtpo stop demo` – later, `ibtpo train --run demo --resume` continues it
    """
    from services.launcher.commands.status import RunQuery
    from services.launcher.commands.status import stop as stop_run

    _exit(stop_run(RunQuery(runs, run, redis_url, token)))


@app.command(rich_help_panel=INSPECT)
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
    _exit(examine(request, as_json=as_json))


@app.command("runs", rich_help_panel=INSPECT)
def list_runs(
    runs: Runs = Path("runs"),
    sort: Annotated[str, typer.Option(help="By age, name, accuracy, steps or tokens.")] = "age",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lists the runs of this machine: state, method, held-out accuracy before and after, and how to go on.

    - `ibtpo runs --sort accuracy`
    """
    from services.launcher.commands.runs import list_runs as print_runs

    _exit(print_runs(runs, sort, as_json=as_json))


@app.command(rich_help_panel=INSPECT)
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

    _exit(write_report(runs, names or (), out))


@app.command(rich_help_panel=INSPECT)
def track(run: RunArgument = None, settings: Settings = None, runs: Runs = Path("runs")) -> None:
    """Sends to a run's trackers what they have not got of it.

    - `ibtpo track demo tracker=wandb wandb.project=mine` – also to one that the run did not have
    """
    from services.launcher.commands.track import track as track_run

    _exit(track_run(runs, run, tuple(settings or ())))


data_commands = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(
    data_commands, name="data", rich_help_panel=TRAIN, help="Problems: imports, shows and explains data sets."
)
Sources = Annotated[
    list[str], typer.Argument(metavar="SRC… KEY=VALUE…", help="Files, folders or hf:NAME; settings of a source.")
]
PromptModelOption = Annotated[Path | None, typer.Option("--model", help="Measure and show prompts as this model does.")]


@data_commands.command("import")
def data_import(
    given: Sources,
    out: Annotated[Path, typer.Option(help="The file to write; its reports lie beside it.")],
    format: Annotated[str | None, typer.Option(help="What the columns mean; else what fits them.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many problems of each source.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed takes others.")] = None,
    model: PromptModelOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Room for an answer beside the prompt.")] = 1,
    held_out: Annotated[list[str] | None, typer.Option(help="Drop what is in this set, too. Repeatable.")] = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="Kinds of your own, for the verifier.")] = None,
    vet: Annotated[bool, typer.Option(help="Have a verifier read the answer keys.")] = True,
) -> None:
    """Makes one file of problems from files, folders and data sets of the hub, and says what it dropped and why.

    - `ibtpo data import hf:openai/gsm8k:main#train --out train.jsonl --model models/mine`

    - `ibtpo data import a.parquet b.csv --out train.jsonl --held-out held_out.jsonl --limit 5000`

    - `ibtpo data import mine.csv --out train.jsonl fields.prompt=question fields.gold=meta.answer`

    - `ibtpo data import dapo.parquet --out train.jsonl system_prompt="Think first." instruction=""`
    """
    from services.launcher.commands.data import DataArguments, import_data

    stated = {"format": format, "limit": limit, "seed": seed}
    settings = (f"{key}={value}" for key, value in stated.items() if value is not None)
    everything = (*given, *settings)
    _exit(import_data(DataArguments(everything, model, tuple(held_out or ()), config, max_tokens, vet), out))


@data_commands.command("show")
def data_show(
    given: Sources,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many of each source.")] = 3,
    model: PromptModelOption = None,
) -> None:
    """Shows the first problems of a file or a data set, as a model reads them.

    - `ibtpo data show train.jsonl --model models/mine`

    - `ibtpo data show hf:HuggingFaceH4/MATH-500 -n 1`
    """
    from services.launcher.commands.data import DataArguments, show_data

    _exit(show_data(DataArguments(tuple(given), model), rows))


@data_commands.command("formats")
def data_formats() -> None:
    """Lists the formats that are known by their columns, and public sets that have them."""
    from services.launcher.commands.data import list_formats

    _exit(list_formats())


@app.command(rich_help_panel=INSPECT)
def config(settings: Settings = None, config: Config = None) -> None:
    """Explains every setting; with a preset or settings, prints the whole configuration as a TOML file.

    - `ibtpo config` – or, for some of them, `ibtpo config lr beta`

    - `ibtpo config --config demo sampler=random lr=1e-4 > mine.toml`
    """
    from services.launcher.commands.explain import explain

    _exit(explain(config, tuple(settings or ())))


def main() -> None:
    """The script's entry: prints our errors as one line on standard error, without a traceback."""
    if sys.getfilesystemencoding() != "utf-8":  # the locale's, in which names of files may be no text
        terminal = {"PYTHONIOENCODING": sys.stdout.encoding}
        os.execve(sys.executable, sys.orig_argv, os.environ | terminal | {"PYTHONUTF8": "1"})  # noqa: S606
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without our letters
    try:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # kinds of one's own are found, after all that is installed
    except FileNotFoundError:
        sys.exit("ibtpo: the directory in which this shell stands is gone: change to another one")
    try:
        with explain_missing_packages():
            app()
    except IbtpoError as error:
        print(f"ibtpo: {error.title}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InvalidInput) else 1)
    except OSError as error:  # of a file: a full disk, a directory that is another user's
        sys.exit(f"ibtpo: {error}")


def _serve(service: str, preset: str | None, settings: list[str] | None) -> None:
    """Runs a service, whose code, which takes seconds to import, is imported once its configuration is right."""
    from shared.runtime.config import load_config

    model = getattr(import_module(f"services.{service}.config"), f"{service.capitalize()}Config")
    config = load_config(model, service, preset, settings or ())
    with explain_missing_packages("rollout,embedded" if service == "rollout" else service):
        _exit(import_module(f"services.{service}.wiring").main(config))


def _exit(code: int) -> None:
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
