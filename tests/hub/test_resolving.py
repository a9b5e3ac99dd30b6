"""A model by its name: of a directory, of the cache, of a hub; and what is said where it cannot be had."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory
from shared.errors import IbtpoError, InvalidInput, Unavailable
from shared.hub import Download, HubModel, describe_model, resolve_model
from tests.hub.hub_server import COMMIT, NEWER, Hub, serve_hub, use_hub

NAME = Path("demo/model")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the demo's model, which has files that nobody needs; the cache is empty."""
    shutil.copytree(checkpoint_directory(), tmp_path / "model")
    for name in ("pytorch_model.bin", "README.md", "consolidated.safetensors", "onnx/model.safetensors"):
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(b"not needed")
    with serve_hub() as hub:
        hub.models[str(NAME)] = tmp_path / "model"
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        monkeypatch.chdir(tmp_path)
        yield hub


def test_only_what_is_read_is_fetched_and_only_once(hub: Hub) -> None:
    seen: list[Download] = []
    first = resolve_model(NAME, seen.append)
    assert first.name == Path(f"demo/model@{COMMIT}")
    assert describe_model(first.directory) == str(first.name)
    assert sorted(hub.fetched) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                                   "tokenizer_config.json"]  # fmt: skip
    size = (checkpoint_directory() / "model.safetensors").stat().st_size
    assert (seen[0].done_bytes, seen[-1].done_bytes, seen[-1].total_bytes) == (0, size, size)
    assert resolve_model(NAME) == first
    assert len(hub.fetched) == 5


def test_a_commit_is_found_in_the_cache_without_asking(hub: Hub) -> None:
    resolved = resolve_model(NAME)
    hub.models.clear()
    assert resolve_model(resolved.name) == resolved
    with pytest.raises(InvalidInput, match="no model of"):
        resolve_model(NAME)


def test_the_newest_commit_is_taken_and_an_older_one_stays(hub: Hub) -> None:
    old = resolve_model(NAME)
    hub.commit = NEWER
    new = resolve_model(NAME)
    assert new.name == Path(f"demo/model@{NEWER}")
    assert resolve_model(old.name) == old


def test_a_directory_wins_over_a_model_of_its_name(hub: Hub, tmp_path: Path) -> None:
    shutil.copytree(checkpoint_directory(), NAME)
    assert resolve_model(NAME).name == (tmp_path / NAME).resolve()
    assert hub.fetched == []


def test_without_a_network_the_cache_serves(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = resolve_model(NAME)
    use_hub(monkeypatch, hub.url, tmp_path / "cache", is_offline=True)
    assert resolve_model(NAME) == resolved
    use_hub(monkeypatch, "http://127.0.0.1:1", tmp_path / "cache")
    assert resolve_model(NAME) == resolved
    (resolved.directory / "model.safetensors").unlink()
    with pytest.raises(Unavailable, match=r"demo/model .*cache .* does not hold it whole; http://127\.0\.0\.1:1 gives"):
        resolve_model(NAME)
    use_hub(monkeypatch, hub.url, tmp_path / "nothing", is_offline=True)
    with pytest.raises(InvalidInput, match=r"HF_HUB_OFFLINE is set: unset it, or give a directory: `hf download demo/"):
        resolve_model(NAME)


def gate(hub: Hub) -> None:
    hub.gated.add(str(NAME))


def hide(hub: Hub) -> None:
    hub.models.clear()


def refuse(status: int) -> Callable[[Hub], None]:
    return lambda hub: hub.refusals.update({str(NAME): (status, "")})


def remove(*names: str) -> Callable[[Hub], None]:
    def change(hub: Hub) -> None:
        for name in names:
            (hub.models[str(NAME)] / name).unlink()

    return change


def put(name: str, content: str) -> Callable[[Hub], None]:
    return lambda hub: (hub.models[str(NAME)] / name).write_text(content) and None


def truncate(hub: Hub) -> None:
    path = hub.models[str(NAME)] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def describe(**changes: object) -> Callable[[Hub], None]:
    def change(hub: Hub) -> None:
        path = hub.models[str(NAME)] / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


WEIGHTS = ("model.safetensors", "consolidated.safetensors")


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (hide, InvalidInput, "demo/model is no directory here, and no model of .*spelling; .*HF_TOKEN"),
        (gate, InvalidInput, r"demo/model is gated: accept its terms at http.*/demo/model, then give a token"),
        (refuse(403), InvalidInput, r"refuses the token for demo/model \(403\): correct HF_TOKEN"),
        (refuse(503), Unavailable, r"gives no answer \(it answers with 503\): check network and proxy"),
        (remove(*WEIGHTS), InvalidInput, r"no safetensors, only pytorch_model\.bin: convert them: python -c"),
        (remove(*WEIGHTS, "pytorch_model.bin"), InvalidInput, "no file with weights: fetch the model again"),
        (remove("config.json"), InvalidInput, "is no model directory: config.json missing"),
        (remove("tokenizer.json"), InvalidInput, "tokenizer.json missing"),
        (put("adapter_config.json", "{}"), InvalidInput, r"holds an adapter .*merge_and_unload.*\[learner\.lora\]"),
        (put("model_index.json", "{}"), InvalidInput, "a pipeline of diffusers"),
        (put("model.safetensors.index.json", '{"weight_map": {"w": "model-2.safetensors"}}'), InvalidInput,
         r"lacks model-2\.safetensors on the hub"),
        (truncate, InvalidInput, "model.safetensors is not safetensors"),
        (put("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), InvalidInput, "pointer of Git LFS"),
        (describe(quantization_config={"quant_method": "awq"}), InvalidInput, r"quantization_config \(awq\)"),
        (describe(architectures=["BertForMaskedLM"]), InvalidInput, r"is an encoder.*\(BertForMaskedLM\).*ForCausalLM"),
        (describe(architectures=["LlamaForSequenceClassification"]), InvalidInput, "is a classifier or reward model"),
        (describe(is_encoder_decoder=True), InvalidInput, "is an encoder-decoder"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_says_why(
    hub: Hub, change: Callable[[Hub], None], error: type[IbtpoError], reason: str
) -> None:
    change(hub)
    with pytest.raises(error, match=reason) as raised:
        resolve_model(NAME)
    assert "\n" not in str(raised.value)


def test_a_gguf_model_names_what_training_needs(hub: Hub) -> None:
    remove(*WEIGHTS, "pytorch_model.bin", "tokenizer.json", "config.json")(hub)
    put("model-Q4_K_M.gguf", "GGUF")(hub)
    with pytest.raises(InvalidInput, match=r"holds GGUF files.*needs the safetensors of the model"):
        resolve_model(NAME)


def test_a_disk_without_room_is_named_before_anything_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.hub.resolving._SPARE_BYTES", 2**60)
    with pytest.raises(InvalidInput, match=r"demo/model takes .* GB, and .*cache has .* GB left: make room, or set"):
        resolve_model(NAME)
    assert "model.safetensors" not in hub.fetched


def test_an_architecture_is_looked_at_before_weights_are_fetched(hub: Hub) -> None:
    def refuse_all(directory: Path) -> None:
        raise InvalidInput(f"{json.loads((directory / 'config.json').read_text())['model_type']} is not known")

    with pytest.raises(InvalidInput, match="is not known"):
        resolve_model(NAME, inspect=refuse_all)
    assert "model.safetensors" not in hub.fetched


def test_a_revision_that_is_not_there_is_named(hub: Hub) -> None:
    with pytest.raises(InvalidInput, match=r"demo/model has no revision 'v2': give a branch, tag or commit of http"):
        resolve_model(Path("demo/model@v2"))


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", None),
        ("Qwen/Qwen2.5-0.5B@main", "Qwen/Qwen2.5-0.5B", "main"),
        ("a/b@refs/pr/3", "a/b", "refs/pr/3"),
        ("hf:Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", None),
        ("https://huggingface.co/Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", None),
    ],
)
def test_a_name_of_the_hub_is_read(name: str, repo: str, revision: str | None) -> None:
    assert HubModel.parse(Path(name)) == HubModel(repo, revision)


@pytest.mark.parametrize("name", ["mine", "/models/mine", "./models", "../a/b", "runs/mine/policy", "a/b c", "~/model"])
def test_other_names_are_directories(name: str) -> None:
    assert HubModel.parse(name) is None


def test_a_file_and_nothing_at_all_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(InvalidInput, match="is a file: give the directory"):
        resolve_model(tmp_path / "model.gguf")
    with pytest.raises(InvalidInput, match=r"is no model directory: there is none; .*OWNER/NAME"):
        resolve_model(tmp_path / "none")
