"""What costs no time to find out: looked at before every run, and by `ibtpo check` among the rest."""

import math

from services.launcher.check.machine import available_memory, examine_disk, format_bytes
from services.launcher.display.finding import Level, Section
from services.launcher.runs.model_files import check_stop_tokens, find_model
from services.launcher.settings.plan import RunPlan
from shared.errors import InvalidInput
from shared.weights import tensor_shapes


def look_before_start(plan: RunPlan) -> list[str]:
    """Warnings, each with its remedy. InvalidInput for what cannot go well."""
    section = Section("before the start")
    directory = find_model(plan.learner.model).directory
    check_stop_tokens(directory)
    num_parameters = sum(math.prod(one.shape) for one in tensor_shapes(directory).values())
    examine_disk(section, plan, num_parameters, 0 if plan.learner.lora else num_parameters)
    _examine_lasting(section, plan, num_parameters)
    _examine_held_out(section, plan)
    for finding in section.findings:
        if finding.level is Level.FAILED:
            raise InvalidInput(f"{finding.check}: {finding.found}: {finding.remedy}")
    return [f"{one.check}: {one.found}: {one.remedy}" for one in section.findings if one.level is Level.WARNING]


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
