"""What costs no time to find out: looked at before every run, and by `ibtpo check` among the rest."""

import math
from itertools import islice
from pathlib import Path

from services.launcher.check.machine import available_memory, examine_disk, format_bytes
from services.launcher.check.own_parts import examine_own_parts
from services.launcher.display.finding import Level, Section
from services.launcher.runs.model_files import check_stop_tokens, find_model, load_prompt_encoder
from services.launcher.settings.plan import RunPlan
from services.learner.data.run_files import is_problem_file
from services.rollout.config import EngineKind
from shared.errors import InvalidInput
from shared.files import read_rows
from shared.protocol.task import Problem
from shared.weights import ContextBounds, read_json_object, tensor_shapes

_FIRST = 32
"""Rows of each file whose messages are rendered."""


def look_before_start(plan: RunPlan) -> list[str]:
    """Warnings, each with its remedy. InvalidInput for what cannot go well. Of a run that goes on, the user's own parts
    alone are looked at: they may be others than those that it began with."""
    section = Section("before the start")
    if plan.resumes:
        examine_own_parts(section, plan, None)
        return _warnings(section)
    directory = find_model(plan.learner.model).directory
    examine_own_parts(section, plan, directory)
    _warnings(section)
    check_stop_tokens(directory)
    _check_context(plan, directory)
    _check_messages(plan, directory)
    num_parameters = sum(math.prod(one.shape) for one in tensor_shapes(directory).values())
    examine_disk(section, plan, num_parameters, 0 if plan.learner.lora else num_parameters)
    _examine_lasting(section, plan, num_parameters)
    _examine_held_out(section, plan)
    _examine_sampler(section, plan)
    return _warnings(section)


def _warnings(section: Section) -> list[str]:
    """Those found so far. InvalidInput for the first failure."""
    for finding in section.findings:
        if finding.level is Level.FAILED:
            raise InvalidInput(f"{finding.check}: {finding.found}: {finding.remedy}")
    return [f"{one.check}: {one.found}: {one.remedy}" for one in section.findings if one.level is Level.WARNING]


def _check_context(plan: RunPlan, directory: Path) -> None:
    """InvalidInput where the longest answers leave no room for a prompt, as the settings of a larger model do."""
    learner = plan.learner
    wanted = learner.context_length
    bounds = ContextBounds.of(read_json_object(directory / "config.json"))
    length = bounds.context_length(wanted, through_windows=wanted is not None)
    limits = {"growth.max_tokens": learner.growth.max_tokens}
    limits |= {f"max_tokens of held_out.{one.name}": one.growth.max_tokens for one in learner.held_out_plans}
    for key, limit in limits.items():
        if length is not None and limit >= length:
            raise InvalidInput(
                f"{key} {limit} leaves no room for a prompt: the model has a context of {length} tokens, prompt and "
                f"answer together; set {key.split()[0]} below that, or take a model with a longer one"
            )


def _check_messages(plan: RunPlan, directory: Path) -> None:
    """InvalidInput where the chat template refuses the messages of the first rows; of an import, such are dropped."""
    if plan.launcher.task != "files":
        return
    learner = plan.learner
    sources = (*learner.data, *(one.data for one in learner.held_out.values()))
    for path in (one.path for one in sources if one.path.is_file() and is_problem_file(one)):
        rows = islice(read_rows(path, Problem, broken=[]), _FIRST)  # what is broken, all files are asked for later
        with_messages = [(where, row.prompt) for where, row in rows if not isinstance(row.prompt, str)]
        if not with_messages:
            continue
        encode = load_prompt_encoder(directory, learner.chat_template_kwargs)
        for where, prompt in with_messages:
            try:
                encode(prompt)
            except ValueError as error:
                raise InvalidInput(f"{where}: {error}") from error


def _examine_lasting(section: Section, plan: RunPlan, num_parameters: int) -> None:
    """Whether weights, gradients and moments alone fit into this machine, where it trains and samples by itself."""
    if plan.learner.device.value != "cpu":
        return
    needed = (4 if plan.learner.lora else 16) * num_parameters + 4 * plan.launcher.replicas * num_parameters
    if needed > available_memory():
        section.warning(
            "memory",
            f"{format_bytes(needed)} for weights and AdamW alone, and {format_bytes(available_memory())} are free",
            "`ibtpo check` says what takes how much, and what helps",
        )


def _examine_held_out(section: Section, plan: RunPlan) -> None:
    """Whether a whole source is trained on and held out."""
    if plan.launcher.task != "files":
        return
    trained = {one.source for one in plan.learner.data}
    for name, one in plan.learner.held_out.items():
        if one.source in trained:
            section.warning(
                f"held out {name}",
                f"{one.source} is trained on as well",
                "give problems that are not, or accuracy says less than it seems",
            )


def _examine_sampler(section: Section, plan: RunPlan) -> None:
    """Whether the engine and the token limit give the sampler what it forks by."""
    growth = plan.learner.growth
    if growth.sampler.asks_entropies and plan.rollout.engine is EngineKind.SGLANG:
        section.warning(
            "sampler",
            f"of an entropy SGLang gives a lower bound, from the {plan.rollout.sglang.entropy_top_k} likeliest tokens",
            "raise rollout.sglang.entropy_top_k, or set sampler.token_score=surprise",
        )
    segment = getattr(growth.sampler.for_answers(growth.max_tokens), "segment_tokens", 0)
    if segment >= growth.max_tokens:
        section.warning(
            "sampler",
            f"paths fork after {segment} tokens, and no answer has more than {growth.max_tokens}: none will fork",
            "lower sampler.segment_tokens; 0 takes a share of growth.max_tokens",
        )
