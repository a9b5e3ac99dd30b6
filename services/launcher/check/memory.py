"""Whether learner and engine fit into the memory there is, by estimates."""

from services.launcher.check.machine import available_memory, format_bytes
from services.launcher.check.model import ModelFacts
from services.launcher.display.finding import Section
from services.launcher.settings.plan import RunPlan
from services.learner.config import Device, LearnerConfig, Precision
from services.learner.model.memory_estimate import TrainingMemory, most_columns
from services.rollout.config import EngineKind

_PROCESS_BYTES = 400 * 2**20
"""Of a process with torch, before it has a model."""
_OTHERS_BYTES = 500 * 2**20
"""Of verifier and Redis."""


def examine_memory(section: Section, facts: ModelFacts, plan: RunPlan, longest_prompt: int) -> None:
    """Learner and engines, with answers as long as they may be."""
    learner = plan.learner
    longest = min(longest_prompt + learner.growth.max_tokens, facts.context_length)
    columns = most_columns(learner, longest)
    training = TrainingMemory.of(facts.size, learner, columns)
    parts = (
        ("weights", training.weights),
        ("gradients", training.gradients),
        ("AdamW", training.moments),
        ("reference", training.reference),
        (f"activations of {columns:,} tokens", training.activations),
        ("head", training.head),
    )
    said = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts if size)
    devices = _cuda_devices() if learner.device is not Device.CPU else []
    engines, engine_words = _of_engines(facts, plan, longest)
    if devices:
        _compare(
            section,
            f"learner on {devices[0][0]}",
            training.peak,
            devices[0][1],
            f"{said} (one device)",
            _learner_remedies(learner),
        )
        on_host = training.copies + engines + _PROCESS_BYTES + _OTHERS_BYTES
    else:
        of_learner = training.peak + training.copies + _PROCESS_BYTES
        said = (
            f"{said}, a copy while a checkpoint is written {format_bytes(training.checkpoint)}, two of the policy "
            f"while it is published {format_bytes(training.publishing)}"
        )
        section.ok("learner", f"up to {format_bytes(of_learner)}: {said}")
        on_host = of_learner + engines + _OTHERS_BYTES
    section.ok("engines", engine_words)
    on_host_remedies = f"{_learner_remedies(learner)}; fewer launcher.replicas, a smaller rollout.max_running_requests"
    _compare(
        section, "this machine", on_host, available_memory(), "learner, engines, verifier, Redis", on_host_remedies
    )


def _learner_remedies(learner: LearnerConfig) -> str:
    """What makes the learner smaller, and is not done yet."""
    ways = {
        "activation_checkpointing=true": not learner.activation_checkpointing,
        "precision=bfloat16": learner.precision is not Precision.BFLOAT16,
        "a smaller objective.micro_batch_tokens or growth.max_tokens": True,
        "[learner.lora]": learner.lora is None,
        "more devices (docs/several-ranks.md)": True,
    }
    return ", ".join(way for way, is_left in ways.items() if is_left)


def _compare(section: Section, check: str, needed: int, there: int, said: str, remedy: str) -> None:
    words = f"up to {format_bytes(needed)} of {format_bytes(there)} free: {said}"
    if needed > there:
        section.warning(check, words, remedy)
    else:
        section.ok(check, words)


def _of_engines(facts: ModelFacts, plan: RunPlan, longest: int) -> tuple[int, str]:
    """Bytes of this machine's memory, and their explanation."""
    rollout, replicas = plan.rollout, plan.launcher.replicas
    if rollout.engine is EngineKind.SGLANG:
        return (
            0,
            f"SGLang holds the model in its GPU's memory, {format_bytes(2 * facts.size.num_parameters)} of weights",
        )
    snapshot = (2 if plan.learner.precision is Precision.BFLOAT16 else 4) * facts.size.num_parameters
    weights = 4 * facts.size.num_parameters + 2 * snapshot
    num_rows = min(rollout.max_running_requests, rollout.max_trees * plan.learner.growth.sampler.num_draws)
    rows = rollout.max_running_requests * _row_tokens(longest) * kv_token_bytes(facts)
    one = weights + rows + rollout.cache_bytes + _PROCESS_BYTES
    said = (
        f"{replicas} of up to {format_bytes(one)}: weights and two versions in shared memory {format_bytes(weights)}, "
        f"{num_rows} answers at once {format_bytes(rows)}, prefix cache {format_bytes(rollout.cache_bytes)}"
    )
    return replicas * one, said


def _row_tokens(longest: int) -> int:
    """Of a row of the embedded engine, which doubles from 64 until it holds the longest text."""
    tokens = 64
    while tokens < longest:
        tokens *= 2
    return tokens


def kv_token_bytes(facts: ModelFacts) -> int:
    """Keys and values of one token in float32."""
    text = facts.config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0) or 0
    width = getattr(text, "head_dim", None) or text.hidden_size // max(1, heads)
    return 4 * 2 * int(text.num_hidden_layers) * int(getattr(text, "num_key_value_heads", None) or heads) * int(width)


def _cuda_devices() -> list[tuple[str, int]]:
    """Name and free bytes of each."""
    import torch

    if not torch.cuda.is_available():
        return []
    numbers = range(torch.cuda.device_count())
    return [(torch.cuda.get_device_name(number), torch.cuda.mem_get_info(number)[0]) for number in numbers]
