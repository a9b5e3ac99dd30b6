"""Losses and gradients against TRL's own code: the same policy, answers, rewards and engine's log-probabilities are
scored and trained on by its GRPOTrainer (docs/same-numbers.md).

Two passes over one batch; between them the weights move, so that ratios are not 1.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.learner.model.policy import LanguageModel, Policy
from services.learner.training.trainer import Trainer
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Finish
from tests.learner.conftest import Configure
from tests.learner.policies import EOS_ID
from tests.learner.synthetic import V1, build_all, draws, scored, task, with_logprobs

pytestmark = [pytest.mark.drill, pytest.mark.filterwarnings("ignore")]  # importing TRL takes seconds, and warns

TOLERANCE = 5e-7
"""Of losses, and of gradients by their norms. Models are in double, but TRL's head, ratios and weights in float32."""
MAX_TOKENS = 12
NUM_ANSWERS = 8
NUM_TREES = 3
EPSILON = 1e-4
"""What TRL adds to the standard deviation of the rewards."""

TRLTrainer: TypeAlias = Any
Settings: TypeAlias = dict[str, Any]
COMMON: Settings = {"kl_coef": 0.0, "epochs": 2, "micro_batch_tokens": 10_000, "ties": "keep"}
GRPO: Settings = {"kind": "grpo", "std": "sample", "epsilon": EPSILON}
DR_GRPO: Settings = {"kind": "dr-grpo"}


@dataclass(frozen=True, slots=True)
class Passes:
    """Loss, and gradients by the names of the parameters, of each of two passes."""

    losses: list[float]
    gradients: list[dict[str, Tensor]]


def move(module: nn.Module) -> None:
    """One and the same change of all weights."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def take_gradients(module: nn.Module) -> dict[str, Tensor]:
    taken = {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
    module.zero_grad()
    return taken


@pytest.fixture(scope="module")
def batch(policy_dir: Path) -> list[ScoredTree]:
    """Trees of independent answers. The engine's log-probabilities are near the policy's, some further off; one tree
    has equal rewards; some answers end with the stop token, the others were cut and judged."""
    rng = random.Random(1)
    model = AutoModelForCausalLM.from_pretrained(policy_dir).eval()
    trees = []
    for number in range(NUM_TREES):
        rewards = (1.0,) if number == 1 else (1.0, 0.0, 0.25, 0.0, 0.0)
        record = [
            replace(one, token_ids=(*one.token_ids[:-1], EOS_ID))
            if nth % 3
            else replace(one, finish=Finish.LENGTH_JUDGED)
            for nth, one in enumerate(draws(rng, NUM_ANSWERS, 0, rewards=rewards, max_tokens=MAX_TOKENS))
        ]
        prompt = task(number).prompt_ids
        found = []
        for draw in record:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *draw.token_ids]])).logits[0, len(prompt) - 1 : -1]
            exact = logits.log_softmax(-1).gather(1, torch.tensor(draw.token_ids)[:, None])[:, 0]
            found.append([value + rng.gauss(0.0, rng.choice((0.01, 0.5))) for value in exact.tolist()])
        trees.append(scored(task(number), with_logprobs(record, found)))
    return trees


class Ours:
    """This project's trainer, whose optimizer notes the gradients and moves the weights once."""

    def __init__(self, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
        self._configure = configure
        self._monkeypatch = monkeypatch

    def train(self, batch: Sequence[ScoredTree], advantage: Settings, objective: Settings) -> Passes:
        config = self._configure(
            advantage=advantage,
            objective=COMMON | objective,
            growth={"sampler": {"kind": "independent"}, "max_tokens": MAX_TOKENS, "judge_truncated": True},
        )
        policy = Policy(config.model, 1.0, config.optimizer)
        reference = LanguageModel.load(config.model, 1.0, is_frozen=True) if config.needs_reference else None
        for model in (policy.model, reference):
            if model is not None:
                model.module.double()
        trainer = Trainer(policy, reference, config)
        losses: list[float] = []
        gradients: list[dict[str, Tensor]] = []
        loss_of = trainer._loss

        def note_loss(*arguments: Any) -> Tensor:
            loss = loss_of(*arguments)
            losses.append(loss.item())
            return loss

        def note_gradients(_: float) -> float:
            gradients.append(take_gradients(policy.model.module))
            move(policy.model.module)
            return 1.0

        self._monkeypatch.setattr(trainer, "_loss", note_loss)
        self._monkeypatch.setattr(policy, "apply_gradients", note_gradients)
        trainer.step(build_all(batch), V1, 1e-3, "seed")
        return Passes(losses, gradients)


@pytest.fixture
def ours(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Ours:
    return Ours(configure, monkeypatch)


class Theirs:
    """TRL's trainer: its own scoring of given answers, and its own loss."""

    def __init__(self, policy_dir: Path, output_dir: Path) -> None:
        self._policy_dir = policy_dir
        self._output_dir = output_dir

    def train(self, batch: Sequence[ScoredTree], settings: Settings) -> Passes:
        trainer = self._trainer(batch, settings)
        inputs = trainer._generate_and_score_completions([{"prompt": "w0"}] * (len(batch) * NUM_ANSWERS))
        losses, gradients = [], []
        for _ in range(2):
            loss = trainer._compute_loss(trainer.model, inputs)
            loss.backward()
            losses.append(loss.item())
            gradients.append(take_gradients(trainer.model))
            move(trainer.model)
        return Passes(losses, gradients)

    def _trainer(self, batch: Sequence[ScoredTree], settings: Settings) -> TRLTrainer:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        answers = [draw for tree in batch for draw in tree.draws]
        rollout = {
            "prompt_ids": [list(tree.task.prompt_ids) for tree in batch for _ in tree.draws],
            "completion_ids": [list(draw.token_ids) for draw in answers],
            "logprobs": [list(draw.logprobs) for draw in answers],
        }
        args = GRPOConfig(
            output_dir=str(self._output_dir),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            per_device_train_batch_size=len(answers),
            num_generations=NUM_ANSWERS,
            num_iterations=2,
            max_completion_length=MAX_TOKENS,
            **{name: value for name, value in settings.items() if not name.startswith("vllm")},
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(self._policy_dir),
            reward_funcs=lambda **_: [draw.reward for draw in answers],
            args=args,
            train_dataset=Dataset.from_list([{"prompt": "w0"}] * len(batch)),
            processing_class=AutoTokenizer.from_pretrained(self._policy_dir),
            rollout_func=lambda *_: rollout,
        )
        trainer.current_gradient_accumulation_steps = 1  # what its loop over steps would set
        if vllm := {name: value for name, value in settings.items() if name.startswith("vllm")}:
            trainer.use_vllm, trainer._last_loaded_step = (
                True,
                trainer.state.global_step,
            )  # no server to bring weights to
            for name, value in vllm.items():
                setattr(trainer, name, value)
        trainer.model.double().train()
        if trainer.ref_model is not None:
            trainer.ref_model.double()
        return trainer


@pytest.fixture(scope="module")
def theirs(policy_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    return Theirs(policy_dir, tmp_path_factory.mktemp("trl"))


def norm(gradients: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(one.double().square().sum()) for one in gradients))


def assert_same(ours: Passes, theirs: Passes) -> None:
    assert len(ours.losses) == len(theirs.losses) == 2
    assert ours.losses == pytest.approx(theirs.losses, rel=TOLERANCE, abs=1e-7)  # Σ A is 0: a first loss may be
    for our_gradient, their_gradient in zip(ours.gradients, theirs.gradients, strict=True):
        assert our_gradient.keys() == their_gradient.keys()
        error = norm(our_gradient[name] - one for name, one in their_gradient.items())
        size = norm(their_gradient.values())
        print(f"gradient of norm {size:.3g} off by {error / size:.2g} of it")
        assert size > 1e-3
        assert error <= TOLERANCE * size


DAPO = {"loss_type": "dapo"}


def mismatch(mode: str, lowest: float | None, highest: float) -> Settings:
    """TRL's correction of the difference between engine and trainer."""
    return DAPO | {
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_min": lowest,
        "vllm_importance_sampling_clip_max": highest,
    }


CASES: dict[str, tuple[Settings, Settings, Settings]] = {
    # by name: advantage and objective here, and the settings of TRL's GRPOConfig
    "grpo": (GRPO, {"loss_normalization": "trajectory"}, {"loss_type": "grpo"}),
    "dapo": (GRPO, {"clip_high": 0.28}, DAPO | {"epsilon_high": 0.28}),
    "bnpo": (GRPO, {}, {"loss_type": "bnpo"}),
    "dr_grpo": (DR_GRPO, {"loss_normalization": "constant"}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    "scale_rewards of the batch": (
        DR_GRPO | {"batch_std": True, "std": "sample", "epsilon": EPSILON},
        {},
        DAPO | {"scale_rewards": "batch"},
    ),
    "gspo": (
        GRPO,
        {"loss_normalization": "trajectory", "ratio": "sequence", "clip_low": 0.01, "clip_high": 0.02},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.01, "epsilon_high": 0.02},
    ),
    "cispo": (
        GRPO,
        {"surrogate": "cispo", "clip_low": 1.0, "clip_high": 0.05},
        {"loss_type": "cispo", "epsilon_high": 1.05},
    ),
    "delta": (GRPO, {"dual_clip": 1.25}, DAPO | {"delta": 1.25}),
    "beta": (GRPO, {"kl_coef": 0.1, "kl_max": None}, DAPO | {"beta": 0.1, "use_bias_correction_kl": False}),
    "beta over gspo": (
        GRPO,
        {"kl_coef": 0.1, "ratio": "sequence"},
        DAPO | {"beta": 0.1, "importance_sampling_level": "sequence", "use_bias_correction_kl": False},
    ),
    "use_bias_correction_kl": (
        GRPO,
        {"kl_coef": 0.1, "unbiased_kl": True},
        DAPO | {"beta": 0.1, "use_bias_correction_kl": True},
    ),
    "entropy_coef": (GRPO, {"entropy_coef": 0.05}, DAPO | {"entropy_coef": 0.05}),
    "token_truncate": (GRPO, {"tis_level": "token", "tis_cap": 1.5}, mismatch("token_truncate", None, 1.5)),
    "token_mask": (
        GRPO,
        {"tis_level": "token", "mask_level": "token", "mask_bounds": (0.7, 2.0)},
        mismatch("token_mask", 0.7, 2.0),
    ),
    "sequence_truncate": (GRPO, {"tis_level": "sequence", "tis_cap": 1.5}, mismatch("sequence_truncate", None, 1.5)),
    "sequence_mask": (
        GRPO,
        {"tis_level": "sequence", "tis_cap": 3.0, "mask_level": "sequence", "mask_bounds": (0.5, 3.0)},
        mismatch("sequence_mask", 0.5, 3.0),
    ),
    "mask_truncated_completions": (GRPO, {"mask_truncated": True}, DAPO | {"mask_truncated_completions": True}),
    "mask_truncated_completions of grpo": (
        GRPO,
        {"mask_truncated": True, "loss_normalization": "trajectory"},
        {"loss_type": "grpo", "mask_truncated_completions": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_two_passes_have_trls_losses_and_gradients(
    case: str, ours: Ours, theirs: Theirs, batch: list[ScoredTree]
) -> None:
    advantage, objective, settings = CASES[case]
    objective = {"tis_level": "off", "loss_normalization": "token"} | objective
    assert_same(ours.train(batch, advantage, objective), theirs.train(batch, settings))
