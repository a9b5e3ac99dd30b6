"""An offer is answered when its version is served, or with the reason why it is not."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from services.rollout.config import RolloutConfig
from services.rollout.heartbeat import ReplicaHeartbeat
from services.rollout.wiring import build
from shared.errors import Conflict, Unavailable, Unreachable
from shared.protocol.weights import Offer
from shared.runtime.serve import open_listener, serve_in_background
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot
from tests.rollout.fetching.parts import CuttingProxy, FetchingReplica, PublishingLearner

NO_OFFERS: list[tuple[bytes, int]] = [
    (b"", 422),
    (b"{", 422),
    (b"null", 422),
    (b"<html></html>", 422),
    (b"\xff\xfe", 422),
    (b"[" * 4000, 422),
    (b"{}" + b" " * 5000, 413),
    (b'{"version": {"generation": 1, "number": 1}, "content_hash": "0"}', 422),
    (b'{"version": {"generation": 1e400, "number": 1}, "content_hash": "%s"}' % (b"0" * 64), 422),
    (b'{"version": {"generation": 1, "number": %s}, "content_hash": "%s"}' % (b"9" * 40, b"0" * 64), 422),
    (b'{"version": {"generation": 1, "number": 2}, "content_hash": "%s"}' % (b"0" * 64), 422),
    (b'{"version": {"generation": 1, "number": 1, "origin": "beef"}, "content_hash": "%s"}' % (b"0" * 64), 503),
]


async def test_what_is_no_offer_is_refused_in_one_line(tmp_path: Path) -> None:
    service = build(RolloutConfig(run="r", snapshots=tmp_path / "snapshots"))
    async with (
        serve_in_background(service, open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        for body, status in NO_OFFERS:
            headers = {"Content-Type": "application/json; charset=utf-8"}
            answer = await client.put("/v1/weights/1.1-beef", content=body, headers=headers)
            assert (answer.status_code, body) == (status, body), answer.text
            assert len(answer.json()["detail"].splitlines()) == 1
        # the last one was right, but nobody told this replica of a learner
        assert "takes part in no run" in answer.json()["detail"]


def following(replica: FetchingReplica, url: str) -> ReplicaHeartbeat:
    streams: Any = None  # the learner's URL is configured
    return ReplicaHeartbeat(streams, replica.policy, replica.http, lambda: None, url)  # type: ignore[arg-type, return-value]


def offer_of(snapshot: Snapshot, **changes: Any) -> Offer:
    offer = Offer(version=snapshot.version, content_hash=snapshot.manifest.content_hash)
    return offer.model_copy(update=changes)


async def test_an_offer_that_was_overtaken_is_kept_by_what_overtook_it(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    old, newest = learner.publish(), learner.publish()
    async with learner.serve() as url:
        heartbeat = following(replica, url)
        await heartbeat.follow(offer_of(old))
        assert replica.serves(newest)
        await heartbeat.follow(offer_of(old))
    assert len(learner.sent) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": WeightVersion(1, 7, "beef")}, r"1\.7-beef:.* was offered, and the learner.* has 1\.1-beef:"),
        ({"content_hash": "0" * 64}, r"1\.1-beef:000000000000 was offered, .* has 1\.1-beef:"),
        ({"version": WeightVersion(9, 0, "dead")}, "was offered"),
    ],
)
async def test_what_the_learner_does_not_have_is_said_to_whom_offered_it(
    changes: dict[str, Any], said: str, learner: PublishingLearner, replica: FetchingReplica
) -> None:
    learner.publish()
    newest = learner.publish()
    async with learner.serve() as url:
        heartbeat = following(replica, url)
        await heartbeat.follow(offer_of(newest))
        with pytest.raises(Conflict, match=said):
            await heartbeat.follow(offer_of(newest, **changes))
    assert replica.serves(newest)


async def test_an_offer_from_a_learner_that_is_gone_fails_in_time(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    newest = learner.publish()
    async with learner.serve() as url:
        heartbeat = following(replica, url)
    with pytest.raises(Unreachable):
        await heartbeat.follow(offer_of(newest))
    assert "cannot be reached" in replica.policy.problem


async def test_a_learner_that_brings_a_little_each_time_is_given_up_at_the_deadline_by_size(
    learner: PublishingLearner, replica: FetchingReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = learner.publish()
    monkeypatch.setattr("shared.clients.bundle_fetch._RESUMING_SECONDS", 0.0)
    async with learner.serve() as url:
        proxy = CuttingProxy(url)
        async with proxy.serve() as proxied:
            proxy.cuts = [2000] * 1000
            with pytest.raises(Unavailable, match=r"broke off|ended its answer"):
                await following(replica, proxied).follow(offer_of(newest))
    assert proxy.num_connections < 5
    assert list(replica.root.iterdir()) == []
