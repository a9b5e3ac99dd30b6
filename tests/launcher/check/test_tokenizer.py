"""What is found of tokenizers, stop tokens and chat templates."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from services.launcher.check.model import ModelFacts
from services.launcher.check.tokenizer import examine_round_trip, examine_template, examine_tokenizer
from services.launcher.display.finding import Finding, Level, Section
from services.learner.model.memory_estimate import ModelSize

Examine = Callable[..., dict[str, Finding]]
CHAT = ({"role": "user", "content": "How much is 1+1?"},)
USUAL = "{% for m in messages %}<turn>{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}<turn>{% endif %}"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tokenizer of single bytes."""
    directory = tmp_path_factory.mktemp("policy")
    specials = ["<eos>", "<turn>", "<end>"]
    vocabulary = {token: number for number, token in enumerate([*specials, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens(specials)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(directory)
    (directory / "generation_config.json").write_text('{"eos_token_id": 0}')
    return directory


@pytest.fixture
def examine(policy: Path, tmp_path: Path) -> Examine:
    """Finds what there is of a tokenizer with this template and these changes of its settings."""

    def find(template: str | None, prompts: tuple[Any, ...] = (CHAT,), **settings: Any) -> dict[str, Finding]:
        directory = shutil.copytree(policy, tmp_path / "policy")
        path = directory / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings | {"chat_template": template}))
        facts = ModelFacts(directory, None, ModelSize(1, 1, 300, 1, 1, 1.0), 300, 64)
        section = Section("tokenizer")
        tokens = examine_tokenizer(section, facts)
        if tokens:
            examine_round_trip(section, facts, tokens, prompts)
            examine_template(section, tokens, {}, prompts, 16)
        return {finding.check: finding for finding in section.findings}

    return find


def levels(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.level is not Level.OK}


def test_a_usual_template_has_nothing_against_it(examine: Examine) -> None:
    found = examine(USUAL)
    assert levels(found) == set()
    assert found["rendered"].found == "19 tokens of the first problem: '<turn>How much is 1+1?<eos><turn>'"
    assert found["end of an answer"].found == "the template ends a turn with a stop token"
    assert found["stop tokens"].found == "'<eos>' (0), of generation_config.json and the tokenizer"


def test_a_template_that_refuses_a_system_message_is_no_fault_but_said(examine: Examine) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + USUAL
    found = examine(refusing)["system role"]
    assert (found.level, "No system role" in found.found) == (Level.WARNING, True)
    assert "user's message" in found.remedy


def test_a_template_that_refuses_the_problems_fails(examine: Examine) -> None:
    found = examine("{{ raise_exception('only one turn') }}")["chat template"]
    assert (found.level, "refuses these messages: only one turn" in found.found) == (Level.FAILED, True)


def test_chat_messages_need_a_template_and_text_leaves_one_unused(examine: Examine) -> None:
    found = examine(None)["chat template"]
    assert (found.level, "1 of 1 problems are chat messages" in found.found) == (Level.FAILED, True)


def test_text_beside_a_template_is_said(examine: Examine) -> None:
    assert examine(USUAL, ("1+1=",))["chat template"].level is Level.WARNING


@pytest.mark.parametrize(
    ("template", "check", "words"),
    [
        ("{{ strftime_now('%d %B') }}" + USUAL, "date", "may write today's"),
        ("<eos><eos>" + USUAL, "begin token", "stands twice"),
        (USUAL + "<think>\n", "thought", "ends within <think>"),
        (
            USUAL.replace("{% if add_generation_prompt %}<turn>{% endif %}", ""),
            "answer's start",
            "does not heed add_gen",
        ),
        (USUAL.replace("<eos>", "<end>"), "end of an answer", "ends a turn with '<end>', which is no stop"),
    ],
)
def test_what_a_template_does_is_found(examine: Examine, template: str, check: str, words: str) -> None:
    settings = {"bos_token": "<eos>"} if check == "begin token" else {}
    found = examine(template, **settings)
    assert check in found, found
    assert words in found[check].found


def test_a_tokenizer_without_end_token_is_said(examine: Examine) -> None:
    found = examine(USUAL, eos_token=None)["stop tokens"]
    assert (found.level, "the tokenizer has no end token" in found.found) == (Level.WARNING, True)
