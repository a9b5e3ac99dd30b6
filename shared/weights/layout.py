"""What a model directory must hold to be loaded here, told from file names, config.json and headers alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.errors import InvalidInput
from shared.weights.stop_tokens import read_json_object
from shared.weights.tensors import tensor_shapes

WEIGHTS, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    INDEX,
)
"""Of a model, beside its weights, what we read."""
_POINTER = b"version https://git-lfs.github.com/spec"
_CONVERT = (
    "convert them: python -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{name}')"
    ".save_pretrained('converted')\", and save the tokenizer there likewise"
)
UNTRAINABLE = "training needs its weights in bfloat16, float16 or float32; take the model that is not quantized"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")
_HEADS = {
    "ForMaskedLM": "an encoder, which fills gaps and writes no text",
    "ForSequenceClassification": "a classifier or reward model, without the head that names the next token",
    "ForTokenClassification": "a classifier of tokens, without the head that names the next token",
    "ForQuestionAnswering": "an extractor of spans, without the head that names the next token",
    "ForMultipleChoice": "a classifier, without the head that names the next token",
    "ForPreTraining": "an encoder as it was pre-trained",
}
"""By the end of an architecture's name, what it is instead of a causal language model."""


def refuse_names(name: str, files: Iterable[str]) -> None:
    """InvalidInput, with the remedy, where a directory or hub model called `name` lacks what a model needs. `files` are
    the names at its top."""
    found = set(files)
    if ADAPTER in found:
        raise InvalidInput(
            f"{name} holds an adapter ({ADAPTER}), not a whole model: merge it into its model (merge_and_unload of "
            "peft), save that with the tokenizer, and give that; to train new adapters, give the model itself and a "
            "table [learner.lora]"
        )
    has_weights = any(file.endswith(".safetensors") for file in found)
    if not has_weights and any(file.endswith(".gguf") for file in found):
        raise InvalidInput(
            f"{name} holds GGUF files, which are quantized for inference: training needs the safetensors of the model "
            "that they were made from"
        )
    if "model_index.json" in found:
        raise InvalidInput(f"{name} is a pipeline of diffusers (model_index.json), not a language model")
    missing = [file for file in ("config.json", "tokenizer.json") if file not in found]
    if missing == ["tokenizer.json"] and found & {"tokenizer.model", "vocab.json", "vocab.txt"}:
        raise InvalidInput(
            f'{name} has a slow tokenizer only: tokenizer.json is missing; convert it: python -c "from transformers '
            f"import AutoTokenizer as T; T.from_pretrained('{name}').save_pretrained('DIRECTORY')\""
        )
    if missing:
        raise InvalidInput(
            f"{name} is no model directory: {' and '.join(missing)} missing; give one as transformers saves it"
        )
    if not has_weights:
        pickled = sorted(file for file in found if file.endswith(_PICKLED))
        remedy = _CONVERT.format(name=name) if pickled else "fetch the model again, with its weights"
        held = f"only {pickled[0]}" if pickled else "no file with weights"
        raise InvalidInput(f"{name} has no safetensors, {held}: {remedy}")


def refuse_config(name: str, config: Mapping[str, Any]) -> None:
    """InvalidInput where config.json describes no causal language model that can be trained."""
    architecture = next(iter(config.get("architectures") or ()), "")
    for head, meaning in _HEADS.items():
        if architecture.endswith(head):
            raise InvalidInput(f"{name} is {meaning} ({architecture}): give a causal language model (…ForCausalLM)")
    if config.get("is_encoder_decoder"):
        raise InvalidInput(
            f"{name} is an encoder-decoder ({architecture or config.get('model_type')}): give a decoder-only model "
            "(…ForCausalLM)"
        )
    for table in (config, config.get("text_config")):
        for key in ("quantization_config", "compression_config"):
            if isinstance(table, dict) and isinstance(quantization := table.get(key), dict):
                raise InvalidInput(
                    f"{name}: its config.json says {key} ({quantization.get('quant_method', 'some method')}): "
                    f"{UNTRAINABLE}"
                )


def refuse_directory(directory: Path, name: str = "") -> Path:
    """The directory, if a model can lie in it; else InvalidInput, before any process is started for it. Weights are
    read up to their headers."""
    said = name or str(directory)
    if directory.is_file():
        raise InvalidInput(f"{said} is a file: give the directory with config.json, tokenizer.json and weights")
    if not directory.is_dir():
        raise InvalidInput(
            f"{said} is no model directory: there is none; give one as transformers saves it, or a model of the hub as "
            "OWNER/NAME"
        )
    refuse_pointers(directory)
    files = [path.name for path in directory.iterdir() if path.exists()]
    refuse_names(said, files)
    refuse_config(said, read_json_object(directory / "config.json"))
    if missing := sorted(set(weight_files(directory)) - set(files)):
        raise InvalidInput(
            f"{said} lacks {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}, which {INDEX} names: "
            "the copy is not complete; fetch the model again"
        )
    tensor_shapes(directory)
    return directory


def weight_files(directory: Path) -> tuple[str, ...]:
    """The names of the files with weights, as the index has them, or the one that has none."""
    if not (directory / INDEX).exists():
        return ()
    of_weight = read_json_object(directory / INDEX).get("weight_map")
    if not isinstance(of_weight, dict) or not all(isinstance(file, str) for file in of_weight.values()):
        raise InvalidInput(f"{directory / INDEX} has no weight_map: fetch the model again")
    return tuple(sorted(set(of_weight.values())))


def refuse_pointers(directory: Path) -> None:
    """InvalidInput for files that a clone without Git LFS left in place of weights or tokenizer."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise InvalidInput(
                        f"{path} is a pointer of Git LFS, not the file itself; fetch the files with: git lfs pull"
                    )
