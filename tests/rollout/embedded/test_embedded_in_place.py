"""New weights that are copied from their files into the model that serves: bit for bit what loading them anew gives."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

from services.rollout.engines.embedded import EmbeddedEngine
from services.rollout.engines.embedded.in_place import BundleWeights
from services.rollout.engines.embedded.model import PolicyModel, load_model
from services.rollout.engines.engine import Request, Sampling
from shared.errors import InvalidInput, Unavailable
from shared.tree.draw import WeightVersion
from tests.rollout.embedded.conftest import config_of
from tests.rollout.embedded.test_embedded_model import SERVED, SERVED_TOO, SIZES

EngineFactory = Callable[..., Awaitable[EmbeddedEngine]]
SnapshotFactory = Callable[..., Path]
SECOND = WeightVersion(1, 1)
TIED = LlamaConfig(**SIZES, tie_word_embeddings=True)


def bundle_of(config: PreTrainedConfig, seed: int, directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A random model, no tensor of it constant."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        weight.data.add_(torch.randn(weight.shape), alpha=0.3)
    model.to(dtype).save_pretrained(directory)
    return directory


def state_of(policy: PolicyModel) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in policy._model.state_dict().items()}


def differing(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The entries whose types or bits differ."""
    assert state.keys() == other.keys()
    return [
        name
        for name, weight in state.items()
        if weight.dtype != other[name].dtype or not torch.equal(weight.view(torch.uint8), other[name].view(torch.uint8))
    ]


def mapped_files(directory: Path) -> list[str]:
    """This process's mappings of files below the directory."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(directory) in line]


def rewritten(bundle: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    weights = load_file(bundle / "model.safetensors")
    change(weights)
    save_file(weights, bundle / "model.safetensors", metadata={"format": "pt"})
    return bundle


KINDS = [
    pytest.param(config, dtype, halve, id=f"{config.model_type}-{name}-{'halved' if halve else 'whole'}", marks=marks)
    for index, config in enumerate([config_of("gpt2"), SERVED[1], config_of("qwen3"), TIED, SERVED[2], *SERVED_TOO])
    for name, dtype in (("F32", torch.float32), ("BF16", torch.bfloat16))
    for halve in (False, True)
    for marks in [() if index < 2 and halve == (name == "BF16") else pytest.mark.slow]
]
"""A head that is tied, experts that the file has one by one, and the rest of what is served."""


@pytest.mark.parametrize(("config", "dtype", "halve"), KINDS)
def test_what_is_copied_is_what_a_fresh_load_has(
    config: PreTrainedConfig, dtype: torch.dtype, halve: bool, tmp_path: Path
) -> None:
    first, second = (bundle_of(config, seed, tmp_path / str(seed), dtype) for seed in (1, 2))
    served = load_model(first, None, halve=halve)
    assert mapped_files(tmp_path) == []
    weights = served.open_weights(second)
    assert weights is not None
    assert mapped_files(second)
    assert served.adopt(weights) is served
    assert mapped_files(tmp_path) == []
    assert differing(state_of(served), state_of(load_model(second, None, halve=halve))) == []


def test_a_model_in_several_files_is_copied(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of("llama"))
    for number in (1, 2):
        for weight in model.parameters():
            weight.data.add_(torch.randn(weight.shape), alpha=0.3)
        model.save_pretrained(tmp_path / str(number), max_shard_size="8KB")
    assert len(list(tmp_path.glob("1/*.safetensors"))) > 1
    served = load_model(tmp_path / "1", None)
    weights = served.open_weights(tmp_path / "2")
    assert weights is not None
    served.adopt(weights)
    assert differing(state_of(served), state_of(load_model(tmp_path / "2", None))) == []


def test_names_with_another_prefix_are_found(tmp_path: Path) -> None:
    """As some tools write them: GPT-2's own file has no `transformer.`"""

    def rename(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weight = weights.pop(name)
            weights[name.removeprefix("transformer.")] = weight

    first, second = (rewritten(bundle_of(config_of("gpt2"), n, tmp_path / str(n)), rename) for n in (1, 2))
    served = load_model(first, None)
    weights = served.open_weights(second)
    assert weights is not None
    served.adopt(weights)
    assert differing(state_of(served), state_of(load_model(second, None))) == []


def _equal_experts(weights: dict[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if ".experts." in name:
            weight.zero_()


def test_tensors_that_cannot_be_told_apart_are_loaded_anew(tmp_path: Path) -> None:
    """Experts that begin as zeros: nothing says which of them lies where."""
    first = rewritten(bundle_of(SERVED[1], 1, tmp_path / "1"), _equal_experts)
    served = load_model(first, None)
    assert served.open_weights(bundle_of(SERVED[1], 2, tmp_path / "2")) is None


@pytest.mark.parametrize("changed", ["another type", "another configuration", "one tensor more", "another index"])
def test_whatever_else_changes_is_loaded_anew(changed: str, tmp_path: Path) -> None:
    served = load_model(bundle_of(TIED, 1, tmp_path / "1"), None)
    dtype = torch.bfloat16 if changed == "another type" else torch.float32
    second = bundle_of(TIED, 2, tmp_path / "2", dtype)
    if changed == "another configuration":
        path = second / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 0.1}))
    if changed == "one tensor more":
        rewritten(second, lambda weights: weights.update(extra=torch.zeros(2)))
    if changed == "another index":
        (second / "model.safetensors.index.json").write_text("{}")
    assert served.open_weights(second) is None
    if changed == "another type":  # and from then on in place again
        new = load_model(second, None)
        served.check_successor(new)
        served.adopt(new)
        third = bundle_of(TIED, 3, tmp_path / "3", dtype)
        weights = served.open_weights(third)
        assert weights is not None
        served.adopt(weights)
        assert differing(state_of(served), state_of(load_model(third, None))) == []


LAST = "model.norm.weight"


def _unfit(kind: str, bundle: Path) -> None:
    path = bundle / "model.safetensors"
    data = path.read_bytes()
    match kind:
        case "NaN in the last tensor":
            rewritten(bundle, lambda weights: weights[max(weights)].view(-1)[-1:].fill_(torch.nan))
        case "minus infinity":
            rewritten(bundle, lambda weights: weights[min(weights)].view(-1)[:1].fill_(-torch.inf))
        case "weights too large to compute with":
            rewritten(bundle, lambda weights: weights[LAST].fill_(3e38))
        case "a byte short":
            path.write_bytes(data[:-1])
        case "foreign shapes":
            rewritten(bundle, lambda weights: weights.update({LAST: torch.ones(5)}))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("NaN in the last tensor", torch.bfloat16),
        ("minus infinity", torch.float32),
        ("weights too large to compute with", torch.bfloat16),
        ("a byte short", torch.float32),
        ("foreign shapes", torch.float32),
    ],
)
async def test_a_bundle_that_is_refused_leaves_every_bit_as_it_was(
    kind: str, dtype: torch.dtype, serve: EngineFactory, snapshot: SnapshotFactory, tmp_path: Path
) -> None:
    engine = await serve("qwen3")
    assert engine._batch is not None
    await engine.load(bundle_of(config_of("qwen3"), 1, tmp_path / "first", dtype), SECOND)
    before = state_of(engine._batch.model)
    bundle = bundle_of(config_of("qwen3"), 2, tmp_path / "unfit", dtype)
    _unfit(kind, bundle)
    with pytest.raises(InvalidInput) as refusal:
        await engine.load(bundle, WeightVersion(1, 2))
    assert refusal.value
    assert mapped_files(tmp_path) == []  # while the refusal is held
    assert engine.version == SECOND
    assert differing(state_of(engine._batch.model), before) == []


async def test_loads_one_after_another_need_no_second_model_and_may_be_deleted_at_once(
    serve: EngineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With requests in flight, in both types."""
    engine = await serve("qwen3", max_running_requests=4)
    assert engine._batch is not None
    first = await engine.complete(Request((3, 4), 5, Sampling(), frozenset(), 0))
    assert len(first.token_ids) == 5
    for number in range(1, 4):
        dtype = torch.bfloat16 if number > 1 else torch.float32
        bundle = bundle_of(config_of("qwen3"), number, tmp_path / str(number), dtype)
        jobs = [
            asyncio.create_task(engine.complete(Request((5, 6 + i), 80, Sampling(), frozenset(), i))) for i in range(4)
        ]
        if number in (1, 3):
            monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", _never)
        await engine.load(bundle, WeightVersion(1, number))
        monkeypatch.undo()
        fresh = state_of(load_model(bundle, None, halve=None))
        shutil.rmtree(bundle)
        assert mapped_files(tmp_path) == []
        assert differing(state_of(engine._batch.model), fresh) == []
        for completion in await asyncio.gather(*jobs):
            assert completion.spans[-1].version == WeightVersion(1, number)
            assert completion.spans[-1].end == 80
    [pauses] = [metric for metric in engine.counters.collect() if metric.name == "ibtpo_rollout_engine_pause_seconds"]
    assert {sample.name: sample.value for sample in pauses.samples}[f"{pauses.name}_count"] == 3


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("a second model is loaded")


async def test_weights_that_were_copied_half_answer_nobody(
    serve: EngineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails in the midst, for one."""
    engine = await serve("qwen3")
    assert engine._batch is not None
    first, second = (bundle_of(config_of("qwen3"), n, tmp_path / str(n)) for n in (1, 2))
    await engine.load(first, SECOND)
    waiting = [asyncio.create_task(engine.complete(Request((3, 4), 90, Sampling(), frozenset(), i))) for i in range(3)]
    copy = BundleWeights.copy_into

    def fails(weights: BundleWeights, state: dict[str, torch.Tensor]) -> None:
        copy(weights, {})
        next(iter(state.values())).zero_()
        raise OSError("input/output error")

    monkeypatch.setattr(BundleWeights, "copy_into", fails)
    with pytest.raises(Unavailable, match="not copied whole"):
        await engine.load(second, WeightVersion(1, 2))
    assert engine.version is None
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    with pytest.raises(Unavailable):
        await engine.complete(Request((3, 4), 5, Sampling(), frozenset(), 0))
    monkeypatch.undo()
    await engine.load(second, WeightVersion(1, 2))
    assert differing(state_of(engine._batch.model), state_of(load_model(second, None))) == []
    assert len((await engine.complete(Request((3, 4), 5, Sampling(), frozenset(), 0))).token_ids) == 5


async def test_a_load_that_is_given_up_before_it_begins_never_comes(
    serve: EngineFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await serve("qwen3")
    assert engine._batch is not None
    before = state_of(engine._batch.model)
    decoding, go_on = asyncio.Event(), asyncio.Event()
    advance = engine._advance

    async def held(batch: Any) -> None:
        decoding.set()
        await go_on.wait()
        await advance(batch)

    monkeypatch.setattr(engine, "_advance", held)
    answer = asyncio.create_task(engine.complete(Request((3, 4), 5, Sampling(), frozenset(), 0)))
    await decoding.wait()
    load = asyncio.create_task(engine.load(bundle_of(config_of("qwen3"), 1, tmp_path), SECOND))
    while engine._weight_change is None:
        await asyncio.sleep(0)
    load.cancel()
    await asyncio.wait([load])
    assert mapped_files(tmp_path) == []
    go_on.set()
    await answer
    assert engine.version == WeightVersion(1, 0)
    assert differing(state_of(engine._batch.model), before) == []
