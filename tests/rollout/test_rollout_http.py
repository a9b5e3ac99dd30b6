"""A replica's HTTP surface, with the real engine: weights in, trees out, and whatever a stranger may send."""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from services.rollout.config import RolloutConfig
from services.rollout.vocabulary import Vocabulary
from services.rollout.wiring import build
from shared.protocol.tree import ScoredTree
from shared.protocol.weights import Manifest
from shared.runtime.serve import open_listener, serve_in_background
from shared.tree.draw import WeightVersion
from shared.weights import prompt_encoder, stream_bundle, write_manifest
from tests.waiting import wait_until_async

UNGRADED = {"prompt": "2+3*4=", "growth": {"sampler": "ib"}, "seed": 3}

CHAT = [{"role": "user", "content": "2+3*4"}]


async def push(replica: httpx.AsyncClient, manifest: Manifest, bundle: Path, version: str = "") -> httpx.Response:
    return await replica.put(
        f"/v1/weights/{version or manifest.version}", content=stream_bundle(manifest, bundle), timeout=60
    )


async def served_version(replica: httpx.AsyncClient) -> Any:
    version = (await replica.get("/v1/policy")).json()["version"]
    return version and WeightVersion(**version)


async def test_a_replica_is_not_ready_before_it_has_weights(replica: httpx.AsyncClient) -> None:
    assert (await replica.get("/healthz")).status_code == 200
    ready = await replica.get("/readyz")
    assert ready.status_code == 503
    assert "no weights yet" in ready.json()["detail"]
    refused = await replica.post("/v1/trees", json=UNGRADED)
    assert refused.status_code == 503


async def test_pushed_weights_are_served(replica: httpx.AsyncClient, manifest: Manifest, bundle: Path) -> None:
    assert (await push(replica, manifest, bundle)).status_code == 200
    assert await served_version(replica) == WeightVersion(1, 1)
    assert (await replica.get("/readyz")).status_code == 200
    answer = await replica.post("/v1/trees", json=UNGRADED, headers={"accept": "application/msgpack"})
    tree = ScoredTree.unpack(answer.content)
    assert {span.version for draw in tree.draws for span in draw.spans} == {WeightVersion(1, 1)}


async def test_the_same_seed_grows_the_same_tree_over_http(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    await push(replica, manifest, bundle)
    first, again = [(await replica.post("/v1/trees", json=UNGRADED)).json()["tree"] for _ in range(2)]
    tokens = [[draw.token_ids for draw in ScoredTree.unpack(base64.b64decode(tree)).draws] for tree in (first, again)]
    assert tokens[0] == tokens[1]


async def test_growth_streams_as_events(replica: httpx.AsyncClient, manifest: Manifest, bundle: Path) -> None:
    await push(replica, manifest, bundle)
    async with replica.stream("POST", "/v1/trees", json={**UNGRADED, "stream": True}) as answer:
        events = [json.loads(line) async for line in answer.aiter_lines()]
    assert events[-1]["event"] == "tree"
    assert sum(event["event"] == "draw" for event in events) == len(
        ScoredTree.unpack(base64.b64decode(events[-1]["tree"])).draws
    )


async def test_a_full_replica_refuses_a_stream_too_and_admits_again_afterwards(bundle: Path, tmp_path: Path) -> None:
    config = RolloutConfig(run="r", snapshots=tmp_path / "snapshots", model=bundle, max_posted_trees=1)
    streamed = {**UNGRADED, "stream": True}
    async with (
        serve_in_background(build(config), open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        async with client.stream("POST", "/v1/trees", json=streamed) as answer:
            assert answer.status_code == 200
            refused = await client.post("/v1/trees", json=streamed)
            assert refused.status_code == 429
            assert "the most this replica takes" in refused.json()["detail"]

        async def is_admitted() -> bool:
            return (await client.post("/v1/trees", json=streamed)).status_code == 200

        await wait_until_async(is_admitted)


async def test_a_client_that_leaves_its_tree_is_no_error(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await push(replica, manifest, bundle)
    caplog.set_level("INFO")
    graded = {**UNGRADED, "kind": "math", "answer_key": {"gold": "0"}}
    with pytest.raises(httpx.ReadTimeout):
        await replica.post("/v1/trees", json=graded, timeout=0.15)
    await wait_until_async(lambda: "caller_left" in caplog.messages)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_graded_tree_without_a_verifier_fails_in_time_with_the_reason(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    await push(replica, manifest, bundle)
    graded = {**UNGRADED, "kind": "math", "answer_key": {"gold": "0"}}
    answer = await replica.post("/v1/trees", json=graded)
    assert answer.status_code == 503
    assert "is the verifier up" in answer.json()["detail"]
    assert 'ibtpo_rollout_trees_total{result="discarded",run="r"} 1.0' in (await replica.get("/metrics")).text


BAD_REQUESTS: list[dict[str, Any]] = [
    {"prompt": ""},
    {"prompt": None},
    {"prompt": None, "prompt_ids": []},
    {"prompt": None, "prompt_ids": [999999]},
    {"prompt": None, "prompt_ids": [-1]},
    {"prompt": None, "prompt_ids": [6] * 100_000},
    {"prompt": "2+", "prompt_ids": [6]},
    {"messages": CHAT},
    {"prompt": None, "messages": []},
    {"prompt": None, "messages": CHAT},
    {"chat_template_kwargs": {"thinks": True}},
    {"prompt": None, "messages": CHAT, "chat_template_kwargs": {"chat_template": "="}},
    {"growth": {"sampler": "unknown"}},
    {"growth": {"sampler": {"kind": "ib", "initial_draws": 0}}},
    {"growth": {"sampler": {"kind": "independent", "initial_draws": 10**9}}},
    {"growth": {"sampler": "ib", "temperature": -1}},
    {"growth": {"sampler": "ib", "max_tokens": 10**9}},
    {"growth": {"sampler": "ib", "surprise": 1}},
    {"kind": "math"},
    {"kind": "m" * 65, "answer_key": {}},
    {"seed": -1},
    {"seed": "x"},
    {"surprise": True},
]


async def test_bad_requests_are_refused_with_their_reason(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    await push(replica, manifest, bundle)
    for change in BAD_REQUESTS:
        answer = await replica.post("/v1/trees", json={**UNGRADED, **change})
        assert answer.status_code == 422, (change, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", change
        assert answer.json()["detail"], change
    assert (await replica.post("/v1/trees", json=UNGRADED)).status_code == 200


async def test_messages_are_encoded_as_training_rows_are(replica: httpx.AsyncClient, bundle: Path) -> None:
    """By the template of the served policy, whichever it was before."""
    (bundle / "chat_template.jinja").write_text("{% for one in messages %}{{ one.content }}{% endfor %}{{ end }}")
    asked = {**UNGRADED, "prompt": None, "messages": CHAT, "chat_template_kwargs": {"end": "="}}
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    for number, template in ((1, ""), (2, "1+")):
        (bundle / "chat_template.jinja").write_text(template + (bundle / "chat_template.jinja").read_text())
        tokenizer.chat_template = (bundle / "chat_template.jinja").read_text()
        await push(replica, write_manifest("r", bundle, WeightVersion(1, number)), bundle)
        answer = await replica.post("/v1/trees", json=asked, headers={"accept": "application/msgpack"})
        trained_on = prompt_encoder(tokenizer, {"end": "="})(tuple(CHAT))
        assert ScoredTree.unpack(answer.content).task.prompt_ids == trained_on
        assert tokenizer.decode(trained_on).replace(" ", "") == f"{template}2+3*4="


def test_a_text_is_neither_cut_nor_padded_whatever_the_tokenizers_file_says(bundle: Path) -> None:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=40)
    tokenizer.save(str(bundle / "tokenizer.json"))
    expected = prompt_encoder(AutoTokenizer.from_pretrained(bundle))("1+2*3-4*5=")
    assert len(expected) >= 10
    assert Vocabulary.load(bundle).encode("1+2*3-4*5=") == expected


async def test_a_prompt_of_millions_of_characters_is_refused_before_it_is_encoded(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    await push(replica, manifest, bundle)
    started = time.monotonic()
    answer = await replica.post("/v1/trees", json={**UNGRADED, "prompt": "2+" * 3_900_000})
    assert answer.status_code == 422
    assert "7800000 characters cannot fit the context" in answer.json()["detail"]
    assert time.monotonic() - started < 5


async def test_while_a_long_prompt_is_encoded_the_loop_runs(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    """A stand-in for a slow tokenizer waits until the replica has answered a probe meanwhile."""
    await push(replica, manifest, bundle)
    probed, begun = threading.Event(), threading.Event()

    def encode(_: Vocabulary, text: str) -> tuple[int, ...]:
        begun.set()
        assert probed.wait(10)
        return (6,) * 100_000

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Vocabulary, "encode", encode)
        patch.setattr("services.rollout.policy_receiver._SHORT_CHARACTERS", 10)
        growing = asyncio.create_task(replica.post("/v1/trees", json={**UNGRADED, "prompt": "2+" * 20}))
        await wait_until_async(begun.is_set)
        assert (await replica.get("/healthz")).status_code == 200
        probed.set()
        assert (await growing).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"prompt": "\xff"}', b"[]", b"null"])
async def test_a_body_that_is_no_request_is_refused(replica: httpx.AsyncClient, body: bytes) -> None:
    answer = await replica.post("/v1/trees", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500


async def test_a_push_that_stops_half_way_changes_nothing(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    await push(replica, manifest, bundle)
    newer = write_manifest("r", bundle, WeightVersion(1, 2))

    async def half() -> AsyncIterator[bytes]:
        sent = 0
        async for chunk in stream_bundle(newer, bundle):
            yield chunk[: 200_000 - sent]
            sent += len(chunk)
            if sent > 200_000:
                return

    assert (await replica.put("/v1/weights/1.2", content=half())).status_code == 422
    assert await served_version(replica) == WeightVersion(1, 1)
    assert (await push(replica, newer, bundle)).status_code == 200


def _not_a_number(bundle: Path) -> None:
    tensors = load_file(bundle / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name][0, 0] = float("nan")
    save_file(tensors, bundle / "model.safetensors", metadata={"format": "pt"})


def _other_shape(bundle: Path) -> None:
    tensors = load_file(bundle / "model.safetensors")
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, bundle / "model.safetensors", metadata={"format": "pt"})


def _missing_tensor(bundle: Path) -> None:
    tensors = load_file(bundle / "model.safetensors")
    tensors.pop(next(name for name in tensors if name.endswith("q_proj.weight")))
    save_file(tensors, bundle / "model.safetensors", metadata={"format": "pt"})


def _no_tokenizer(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()


def _broken_config(bundle: Path) -> None:
    (bundle / "config.json").write_text("{")


def _not_safetensors(bundle: Path) -> None:
    (bundle / "model.safetensors").write_bytes(b"not tensors")


def _write(name: str, content: str) -> Callable[[Path], None]:
    def spoil(bundle: Path) -> None:
        (bundle / name).write_text(content)

    return spoil


def _edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def spoil(bundle: Path) -> None:
        path = bundle / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


NO_VOCABULARY = [
    _no_tokenizer,
    *(_write("tokenizer.json", text) for text in ("[]", "{}", "null", '{"model": 1}', "[" * 5000)),
    _edit("tokenizer.json", model={"type": "BPE", "vocab": {"a": "b"}, "merges": []}),
    _edit("tokenizer.json", added_tokens=[{"id": 10**12, "content": "x"}]),
    _edit("tokenizer.json", pre_tokenizer={"type": "unheard of"}),
    *(_write("generation_config.json", text) for text in ("{", "[]", "\x00")),
    *(_edit("generation_config.json", eos_token_id=eos) for eos in (9999, -1, [1, 9999], "2", [True], 1.5, {"a": 1})),
    _write("tokenizer_config.json", "[]"),
]


UNFIT = [_not_a_number, _other_shape, _missing_tensor, _broken_config, _not_safetensors, *NO_VOCABULARY]


async def test_unfit_bundles_are_refused_and_the_old_weights_serve(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path, tmp_path: Path
) -> None:
    await push(replica, manifest, bundle)
    for number, spoil in enumerate(UNFIT):
        unfit = tmp_path / f"unfit-{number}"
        shutil.copytree(bundle, unfit)
        spoil(unfit)
        answer = await push(replica, write_manifest("r", unfit, WeightVersion(1, 2 + number)), unfit)
        assert answer.status_code == 422, (number, answer.text)
    assert await served_version(replica) == WeightVersion(1, 1)
    assert (await replica.post("/v1/trees", json=UNGRADED)).status_code == 200
    refused = f'ibtpo_rollout_weight_loads_total{{result="refused",run="r"}} {len(UNFIT)}.0'
    assert refused in (await replica.get("/metrics")).text


async def test_a_version_that_no_counter_carries_is_refused(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    assert (await push(replica, manifest, bundle, version=f"1.{10**39}")).status_code == 422


async def test_both_the_models_and_the_tokenizers_end_token_end_an_answer(bundle: Path) -> None:
    tokens = json.loads((bundle / "tokenizer.json").read_text())["model"]["vocab"]
    before = Vocabulary.load(bundle).stop_ids
    token, token_id = next((token, token_id) for token, token_id in tokens.items() if token_id not in before)
    _edit("tokenizer_config.json", eos_token={"content": token})(bundle)
    assert Vocabulary.load(bundle).stop_ids >= {
        token_id,
        json.loads((bundle / "config.json").read_text())["eos_token_id"],
    }


async def test_the_tokenizer_is_read_once_for_versions_that_share_it(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    load = Vocabulary.load
    monkeypatch.setattr(Vocabulary, "load", lambda directory: read.append(directory) or load(directory))
    for number in (1, 2, 3):
        assert (await push(replica, write_manifest("r", bundle, WeightVersion(1, number)), bundle)).status_code == 200
    assert len(read) == 1
    _edit("tokenizer_config.json", model_max_length=77)(bundle)
    await push(replica, write_manifest("r", bundle, WeightVersion(1, 4)), bundle)
    assert len(read) == 2


async def test_the_served_snapshot_stays_and_no_other_does(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path, tmp_path: Path
) -> None:
    def snapshots() -> set[str]:
        return {path.name for path in tmp_path.glob("snapshots/r/*/*")}

    await push(replica, manifest, bundle)
    for number, status, left in [(2, 422, {"1.1"}), (3, 422, {"1.1"}), (4, 200, {"1.4"})]:
        good = (bundle / "tokenizer.json").read_bytes()
        if status == 422:
            _no_tokenizer(bundle)
        answer = await push(replica, write_manifest("r", bundle, WeightVersion(1, number)), bundle)
        (bundle / "tokenizer.json").write_bytes(good)
        assert (answer.status_code, snapshots()) == (status, left)


async def test_neither_a_clean_end_nor_a_killed_replica_leaves_snapshots(
    manifest: Manifest, bundle: Path, tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, root = socket.gethostname(), tmp_path / "snapshots" / "r"
    others = {f"{host}-{os.getppid()}", f"elsewhere-{ended.pid}", "named"}
    for name in {*others, f"{host}-{ended.pid}"}:
        (root / name / "1.1").mkdir(parents=True)
    config = RolloutConfig(run="r", snapshots=tmp_path / "snapshots")
    async with (
        serve_in_background(build(config), open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        await push(client, manifest, bundle)
        assert {path.name for path in root.iterdir()} == {*others, f"{host}-{os.getpid()}"}
    assert {path.name for path in root.iterdir()} == others


async def test_versions_only_move_forward(replica: httpx.AsyncClient, bundle: Path) -> None:
    for version, status in [((1, 5), 200), ((1, 4), 409), ((1, 5), 200), ((2, 0), 200), ((1, 9), 409)]:
        answer = await push(replica, write_manifest("r", bundle, WeightVersion(*version)), bundle)
        assert answer.status_code == status, (version, answer.text)
    assert await served_version(replica) == WeightVersion(2, 0)


async def test_another_runs_weights_are_refused(replica: httpx.AsyncClient, bundle: Path) -> None:
    answer = await push(replica, write_manifest("other", bundle, WeightVersion(1, 1)), bundle)
    assert answer.status_code == 422
    assert "run" in answer.json()["detail"]


async def test_the_path_and_the_manifest_must_agree(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    assert (await push(replica, manifest, bundle, version="1.7")).status_code == 409
    assert (await push(replica, manifest, bundle, version="latest")).status_code == 422
    assert await served_version(replica) is None
