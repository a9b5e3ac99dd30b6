"""Small random models of many architectures, as configurations."""

from typing import Any

from transformers import (
    CohereConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    OlmoConfig,
    OlmoeConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from tests.learner.policies import CONTEXT_LENGTH, EOS_ID, VOCAB_SIZE

IDS: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "bos_token_id": None, "eos_token_id": EOS_ID, "pad_token_id": 0}
BLOCK: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": CONTEXT_LENGTH,
}
_SMALL = IDS | BLOCK
_WIDE = _SMALL | {"head_dim": 16}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_NARROW, _OPEN = {"sliding_window": 12}, {"sliding_window": CONTEXT_LENGTH}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 28,
}

QUICK: dict[str, PreTrainedConfig] = {
    "llama, untied": LlamaConfig(**_SMALL),
    "qwen3-moe": Qwen3MoeConfig(**_WIDE, **_EXPERTS),
    "gemma2: caps, windows": Gemma2Config(**_WIDE, **_OPEN),
    "gemma3, composite": Gemma3Config(text_config=_WIDE | _OPEN, vision_config=VISION, **IDS),
    "gpt-oss: sinks, experts": GptOssConfig(**_WIDE, **_OPEN, num_local_experts=4),
    "phi: bias, partial rotation": PhiConfig(**_SMALL | {"num_key_value_heads": 2}),
}
"""One for each thing that models do differently."""

SLOW: dict[str, PreTrainedConfig] = {
    "llama, tied": LlamaConfig(**_SMALL, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**_SMALL),
    "qwen3": Qwen3Config(**_WIDE, tie_word_embeddings=True),
    "qwen3, untied": Qwen3Config(**_WIDE, tie_word_embeddings=False),
    "qwen2-moe": Qwen2MoeConfig(**_SMALL, **_EXPERTS, shared_expert_intermediate_size=16),
    "mixtral": MixtralConfig(**_SMALL, num_local_experts=4),
    "olmoe": OlmoeConfig(**_SMALL, num_experts=4, num_experts_per_tok=2),
    "gpt2": GPT2Config(**IDS, n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT_LENGTH),
    "gemma2, narrow": Gemma2Config(**_WIDE, **_NARROW),
    "gemma3": Gemma3TextConfig(**_WIDE, **_OPEN),
    "gemma3, narrow": Gemma3TextConfig(**_WIDE, **_NARROW),
    "gpt-oss, narrow": GptOssConfig(**_WIDE, **_NARROW, num_local_experts=4),
    "mistral": MistralConfig(**_SMALL, sliding_window=None),
    "mistral, narrow": MistralConfig(**_SMALL, **_NARROW),
    "phi3": Phi3Config(**_SMALL),
    "olmo": OlmoConfig(**_SMALL),
    "olmo2": Olmo2Config(**_SMALL),
    "olmo3": Olmo3Config(**_SMALL, **_OPEN),
    "granite: scaled logits": GraniteConfig(**_SMALL, logits_scaling=3.0),
    "cohere: scaled logits": CohereConfig(**_SMALL),
    "smollm3: layers without positions": SmolLM3Config(**_SMALL),
}
