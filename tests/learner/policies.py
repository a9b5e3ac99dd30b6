"""Tiny random policies with a word-level tokenizer, as directories that transformers reads."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

VOCAB_SIZE = 24
CONTEXT_LENGTH = 64
EOS_ID = 1
_COMMON = {"vocab_size": VOCAB_SIZE, "bos_token_id": None, "eos_token_id": EOS_ID, "pad_token_id": 0}
_BLOCK = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": CONTEXT_LENGTH,
}


def config_of(architecture: str, **changes: Any) -> PretrainedConfig:
    """A small configuration of one architecture."""
    block = _BLOCK | changes
    match architecture:
        case "qwen3":
            return Qwen3Config(**_COMMON, **block, head_dim=16, tie_word_embeddings=True)
        case "llama":
            return LlamaConfig(**_COMMON, **block)
        case "phi":
            return PhiConfig(**_COMMON, **block)
        case "gpt2":
            return GPT2Config(**_COMMON, n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT_LENGTH)
    raise ValueError(architecture)


def write_policy(
    directory: Path, architecture: str = "qwen3", chat_template: str | None = None, **changes: Any
) -> Path:
    """Writes a random policy, always the same one."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(architecture, **changes)).save_pretrained(directory)
    words = ["<pad>", "<eos>", "<unk>", *(f"w{number}" for number in range(VOCAB_SIZE - 3))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>", chat_template=chat_template
    )
    wrapped.save_pretrained(directory)
    return directory
