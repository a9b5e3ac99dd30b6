"""What a model's files say, and whether it can be trained."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.launcher.check.machine import available_memory, format_bytes
from services.launcher.display.finding import Section
from services.launcher.runs.model_files import find_model
from services.launcher.settings.plan import RunPlan
from services.learner.model.memory_estimate import ModelSize
from shared.errors import IbtpoError, InvalidInput, shorten
from shared.weights import ContextBounds, tensor_shapes

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Of a model whose files are in order."""

    directory: Path
    config: Any
    """As transformers reads config.json."""
    size: ModelSize
    vocab_size: int
    context_length: int


def examine_model(section: Section, plan: RunPlan) -> ModelFacts | None:
    """Its files, architecture, size, context; None where they cannot be had."""
    try:
        resolved = find_model(plan.learner.model)
        facts = _read(resolved.directory, plan)
    except IbtpoError as error:
        section.failed("model", str(error), "")
        return None
    section.where = str(resolved.name)
    shapes = tensor_shapes(facts.directory)
    files = sorted(facts.directory.glob("*.safetensors"))
    dtypes = Counter(_DTYPES.get(one.dtype, one.dtype) for one in shapes.values()).most_common()
    section.ok(
        "files",
        f"complete: {len(shapes)} tensors in {len(files)} file{'s' * (len(files) != 1)}, "
        f"{format_bytes(sum(path.stat().st_size for path in files))}, {', '.join(name for name, _ in dtypes)}",
    )
    names = getattr(facts.config, "architectures", None) or (facts.config.model_type,)
    trained = "" if plan.learner.lora is None else f", {_count(facts.size.num_trained)} of them adapters' and trained"
    section.ok("architecture", f"{names[0]}, {_count(facts.size.num_parameters)} parameters{trained}")
    _examine_context(section, facts, plan)
    return facts


def _read(directory: Path, plan: RunPlan) -> ModelFacts:
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity(logging.CRITICAL)  # what is wrong is a finding
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        size = ModelSize.of(config, plan.learner.lora)
    except Exception as error:  # transformers raises whatever a wrong value in a file, or an unknown model, leads to
        raise InvalidInput(
            f"{directory / 'config.json'}: transformers makes no causal language model of it: {shorten(str(error))}; "
            "give a model of an architecture that it has"
        ) from error
    wanted = plan.learner.context_length
    length = ContextBounds.of(config.to_dict()).context_length(wanted, through_windows=wanted is not None)
    if length is None:
        raise InvalidInput(f"{directory / 'config.json'} does not say how long a text may be; set context_length")
    return ModelFacts(directory, config, size, config.get_text_config().vocab_size, length)


def _examine_context(section: Section, facts: ModelFacts, plan: RunPlan) -> None:
    answer = max(plan.learner.growth.max_tokens, plan.learner.evaluation.max_tokens or 0)
    said = f"{facts.context_length} tokens; an answer may have {answer}"
    if answer >= facts.context_length:
        section.failed("context", said, "lower growth.max_tokens: no room is left for a prompt")
    else:
        section.ok("context", f"{said}, so that a prompt may have {facts.context_length - answer}")


def examine_fitness(section: Section, facts: ModelFacts, plan: RunPlan) -> None:
    """Loads it as the learner does, and tries it on a toy tree."""
    needed = 4 * facts.size.num_parameters
    if needed > 0.8 * available_memory():
        section.warning(
            "fitness",
            f"not tried: loading takes {format_bytes(needed)}, and {format_bytes(available_memory())} are free",
            "the learner tries it at its start",
        )
        return
    from services.learner.model.policy import LanguageModel

    try:
        model = LanguageModel.load(
            facts.directory, plan.learner.growth.temperature, context_length=plan.learner.context_length
        )
    except InvalidInput as error:
        section.failed("fitness", str(error), "")
        return
    if model.sharing_fault:
        section.warning(
            "fitness",
            f"every weight loads; trajectories cannot share prefixes: {model.sharing_fault}",
            "nothing is wrong, but a step takes longer",
        )
    else:
        section.ok("fitness", "every weight loads, all are finite; prefixes can be shared (tried on a toy tree)")


def _count(number: int) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.2f}M"
