"""The shape of the demo model: a Qwen3 of 0.56 million parameters, quick on one CPU thread."""

from transformers import GenerationConfig, Qwen3Config

from services.demo.tokenizer import CONTEXT_LENGTH, EOS_ID, PAD_ID, SYMBOLS


def model_config() -> Qwen3Config:
    """The architecture, as config.json states it."""
    return Qwen3Config(
        vocab_size=len(SYMBOLS),
        hidden_size=96,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        dtype="float32",
    )


def generation_config() -> GenerationConfig:
    """Sampling from the model's own distribution, as training does."""
    return GenerationConfig(
        do_sample=True, temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=64, eos_token_id=EOS_ID, pad_token_id=PAD_ID
    )
