"""The tokenizer: texts and ids are the same thing, in both libraries that load it."""

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from services.demo.demonstrations import Noise, demonstrate
from services.demo.difficulty import Difficulty
from services.demo.expressions import generate, prompt_of
from services.demo.task import checkpoint_directory
from services.demo.tokenizer import EOS_ID, PAD_ID, SYMBOLS, UNKNOWN_ID, build_tokenizer, write_tokenizer
from shared.tree.segmentation import Segmenter
from shared.tree.vocabulary import bytes_of_tokens

TOKENIZER = build_tokenizer()
AUTO = AutoTokenizer.from_pretrained(checkpoint_directory())


@given(st.lists(st.integers(0, len(SYMBOLS) - 1), max_size=60))
def test_ids_survive_decoding_and_encoding(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids, skip_special_tokens=False)
    assert text == "".join(SYMBOLS[index] for index in ids)
    assert TOKENIZER.encode(text).ids == ids
    assert AUTO.encode(text) == ids
    assert AUTO.decode(ids) == text


@given(st.integers(0, 2**32))
def test_prompts_and_answers_survive_encoding_and_decoding(seed: int) -> None:
    rng = random.Random(seed)
    expression = generate(rng, Difficulty(lengths=(2, 5, 9)))
    text = prompt_of(expression) + demonstrate(expression, 7, Noise(), rng)
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids) == AUTO.decode(ids) == text
    assert AUTO.encode(text) == ids
    assert AUTO.decode([*ids, EOS_ID, PAD_ID], skip_special_tokens=True) == text
    assert UNKNOWN_ID not in ids


def test_one_symbol_is_one_token() -> None:
    ids = TOKENIZER.encode("2+3*4=2+5\n\n0\n\n\\boxed{0}<eos>").ids
    assert [SYMBOLS[index] for index in ids] == [*"2+3*4=2+5", "\n\n", "0", "\n\n", "\\boxed{", "0", "}", "<eos>"]


def test_the_segmenter_finds_the_steps_of_an_answer() -> None:
    written = json.loads((checkpoint_directory() / "tokenizer.json").read_text())
    segmenter = Segmenter(bytes_of_tokens(written), frozenset({EOS_ID}))
    answer = ["2+5\n\n", "0\n\n", "\\boxed{0}<eos>"]
    widths = [len(TOKENIZER.encode(step).ids) for step in answer]
    assert segmenter.step_ends((), TOKENIZER.encode("".join(answer)).ids) == tuple(itertools.accumulate(widths))


@pytest.mark.parametrize("text", ["Paris?", "2 + 3", "2\n3", "é", "\\boxed"])
def test_foreign_characters_become_unknown_rather_than_vanish(text: str) -> None:
    assert UNKNOWN_ID in TOKENIZER.encode(text).ids


@pytest.mark.parametrize("loader", [AutoTokenizer, PreTrainedTokenizerFast])
def test_transformers_loads_it_with_its_special_tokens(loader: type, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (PAD_ID, EOS_ID, UNKNOWN_ID)
    assert len(loaded) == len(SYMBOLS)
    assert set(loaded(["2+3=", "1="], padding=True)) == {"input_ids", "attention_mask"}


def test_the_shipped_tokenizer_is_the_one_that_is_built(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (checkpoint_directory() / name).read_text() == (tmp_path / name).read_text()
    assert Tokenizer.from_file(str(checkpoint_directory() / "tokenizer.json")).to_str() == TOKENIZER.to_str()
