"""What a policy must be to be trained: every weight from its files, and what a toy tree shows of its architecture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BloomConfig,
    FalconConfig,
    Gemma3Config,
    GPTNeoConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MptConfig,
    Phi3Config,
    PreTrainedConfig,
    RwkvConfig,
)

from services.learner.config import OptimizerConfig
from services.learner.model.policy import LanguageModel, Policy
from shared.errors import InvalidInput
from tests.learner.model.architectures import BLOCK, IDS
from tests.learner.policies import CONTEXT_LENGTH, EOS_ID, VOCAB_SIZE, write_policy

Weights = dict[str, torch.Tensor]
_SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2}


def rewrite(directory: Path, change: Callable[[Weights], Weights]) -> None:
    """Changes the weights of a policy on disk."""
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def edit(path: Path, **changes: object) -> None:
    """Changes a JSON file."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | changes))


def write_architecture(directory: Path, config: PreTrainedConfig) -> Path:
    """A random policy of this configuration."""
    write_policy(directory)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def prefix_all(weights: Weights) -> Weights:
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def add_foreign(weights: Weights) -> Weights:
    return weights | {"model.extra.weight": torch.ones(2)}


def narrow(weights: Weights) -> Weights:
    return {name: tensor[:, :16].contiguous() if tensor.dim() == 2 else tensor for name, tensor in weights.items()}


def to_fp8(weights: Weights) -> Weights:
    return {name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("architecture", "change", "reason"),
    [
        ("qwen3", prefix_all, r"missing from its files; .* \(module\.model\.embed_tokens.* not of this model"),
        ("llama", without("lm_head"), r"1 \(lm_head\.weight\) missing"),
        ("qwen3", without("layers.1."), r"model\.layers\.1\..* missing"),
        ("qwen3", add_foreign, r"1 \(model\.extra\.weight\) not of this model"),
        ("qwen3", narrow, "of another shape than config.json says"),
        ("qwen3", to_fp8, "F8_E4M3.*not quantized"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    architecture: str, change: Callable[[Weights], Weights], reason: str, tmp_path: Path
) -> None:
    rewrite(write_policy(tmp_path, architecture), change)
    with pytest.raises(InvalidInput, match=reason):
        LanguageModel.load(tmp_path, 1.0)
    with pytest.raises(InvalidInput, match=reason):
        Policy(tmp_path, 1.0, OptimizerConfig())


def test_weights_in_double_precision_are_read(tmp_path: Path) -> None:
    rewrite(write_policy(tmp_path), lambda weights: {name: tensor.double() for name, tensor in weights.items()})
    assert LanguageModel.load(tmp_path, 1.0).module.dtype is torch.float32


def test_an_adapter_is_not_left_out_in_silence(tmp_path: Path) -> None:
    (write_policy(tmp_path) / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InvalidInput, match="it holds an adapter; merge it into its model"):
        LanguageModel.load(tmp_path, 1.0)


def test_a_tied_weight_that_is_saved_too_is_no_fault(tmp_path: Path) -> None:
    name, head = "model.embed_tokens.weight", "lm_head.weight"
    rewrite(write_policy(tmp_path), lambda weights: weights | {head: weights[name].clone()})
    assert not LanguageModel.load(tmp_path, 1.0).sharing_fault


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(file: str, tmp_path: Path) -> None:
    write_policy(tmp_path)
    (tmp_path / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InvalidInput, match=rf"{file} is a pointer of Git LFS.*git lfs pull"):
        Policy(tmp_path, 1.0, OptimizerConfig())


@pytest.mark.parametrize("end", [-100, 20, 0])
def test_a_truncated_file_is_named(end: int, tmp_path: Path) -> None:
    path = write_policy(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(InvalidInput, match=r"model\.safetensors"):
        LanguageModel.load(tmp_path, 1.0)


@pytest.mark.parametrize("method", ["fp8", "gptq", "bitsandbytes", "unheard-of"])
def test_a_quantized_policy_is_refused(method: str, tmp_path: Path) -> None:
    edit(write_policy(tmp_path) / "config.json", quantization_config={"quant_method": method})
    with pytest.raises(InvalidInput, match=rf"quantization_config \({method}\).*not quantized"):
        LanguageModel.load(tmp_path, 1.0)


@pytest.mark.parametrize("text", ["[]", "{", "null", '{"model_type": "unheard-of"}', "{}"])
def test_a_broken_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (write_policy(tmp_path) / "config.json").write_text(text)
    with pytest.raises(InvalidInput, match="save_pretrained writes it"):
        LanguageModel.load(tmp_path, 1.0)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_a_policy_without_a_tokenizer_is_refused(architecture: str, tmp_path: Path) -> None:
    for path in write_policy(tmp_path, architecture).glob("token*"):
        path.unlink()
    with pytest.raises(InvalidInput, match="tokenizer"):
        Policy(tmp_path, 1.0, OptimizerConfig())


def test_a_stop_token_that_cannot_be_sampled_is_refused(tmp_path: Path) -> None:
    edit(write_policy(tmp_path) / "generation_config.json", eos_token_id=[EOS_ID, 9999])
    with pytest.raises(InvalidInput, match=r"eos_token_id 9999 is none of the tokenizer's"):
        Policy(tmp_path, 1.0, OptimizerConfig())


def test_a_vocabulary_may_be_larger_than_the_tokenizers_but_not_smaller(tmp_path: Path) -> None:
    for vocab_size in (VOCAB_SIZE + 40, VOCAB_SIZE - 4):
        write_architecture(tmp_path / str(vocab_size), LlamaConfig(**IDS | {"vocab_size": vocab_size}, **BLOCK))
    assert Policy(tmp_path / "64", 1.0, OptimizerConfig()).model.vocab_size == 64
    with pytest.raises(InvalidInput, match=r"tokenizer has 24 words, but the model 20 tokens: save this model's own"):
        Policy(tmp_path / "20", 1.0, OptimizerConfig())


@pytest.mark.parametrize(
    "config",
    [
        GPTNeoConfig(
            **IDS,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            max_position_embeddings=CONTEXT_LENGTH,
            attention_types=[[["global", "local"], 1]],
        ),
        RwkvConfig(**IDS, **_SMALL, context_length=CONTEXT_LENGTH),
        MptConfig(**IDS, d_model=32, n_heads=2, n_layers=2, max_seq_len=CONTEXT_LENGTH),
        FalconConfig(**IDS, **_SMALL, num_attention_heads=2, alibi=True),
    ],
    ids=lambda config: config.model_type,
)
def test_prefixes_are_shared_only_where_the_model_computes_the_same(config: PreTrainedConfig, tmp_path: Path) -> None:
    model = LanguageModel.load(write_architecture(tmp_path, config), 1.0)
    assert model.sharing_fault
    assert model.sharing_fault


@pytest.mark.parametrize(
    "config",
    [BloomConfig(**IDS, hidden_size=32, n_layer=2, n_head=2), MambaConfig(**IDS, **_SMALL, state_size=4)],
    ids=lambda config: config.model_type,
)
def test_a_model_that_does_not_say_its_context_needs_to_be_told(config: PreTrainedConfig, tmp_path: Path) -> None:
    write_architecture(tmp_path, config)
    with pytest.raises(InvalidInput, match=rf"{config.model_type} .*set learner\.context_length"):
        LanguageModel.load(tmp_path, 1.0)
    model = LanguageModel.load(tmp_path, 1.0, context_length=48)
    assert model.context_length == 48
    assert model.sharing_fault


def test_a_policy_with_a_weight_that_no_answer_uses_is_resumed(tmp_path: Path) -> None:
    """Such as the attention of a decoder to an encoder that is not there."""
    parts = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = BartConfig(**IDS, **parts, d_model=32, max_position_embeddings=CONTEXT_LENGTH)
    policy = Policy(write_architecture(tmp_path, config), 1.0, OptimizerConfig())
    policy.model.module(input_ids=torch.tensor([[3, 4]])).logits.square().mean().backward()
    assert policy.apply_gradients(0.1)
    policy.write_kept(policy.copy(), tmp_path / "saved")
    resumed = Policy(tmp_path / "saved" / "policy", 1.0, OptimizerConfig())
    resumed.restore(tmp_path / "saved" / "optimizer")
    assert resumed.copy().moments.keys() == policy.copy().moments.keys()


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 3}, {"vocab_size": "24"}, {"vocab_size": 0}, {"num_attention_heads": 0}]
)
def test_a_configuration_that_says_something_else_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    edit(write_policy(tmp_path) / "config.json", **changes)
    with pytest.raises(InvalidInput, match=r"policy .*: transformers cannot read this policy"):
        LanguageModel.load(tmp_path, 1.0)


def test_a_composite_whose_language_model_is_not_told_apart_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**IDS, **BLOCK, "head_dim": 16}
    write_architecture(tmp_path, Gemma3Config(text_config=text, vision_config=vision | {"image_size": 28}, **IDS))
    monkeypatch.setattr("services.learner.model.composites._TOLERANCE", -1.0)  # as if it computed something else
    with pytest.raises(InvalidInput, match=r"policy .*gemma3 is a composite.*language model alone, as gemma3_text"):
        LanguageModel.load(tmp_path, 1.0)


def test_the_context_ends_where_answers_would_depend_on_the_batch(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = Phi3Config(**IDS, **BLOCK, original_max_position_embeddings=16, rope_parameters=rope)
    model = LanguageModel.load(write_architecture(tmp_path, config), 1.0)
    assert model.context_length == 16
    assert not model.sharing_fault


def test_the_context_ends_at_a_window_unless_a_length_is_given(tmp_path: Path) -> None:
    write_architecture(tmp_path, MistralConfig(**IDS, **BLOCK, sliding_window=32))
    assert LanguageModel.load(tmp_path, 1.0).context_length == 32
    assert LanguageModel.load(tmp_path, 1.0, context_length=48).context_length == 48
    assert LanguageModel.load(tmp_path, 1.0, context_length=999).context_length == CONTEXT_LENGTH


def test_a_model_whose_rows_depend_on_each_other_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = Phi3Config(**IDS, **BLOCK, original_max_position_embeddings=20, rope_parameters=rope)
    write_architecture(tmp_path, config)
    monkeypatch.setattr("shared.weights.context._LENGTH_DEPENDENT", ())  # as if the rule did not know this embedding
    with pytest.raises(InvalidInput, match=r"phi3 cannot be trained.*with what else is in its batch"):
        LanguageModel.load(tmp_path, 1.0)
