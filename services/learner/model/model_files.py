"""Reads a policy from its directory, and refuses one that could not be trained as it is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from services.learner.model.composites import language_model_of
from shared.errors import InvalidInput, shorten
from shared.hub import log_loading
from shared.weights import UNTRAINABLE, refuse_config, refuse_pointers, stop_token_ids, tensor_shapes

_TRAINABLE = ("F64", "F32", "F16", "BF16")
_CONSTANTS = (".masked_bias", ".inv_freq")
"""Buffers that earlier releases of transformers saved; models compute them now."""
_NUM_NAMED = 4
_NUM_SAMPLES, _SAMPLE_BYTES = 256, 4096


def read_module(directory: Path) -> PreTrainedModel:
    """The model in float32, of a composite its language model, every weight from the files. InvalidInput, which names
    the remedy, where it is unfit."""
    refuse_pointers(directory)
    _refuse_untrainable(directory)
    if (directory / "adapter_config.json").exists():  # transformers would leave the adapter out in silence
        raise InvalidInput(
            f"policy {directory}: it holds an adapter; merge it into its model (merge_and_unload of peft) and save "
            "that; to train new adapters, give the model itself and a table [learner.lora]"
        )
    try:
        with log_loading(directory):
            module, report = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are reported, and refused below by name
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises whatever a wrong value in a file leads to
        raise InvalidInput(
            f"policy {directory}: transformers cannot read this policy: {shorten(str(error))}; give a directory as "
            "save_pretrained writes it"
        ) from error
    _refuse_what_does_not_fit(directory, report)
    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InvalidInput(f"policy {directory}: weight {name} holds NaN or infinity; take another checkpoint")
    try:
        return language_model_of(module)
    except InvalidInput as error:
        raise InvalidInput(f"policy {directory}: {error}") from error


def read_tokenizer(directory: Path) -> Any:
    """The policy's tokenizer. InvalidInput where there is none, or none of its stop tokens can be sampled."""
    refuse_pointers(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever a wrong value in a file leads to
        raise InvalidInput(
            f"policy {directory}: no tokenizer that transformers can read: {shorten(str(error))}; save the model's "
            "tokenizer there"
        ) from error
    # without any of its files transformers makes an empty one
    if not any((directory / name).is_file() for name in tokenizer.vocab_files_names.values()):
        raise InvalidInput(
            f"policy {directory}: there is no tokenizer in it; save the model's there: "
            "AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIRECTORY)"
        )
    if not tokenizer.is_fast:
        raise InvalidInput(
            f"policy {directory}: {type(tokenizer).__name__} has no tokenizer.json, which replicas read; convert it to "
            "a fast tokenizer and save that"
        )
    num_tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    stop_token_ids(directory, num_tokens, tokenizer.backend_tokenizer.token_to_id)
    return tokenizer


def require_vocabulary(directory: Path, tokenizer: Any, vocab_size: int) -> None:
    """InvalidInput where the tokenizer has words that the model lacks. Tokens that were added to it, such as one for
    images, may lie beyond: a prompt that has one is refused."""
    num_words = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    if num_words > vocab_size:
        raise InvalidInput(
            f"policy {directory}: its tokenizer has {num_words} words, but the model {vocab_size} tokens: save this "
            "model's own tokenizer there, or give the model more (resize_token_embeddings)"
        )


def weights_fingerprint(directory: Path) -> str:
    """A hash of samples of the weights, enough to tell models apart; empty where there are none."""
    digest, paths = hashlib.sha256(), sorted({*directory.glob("*.safetensors"), *directory.glob("*.bin")})
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            for start in range(0, size, max(1, size // _NUM_SAMPLES)):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
        digest.update(f"{path.name} {size}".encode())
    return digest.hexdigest()[:16] if paths else ""


def _refuse_untrainable(directory: Path) -> None:
    refuse_config(f"policy {directory}", _read_config(directory / "config.json"))
    if any(directory.glob("*.safetensors")):
        for name, tensor in sorted(tensor_shapes(directory).items()):
            if tensor.dtype not in _TRAINABLE and (name.endswith("weight") or tensor.dtype.startswith("F")):
                raise InvalidInput(f"policy {directory}: {name} is stored as {tensor.dtype}: {UNTRAINABLE}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: transformers cannot read this policy: {error}; give a directory as save_pretrained writes it"
        ) from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} is not a JSON object; give a directory as save_pretrained writes it")
    return config


def _refuse_what_does_not_fit(directory: Path, report: dict[str, Any]) -> None:
    """What transformers would leave at random values, or leave out, in silence."""
    findings = {
        "missing from its files": report["missing_keys"],
        "not of this model": {name for name in report["unexpected_keys"] if not name.endswith(_CONSTANTS)},
        "of another shape than config.json says": {name for name, *_ in report["mismatched_keys"]},
        "unreadable": set(report["error_msgs"]),
    }
    said = [f"{_some(names)} {finding}" for finding, names in findings.items() if names]
    if said:
        raise InvalidInput(
            f"policy {directory}: weights do not fit config.json: {'; '.join(said)}. Take a whole checkpoint of this "
            "architecture, with the names that save_pretrained gives them"
        )


def _some(names: set[str]) -> str:
    first = ", ".join(sorted(map(str, names))[:_NUM_NAMED])
    return f"{len(names)} ({first}{', …' if len(names) > _NUM_NAMED else ''})"
