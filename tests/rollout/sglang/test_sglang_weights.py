"""The SGLang engine's weights and server: new weights under load, failed loads, crashes, hangs, external servers."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.rollout.engines.sglang import ExternalServer
from shared.errors import Conflict, InvalidInput, Unavailable
from shared.runtime.child_process import find_free_port
from shared.tree.draw import VersionSpan, WeightVersion
from tests.rollout.sglang.conftest import SERVER, BundleFactory, RigFactory, config_of
from tests.waiting import retry_while_unavailable, wait_until_async

SECOND = WeightVersion(1, 2)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_new_weights_are_loaded_in_a_pause_and_checked(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig(health_seconds=60.0)
    await served.engine.load(bundle("second"), SECOND)
    paths = [call["path"] for call in await served.seen()]
    steps = ["pause_generation", "update_weights_from_disk", "model_info", "weights_checker", "continue_generation"]
    assert paths[-5:] == [f"/{step}" for step in steps]
    assert served.engine.version == SECOND
    assert served.value("ibtpo_rollout_engine_pause_seconds_count") == 1
    assert served.value("ibtpo_rollout_engine_starts_total", cause="first") == 1


async def test_requests_in_flight_survive_new_weights_and_say_which_sampled_what(
    rig: RigFactory, bundle: BundleFactory
) -> None:
    served = await rig("--token-seconds", "0.005")
    completions = [asyncio.create_task(served.complete((4, i), 200)) for i in range(2, 6)]
    await served.samples(4)
    await served.engine.load(bundle("second"), SECOND)
    for task in completions:
        before, after = (await task).spans
        assert (before.version, after.version) == (WeightVersion(1, 1), SECOND)
        assert (before.start, before.end, after.end) == (0, after.start, 200)
    assert (await served.seen("/generate"))[-1]["call"]["extra_key"] == "1.1"
    await served.complete()
    assert (await served.seen("/generate"))[-1]["call"]["extra_key"] == "1.2"


@pytest.mark.drill
@pytest.mark.parametrize("fault", ["changed-but-refused", "nothing-changed", "no-json", "unavailable", "close", "exit"])
async def test_a_load_that_does_not_clearly_succeed_restarts_the_server(
    rig: RigFactory, bundle: BundleFactory, fault: str
) -> None:
    served = await rig("--token-seconds", "0.01")
    before = served.pid
    completion = asyncio.create_task(served.complete(max_tokens=200))
    await served.samples(1)
    await served.fault("/update_weights_from_disk", fault)
    await served.engine.load(bundle("second"), SECOND)
    assert served.pid != before
    assert not is_alive(before)
    assert served.engine.version == SECOND
    assert (await completion).spans == (VersionSpan(SECOND, 0, 200),)
    assert served.value("ibtpo_rollout_engine_starts_total", cause="tainted") == 1


@pytest.mark.parametrize(
    ("checksums", "fault"),
    [
        ("sha256", "label-only"),
        ("sha256", "foreign"),
        pytest.param("sha256", "in-part", marks=pytest.mark.drill),
        pytest.param("other", "label-only", marks=pytest.mark.drill),
        pytest.param("other", "in-part", marks=pytest.mark.drill),
    ],
)
async def test_weights_that_are_not_what_the_label_says_are_found_and_the_server_restarts(
    rig: RigFactory, bundle: BundleFactory, checksums: str, fault: str
) -> None:
    served = await rig("--checksums", checksums, health_seconds=60.0)
    before = served.pid
    await served.fault("/update_weights_from_disk", fault)
    await served.engine.load(bundle("second", value=2.0), SECOND)
    assert served.pid != before
    assert served.value("ibtpo_rollout_engine_starts_total", cause="tainted") == 1
    assert (await served.complete()).spans[0].version == SECOND
    third = WeightVersion(1, 3)
    await served.engine.load(bundle("third", value=3.0), third)
    await served.engine.load(bundle("third again", value=3.0), WeightVersion(1, 4))
    assert served.value("ibtpo_rollout_engine_starts_total", cause="tainted") == 1


async def test_a_server_without_checksums_is_taken_at_its_word(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig("--checksums", "none", health_seconds=60.0)
    for number in (2, 3):
        await served.engine.load(bundle(str(number), value=float(number)), WeightVersion(1, number))
    assert len(await served.seen("/weights_checker")) == 1
    assert served.value("ibtpo_rollout_engine_starts_total", cause="tainted") == 0


async def test_checksums_that_tell_nothing_apart_cost_one_restart(rig: RigFactory, bundle: BundleFactory) -> None:
    """Of weights that the server rounds so far, for one, that an update vanishes."""
    served = await rig("--checksums", "constant", health_seconds=60.0)
    for number in (2, 3):
        await served.engine.load(bundle(str(number), value=float(number)), WeightVersion(1, number))
    assert served.value("ibtpo_rollout_engine_starts_total", cause="tainted") == 1
    assert served.engine.version == WeightVersion(1, 3)


@pytest.mark.parametrize("path", ["/pause_generation", "/model_info", "/weights_checker", "/continue_generation"])
async def test_every_step_of_a_weight_change_is_checked(rig: RigFactory, bundle: BundleFactory, path: str) -> None:
    served = await rig(health_seconds=60.0)
    before = served.pid
    await served.fault(path, "unavailable")
    await served.engine.load(bundle("second"), SECOND)
    assert served.pid != before
    assert (await served.complete()).spans[0].version == SECOND


async def test_a_load_that_hangs_ends_at_its_deadline(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig(load_seconds=0.3)
    await served.fault("/update_weights_from_disk", "hang")
    await served.engine.load(bundle("second"), SECOND)
    assert (await served.complete()).spans[0].version == SECOND


async def test_a_load_whose_caller_goes_away_is_finished(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig()
    loading = asyncio.create_task(served.engine.load(bundle("second"), SECOND))
    await wait_until_async(lambda: served.seen("/pause_generation"))
    loading.cancel()
    await wait_until_async(lambda: served.engine.version == SECOND)
    assert (await served.complete()).token_ids


async def test_an_unfit_bundle_is_refused_before_the_server_sees_it(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig()
    broken = bundle("broken")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    headless = bundle("headless")
    (headless / "config.json").write_text("{")
    unfit = [
        bundle("nan", value=float("nan")),
        bundle("infinite", value=float("inf")),
        bundle("wider", columns=4),
        bundle("other vocabulary", vocab_size=21),
        broken,
        headless,
    ]
    for directory in unfit:
        with pytest.raises(InvalidInput):
            await served.engine.load(directory, SECOND)
    assert served.engine.version == WeightVersion(1, 1)
    assert await served.seen("/pause_generation") == []


async def test_a_server_that_cannot_start_with_new_weights_is_rolled_back_to_the_old(
    rig: RigFactory, bundle: BundleFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await rig()
    await served.fault("/update_weights_from_disk", "changed-but-refused")
    second = bundle("second")
    start = served.server.start

    async def start_unless_second(wanted: Any) -> Any:
        if wanted.directory == second.resolve():
            raise Unavailable("out of memory")
        return await start(wanted)

    monkeypatch.setattr(served.server, "start", start_unless_second)
    with pytest.raises(Unavailable, match=r"serves 1\.1"):
        await served.engine.load(second, SECOND)
    assert (await served.complete()).spans[0].version == WeightVersion(1, 1)


async def test_a_killed_server_comes_back_and_no_request_is_lost(rig: RigFactory) -> None:
    served = await rig("--token-seconds", "0.005", "--start-seconds", "0.3")
    completions = [asyncio.create_task(served.complete((4, i), 200)) for i in range(2, 8)]
    followed = [asyncio.create_task(served.complete((9, 9), 200)) for _ in range(3)]
    await served.samples(7)
    before = served.pid
    os.kill(before, signal.SIGKILL)
    await wait_until_async(lambda: served.engine.version is None)
    assert served.engine.limits.vocab_size == 20
    assert served.value("ibtpo_rollout_engine_up") == 0
    assert {len(each.token_ids) for each in await asyncio.gather(*completions, *followed)} == {200}
    assert served.engine.version == WeightVersion(1, 1)
    assert served.pid != before
    assert served.value("ibtpo_rollout_engine_starts_total", cause="lost") == 1


async def test_while_it_restarts_older_weights_are_refused_and_newer_ones_taken(
    rig: RigFactory, bundle: BundleFactory
) -> None:
    served = await rig("--start-seconds", "0.5")
    os.kill(served.pid, signal.SIGKILL)
    await wait_until_async(lambda: served.engine.version is None)
    with pytest.raises(Conflict):
        await served.engine.load(bundle("older"), WeightVersion(1, 0))
    await served.engine.load(bundle("second"), SECOND)
    assert (await served.complete()).spans[0].version == SECOND


async def test_a_request_that_kills_the_server_every_time_is_external_up(rig: RigFactory) -> None:
    served = await rig("--poison", "13")
    with pytest.raises(Unavailable, match="3 tries"):
        await served.complete((4, 13))
    assert (await served.complete()).token_ids
    assert served.value("ibtpo_rollout_engine_starts_total", cause="lost") == 3


async def test_a_server_that_hangs_is_restarted(rig: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.rollout.engines.sglang.supervisor._CHECK_SECONDS", 0.2)
    served = await rig(health_seconds=0.1, hang_seconds=0.5)
    before = served.pid
    await served.fault("/health_generate", "hang", times=50)
    await wait_until_async(lambda: served.engine.version is None)
    await wait_until_async(lambda: served.engine.version is not None)
    assert served.pid != before


async def test_a_late_health_check_keeps_the_server(rig: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.rollout.engines.sglang.supervisor._CHECK_SECONDS", 0.1)
    served = await rig(health_seconds=0.05, hang_seconds=5.0)
    before = served.pid
    await served.fault("/health_generate", "hang", times=2)

    async def is_healthy_again() -> bool:
        return (await served.report())["num_health_checks"] >= 4

    await wait_until_async(is_healthy_again)
    assert served.pid == before


async def test_a_server_that_does_not_start_says_why(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig("--fail", "CUDA out of memory", loaded=False)
    with pytest.raises(Unavailable, match="exit code 7 before it listened; its last output:\nCUDA out of memory"):
        await served.engine.load(bundle(), WeightVersion(1, 1))
    slow = await rig("--start-seconds", "9", loaded=False, start_seconds=0.3)
    with pytest.raises(Unavailable, match="start_seconds"):
        await slow.engine.load(bundle(), WeightVersion(1, 1))


async def test_a_launcher_that_is_not_here_is_refused_at_once(rig: RigFactory) -> None:
    with pytest.raises(InvalidInput, match="no '/no/such/python' here"):
        await rig(loaded=False, command=("/no/such/python",))


async def test_an_unsupported_release_is_refused_by_name(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig("--sglang-version", "0.5.20", loaded=False)
    with pytest.raises(Unavailable, match=r"SGLang 0\.5\.20; supported are 0\.5\.21 to"):
        await served.engine.load(bundle(), WeightVersion(1, 1))


async def test_the_end_of_the_engine_is_the_end_of_the_server(rig: RigFactory) -> None:
    served = await rig()
    pid = served.pid
    await served.engine.close()
    assert not is_alive(pid)


async def test_a_server_dies_with_the_service_that_was_killed(bundle: BundleFactory, tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom services.rollout.config import SglangConfig\n"
        "from services.rollout.engines.sglang.bundle import Bundle\n"
        "from services.rollout.engines.sglang import ManagedServer\nfrom shared.tree.draw import WeightVersion\n"
        f"config = SglangConfig(command=(sys.executable, {str(SERVER)!r}))\n"
        "async def main():\n    server = ManagedServer(config)\n"
        f"    await server.start(Bundle.read(Path({str(bundle())!r}), WeightVersion(1, 1)))\n"
        "    print(server.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        pid = int(await asyncio.to_thread(service.stdout.readline))
        assert is_alive(pid)
        service.kill()
    await wait_until_async(lambda: not is_alive(pid), 5)


@pytest.fixture
async def external(bundle: BundleFactory) -> Any:
    """Starts and kills an external server."""
    running: list[subprocess.Popen[bytes]] = []
    port = find_free_port()

    def start() -> str:
        command = [sys.executable, str(SERVER), "--port", str(port), "--model-path", str(bundle("theirs"))]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        return f"http://127.0.0.1:{port}"

    def kill() -> None:
        running[-1].kill()
        running[-1].wait()

    yield start, kill
    kill()


async def test_an_external_server_without_a_common_path_takes_no_weights(
    rig: RigFactory, bundle: BundleFactory, external: Any
) -> None:
    start, _ = external
    config = config_of(url=start())
    served = await rig(loaded=False, server=ExternalServer(config))
    with pytest.raises(Conflict, match="reads_snapshots"):
        await served.engine.load(bundle(), WeightVersion(1, 1))


async def test_an_external_server_gets_our_weights_and_again_after_a_restart(
    rig: RigFactory, bundle: BundleFactory, external: Any
) -> None:
    start, kill = external
    config = config_of(url=start(), reads_snapshots=True)
    served = await rig(loaded=False, server=ExternalServer(config))
    await _load_when_it_listens(served, bundle())
    assert (await served.complete()).spans[0].version == WeightVersion(1, 1)
    await served.engine.load(bundle("second"), SECOND)
    await served.complete()
    kill()
    await wait_until_async(lambda: served.engine.version is None)
    start()
    await wait_until_async(lambda: served.engine.version == SECOND)
    assert (await served.complete()).spans[0].version == SECOND


async def test_an_external_server_whose_weights_another_changed_is_loaded_again(
    rig: RigFactory, bundle: BundleFactory, external: Any
) -> None:
    start, _ = external
    config = config_of(url=start(), reads_snapshots=True)
    served = await rig(loaded=False, server=ExternalServer(config))
    await _load_when_it_listens(served, bundle())
    async with httpx.AsyncClient() as http:
        foreign = {"model_path": str(bundle("theirs")), "weight_version": "theirs"}
        await http.post(f"{served.server.url}/update_weights_from_disk", json=foreign)
    await wait_until_async(lambda: served.value("ibtpo_rollout_engine_starts_total", cause="lost") == 1)
    assert (await served.complete()).spans[0].version == WeightVersion(1, 1)


async def _load_when_it_listens(served: Any, directory: Path) -> None:
    await retry_while_unavailable(lambda: served.engine.load(directory, WeightVersion(1, 1)), 10)
