"""Commands about answers: grow, eval, show and verify."""

from pathlib import Path
from typing import Annotated

import typer

from services.launcher.cli.options import INSPECT, Model, Runs, Settings, Token
from shared.errors import InvalidInput

commands = typer.Typer()


@commands.command(rich_help_panel=INSPECT)
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
    raise typer.Exit(grow_one(GrowArguments(problem, data, row, model, url, kind, answer, given, seed, token, save)))


@commands.command("eval", rich_help_panel=INSPECT)
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
    raise typer.Exit(evaluate_models(arguments))


@commands.command(rich_help_panel=INSPECT)
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
        raise typer.Exit(show_held_out(runs, what, held_out, step))
    if what is not None and Path(what).is_file() and what.endswith((".jsonl", ".jsonl.gz")):
        raise typer.Exit(show_results(Path(what)))
    if what is not None and Path(what).is_file():
        raise typer.Exit(show_file(Path(what), model or checkpoint_directory(), is_full=full))
    raise typer.Exit(show_run(runs, what, tree, is_full=full))


@commands.command(rich_help_panel=INSPECT)
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

        raise typer.Exit(judge_file(input, output, url, token))
    if response is None or answer is None or input is not None or output is not None:
        raise InvalidInput("give an answer and --answer, or both --input and --output")
    from services.launcher.commands.verify import verify as verify_answer
    from shared.protocol.verdict import VerdictItem

    key = {"gold": answer, **({"extraction": extraction} if extraction else {})}
    item = VerdictItem(id="answer", kind=kind, response=response, answer_key=key, prompt=prompt)
    raise typer.Exit(verify_answer(item, url, token))
