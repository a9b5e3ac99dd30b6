"""`ibtpo doctor` with real servers, sound and broken on purpose."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from services.launcher.display.finding import Section
from services.launcher.doctor import machine
from services.verifier.config import VerifierConfig
from services.verifier.wiring import VerifierService
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Accounts, RunState, RunStatus
from shared.runtime.app import create_app
from shared.runtime.serve import open_listener, serve_in_background
from shared.streams import RunStreams, connect
from shared.tree.draw import WeightVersion
from tests.launcher import hostile_server as hostile
from tests.launcher.conftest import Command, Done
from tests.redis_process import RedisProcess

TOKEN = "a1b2c3d4" * 8
Serve = Callable[[AbstractAsyncContextManager[str]], str]
VERSION = WeightVersion(1, 12, "ab")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Runs services on an event loop of their own, and returns their URLs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    with ExitStack() as stack:

        def start(service: AbstractAsyncContextManager[str]) -> str:
            url: str = call(service.__aenter__())
            stack.callback(lambda: call(service.__aexit__(None, None, None)))
            return url

        yield start
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@asynccontextmanager
async def verifier(token: str | None = TOKEN) -> AsyncIterator[str]:
    service = VerifierService(VerifierConfig(token=token, port=0))
    async with serve_in_background(service.app, open_listener("127.0.0.1", 0, token)) as url:
        yield url


@asynccontextmanager
async def stand_in(name: str, token: str | None = TOKEN, **health: object) -> AsyncIterator[str]:
    """A service of that name, with the app that all have, whose routes answer as a learner and a replica do."""
    router = APIRouter()

    @router.get("/v1/status")
    async def status() -> RunStatus:
        return run_status()

    @router.get("/v1/policy")
    async def policy() -> dict[str, Any]:
        return {"replica": "r", "version": {"generation": 1, "number": 12, "origin": "ab"}, "content_hash": ""}

    app = create_app(
        name,
        router,
        lifespan=None,
        ready=lambda: None,
        registry=CollectorRegistry(),
        token=token,
        max_body_bytes=1 << 20,
    )
    app.state.health = lambda: health
    async with serve_in_background(app, open_listener("127.0.0.1", 0, token)) as url:
        yield url


def run_status(**changes: object) -> RunStatus:
    accounts = Accounts(fed=10, used=6, outstanding=4)
    now = {"run": "mine", "state": RunState.TRAINING, "version": VERSION, "max_staleness": 2, "step": 12}
    return RunStatus(**{**now, "accounts": accounts, "time": time.time(), **changes})  # type: ignore[arg-type]


def publish(url: str, status: RunStatus | None, *replicas: ReplicaInfo) -> None:
    async def write() -> None:
        connection = connect(url)
        streams = RunStreams(connection, "mine")
        if status is not None:
            await streams.status_keys.publish(status)
        for replica in replicas:
            await streams.replicas.announce(replica, 60.0)
        await connection.close()

    asyncio.run(write())


def examine(ibtpo: Command, *words: str) -> tuple[dict[str, tuple[str, str]], Done]:
    """What was found, by "subject: check", and how the command ended."""
    done = ibtpo("doctor", "--json", *words)
    found = {
        f"{section['subject']}: {one['check']}": (one["level"], f"{one['found']} → {one['remedy']}")
        for section in json.loads(done.stdout)["sections"]
        for one in section["findings"]
    }
    return found, done


def test_a_sound_deployment_is_told_so(
    serve: Serve, redis_process: RedisProcess, ibtpo: Command, tmp_path: Path
) -> None:
    judge, learner = serve(verifier()), serve(stand_in("learner", seconds_since_step=3.0))
    replica = ReplicaInfo(name="r", url=serve(stand_in("rollout")), state=ReplicaState.SERVING, version=VERSION)
    publish(redis_process.url, run_status(), replica)
    where = (
        "--redis-url",
        redis_process.url,
        "--verifier-url",
        judge,
        "--learner-url",
        learner,
        "--runs",
        str(tmp_path),
    )
    found, done = examine(ibtpo, *where, "--token", TOKEN)
    wrong = {name: one for name, one in found.items() if one[0] != "ok" and not name.startswith("this machine")}
    assert not wrong, wrong
    assert {"verifier: judges", "verifier: sandbox", "run mine: accounts", "replica r: weights"} <= found.keys()
    assert "takes the one given here, refuses a wrong one" in found["learner: token"][1]
    assert done.code in (0, 1)  # this machine may be short of disk
    shown = ibtpo("doctor", *where, "--token", TOKEN).stdout
    assert "a right answer has reward 1" in shown
    assert TOKEN not in shown + done.stdout


@pytest.mark.parametrize(
    ("given", "level", "words"),
    [
        ((), "failed", "wants a token, and none is given"),
        (("--token", "f" * 31 + "0"), "failed", "refuses the token given here"),
        (("--token", TOKEN), "ok", "takes the one given here"),
    ],
)
def test_a_token_is_tried(serve: Serve, ibtpo: Command, given: tuple[str, ...], level: str, words: str) -> None:
    found, done = examine(ibtpo, "--learner-url", serve(stand_in("learner")), *given)
    assert found["learner: token"][0] == level
    assert words in found["learner: token"][1]
    assert (done.code == 2) == (level == "failed")


def test_an_open_service_is_said(serve: Serve, ibtpo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve(stand_in("learner", None))
    assert "wants none: asked over loopback" in examine(ibtpo, "--learner-url", url)[0]["learner: token"][1]
    monkeypatch.setattr("services.launcher.doctor.services.is_loopback", lambda host: False)
    level, words = examine(ibtpo, "--learner-url", url, "--token", TOKEN)[0]["learner: token"]
    assert (level, "open: it took a wrong token" in words) == ("failed", True)


def test_a_placeholder_is_no_token(serve: Serve, ibtpo: Command) -> None:
    found, done = examine(ibtpo, "--learner-url", serve(stand_in("learner")), "--token", "CHANGEME-ibtpo-token")
    assert "placeholder" in found["settings: token"][1]
    assert "CHANGEME" not in done.stdout
    assert done.code == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (hostile.HTML, "answers 200 with text/html that begins '<html>"),
        (hostile.REDIRECT, "redirects (302) to https://login.example.org/"),
        (hostile.FLOOD, "sends more than 1 MiB"),
        (hostile.BOMB, "answers compressed (gzip), unasked"),
        (hostile.DEEP, "answers 200 with"),
        (hostile.LIST, "begins '[]'"),
        (hostile.NO_HTTP, "does not speak HTTP"),
        (hostile.HEADERS, "does not speak HTTP"),
        (hostile.SILENCE, "has no whole answer within"),
    ],
    ids=["html", "redirect", "flood", "bomb", "deep", "list", "no http", "headers", "silence"],
)
def test_a_wrong_server_is_told_from_ours(answer: bytes, words: str, ibtpo: Command) -> None:
    with hostile.answering(answer) as port:
        started = time.monotonic()
        found, done = examine(ibtpo, "--verifier-url", f"http://u:hunter2@127.0.0.1:{port}", "--timeout", "0.5")
    level, said = found["verifier: reached"]
    assert (level, done.code) == ("failed", 2)
    assert words in said
    assert not set("\x1b\u202e") & set(said)
    assert "hunter2" not in done.stdout
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("answer", [hostile.HTML, hostile.FLOOD, hostile.SILENCE], ids=["html", "flood", "silence"])
def test_what_is_no_redis_is_said(answer: bytes, ibtpo: Command) -> None:
    with hostile.answering(answer) as port:
        url = f"redis://:hunter2@127.0.0.1:{port}/0"
        found, done = examine(ibtpo, "--redis-url", url, "--timeout", "0.5")
    level, said = found["redis: reached"]
    assert (level, done.code) == ("failed", 2)
    assert ("it is no Redis" in said) or ("has no whole answer" in said)
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", "nothing listens at 127.0.0.1:1"),
        ("http://nowhere.invalid:8002", "does not resolve"),
        ("verifier:8002", "is no URL of a service"),
        ("http://fd00::zz:8002", "is no URL of a service"),
        ("http://[::1]:1", "nothing listens at"),
        ("http://::1:1", "nothing listens at"),
    ],
)
def test_an_address_that_leads_nowhere_is_said(url: str, words: str, ibtpo: Command) -> None:
    found, done = examine(ibtpo, "--verifier-url", url, "--timeout", "2")
    assert any(words in said for _, said in found.values()), found
    assert done.code == 2


def test_two_services_that_are_swapped_are_told(serve: Serve, ibtpo: Command) -> None:
    found, _ = examine(ibtpo, "--verifier-url", serve(stand_in("learner")), "--learner-url", serve(stand_in("rollout")))
    assert "it is ibtpo's learner, not its verifier" in found["verifier: reached"][1]
    assert "it is ibtpo's rollout, not its learner" in found["learner: reached"][1]


def test_a_service_of_another_release_is_told(serve: Serve, ibtpo: Command) -> None:
    url = serve(stand_in("learner", None, protocol=1, version="0.0.1"))
    found, _ = examine(ibtpo, "--learner-url", url)
    assert "it speaks protocol 1" in found["learner: protocol"][1]
    assert found["versions: release"][0] == "warning"
    assert "0.0.1: learner" in found["versions: release"][1]


def test_a_verifier_without_a_jail_is_told(serve: Serve, ibtpo: Command) -> None:
    code = {"refusal": None, "isolated": False, "layers": {"landlock": "not in this kernel"}}
    kinds = {"code": code, "mine": {"refusal": "no module mine"}}
    found, _ = examine(ibtpo, "--verifier-url", serve(stand_in("verifier", None, kinds=kinds)))
    assert "run without a jail" in found["verifier: sandbox"][1]
    assert "no module mine" in found["verifier: kind mine"][1]


def test_a_redis_that_loses_work_is_told(redis_process: RedisProcess, ibtpo: Command) -> None:
    for setting in ("maxmemory-policy allkeys-lru", "maxmemory 2mb", "appendonly no"):
        redis_process.command("CONFIG", "SET", *setting.split())
    found, done = examine(ibtpo, "--redis-url", redis_process.url)
    assert found["redis: eviction"] == (
        "failed",
        "maxmemory-policy is allkeys-lru: when full, it deletes tasks and trees → start it with --maxmemory-policy "
        "noeviction (redis.conf: maxmemory-policy noeviction)",
    )
    assert found["redis: persistence"][0] == "warning"
    assert "of 2 MiB" in found["redis: memory"][1]
    assert done.code == 2


def test_a_redis_that_refuses_us_is_told(redis_process: RedisProcess, ibtpo: Command) -> None:
    redis_process.command("CONFIG", "SET", "requirepass", "s3cr/t@1")
    found, done = examine(ibtpo, "--redis-url", redis_process.url.replace("//", "//:wr0ng%2Fpass@"))
    assert "refuses the password" in found["redis: reached"][1]
    found, also = examine(ibtpo, "--redis-url", redis_process.url.replace("//", "//:s3cr/t@1@"))
    assert "not a Redis URL" in found["redis: url"][1]
    found, last = examine(ibtpo, "--redis-url", redis_process.url.replace("//", "//:s3cr%2Ft%401@"))
    assert found["redis: reached"][0] == "ok"
    assert "takes the one given" in found["redis: password"][1]
    for one in (done, also, last):
        assert not any(secret in one.stdout for secret in ("s3cr", "wr0ng"))


def test_a_user_with_few_rights_is_told(redis_process: RedisProcess, ibtpo: Command) -> None:
    redis_process.command("ACL", "SETUSER", "few", "on", ">secret", "~*", "+ping")
    found, _ = examine(ibtpo, "--redis-url", redis_process.url.replace("//", "//few:secret@"))
    assert found["redis: info"][0] == "failed"


def test_a_read_only_replica_is_told(redis_process: RedisProcess, ibtpo: Command) -> None:
    redis_process.command("REPLICAOF", "127.0.0.1", "1")
    found, _ = examine(ibtpo, "--redis-url", redis_process.url)
    assert "read-only replica" in found["redis: kind"][1]


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"time": 1.0}, "status", "its learner has written nothing for"),
        ({"state": RunState.FAILED, "message": "out of disk"}, "status", "out of disk"),
        ({"message": "no tree has come for 40 s"}, "status", "no tree has come for 40 s"),
        ({"accounts": Accounts(fed=9, used=3)}, "accounts", "9 fed, but 3 used"),
        ({}, "replicas", "none has announced itself for run 'mine'"),
    ],
)
def test_a_run_in_trouble_is_told(
    changes: dict[str, object], check: str, words: str, redis_process: RedisProcess, ibtpo: Command
) -> None:
    publish(redis_process.url, run_status(**changes))
    level, said = examine(ibtpo, "--redis-url", redis_process.url, "--run", "mine")[0][f"run mine: {check}"]
    assert level != "ok"
    assert words in said


def test_replicas_that_do_not_keep_up_are_told(serve: Serve, redis_process: RedisProcess, ibtpo: Command) -> None:
    url = serve(stand_in("rollout", None))
    replica = ReplicaInfo(name="slow", url=url, state=ReplicaState.SERVING, version=VERSION, problem="no space left")
    gone = ReplicaInfo(name="gone", url="http://127.0.0.1:1", state=ReplicaState.WAITING, version=None)
    bare = replica.model_copy(update={"name": "bare", "problem": "my_pkg:Mine is not here", "reads_tasks": False})
    publish(redis_process.url, run_status(version=WeightVersion(1, 40, "ab")), replica, gone, bare)
    found, _ = examine(ibtpo, "--redis-url", redis_process.url)
    assert "no space left" in found["replica slow: problem"][1]
    assert found["replica bare: problem"][1].startswith("my_pkg:Mine is not here → have the run's package there")
    assert "serves v12, the run has v40; max_staleness is 2" in found["replica slow: weights"][1]
    assert "nothing listens" in found["replica gone: reached"][1]
    assert found["replica gone: state"][0] == "warning"


def test_a_run_that_this_redis_does_not_know_is_told(redis_process: RedisProcess, ibtpo: Command) -> None:
    publish(redis_process.url, run_status())
    found, _ = examine(ibtpo, "other", "--redis-url", redis_process.url)
    assert "has no run 'other'; it knows mine" in found["run other: name"][1]
    assert ibtpo("doctor", "no/run", "--redis-url", redis_process.url).code == 2


def test_a_pod_finds_its_services_by_its_environment(
    serve: Serve, ibtpo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = serve(stand_in("verifier", None)).rpartition("/")[2].split(":")
    for name in ("REDIS", "LEARNER"):
        monkeypatch.setenv(f"{name}_SERVICE_HOST", "::1")
        monkeypatch.setenv(f"{name}_SERVICE_PORT", "1")
    monkeypatch.setenv("VERIFIER_SERVICE_HOST", host)
    monkeypatch.setenv("VERIFIER_SERVICE_PORT", port)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    found, _ = examine(ibtpo, "--kubernetes-env", "--timeout", "2")
    assert found["verifier: reached"][0] == "ok"
    assert "nothing listens at" in found["learner: reached"][1]
    assert found["redis: reached"][0] == "failed"


def test_a_configuration_names_what_is_asked(serve: Serve, ibtpo: Command, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(f'[rollout]\nrun = "mine"\nverifier_url = "{serve(stand_in("verifier", None))}"\n')
    found, _ = examine(ibtpo, "--config", str(config))
    assert found["verifier: reached"][0] == "ok"
    done = ibtpo("doctor", "--config", "no-such-preset")
    assert (done.code, "no preset 'no-such-preset'" in done.stderr) == (2, True)


def test_shared_memory_that_holds_no_two_policies_is_told(tmp_path: Path) -> None:
    section = Section("this machine")
    machine.examine_shared_memory(section, tmp_path / "not yet", 1 << 60, holds_weights=True)
    machine.examine_shared_memory(section, tmp_path, 1 << 20, holds_weights=True)
    short, enough = section.findings
    assert (short.level, "two must fit" in short.found) == ("failed", True)
    assert enough.level == "ok"


async def test_a_gpu_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'no devices were found' >&2\nexit 6\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(machine, "_SEES_GPUS", "print('2.13.0', 0, '', sep='|')")
    section = Section("this machine")
    await machine.examine_gpus(section, 5.0)
    assert [(one.level, one.check) for one in section.findings] == [("failed", "GPU driver"), ("failed", "GPU, torch")]
    assert "no devices were found" in section.findings[0].found


@pytest.mark.parametrize(("release", "level"), [("0.5.20", "failed"), ("0.5.23", "ok"), ("nonsense", "failed")])
async def test_the_release_of_sglang_is_looked_at(release: str, level: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {release}\n")
    python.chmod(0o755)
    section = Section("this machine")
    await machine.examine_sglang(section, str(python), 5.0)
    assert [one.level for one in section.findings] == [level]


async def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    section = Section("this machine")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await machine.examine_sglang(section, str(python), 0.1)
    assert [one.level for one in section.findings] == ["failed"]
