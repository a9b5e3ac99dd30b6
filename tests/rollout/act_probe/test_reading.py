"""A replica's reading of the act-probe is the learner's of the same weights, and no other weights'."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from services.demo.task import checkpoint_directory
from services.learner.config import AdapterConfig, OptimizerConfig, Precision
from services.learner.model.act_probe import score_tokens
from services.learner.model.adapters import Adapters
from services.learner.model.policy import Policy
from services.learner.model.process_group import ProcessGroup
from services.rollout.act_probe.reading import read_act
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from shared.protocol.act_probe import FLOAT32_TOLERANCE, ROUNDED_TOLERANCE, ActReading, act_distance, probe_tokens
from shared.tree.draw import WeightVersion
from tests.learner.model.test_adapters import IDS

CPU = torch.device("cpu")
SLOW = pytest.mark.slow


@pytest.fixture
async def engine() -> AsyncIterator[EmbeddedEngine]:
    made = EmbeddedEngine(EmbeddedSettings(trace=False))
    yield made
    await made.close()


def learner_reading(policy: Policy, group: ProcessGroup, version: WeightVersion) -> ActReading:
    model = policy.model
    logprobs = score_tokens(model.module, probe_tokens(model.vocab_size, model.context_length), group)
    return ActReading.of(version, model.vocab_size, logprobs, is_float32=group.precision is Precision.FLOAT32)


@pytest.mark.parametrize(
    ("precision", "trains_adapters", "halve", "tolerance"),
    [
        pytest.param(Precision.FLOAT32, False, False, FLOAT32_TOLERANCE / 10, id="float32"),
        pytest.param(Precision.FLOAT32, True, False, FLOAT32_TOLERANCE / 10, id="adapters, merged"),
        pytest.param(Precision.BFLOAT16, False, False, ROUNDED_TOLERANCE, id="bfloat16"),
        pytest.param(Precision.FLOAT32, False, True, ROUNDED_TOLERANCE, id="products in bfloat16", marks=SLOW),
        pytest.param(Precision.BFLOAT16, True, True, ROUNDED_TOLERANCE, id="all in bfloat16, merged", marks=SLOW),
    ],
)
async def test_over_updates_a_replica_reads_what_the_learner_reads(
    precision: Precision, trains_adapters: bool, halve: bool, tolerance: float, tmp_path: Path
) -> None:
    group, engine = ProcessGroup(CPU, precision), EmbeddedEngine(EmbeddedSettings(halve=halve, trace=False))
    base = checkpoint_directory()
    adapters = Adapters(AdapterConfig(rank=4, alpha=8), base, seed=7, saved=None) if trains_adapters else None
    policy = Policy(base, 0.7, OptimizerConfig(lr=0.01), group, adapters=adapters)  # its own temperature plays no part
    readings = []
    for number in range(2):
        version = WeightVersion(1, number, "beef")
        published = learner_reading(policy, group, version)
        policy.write(tmp_path / str(version), policy.weights(group.dtype))
        await engine.load(tmp_path / str(version), version)
        served = await read_act(engine, version)
        assert served is not None
        assert served.is_float32 is not halve
        distance = act_distance(published, served)
        assert distance is not None
        assert distance < tolerance
        readings.append(served)
        policy.model.statistics(IDS).logprobs_RS.sum().backward()
        policy.apply_gradients(0.01)
    assert len({one.logprob for one in readings}) == 2
    await engine.close()


async def test_no_tensor_of_the_model_is_zeroed_unseen(engine: EmbeddedEngine) -> None:
    version = WeightVersion(1, 0)
    await engine.load(checkpoint_directory(), version)
    sound = await read_act(engine, version)
    assert sound is not None
    assert engine._batch is not None
    module = engine._batch.model._model
    for name, weight in module.named_parameters():
        kept = weight.clone()
        weight.zero_()
        served = await read_act(engine, version)
        weight.copy_(kept)
        assert served is not None
        distance = act_distance(sound, served)
        assert distance is not None, name
        assert distance > ROUNDED_TOLERANCE, name
    assert await read_act(engine, version) == sound
