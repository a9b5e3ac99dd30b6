"""How a source of problems is written, and what stands in a configuration of it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.learner.config import LearnerConfig
from services.learner.data.source import DataSource, HubName
from shared.runtime.config import load_config


def source(value: Any) -> DataSource:
    return DataSource.model_validate(value)


def config(*settings: str) -> LearnerConfig:
    return load_config(LearnerConfig, "learner", None, ("model=m", "total_steps=1", "sampler=ib", *settings))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:openai/gsm8k", HubName("openai/gsm8k")),
        ("hf:openai/gsm8k:main#train", HubName("openai/gsm8k", "main", None, "train")),
        ("hf:gsm8k@refs/convert/parquet", HubName("gsm8k", None, "refs/convert/parquet")),
        ("hf:a/b:c@d#e", HubName("a/b", "c", "d", "e")),
    ],
)
def test_a_name_of_the_hub_has_a_configuration_a_revision_and_a_split(text: str, expected: HubName) -> None:
    assert source(text).hub == expected


@pytest.mark.parametrize("text", ["hf:", "hf:a/b/c", "hf:a b", "hf:a#b#c"])
def test_what_is_no_name_of_the_hub_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="write hf:NAME"):
        source(text)


def test_a_split_stands_behind_a_folder_unless_the_path_is_so_called(tmp_path: Path) -> None:
    assert (source(f"{tmp_path}#train").path, source(f"{tmp_path}#train").split) == (tmp_path, "train")
    odd = tmp_path / "a#b.jsonl"
    odd.touch()
    assert (source(str(odd)).path, source(str(odd)).split) == (odd, None)


def test_text_and_tables_are_sources_and_are_written_as_they_were_given() -> None:
    tables = '[{source = "a.csv", limit = 5}, "b.jsonl"]'
    (first, second) = config(f"data={tables}").data
    assert (first.limit, first.model_dump(), second.model_dump()) == (5, {"source": "a.csv", "limit": 5}, "b.jsonl")
    assert config("data=a.jsonl").data == config('data=["a.jsonl"]').data == (source("a.jsonl"),)
    assert config("data={source = 'a.csv'}").data == (source("a.csv"),)


def test_a_key_of_the_source_is_given_beside_it() -> None:
    assert config("data=hf:openai/gsm8k:main#train", "data.limit=100").data == (
        source({"source": "hf:openai/gsm8k:main#train", "limit": 100}),
    )


def test_a_map_and_a_format_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="give format=gsm8k or fields, not both"):
        source({"source": "a.csv", "format": "gsm8k", "fields": {"prompt": "q", "gold": "a"}})
