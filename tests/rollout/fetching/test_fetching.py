"""A replica has the bits of the version that the learner published, however they came and whatever broke meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import Conflict, IbtpoError, InvalidInput, Unauthorized, Unavailable, Unreachable
from shared.protocol.weights import Encoding
from tests.rollout.fetching.parts import CuttingProxy, FetchingReplica, PublishingLearner, open_descriptors

FULL, DELTA = Encoding.FULL, Encoding.DELTA


async def test_a_joiner_takes_all_and_then_what_differs(learner: PublishingLearner, replica: FetchingReplica) -> None:
    async with learner.serve() as url:
        for _ in range(3):
            newest = learner.publish()
            await replica.fetch(url)
            assert replica.serves(newest)
        for _ in range(4):
            newest = learner.publish()
        await replica.fetch(url)  # it was away, and takes the chain
        assert replica.serves(newest)
    assert [encoding for encoding, _ in learner.sent] == [FULL, DELTA, DELTA, DELTA]
    assert max(num_bytes for encoding, num_bytes in learner.sent if encoding is DELTA) < 0.5 * learner.sent[0][1]
    assert (replica.loads("loaded"), replica.loads("refused"), replica.policy.problem) == (4, 0, "")


async def test_what_is_served_already_is_not_taken_again(learner: PublishingLearner, replica: FetchingReplica) -> None:
    async with learner.serve() as url:
        newest = learner.publish()
        for _ in range(3):
            await replica.fetch(url)
        assert replica.serves(newest)
    assert replica.loads("loaded") == 1


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shares=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3), is_joiner=st.booleans())
async def test_a_connection_may_break_at_any_byte(tmp_path: Path, shares: list[float], is_joiner: bool) -> None:
    root = tmp_path / str(abs(hash((tuple(shares), is_joiner))))
    learner, replica = PublishingLearner(root / "learner"), FetchingReplica(root / "replica")
    learner.publish()
    async with replica.http, learner.serve() as url:
        if not is_joiner:
            await replica.fetch(url)
        newest = learner.publish()
        proxy = CuttingProxy(url)
        async with proxy.serve() as proxied:
            # heads of answers are in this, too: one that is cut there is asked for again by the next fetch
            proxy.cuts = [int(share * 20_000) for share in shares]
            for _ in range(4):
                try:
                    await replica.fetch(proxied)
                    break
                except Unavailable:
                    assert replica.policy.problem
        assert replica.serves(newest)


async def test_more_breaks_than_tries_do_not_matter_while_bytes_come(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    newest = learner.publish()
    async with learner.serve() as url:
        proxy = CuttingProxy(url)
        async with proxy.serve() as proxied:
            proxy.cuts = [2000] * 7
            await replica.fetch(proxied)
    assert replica.serves(newest)
    assert proxy.num_connections == 8


async def test_a_version_that_is_published_meanwhile_takes_the_place_of_the_broken_one(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    learner.publish()
    async with learner.serve() as url:
        proxy = CuttingProxy(url)
        async with proxy.serve() as proxied:
            proxy.cuts, proxy.before_next = [5000], [learner.publish]
            assert await replica.fetch(proxied) == learner.latest.version
    assert len(learner.snapshots) == 2
    assert replica.serves(learner.latest)
    assert replica.loads("refused") == 0


async def test_a_learner_that_is_gone_is_the_problem_until_it_is_back(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    first = learner.publish()
    async with learner.serve() as url:
        await replica.fetch(url)
    learner.publish()
    with pytest.raises(Unreachable):
        await replica.fetch(url)
    assert "cannot be reached" in replica.policy.problem
    replica.policy.note_run(learner.latest.version, 0)
    assert "cannot be reached" in (replica.policy.why_stale or "")
    assert replica.serves(first)
    async with learner.serve() as url:
        await replica.fetch(url)
    assert (replica.serves(learner.latest), replica.policy.problem) == (True, "")


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


SPOILT: list[Callable[[Path], None]] = [
    lambda base: _flip(base / "model.safetensors", -3),
    lambda base: _flip(base / "tokenizer.json", 5),  # no block of the delta touches it
    lambda base: _flip(base / "model.safetensors", 9),
    lambda base: (base / "model.safetensors").write_bytes(b""),
    lambda base: (base / "model.safetensors").unlink(),
    lambda base: (base / "model.safetensors").unlink() or (base / "model.safetensors").mkdir(),
    lambda base: (base / "tokenizer.json").write_bytes(b"x" * 5000),
    lambda base: [path.unlink() for path in base.iterdir()] and base.rmdir(),
]


@pytest.mark.parametrize("spoil", SPOILT)
async def test_a_base_that_changed_on_the_disk_is_noticed_and_all_is_taken_once(
    spoil: Callable[[Path], None], learner: PublishingLearner, replica: FetchingReplica
) -> None:
    learner.publish()
    async with learner.serve() as url:
        await replica.fetch(url)
        spoil(replica.root / str(learner.latest.version))
        newest = learner.publish(0.001)
        await replica.fetch(url)
        assert replica.serves(newest)
        assert [encoding for encoding, _ in learner.sent] == [FULL, DELTA, FULL]
        assert (replica.loads("refused"), replica.loads("loaded"), replica.policy.problem) == (1, 2, "")
        newest = learner.publish(0.001)
        await replica.fetch(url)
        assert (replica.serves(newest), learner.sent[-1][0]) == (True, DELTA)


@pytest.mark.parametrize("at", [0, 9, 300, -1])
async def test_a_byte_that_changed_before_a_restart_is_noticed(
    at: int, learner: PublishingLearner, replica: FetchingReplica
) -> None:
    newest = learner.publish()
    async with learner.serve() as url:
        await replica.fetch(url)
        _flip(replica.root / str(newest.version) / "model.safetensors", at)
        replica.restart()
        await replica.fetch(url)
    assert replica.serves(newest)


async def test_a_restart_takes_what_differs_from_what_it_finds(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    learner.publish()
    async with learner.serve() as url:
        await replica.fetch(url)
        newest = learner.publish()
        replica.restart()
        await replica.fetch(url)
    assert (replica.serves(newest), learner.sent[-1][0]) == (True, DELTA)


async def test_a_restart_finds_what_is_whole_and_takes_no_byte_of_it_again(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    newest = learner.publish()
    async with learner.serve() as url:
        await replica.fetch(url)
        replica.restart()
        await replica.fetch(url)
        assert replica.serves(newest)
        newest = learner.publish()
        await replica.fetch(url)
    assert (replica.serves(newest), learner.sent[-1][0]) == (True, DELTA)


async def test_a_version_that_the_engine_refuses_leaves_nothing_behind(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    first = learner.publish()
    async with learner.serve() as url:
        await replica.fetch(url)
        descriptors = open_descriptors()
        for error in (InvalidInput("not finite"), InvalidInput("other shapes")):
            replica.engine.error = error
            learner.publish()
            with pytest.raises(InvalidInput, match=str(error)):
                await replica.fetch(url)
            assert replica.serves(first)
            assert (replica.policy.problem, replica.policy.refused) == (str(error), learner.latest.version)
        assert open_descriptors() == descriptors
        replica.engine.error = None
        await replica.fetch(url)  # where it comes from is still known
        assert replica.serves(learner.latest)
    assert learner.sent[-1][0] is DELTA


async def test_an_engine_that_breaks_is_the_problem_too(learner: PublishingLearner, replica: FetchingReplica) -> None:
    first = learner.publish()
    async with learner.serve() as url:
        await replica.fetch(url)
        replica.engine.error = RuntimeError("out of\nmemory")
        newest = learner.publish()
        with pytest.raises(RuntimeError):
            await replica.fetch(url)
        replica.policy.note_run(newest.version, 0)
        assert "RuntimeError: out of memory" in (replica.policy.why_stale or "")
        assert replica.engine.version == first.version
        replica.engine.error = None
        await replica.fetch(url)
    assert replica.serves(newest)


async def test_an_engine_that_fails_for_now_takes_them_later_without_another_transfer(
    learner: PublishingLearner, replica: FetchingReplica
) -> None:
    learner.publish()
    async with learner.serve() as url:
        replica.engine.error = Unavailable("it restarts")
        with pytest.raises(Unavailable, match="it restarts"):
            await replica.fetch(url)
        replica.engine.error = None
        await replica.fetch(url)
    assert replica.serves(learner.latest)


async def test_without_the_token_nothing_is_had(learner: PublishingLearner, tmp_path: Path) -> None:
    learner.publish()
    async with learner.serve("secret") as url:
        for token, error in ((None, Unauthorized), ("other", Unauthorized), ("secret", None)):
            replica = FetchingReplica(tmp_path / str(token), token)
            async with replica.http:
                if error is not None:
                    with pytest.raises(error):
                        await replica.fetch(url)
                    assert (replica.engine.version, "token" in replica.policy.problem) == (None, True)
                else:
                    await replica.fetch(url)
                    assert replica.serves(learner.latest)


@pytest.mark.parametrize(
    ("other", "run_origin", "said"),
    [
        ({"run": "other", "generation": 2}, None, "belong to run 'other'"),
        ({"generation": 1, "origin": "dead", "seed": 1}, None, "does not follow"),
        ({"generation": 1, "seed": 1}, None, "already here with content|different contents"),
        ({"generation": 0, "origin": "dead"}, "beef", "does not follow"),
    ],
)
async def test_another_learners_weights_leave_the_old_ones_serving(
    other: dict[str, object],
    run_origin: str | None,
    said: str,
    learner: PublishingLearner,
    replica: FetchingReplica,
    tmp_path: Path,
) -> None:
    served = learner.publish()
    second = PublishingLearner(tmp_path / "second", **other)  # type: ignore[arg-type]
    second.publish()
    async with learner.serve() as url, second.serve() as second_url:
        await replica.fetch(url)
        with pytest.raises(IbtpoError, match=said) as caught:
            await replica.fetch(second_url, run_origin)
        assert "\n" not in str(caught.value)
        assert replica.policy.problem == str(caught.value)
        assert replica.serves(served)


async def test_who_joins_takes_nothing_from_a_learner_that_the_run_has_left(
    learner: PublishingLearner, replica: FetchingReplica, tmp_path: Path
) -> None:
    left = PublishingLearner(tmp_path / "left", origin="dead")
    left.publish()
    newest = learner.publish()
    replica.policy.note_run(newest.version, 1)
    async with learner.serve() as url, left.serve() as left_url:
        with pytest.raises(Conflict, match=r"hands out version 1\.0-dead, the run's status says 1\.0-beef"):
            await replica.fetch(left_url, "beef")
        assert list(replica.root.iterdir()) == []
        await replica.fetch(url, "beef")
    assert replica.serves(newest)


@pytest.mark.parametrize(
    "query",
    [
        "base=1.0",
        "hash=00",
        "base=x&hash=y",
        f"base=1.0&hash={'G' * 64}",
        f"base={'9' * 60}&hash={'0' * 64}",
        f"base=1.0&hash={'0' * 65}",
        "base=%00%0a%ff&hash=%0d%0a",
        f"base=-1.0&hash={'0' * 64}",
        f"base=1.0-{'f' * 17}&hash={'0' * 64}",
        f"base={'1' * 9000}",
    ],
)
async def test_a_base_that_is_none_is_refused_in_one_line(
    query: str, learner: PublishingLearner, replica: FetchingReplica
) -> None:
    learner.publish()
    async with learner.serve() as url:
        answer = await replica.http.get(f"{url}/v1/weights/latest?{query}")
    assert answer.status_code == 422, answer.text
    assert 0 < len(answer.json()["detail"].splitlines()) == 1
    assert learner.sent == []


async def test_a_base_that_is_not_here_brings_all(learner: PublishingLearner, replica: FetchingReplica) -> None:
    first = learner.publish()
    learner.publish()
    async with learner.serve() as url:
        for base, hash_, encoding in [
            (first.version, first.manifest.content_hash, DELTA),
            (first.version, "0" * 64, FULL),
            ("7.7", first.manifest.content_hash, FULL),
        ]:
            answer = await replica.http.get(f"{url}/v1/weights/latest?base={base}&hash={hash_}")
            assert (answer.status_code, learner.sent[-1][0]) == (200, encoding)
