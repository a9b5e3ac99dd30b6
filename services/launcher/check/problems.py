"""What a run's problems look like to its model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean

from services.demo.data import write_data
from services.launcher.check.model import ModelFacts
from services.launcher.check.tokenizer import TokenizerFacts
from services.launcher.display.finding import Section
from services.launcher.runs.imported_problems import load_prompt_model
from services.launcher.settings.plan import RunPlan
from services.learner.data.prompting import PromptModel
from services.learner.data.run_files import problem_files
from services.learner.held_out.problem_set import import_name, source_of
from services.learner.queue.problems import EncodedProblem, ProblemLimits, ProblemSet, check_rows, read_problems
from shared.errors import InvalidInput
from shared.files import read_rows
from shared.protocol.task import Problem
from shared.weights import Prompt, prompt_encoder

_FEW = 32


@dataclass(frozen=True, slots=True)
class ProblemFacts:
    """The problems, as a run has them."""

    train: tuple[EncodedProblem, ...]
    prompts: tuple[Prompt, ...] = field(repr=False)
    """Of the first rows, as they are written."""

    @property
    def longest_prompt(self) -> int:
        return max(len(problem.prompt_ids) for problem in self.train)


def examine_problems(
    section: Section, plan: RunPlan, facts: ModelFacts, tokens: TokenizerFacts, folder: Path
) -> ProblemFacts | None:
    """Rows, kinds, lengths, what is left out, what is held out; None where there are none that can be used. What must
    be imported is put into the folder."""
    learner = plan.learner
    answer = max(learner.growth.max_tokens, learner.evaluation.max_tokens or 0)
    encode = prompt_encoder(tokens.tokenizer, learner.chat_template_kwargs)

    def read(files: Sequence[Path], max_tokens: int) -> ProblemSet:
        check_rows(files)
        return read_problems(files, encode, ProblemLimits(facts.vocab_size, facts.context_length, max_tokens))

    try:
        data, held_out_files = _files(plan, facts, folder, answer)
        train = read(data, answer)
        held_out = {name: read(files, max_tokens) for name, (files, max_tokens) in held_out_files.items()}
    except InvalidInput as error:
        section.failed("problems", str(error), "")
        return None
    _describe(section, "problems", train)
    for name, found in held_out.items():
        _describe(section, f"held out {name}" if held_out.keys() - {name} else "held out", found)
    if not held_out:
        section.warning("held out", "no held-out problems: nothing will be evaluated", "held_out=FILE")
    _compare(section, train.problems, [problem for found in held_out.values() for problem in found.problems])
    prompts = [row.prompt for path in data for _, row in islice(read_rows(path, Problem), _FEW)]
    return ProblemFacts(train.problems, tuple(prompts))


def _files(
    plan: RunPlan, facts: ModelFacts, folder: Path, answer: int
) -> tuple[tuple[Path, ...], dict[str, tuple[tuple[Path, ...], int]]]:
    """Of the problems to train on; of each held-out set, with the limit of its answers."""
    learner, demo = plan.learner, plan.launcher.demo
    if plan.launcher.task == "demo":
        write_data(folder, demo.difficulty, demo.train_problems, demo.held_out_problems, demo.seed)
        held_out: tuple[Path, ...] = (folder / "heldout.jsonl",)
        return (folder / "train.jsonl",), {
            one.name: (held_out, one.growth.max_tokens) for one in learner.held_out_plans
        }

    def load_model(max_tokens: int) -> PromptModel:
        return load_prompt_model(facts.directory, max_tokens, learner.chat_template_kwargs)

    sets = {}
    for one in learner.held_out_plans:
        limit, sources = one.growth.max_tokens, (source_of(one.source),)
        sets[one.name] = problem_files(sources, folder, import_name(one.name), partial(load_model, limit)), limit
    load = partial(load_model, answer)
    return problem_files(learner.data, folder, "train", load, learner.held_out_sources), sets


def _describe(section: Section, check: str, found: ProblemSet) -> None:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in Counter(one.kind for one in found.problems).most_common())
    lengths = [len(problem.prompt_ids) for problem in found.problems]
    said = f"{kinds}; prompts of {min(lengths)} to {max(lengths)} tokens, {fmean(lengths):.0f} on average"
    if found.note:
        section.warning(check, f"{said}; {found.note}", "")
    else:
        section.ok(check, said)


def _compare(section: Section, train: Sequence[EncodedProblem], held_out: Sequence[EncodedProblem]) -> None:
    """Equal prompts within the problems, and in both sets."""
    counts = Counter(problem.source for problem in train)
    if repeated := sum(count - 1 for count in counts.values()):
        section.warning(
            "duplicates",
            f"{repeated:,} of {len(train):,} problems have the prompt of another",
            "`ibtpo data import` drops them",
        )
    shared = [problem for problem in held_out if problem.source in counts]
    if shared:
        section.warning(
            "overlap",
            f"{len(shared):,} of {len(held_out):,} held-out problems are trained on, the first {shared[0].where}",
            "take them out, or accuracy says less than it seems; `ibtpo data import` does",
        )
    elif held_out:
        section.ok("overlap", "no held-out prompt is among the problems")
