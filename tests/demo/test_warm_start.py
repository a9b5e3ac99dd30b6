"""The warm start: what it trains on, that it repeats itself, and the checkpoint that it shipped."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, parse
from services.demo.split import Split, split_of
from services.demo.task import checkpoint_directory
from services.demo.tokenizer import EOS_ID, PAD_ID, build_tokenizer
from services.demo.warm_start.__main__ import main
from services.demo.warm_start.evaluation import is_right_answer, measure, sample
from services.demo.warm_start.training import LossReport, Recipe, make_batch, new_model, train

TOKENIZER = build_tokenizer()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def train_weights(seed: int) -> dict[str, torch.Tensor]:
    model, reports = new_model(seed), list[LossReport]()
    train(model, TOKENIZER, Recipe(steps=3, batch_size=8), seed, reports.append)
    assert [report.step for report in reports] == [3]
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_equal_seeds_train_equal_weights_and_other_seeds_others() -> None:
    first, second, other = train_weights(0), train_weights(0), train_weights(1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_batch_holds_train_expressions_and_learns_the_answers_alone() -> None:
    input_ids_BT, labels_BT = make_batch(TOKENIZER, Recipe(), random.Random(5))
    for ids, labels in zip(input_ids_BT.tolist(), labels_BT.tolist(), strict=True):
        prompt, answer = TOKENIZER.decode(ids).split("=")
        expression = parse(prompt, 7)
        assert split_of(expression) is Split.TRAIN
        assert expression.length in (2, 3, 4, 5)
        learned = [label for label in labels if label != -100]
        assert learned[-1] == EOS_ID
        assert TOKENIZER.decode(learned) == answer
        assert ids == TOKENIZER.encode(prompt + "=").ids + learned + [PAD_ID] * ids.count(PAD_ID)


def test_the_learning_rate_rises_then_falls() -> None:
    recipe = Recipe(steps=100, warmup_steps=10)
    rates = [recipe.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(recipe.learning_rate)
    assert rates[-1] == pytest.approx(recipe.learning_rate * recipe.final_share, rel=0.05)


def test_a_recipe_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="steps and batch_size are positive: 0"):
        Recipe(steps=0)


def test_sampling_follows_the_models_distribution_and_stops_after_eos() -> None:
    model = new_model(0).eval()
    prompts_BT = torch.tensor([TOKENIZER.encode("2+3=").ids] * 4000)
    answers_BT = sample(model, prompts_BT, 2, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected_V = model(input_ids=prompts_BT[:1]).logits[0, -1].softmax(dim=-1)
    assert torch.allclose(answers_BT[:, 0].bincount(minlength=20) / 4000, expected_V, atol=0.02)
    assert (answers_BT[answers_BT[:, 0] == EOS_ID, 1] == PAD_ID).all()


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("5\n\n\\boxed{5}<eos>", True),
        ("\\boxed{5}<eos><pad>", True),
        ("\\boxed{4}<eos>", False),
        ("\\boxed{5}", False),
        ("\\boxed{5}\n\n<eos>", False),
        ("5<eos>", False),
    ],
)
def test_an_answer_is_right_when_it_ends_with_the_right_box(answer: str, is_right: bool) -> None:
    assert is_right_answer(TOKENIZER, TOKENIZER.encode(answer).ids, Expression((2, 3), "+"), 7) is is_right


def test_the_command_writes_a_checkpoint_that_transformers_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--output", str(tmp_path), "--steps", "2", "--problems", "2", "--lengths", "2", "3"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.generation_config.eos_token_id == EOS_ID
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == model.config.vocab_size
    assert "--seed 0 --steps 2" in (tmp_path / "README.md").read_text()
    assert "lengths 2 and 3 | 4 |" in capsys.readouterr().out


def test_the_shipped_checkpoint_is_as_good_as_its_readme_says() -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint_directory())
    assert model.num_parameters() == 556_000
    assert model.dtype == torch.float32
    accuracies = measure(model, TOKENIZER, Difficulty().lengths, num_problems=64, seed=11)
    assert accuracies["lengths 5 and 6"].avg_at_k == pytest.approx(0.29, abs=0.08)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_command_makes_a_model_like_the_shipped_one(tmp_path: Path) -> None:
    main(["--output", str(tmp_path), "--problems", "128"])
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    accuracies = measure(again, TOKENIZER, Difficulty().lengths, num_problems=256, seed=11)
    assert accuracies["lengths 5 and 6"].avg_at_k == pytest.approx(0.29, abs=0.06)
