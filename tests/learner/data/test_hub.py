"""Data sets of the hub: loaded by the real library, from a hub on this machine or from the cache alone."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from services.learner.data.reading.opening import open_rows
from services.learner.data.source import DataSource
from shared.errors import InvalidInput
from tests.learner.data.hub_of_data import COMMIT, DataHub, serve_data_hub

ROW = {"question": "How much is 1 + 1?", "answer": "#### 2"}
CONFIGS = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
- config_name: socratic
  data_files:
  - split: train
    path: socratic/train-*
---
"""


def parquet(*rows: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DataHub]:
    with serve_data_hub() as hub:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        hub.sets["o/one"] = {f"data/{split}-00000-of-00001.parquet": parquet(ROW) for split in ("train", "test")}
        hub.sets["o/two"] = {"README.md": CONFIGS.encode(), "main/train-0.parquet": parquet(ROW, ROW)}
        hub.sets["o/two"]["socratic/train-0.parquet"] = parquet(ROW)
        hub.sets["o/gated"], hub.sets["o/script"] = dict(hub.sets["o/one"]), {"script.py": b"import datasets"}
        hub.sets["o/broken"] = {"data/train-00000-of-00001.parquet": parquet(ROW)[:100]}
        hub.gated.add("o/gated")
        yield hub


def read(name: str) -> list[Any]:
    return [row for _, row in open_rows(DataSource(source=name)).rows]


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_HUB_OFFLINE=1 does before the libraries are imported."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_a_data_set_is_loaded_once_and_then_read_without_a_network(
    hub: DataHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read("hf:o/one#train") == [ROW]
    assert read(f"hf:o/two:main@{COMMIT}#train") == [ROW, ROW]
    go_offline(monkeypatch)
    num_asked = len(hub.asked)
    assert read("hf:o/one#train") == [ROW]
    assert len(hub.asked) == num_asked
    with pytest.raises(InvalidInput, match=r"hf:o/none is not in the cache .*HF_HUB_OFFLINE is set\): fetch it where"):
        read("hf:o/none#train")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("hf:o/one", r"hf:o/one has the splits train, test: name one, as hf:o/one#train"),
        ("hf:o/one#dev", r"hf:o/one has no split 'dev'; it has train, test"),
        ("hf:o/one@v9#train", r"there is no hf:o/one with revision v9 on the hub"),
        ("hf:o/two#train", r"has several configurations: name one of main, socratic, as hf:o/two:main"),
        ("hf:o/two:mian#train", r"has no configuration 'mian'; it has main, socratic"),
        ("hf:o/gated#train", r"is gated: accept its terms at huggingface.co/datasets/o/gated"),
        ("hf:o/none#train", r"there is no hf:o/none on the hub, or it is private"),
        ("hf:o/script#train", r"is a script, which is not run"),
        ("hf:o/broken#train", r"hf:o/broken cannot be loaded: .*; its files are broken"),
    ],
)
def test_a_name_that_cannot_be_loaded_says_what_there_is_and_what_to_do(
    hub: DataHub, name: str, complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match=complaint) as refused:
        read(name)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_library_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InvalidInput, match=r"needs datasets, which is not installed: pip install 'ibtpo\[data\]'"):
        read("hf:o/one")
