"""All that can be found out before a run, in the order in which one thing builds on another."""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.launcher.check.answers import examine_answers, examine_speed
from services.launcher.check.machine import examine_disk, examine_given_redis, examine_snapshots
from services.launcher.check.memory import examine_memory
from services.launcher.check.model import ModelFacts, examine_fitness, examine_model
from services.launcher.check.own_parts import examine_own_parts
from services.launcher.check.problems import ProblemFacts, examine_problems
from services.launcher.check.sampling import Advance, SampleSize, sample_answers
from services.launcher.check.tokenizer import TokenizerFacts, examine_round_trip, examine_template, examine_tokenizer
from services.launcher.display.finding import Section
from services.launcher.settings.plan import RunPlan
from services.learner.tracker_config import check_trackers
from shared.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """How much is tried."""

    size: SampleSize | None
    """None: nothing is sampled."""
    is_quick: bool
    """Files, tokenizer, problems and own parts alone: no weights are loaded, no service is started."""
    redis_url: str | None


def examine_run(plan: RunPlan, request: CheckRequest, advance: Advance) -> Iterator[Section]:
    """Yields each section once it is complete."""
    advance("reading the model", None, None)
    model, tokenizer = Section("model"), Section("tokenizer")
    facts = examine_model(model, plan)
    tokens = examine_tokenizer(tokenizer, facts) if facts else None
    if facts and not request.is_quick:
        advance("loading the model", None, None)
        examine_fitness(model, facts, plan)
    yield model
    advance("trying your own parts", None, None)
    own = Section("own parts")
    examine_own_parts(own, plan, facts.directory if facts else None)
    yield from (section for section in (own,) if section.findings)
    with tempfile.TemporaryDirectory(prefix="ibtpo-check-") as name:
        advance("reading problems", None, None)
        folder, data = Path(name), Section("problems")
        problems = examine_problems(data, plan, facts, tokens, folder) if facts and tokens else None
        if facts and tokens:
            learner = plan.learner
            prompts = problems.prompts if problems else ()
            examine_round_trip(tokenizer, facts, tokens, prompts)
            examine_template(tokenizer, tokens, learner.chat_template_kwargs, prompts, learner.growth.max_tokens)
        yield from (section for section in (tokenizer, data) if section.findings)
        if facts:
            yield _examine_machine(plan, request, facts, problems)
        if facts and tokens and problems and not request.is_quick:
            yield _examine_sample(plan, request, facts, tokens, problems, folder, advance)


def _examine_machine(plan: RunPlan, request: CheckRequest, facts: ModelFacts, problems: ProblemFacts | None) -> Section:
    section = Section("machine")
    examine_memory(section, facts, plan, problems.longest_prompt if problems else 0)
    examine_disk(section, plan, facts.size.num_parameters, facts.size.num_trained)
    examine_snapshots(section, plan, facts.size.num_parameters)
    _examine_trackers(section, plan)
    if request.redis_url is not None:
        asyncio.run(examine_given_redis(section, request.redis_url))
    return section


def _examine_trackers(section: Section, plan: RunPlan) -> None:
    """Whether they are installed, and have their keys."""
    names = plan.learner.tracker
    try:
        check_trackers(names, plan.learner.tracker_modes)
    except InvalidInput as error:
        section.failed("trackers", str(error), "")
    else:
        section.ok("trackers", ", ".join(names) or "none")


def _examine_sample(
    plan: RunPlan,
    request: CheckRequest,
    facts: ModelFacts,
    tokens: TokenizerFacts,
    problems: ProblemFacts,
    folder: Path,
    advance: Advance,
) -> Section:
    section = Section("answers of the untrained model" if request.size else "answers")
    found = asyncio.run(sample_answers(section, plan, facts, tokens, problems.train, request.size, folder, advance))
    if found is not None:
        sample, ways = found
        examine_answers(section, sample, ways, plan)
        examine_speed(section, sample, plan)
    return section
