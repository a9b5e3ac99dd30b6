"""Replicas of a session import the packages of every call: others are started once no tree grows."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.demo.task import checkpoint_directory
from services.launcher.processes import model_services
from services.launcher.processes.model_services import ModelServices, ServiceAddresses


class Started:
    """What was started with which settings, and what of it runs."""

    def __init__(self) -> None:
        self.settings: list[Sequence[str]] = []
        self.running: list[int] = []

    @asynccontextmanager
    async def replicas(self, *_: Any, settings: Sequence[str]) -> AsyncIterator[tuple[str, ...]]:
        number = len(self.settings)
        self.settings.append(settings)
        self.running.append(number)
        yield (f"http://replica-{number}",)
        self.running.remove(number)

    @asynccontextmanager
    async def verifier(self, *_: Any) -> AsyncIterator[str]:
        yield "http://verifier"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found = Started()
    monkeypatch.setattr(model_services, "run_replicas", found.replicas)
    monkeypatch.setattr(model_services, "run_verifier", found.verifier)
    return found


async def test_a_later_call_may_have_a_package_of_its_own(started: Started) -> None:
    async with ModelServices(checkpoint_directory()) as services:
        for packages in ((), ("first",), ("first",), (), ("second",), ("first", "second")):
            async with services._growing(packages):
                assert len(started.running) == 1
    assert started.settings == [[], ['plugins=["first"]'], ['plugins=["first", "second"]']]
    assert not started.running


async def test_a_tree_that_grows_keeps_its_replica(started: Started) -> None:
    async with ModelServices(checkpoint_directory()) as services:
        async with services._growing(()) as first:
            other = asyncio.create_task(_url(services, ("mine",)))
            await asyncio.sleep(0)
            while not services._starting.locked():
                await asyncio.sleep(0)
            assert (started.running, first, other.done()) == ([0], "http://replica-0", False)
        assert await other == "http://replica-1"
        assert started.running == [1]


async def test_a_given_replica_has_the_packages_that_it_was_started_with(started: Started) -> None:
    async with ModelServices(None, ServiceAddresses(rollout_url="http://given")) as services:
        assert [await _url(services, packages) for packages in ((), ("mine",))] == ["http://given"] * 2
    assert not started.settings


async def _url(services: ModelServices, packages: Sequence[str]) -> str:
    async with services._growing(packages) as url:
        return url
