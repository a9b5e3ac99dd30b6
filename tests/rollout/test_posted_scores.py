"""POST /v1/scores of a replica with the real engine: what it answers, refuses, bounds and counts."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.rollout.config import RolloutConfig
from services.rollout.engines.embedded import EmbeddedEngine
from services.rollout.engines.engine import ScoreRequest, TokenScores
from services.rollout.vocabulary import Vocabulary
from services.rollout.wiring import build
from shared.protocol.weights import Manifest
from shared.runtime.serve import open_listener, serve_in_background
from shared.tree.draw import WeightVersion
from shared.weights import prompt_encoder, stream_bundle, write_manifest
from tests.waiting import wait_until_async

ITEM = {"prompt": "2+3*4=", "continuation": "0"}
CHAT = [{"role": "user", "content": "2+3*4"}]


async def push(replica: httpx.AsyncClient, manifest: Manifest, bundle: Path) -> None:
    answer = await replica.put(f"/v1/weights/{manifest.version}", content=stream_bundle(manifest, bundle), timeout=60)
    assert answer.status_code == 200


async def ask(replica: httpx.AsyncClient, *items: dict[str, Any], **more: Any) -> httpx.Response:
    return await replica.post("/v1/scores", json={"items": items, **more})


def expected(bundle: Path, prompt: list[int], given: list[int], temperature: float = 1.0) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(bundle, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + given])).logits[0, len(prompt) - 1 : -1]
    found: list[float] = (logits / temperature).log_softmax(-1)[range(len(given)), given].tolist()
    return found


async def test_before_weights_there_are_no_scores(replica: httpx.AsyncClient) -> None:
    for item in (ITEM, {"prompt_ids": [4, 5], "continuation_ids": [6]}):
        answer = await ask(replica, item)
        assert answer.status_code == 503
        assert "no weights" in answer.json()["detail"]


async def test_texts_token_ids_and_messages_are_scored_in_their_order(replica: httpx.AsyncClient, bundle: Path) -> None:
    (bundle / "chat_template.jinja").write_text("{% for one in messages %}{{ one.content }}{% endfor %}{{ end }}")
    await push(replica, write_manifest("r", bundle, WeightVersion(1, 1)), bundle)
    vocabulary = Vocabulary.load(bundle)
    prompt, given = vocabulary.encode("2+3*4="), vocabulary.encode_continuation("2+5\n\n0")
    items = (
        {"prompt": "2+3*4=", "continuation": "2+5\n\n0"},
        {"prompt_ids": prompt, "continuation_ids": given},
        {"messages": CHAT, "chat_template_kwargs": {"end": "="}, "continuation": "2+5\n\n0"},
        {"prompt": "1+1=", "continuation": "2"},
    )
    answer = await ask(replica, *items, temperature=0.8)
    *alike, other = answer.json()["scores"]
    assert prompt == prompt_encoder(AutoTokenizer.from_pretrained(bundle), {"end": "="})(tuple(CHAT))
    for one in alike:
        assert one["token_ids"] == list(given)
        assert one["logprobs"] == pytest.approx(expected(bundle, list(prompt), list(given), 0.8), abs=1e-4)
        assert one["logprob"] == pytest.approx(sum(one["logprobs"]))
        assert one["version"] == {"generation": 1, "number": 1, "origin": ""}
        assert one["prompt_tokens"] == len(prompt)
    assert sorted(one["cached_tokens"] for one in alike) == [0, len(prompt) - 1, len(prompt) - 1]
    assert other["token_ids"] == list(vocabulary.encode_continuation("2"))
    series = (await replica.get("/metrics")).text
    assert 'ibtpo_rollout_scores_total{result="scored",run="r"} 4.0' in series
    assert f'ibtpo_rollout_scored_tokens_total{{run="r"}} {3 * len(given) + 1}.0' in series


BAD_REQUESTS: list[dict[str, Any]] = [
    {"items": []},
    {"items": [ITEM] * 1025},
    {"items": [{"prompt": "2+"}]},
    {"items": [{"continuation": "2"}]},
    {"items": [{**ITEM, "continuation": ""}]},
    {"items": [{**ITEM, "continuation_ids": [5]}]},
    {"items": [{**ITEM, "prompt_ids": [5]}]},
    {"items": [{**ITEM, "surprise": 1}]},
    {"items": [ITEM, {"prompt": "2+", "continuation_ids": [999]}]},
    {"items": [ITEM, {"prompt": "2+", "continuation_ids": [-1]}]},
    {"items": [{"prompt_ids": [999], "continuation": "2"}]},
    {"items": [{"prompt_ids": [4] * 200, "continuation_ids": [4] * 200}]},
    {"items": [{**ITEM, "continuation": "2+" * 100_000}]},
    {"items": [{"messages": CHAT, "continuation": "2"}]},
    {"items": [{**ITEM, "chat_template_kwargs": {"end": "="}}]},
    {"items": [ITEM], "temperature": -1},
    {"items": [ITEM], "temperature": 1e-9},
    {"items": [ITEM], "deadline_seconds": 0},
    {"items": [ITEM], "surprise": 1},
]


async def test_bad_requests_are_refused_with_their_reason(
    replica: httpx.AsyncClient, manifest: Manifest, bundle: Path
) -> None:
    await push(replica, manifest, bundle)
    for bad in BAD_REQUESTS:
        answer = await replica.post("/v1/scores", json=bad)
        assert answer.status_code == 422, (bad, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    named = await ask(replica, ITEM, {"prompt": "2+", "continuation_ids": [999]})
    assert named.json()["detail"] == "items.1: token id 999 is outside the vocabulary [0, 20)"
    assert (await ask(replica, ITEM, temperature=0)).status_code == 200
    assert (await ask(replica, *[ITEM] * 1024)).status_code == 200


class SlowScores:
    """Lets scores wait until they may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go_on = asyncio.Event()
        self.num_waiting = 0
        score = EmbeddedEngine.score

        async def wait_and_score(engine: EmbeddedEngine, request: ScoreRequest) -> TokenScores:
            if len(request.continuation) > 1:  # the act-probe, which goes on by itself
                return await score(engine, request)
            self.num_waiting += 1
            try:
                await self.may_go_on.wait()
            finally:
                self.num_waiting -= 1
            return await score(engine, request)

        monkeypatch.setattr(EmbeddedEngine, "score", wait_and_score)


async def test_scores_are_bounded_in_number_and_time(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowScores(monkeypatch)
    config = RolloutConfig(run="r", snapshots=tmp_path / "snapshots", model=bundle, max_posted_scores=3)
    async with (
        serve_in_background(build(config), open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        too_many = await ask(client, *[ITEM] * 4)
        assert (too_many.status_code, "send them in parts" in too_many.text) == (422, True)
        late = await ask(client, ITEM, ITEM, deadline_seconds=0.05)
        assert (late.status_code, late.json()["detail"]) == (
            503,
            "not all of 2 continuations were scored within 0.05 s: send fewer, or give a longer deadline_seconds",
        )
        first = asyncio.create_task(ask(client, ITEM, ITEM))
        await wait_until_async(lambda: slow.num_waiting == 2)
        refused = await ask(client, ITEM, ITEM)
        assert (refused.status_code, refused.headers["retry-after"] != "") == (429, True)
        with pytest.raises(httpx.ReadTimeout):  # a caller who leaves makes room
            await client.post("/v1/scores", json={"items": [ITEM]}, timeout=0.1)
        await wait_until_async(lambda: slow.num_waiting == 2)
        second = asyncio.create_task(ask(client, ITEM))
        await wait_until_async(lambda: slow.num_waiting == 3)
        slow.may_go_on.set()
        assert [(await one).status_code for one in (first, second)] == [200, 200]
        assert 'ibtpo_rollout_scores_total{result="given_up",run="r"} 3.0' in (await client.get("/metrics")).text


def test_a_text_that_comes_after_others_has_no_space_before_it() -> None:
    """Though the tokenizer puts one before every text that begins."""
    pieces = ["<unk>", "\u2581", "5", "\u25815", "\n", "+"]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [("\u2581", "5")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    table = tuple(piece.replace("\u2581", " ").encode() for piece in pieces)
    vocabulary = Vocabulary(table, frozenset(), None, tokenizer)  # type: ignore[arg-type]
    assert vocabulary.encode("5+") == (3, 5)
    assert vocabulary.encode_continuation("5+") == (2, 5)
    assert vocabulary.encode_continuation(" 5+") == (3, 5)
