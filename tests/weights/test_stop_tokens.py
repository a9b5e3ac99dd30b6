"""Which tokens end an answer."""

import json
from pathlib import Path

import pytest

from shared.errors import InvalidInput
from shared.weights import stop_token_ids

TOKENS = {"<|endoftext|>": 0, "a": 1, "<|im_end|>": 2, "b": 3}


def stop_ids(directory: Path) -> set[int]:
    return set(stop_token_ids(directory, len(TOKENS), TOKENS.get))


def write(directory: Path, **files: object) -> Path:
    """Files by name, without their ending."""
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


def test_the_generation_config_comes_before_the_config(tmp_path: Path) -> None:
    assert stop_ids(write(tmp_path, config={"eos_token_id": 1})) == {1}
    assert stop_ids(write(tmp_path, generation_config={"eos_token_id": [3, 0]})) == {3, 0}
    assert stop_ids(write(tmp_path, generation_config={"eos_token_id": None})) == {1}


def test_the_configuration_of_a_language_model_inside_another_counts(tmp_path: Path) -> None:
    assert stop_ids(write(tmp_path, config={"text_config": {"eos_token_id": 3}})) == {3}


@pytest.mark.parametrize("token", ["<|im_end|>", {"content": "<|im_end|>", "special": True}])
@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
def test_the_tokenizers_own_end_token_stops_too(token: object, file: str, tmp_path: Path) -> None:
    write(tmp_path, generation_config={"eos_token_id": 0}, **{file: {"eos_token": token}})
    assert stop_ids(tmp_path) == {0, 2}


def test_an_end_token_that_the_tokenizer_lacks_stops_nothing(tmp_path: Path) -> None:
    write(tmp_path, generation_config={"eos_token_id": 0}, tokenizer_config={"eos_token": "</s>"})
    assert stop_ids(tmp_path) == {0}


@pytest.mark.parametrize("eos", [[1, 9999], 4, -1, "2", "<|im_end|>", True, 1.5, [[1]], {"id": 1}])
@pytest.mark.parametrize("file", ["generation_config", "config"])
def test_what_can_never_be_sampled_is_refused(eos: object, file: str, tmp_path: Path) -> None:
    write(tmp_path, **{file: {"eos_token_id": eos}}, tokenizer_config={"eos_token": "<|im_end|>"})
    with pytest.raises(InvalidInput, match=rf"{file}\.json: eos_token_id"):
        stop_ids(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 100_000])
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"generation_config\.json"):
        stop_ids(tmp_path)


@pytest.mark.parametrize("eos", [None, []])
def test_a_policy_whose_answers_never_end_is_refused(eos: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no answer ends"):
        stop_ids(write(tmp_path, config={"eos_token_id": eos}))
