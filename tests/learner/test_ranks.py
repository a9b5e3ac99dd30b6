"""Several processes that train one policy do what one alone does."""

import contextlib
import json
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoConfig, AutoModelForCausalLM

from services.learner.config import Device, LearnerConfig, Precision
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.process_group import SINGLE_PROCESS, ProcessGroup
from services.learner.ranks import RankWorkers, check_same_code
from services.learner.training.trainer import Trainer
from shared.errors import InvalidInput
from shared.runtime.child_process import kill_group
from shared.tree.draw import WeightVersion
from tests.learner.conftest import Configure
from tests.learner.model.architectures import QUICK
from tests.learner.model.test_fitness import write_architecture
from tests.learner.policies import write_policy
from tests.learner.rank_process import trees
from tests.learner.synthetic import build_all
from tests.learner.torchrun import ENVIRONMENT, node_command, rank_command

_RANK_PROCESS = Path(__file__).with_name("rank_process.py")


class Launcher:
    """Runs some number of ranks on one configuration, each from a checkpoint or from the start."""

    def __init__(self, config: LearnerConfig, directory: Path) -> None:
        self._directory = directory
        (directory / "config.json").write_text(config.model_dump_json())

    def run(self, name: str, size: int, steps: int, checkpoint: Path | None = None) -> Path:
        """The directory that the ranks wrote."""
        out = self._directory / name
        out.mkdir()
        arguments = [self._directory / "config.json", steps, out, *([checkpoint] if checkpoint else [])]
        command = rank_command(size, _RANK_PROCESS, *arguments)
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        return out

    def run_on_nodes(self, name: str, nodes: int, steps: int) -> Path:
        """As `run`, each rank on a node of its own, as far as torchrun knows."""
        out = self._directory / name
        out.mkdir()
        command = node_command(nodes, free_port(), _RANK_PROCESS, self._directory / "config.json", steps, out)
        agents = [subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True) for _ in range(nodes)]
        try:
            assert [agent.wait(200) for agent in agents] == [0] * nodes
        finally:
            for agent in agents:
                kill_group(agent.pid)
        return out


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def launcher(configure: Configure, tmp_path: Path) -> Launcher:
    """With a value head, and parts of a user's own wherever they may be."""
    parts = "tests.learner.rank_parts"
    objective = {"kl_coef": 0.1, "minibatches": 2, "micro_batch_tokens": 40, "loss_normalization": "token"}
    objective |= {"surrogate": f"{parts}:Plain", "terms": [f"{parts}:Spread"]}
    head = {"kind": "prior", "source": "head"}
    advantage = {"kind": f"{parts}:Rise", "values": {"kind": f"{parts}:Halved", "of": head}}
    return Launcher(configure(objective=objective, advantage=advantage, device="cpu"), tmp_path)


def assert_same(one: Path, other: Path) -> None:
    """Weights, moments and figures are equal, but for the order of sums."""
    ours, theirs = (load_file(out / "served/model.safetensors") for out in (one, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=2e-4), name
    moments = [read_moments_of(out) for out in (one, other)]
    assert moments[0].keys() == moments[1].keys()
    for name, tensor in moments[0].items():
        assert torch.allclose(tensor, moments[1][name], atol=1e-5), name
    found, expected = figures(one), figures(other)
    assert found == pytest.approx({name: expected[name] for name in found}, rel=2e-3, abs=1e-6)


def read_moments_of(out: Path) -> dict[str, torch.Tensor]:
    """AdamW's state, whole, as any tool reads it."""
    target = out / "whole.pt"
    dcp_to_torch_save(out / "optimizer", target)
    whole: dict[str, torch.Tensor] = torch.load(target, weights_only=True)
    return whole


def figures(out: Path) -> dict[str, float]:
    """What the ranks's updates said of themselves."""
    found = json.loads((out / "figures.json").read_text())
    of_updates = {
        f"{name} {number}": value
        for number, update in found["updates"].items()
        for name, value in update.items()
        if isinstance(value, int | float) and not name.endswith(("_seconds", "_gib", "_tflops", "mfu"))
    }
    return {"gap": found["gap"], "act": found["act"], **of_updates}


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_any_number_of_processes_trains_as_one_does_and_goes_on_where_others_stopped(launcher: Launcher) -> None:
    """All in one, for what each is compared with is the same."""
    alone = launcher.run("alone", 1, 3)
    two = launcher.run("two", 2, 3)
    assert_same(two, alone)
    assert_same(launcher.run_on_nodes("two-nodes", 2, 3), alone)
    assert_same(launcher.run("from-one-to-two", 2, 3, alone / "first"), alone)
    four = launcher.run("from-two-to-four", 4, 3, two / "first")
    assert_same(four, alone)
    assert len(list((four / "first" / "optimizer").glob("*.distcp"))) == 4
    assert_same(launcher.run("from-four-to-one", 1, 3, four / "first"), alone)


@pytest.mark.drill
@pytest.mark.timeout(400)
def test_a_model_that_rank_0_alone_reads_is_the_same_on_all(tmp_path: Path) -> None:
    """Tied and untied heads, and frequencies that no file has."""
    directories = [write_policy(tmp_path / architecture, architecture) for architecture in ("qwen3", "llama", "gpt2")]
    command = rank_command(3, Path(__file__).with_name("rank_reading.py"), *directories)
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_compute_layers_again_and_go_where_one_goes(configure: Configure, tmp_path: Path) -> None:
    objective = {"kl_coef": 0.1, "micro_batch_tokens": 40}
    found = []
    for size, checkpointing in ((2, True), (1, False)):
        (directory := tmp_path / str(size)).mkdir()
        config = configure(objective=objective, device="cpu", activation_checkpointing=checkpointing)
        found.append(Launcher(config, directory).run("run", size, 1))
    assert_same(*found)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_train_adapters_as_one_does(configure: Configure, tmp_path: Path) -> None:
    objective = {"kl_coef": 0.1, "micro_batch_tokens": 40}
    launcher = Launcher(configure(objective=objective, device="cpu", lora={"rank": 4}), tmp_path)
    alone = launcher.run("alone", 1, 3)
    assert_same(launcher.run("two", 2, 3), alone)
    assert_same(launcher.run("resumed", 2, 3, alone / "first"), alone)


@pytest.mark.drill
def test_a_rank_that_stands_still_does_not_hold_rank_0_for_ever() -> None:
    command = rank_command(2, Path(__file__).with_name("rank_silent.py"))
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert "exitcode  : 17" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_balance_routers_as_one_does(configure: Configure, tmp_path: Path) -> None:
    model = write_architecture(tmp_path / "model", QUICK["qwen3-moe"])
    objective = {"micro_batch_tokens": 40, "router_coef": 0.1}
    launcher = Launcher(configure(model=model, objective=objective, device="cpu"), tmp_path)
    alone = launcher.run("alone", 1, 1)
    assert figures(alone)["router_loss 0"] > 1
    assert_same(launcher.run("two", 2, 1), alone)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_in_bfloat16_go_where_one_goes(configure: Configure, tmp_path: Path) -> None:
    launcher = Launcher(configure(precision="bfloat16", objective={"micro_batch_tokens": 40}, device="cpu"), tmp_path)
    two, alone = figures(launcher.run("two", 2, 1)), figures(launcher.run("alone", 1, 1))
    assert two["entropy 0"] == pytest.approx(alone["entropy 0"], rel=0.02)
    assert two["grad_norm 0"] == pytest.approx(alone["grad_norm 0"], rel=0.1)
    served = [load_file(tmp_path / name / "served/model.safetensors") for name in ("two", "alone")]
    assert served[0].keys() == served[1].keys()
    assert {tensor.dtype for tensor in served[0].values()} == {torch.bfloat16}


def test_ranks_have_the_same_parts_of_the_users_own(configure: Configure) -> None:
    parts = "tests.learner.rank_parts"
    config = configure(objective={"surrogate": f"{parts}:Plain", "terms": [f"{parts}:Spread"]}, advantage="grpo")
    assert [*config.own_code] == [parts]
    check_same_code(config.own_code, config.own_code)
    for ours, theirs in ((config.own_code, {parts: "0123"}), ({}, config.own_code), (config.own_code, {})):
        with pytest.raises(InvalidInput, match=f"^{parts} is another version on this rank .* than on rank 0 "):
            check_same_code(ours, theirs)


def policy_of(config: LearnerConfig, group: ProcessGroup) -> Policy:
    return Policy(config.model, 1.0, config.optimizer, group)


def test_replicas_get_the_weights_in_the_precision_of_training(configure: Configure, tmp_path: Path) -> None:
    config = configure()
    for precision in Precision:
        group = ProcessGroup(torch.device("cpu"), precision)
        policy = policy_of(config, group)
        ranks = RankWorkers(group, policy, Trainer(policy, None, config, group))
        ranks.save_for_serving(tmp_path / precision)
        ranks.begin_checkpoint(tmp_path / f"{precision}-whole").result(60)
        served = load_file(tmp_path / precision / "model.safetensors")
        assert {str(tensor.dtype) for tensor in served.values()} == {f"torch.{precision}"}
        assert json.loads((tmp_path / precision / "config.json").read_text())["dtype"] == precision
        whole = load_file(tmp_path / f"{precision}-whole" / "policy" / "model.safetensors")
        assert {tensor.dtype for tensor in whole.values()} == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_step_in_bfloat16_goes_where_one_in_float32_goes(device: str, configure: Configure) -> None:
    config = configure(objective={"kl_coef": 0.1, "minibatches": 2})
    updates = []
    for group in (SINGLE_PROCESS, ProcessGroup(torch.device(device), Precision.BFLOAT16)):
        policy = policy_of(config, group)
        reference = LanguageModel.load(config.model, 1.0, group, is_frozen=True)
        trainer = Trainer(policy, reference, config, group)
        updates.append(trainer.step(build_all(trees(0, 5)), WeightVersion(1, 0), 1e-3, "seed"))
        assert {weight.dtype for weight in policy.model.module.parameters()} == {torch.float32}
        assert trainer.engine_gap(trees(0, 5), WeightVersion(1, 0)) is not None
    exact, rough = updates
    assert (rough.applied, rough.refused) == (exact.applied, 0)
    assert rough.entropy == pytest.approx(exact.entropy, rel=0.02)
    assert rough.grad_norm == pytest.approx(exact.grad_norm, rel=0.1)
    assert rough.loss != exact.loss


def test_a_pass_computes_on_the_device_of_its_group_alone(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that holds no numbers: what mixes it with the CPU, or reads a number before the end, fails."""
    config = configure(objective={"kl_coef": 0.0})
    group = ProcessGroup(torch.device("meta"))
    monkeypatch.setattr(group, "autocast", contextlib.nullcontext)
    module = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config.model)).to("meta").eval()
    policy = policy_of(config, SINGLE_PROCESS)
    policy.model = LanguageModel(module, 1.0, group)
    monkeypatch.setattr(policy, "apply_gradients", lambda lr: 1.0)
    monkeypatch.setattr(group, "all_reduce", lambda values: torch.zeros(values.shape))
    Trainer(policy, None, config, group).step(build_all(trees(0, 5)), WeightVersion(1, 0), 1e-3, "seed")
    gradients = [weight.grad for weight in module.parameters()]
    assert all(gradient is not None and gradient.is_meta for gradient in gradients)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="torch sees no CUDA device here"):
        ProcessGroup.join(Device.CUDA, Precision.FLOAT32)
    assert ProcessGroup.join(Device.AUTO, Precision.FLOAT32).device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InvalidInput, match="local rank 2 needs a CUDA device of its own, but there are 2"):
        ProcessGroup.join(Device.AUTO, Precision.FLOAT32)
