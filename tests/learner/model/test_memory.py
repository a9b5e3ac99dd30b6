"""How much memory a pass takes, and what is kept of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, CTRLConfig

from services.learner.model.memory import checkpoint_activations, peak_memory_bytes, reset_peak_memory
from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import PrefixRows
from shared.errors import InvalidInput
from tests.learner.policies import write_policy
from tests.learner.synthetic import trie_of

CPU = torch.device("cpu")
ROWS = PrefixRows.collate([trie_of(list(range(2, 22)) * 2, [*range(2, 12), 3, 4]), trie_of(list(range(22, 2, -1)))])


class Saved:
    """The bytes that autograd keeps, the model's own weights apart."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        self._sizes: dict[int, int] = {}

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def num_bytes(self) -> int:
        return sum(self._sizes.values())


@contextmanager
def counting_saved_bytes(module: torch.nn.Module) -> Iterator[Saved]:
    saved = Saved(module)
    with torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor):
        yield saved


def gradients(model: LanguageModel) -> tuple[dict[str, torch.Tensor], int]:
    """Of a loss over all tokens, and the bytes that were kept for them."""
    with counting_saved_bytes(model.module) as saved:
        statistics = model.statistics(ROWS)
    (statistics.logprobs_RS.sum() + 0.1 * statistics.entropies_RS.sum()).backward()
    return {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}, saved.num_bytes


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
def test_checkpointed_layers_give_the_same_gradients_from_less_memory(architecture: str, tmp_path: Path) -> None:
    write_policy(tmp_path, architecture)
    plain, checkpointed = (LanguageModel.load(tmp_path, 1.0) for _ in range(2))
    checkpoint_activations(checkpointed.module)
    expected, plain_bytes = gradients(plain)
    found, checkpointed_bytes = gradients(checkpointed)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[name]), name
    assert checkpointed_bytes < plain_bytes / 2


def test_no_dropout_acts_in_checkpointed_layers(tmp_path: Path) -> None:
    write_policy(tmp_path, "gpt2")  # its configuration has dropout, and transformers' own switch needs training mode
    model = LanguageModel.load(tmp_path, 1.0)
    before = model.statistics(ROWS).logprobs_RS
    checkpoint_activations(model.module)
    assert not any(part.training for part in model.module.modules())
    assert torch.equal(model.statistics(ROWS).logprobs_RS, before)


def test_a_model_without_layers_to_checkpoint_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(CTRLConfig(vocab_size=24, n_embd=16, dff=16, n_layer=1, n_head=2))
    with pytest.raises(InvalidInput, match=r"activation_checkpointing: ctrl has no layers.*set it to false"):
        checkpoint_activations(model)


def test_the_peak_is_of_the_time_since_it_was_reset() -> None:
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    torch.ones(64 * 2**20, dtype=torch.uint8)
    with_tensor = peak_memory_bytes(CPU)
    assert with_tensor - before > 48 * 2**20
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) < with_tensor - 32 * 2**20
