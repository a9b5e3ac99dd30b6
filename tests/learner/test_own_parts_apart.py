"""A sampler and a credit of the user's own in several processes, where some have not the package, and some are killed
amid it."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from io import StringIO
from pathlib import Path
from zlib import crc32

import pytest
from fastapi import APIRouter, Response
from rich.console import Console

from services.launcher.display.view import render_status
from services.launcher.runs.history import History
from services.learner.config import LearnerConfig
from services.learner.record.checkpoint import CheckpointStore
from shared.protocol.status import RunState, RunStatus
from shared.protocol.verdict import Outcome, Verdict, VerdictRequest
from shared.runtime.child_process import is_alive, kill_group
from shared.streams import RunStreams
from tests.accounts import is_balanced
from tests.learner.conftest import Configure
from tests.learner.fake_replica import Replica
from tests.learner.test_processes import LearnerProcess, lines, status_when
from tests.learner.torchrun import ENVIRONMENT
from tests.serving import serve_router
from tests.waiting import wait_until_async

pytestmark = pytest.mark.drill

_SERVER = Path(__file__).parents[1] / "rollout" / "sglang" / "contract_server.py"
_PARTS = '''
import os, time
from dataclasses import dataclass
from pathlib import Path

from shared.tree.credit import Advantages, Credit
from shared.tree.samplers import Branch, Sampler


def pause(folder, name):
    """Leaves a file with the number of its process; stands still while there is a file `NAME.hold`."""
    Path(folder, f"{name}.{os.getpid()}").touch()
    while Path(folder, f"{name}.hold").exists():
        Path(folder, f"{name}.held").write_text(str(os.getpid()))
        time.sleep(0.02)


@dataclass(frozen=True)
class Pausing(Sampler):
    folder: str = ""
    initial_draws: int = 4

    @property
    def num_draws(self):
        return self.initial_draws + 1

    def expand(self, tree, round, rng):
        pause(self.folder, "sampler")
        return [Branch(None, 0, 1)] if round == 1 else []


@dataclass(frozen=True)
class Equal(Credit):
    folder: str = ""

    def advantages(self, tree, side=None):
        pause(self.folder, "credit")
        return Advantages.of_trajectories(tree, tree.reward_of_draw)

    def has_signal(self, rewards):
        return True
'''


def write_package(directory: Path, parts: str = _PARTS) -> Path:
    """The package `my_parts` in a directory of its own."""
    package = directory / "my_parts"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(parts)
    return directory


class Replicas:
    """Replicas as the command starts them, over a server that speaks SGLang's contract."""

    def __init__(self, folder: Path, redis_url: str, verifier_url: str) -> None:
        self._folder = folder
        self._settings = (
            *("run=run", "port=0", "plugins=my_parts", "claim_after_seconds=1.5", "engine=sglang"),
            f"redis_url={redis_url}",
            f"verifier_url={verifier_url}",
            f'sglang.command=["{sys.executable}", "{_SERVER}"]',
            'sglang.arguments=["--vocab", "24", "--tokens", "6", "--token-seconds", "0.002"]',
        )
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, packages: Path | None) -> None:
        """One that finds the packages of a directory."""
        command = [sys.executable, "-P", "-m", "ibtpo", "rollout", *self._settings]
        path = os.pathsep.join(filter(None, (ENVIRONMENT["PYTHONPATH"], str(packages or ""))))
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*command, f"name={name}", f"snapshots={self._folder / name}"],
                env={**ENVIRONMENT, "PYTHONPATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill_parent_of(self, pid: int) -> str:
        """Kills the replica whose child this process is, and says which it was."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        name = next(name for name, one in self._processes.items() if one.pid == int(status["PPid"]))
        self._processes[name].kill()
        return name

    async def stop(self) -> None:
        """Has those that live drain and end."""
        for process in self._processes.values():
            process.terminate()
        await wait_until_async(lambda: None not in {one.poll() for one in self._processes.values()}, 60.0)

    def kill_all(self) -> None:
        for process in self._processes.values():
            kill_group(process.pid)
            process.wait()


@pytest.fixture
async def verifier_url() -> AsyncIterator[str]:
    """Of a verifier to which one answer in two is right."""
    router = APIRouter()

    @router.post("/v1/verdicts")
    async def judge(request: VerdictRequest) -> Response:
        found = [(item.id, float(crc32(item.response.encode()) % 2)) for item in request.items]
        verdicts = (
            Verdict(id=name, reward=reward, outcome=Outcome.RIGHT if reward else Outcome.WRONG)
            for name, reward in found
        )
        lines = "".join(f"{verdict.model_dump_json()}\n" for verdict in verdicts)
        return Response(lines, media_type="application/x-ndjson")

    async with serve_router(router) as url:
        yield url


@pytest.fixture
def replicas(tmp_path: Path, redis_url: str, verifier_url: str) -> Iterator[Replicas]:
    found = Replicas(tmp_path, redis_url, verifier_url)
    yield found
    found.kill_all()


@pytest.fixture
def config(configure: Configure, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LearnerConfig:
    """Of a run with a sampler and a credit of the package in `ours`."""
    monkeypatch.syspath_prepend(write_package(tmp_path / "ours"))
    return configure(
        redis_url=redis_url,
        total_steps=12,
        act_tolerance=1000.0,  # the server that stands for SGLang computes nothing
        checkpoint_every=2,
        growth={"sampler": {"kind": "my_parts.parts:Pausing", "folder": str(tmp_path)}, "max_tokens": 16},
        advantage={"kind": "my_parts.parts:Equal", "folder": str(tmp_path)},
    )


@pytest.fixture
def learner(config: LearnerConfig, tmp_path: Path) -> Iterator[LearnerProcess]:
    process = LearnerProcess(config, tmp_path, packages=tmp_path / "ours")
    yield process
    process.end()


def screen(status: RunStatus) -> str:
    """What `ibtpo status` prints."""
    with StringIO() as file:
        Console(width=1000, file=file).print(render_status(status, History()))
        return file.getvalue()


def lacking(status: RunStatus) -> set[str]:
    """The replicas that cannot grow the run's tasks."""
    return {one.name for one in status.replicas if not one.reads_tasks}


async def held(folder: Path, name: str) -> int:
    """The process that stands still in a part."""
    return int(await wait_until_async(lambda: read_if_there(folder / f"{name}.held"), 40.0))


def read_if_there(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def living(folder: Path, name: str) -> list[int]:
    """The processes that ever called a part, and still are."""
    numbers = (int(path.suffix[1:]) for path in folder.glob(f"{name}.[0-9]*"))
    return [number for number in numbers if is_alive(number)]


@pytest.mark.timeout(240)
async def test_a_run_with_own_parts_survives_replicas_without_them_and_the_death_of_processes_amid_them(
    replicas: Replicas, learner: LearnerProcess, config: LearnerConfig, streams: RunStreams, tmp_path: Path
) -> None:
    ours, newer = tmp_path / "ours", write_package(tmp_path / "newer", f"{_PARTS}\nRELEASE = 2\n")
    replicas.start("bare", None)
    replicas.start("newer", newer)
    replicas.start("one", ours)
    replicas.start("two", ours)
    learner.start()
    seen = await status_when(streams, lambda status: status.step >= 1 and lacking(status) == {"bare", "newer"})
    assert "my_parts.parts:Pausing is not here" in screen(seen)
    assert "my_parts.parts is here another version" in screen(seen)
    assert is_balanced(seen.accounts)

    (tmp_path / "sampler.hold").touch()
    amid = await held(tmp_path, "sampler")
    victim = replicas.kill_parent_of(amid)
    await wait_until_async(lambda: not is_alive(amid))
    assert victim in ("one", "two")
    (tmp_path / "credit.hold").touch()
    (tmp_path / "sampler.hold").unlink()

    amid = await held(tmp_path, "credit")
    seen = await status_when(streams, lambda status: victim not in {one.name for one in status.replicas})
    assert is_balanced(seen.accounts)
    assert seen.step < config.total_steps
    learner.signal(signal.SIGKILL)
    await learner.exit_code()
    await wait_until_async(lambda: not living(tmp_path, "credit"))
    (tmp_path / "credit.hold").unlink()
    learner.start()
    assert await learner.exit_code() == 0, learner.log

    accounts = CheckpointStore(config.run_dir / "checkpoints", 2).latest().state().ledger.accounts
    assert is_balanced(accounts)
    assert (accounts.used, accounts.failed, accounts.outstanding) == (config.total_steps * config.batch_size, 0, 0)
    assert [line["step"] for line in lines(config)] == list(range(1, config.total_steps + 1))
    assert not any(line["credit_failures"] for line in lines(config))
    assert not living(tmp_path, "credit")
    assert await streams.trees.ids() == await streams.tasks.ids() == set()
    await replicas.stop()
    assert not living(tmp_path, "sampler")


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_run_ends_with_the_reason_for_which_one_rank_gives_up(
    configure: Configure, redis_url: str, streams: RunStreams, replica: Replica, tmp_path: Path
) -> None:
    fails = {"kind": "tests.learner.rank_parts:FailsOn", "rank": "1"}
    config = configure(redis_url=redis_url, total_steps=100, objective={"micro_batch_tokens": 40, "terms": [fails]})
    learner = LearnerProcess(config, tmp_path)
    try:
        async with replica("one"):
            learner.start(size=2)
            ended = await status_when(streams, lambda status: status.state is RunState.FAILED, 120.0)
            assert ended.message.startswith(
                "rank 1: loss term tests.learner.rank_parts:FailsOn loss failed: ValueError: this rank has none of it"
            )
            assert await learner.exit_code() != 0
    finally:
        learner.end()
