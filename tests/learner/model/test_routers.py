"""The loss that balances the routers of a mixture: over real columns, as transformers has it, off unless asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from services.learner.model.memory import checkpoint_activations
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import PrefixRows, PrefixTrie
from services.learner.training.trainer import Trainer
from shared.errors import InvalidInput
from tests.learner.conftest import Configure
from tests.learner.model.architectures import QUICK, SLOW
from tests.learner.model.test_architectures import TREE
from tests.learner.model.test_fitness import write_architecture
from tests.learner.synthetic import V1, build_all

NUM_EXPERTS = 4
MIXTURES = {name: (QUICK | SLOW)[name] for name in ("qwen3-moe", "mixtral", "olmoe", "gpt-oss: sinks, experts")}
LONG, SHORT = [3, 4, 5, 6, 7, 8, 9], [3, 9, 4]


def rows_of(*sequences: list[int]) -> PrefixRows:
    """A row each; of every sequence all tokens but the first are asked for."""
    width = max(map(len, sequences))
    asked = [number * width + column for number, one in enumerate(sequences) for column in range(1, len(one))]
    return PrefixRows.collate([PrefixTrie.of([one])[0] for one in sequences], np.array(asked))


def balanced(directory: Path) -> LanguageModel:
    model = LanguageModel.load(directory, 1.0, context_length=64)
    model.balance_routers()
    return model


def transcription(logits_of_layers: list[Tensor], num_chosen: int) -> float:
    """E·Σ_e f_e·P_e of router logits [columns, E] of each layer, in plain numbers."""
    counts, probabilities, columns = [0] * NUM_EXPERTS, [0.0] * NUM_EXPERTS, 0
    for logits in logits_of_layers:
        for row in logits.double().softmax(-1).tolist():
            columns += 1
            for expert in sorted(range(NUM_EXPERTS), key=row.__getitem__)[-num_chosen:]:
                counts[expert] += 1
            probabilities = [sum(pair) for pair in zip(probabilities, row, strict=True)]
    return NUM_EXPERTS * sum(f * p / columns**2 for f, p in zip(counts, probabilities, strict=True))


@pytest.mark.parametrize("config", [pytest.param(config, id=name) for name, config in MIXTURES.items()])
@torch.no_grad()
def test_padding_has_no_part_in_it(config: PreTrainedConfig, tmp_path: Path) -> None:
    model = balanced(write_architecture(tmp_path, config))
    found = model.statistics(rows_of(LONG, SHORT)).router_loss
    logits = [
        model.module.base_model(input_ids=torch.tensor([one]), output_router_logits=True).router_logits
        for one in (LONG, SHORT)
    ]
    expected = transcription(
        [torch.cat(of_layer) for of_layer in zip(*logits, strict=True)], config.num_experts_per_tok
    )
    assert found is not None
    assert float(found) == pytest.approx(expected, rel=1e-5)
    alone = model.module(input_ids=torch.tensor([LONG]), output_router_logits=True).aux_loss
    of_one = model.statistics(rows_of(LONG)).router_loss
    assert of_one is not None
    assert float(of_one) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_step_evens_out_what_experts_do(configure: Configure, tmp_path: Path, checkpoints: bool) -> None:
    directory = write_architecture(tmp_path, QUICK["qwen3-moe"])
    updates = {}
    for coefficient in (1e-9, 1e3):
        settings = configure(model=directory, context_length=64, objective={"kl_coef": 0, "router_coef": coefficient})
        policy = Policy(directory, 1.0, settings.optimizer, context_length=64)
        policy.model.balance_routers()
        if checkpoints:
            checkpoint_activations(policy.model.module)
        trainer = Trainer(policy, None, settings)
        updates[coefficient] = [trainer.step(build_all([TREE]), V1, 1e-4, "") for _ in range(2)]
    (without, _), (first, second) = updates.values()
    assert first.router_loss == without.router_loss
    assert first.loss == pytest.approx((without.loss or 0.0) + 1e3 * (first.router_loss or 0.0), rel=1e-6)
    assert (second.router_loss or 0.0) < (first.router_loss or 0.0)


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    model = LanguageModel.load(write_architecture(tmp_path, QUICK["qwen3-moe"]), 1.0, context_length=64)
    assert model.statistics(rows_of(LONG)).router_loss is None


def test_a_model_without_experts_is_refused(tmp_path: Path) -> None:
    model = LanguageModel.load(write_architecture(tmp_path, QUICK["llama, untied"]), 1.0, context_length=64)
    with pytest.raises(InvalidInput, match="router_coef balances the routers of a mixture of experts, and llama"):
        model.balance_routers()
