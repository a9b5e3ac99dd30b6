"""Small random models of three families, as snapshot directories, and engines that serve them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config
from transformers.utils import logging as transformers_logging

from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from shared.tree.draw import WeightVersion

VOCAB_SIZE = 23
CONTEXT = 96
FIRST = WeightVersion(1, 0)

EngineFactory = Callable[..., Awaitable[EmbeddedEngine]]
SnapshotFactory = Callable[..., Path]
ModelFactory = Callable[..., PreTrainedModel]


def config_of(family: str, hidden_size: int = 32) -> PreTrainedConfig:
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "gpt2":
        return GPT2Config(vocab_size=VOCAB_SIZE, n_positions=CONTEXT, n_embd=hidden_size, n_layer=2, n_head=4, **ends)
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
    }
    if family == "llama":
        return LlamaConfig(**sizes, **ends)
    return Qwen3Config(**sizes, head_dim=12, tie_word_embeddings=True, **ends)


def random_model(family: str, seed: int, hidden_size: int = 32) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config_of(family, hidden_size))
    for weight in model.parameters():  # far from uniform, so that models differ in what they sample
        if weight.ndim > 1:
            weight.data.normal_(0.0, 0.25)
    return model.eval()


@pytest.fixture(scope="session")
def plain_model() -> ModelFactory:
    """The random model itself, as transformers runs it."""
    return random_model


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> SnapshotFactory:
    """The directory of a random model; the same for the same arguments."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    made: dict[tuple[str, int, int], Path] = {}

    def make(family: str = "qwen3", seed: int = 0, hidden_size: int = 32) -> Path:
        key = (family, seed, hidden_size)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("-".join(map(str, key)))
            random_model(*key).save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture
async def serve(snapshot: SnapshotFactory) -> AsyncIterator[EngineFactory]:
    """Starts engines and closes them; untraced by default, which starts faster."""
    async with AsyncExitStack() as stack:

        async def start(family: str = "qwen3", seed: int = 0, **settings: object) -> EmbeddedEngine:
            engine = EmbeddedEngine(EmbeddedSettings(**{"trace": False} | settings))  # type: ignore[arg-type]
            stack.push_async_callback(engine.close)
            await engine.load(snapshot(family, seed), FIRST)
            return engine

        yield start
