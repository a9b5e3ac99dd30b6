"""Asks all parts at once, each within its deadline, and puts what was found in order."""

import asyncio
import importlib.util
import os
from collections import Counter
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from services.launcher.display.finding import Diagnosis, Section
from services.launcher.doctor.machine import (
    examine_disks,
    examine_gpus,
    examine_limits,
    examine_sglang,
    examine_shared_memory,
)
from services.launcher.doctor.run import RunFacts, examine_status, examine_weights
from services.launcher.doctor.services import (
    Caller,
    LearnerFacts,
    examine_learner,
    examine_replica,
    examine_verifier,
)
from services.launcher.doctor.targets import DoctorRequest, Targets, find_targets
from shared.protocol.replica import ReplicaInfo
from shared.runtime.app import installed_release
from shared.runtime.config.url import check_url
from shared.runtime.middleware import is_loopback

_QUESTIONS = 6
"""A part is asked a few, each with the deadline; the whole part ends after so many."""
_MOST_REPLICAS = 64


@dataclass(slots=True)
class _Findings:
    """What sections need of each other."""

    releases: dict[str, str] = field(default_factory=dict)
    run: RunFacts = field(default_factory=RunFacts)
    learner: LearnerFacts = field(default_factory=LearnerFacts)
    run_name: str | None = None


async def examine(request: DoctorRequest) -> tuple[Diagnosis, Targets]:
    """The whole deployment."""
    settings, machine = Section("settings"), Section("this machine")
    targets = find_targets(request, settings, os.environ)
    caller, found = Caller(targets.token, request.seconds), _Findings()
    redis, run = Section("redis"), Section("run")
    await _within(redis, request, _ask_redis(redis, run, targets, request, found))
    learner, verifier = Section("learner"), Section("verifier")
    learner_url = targets.learner_url or found.run.learner_url
    await asyncio.gather(
        _within(learner, request, _ask_learner(learner, learner_url, caller, found)),
        _within(verifier, request, _ask_verifier(verifier, targets.verifier_url, caller, found)),
    )
    status = found.learner.status or found.run.status
    if found.run_name is not None:
        examine_status(run, status, found.run.replicas, found.learner.seconds_since_step)
    replicas = await _ask_replicas(targets, request, caller, found)
    if targets.local_run is not None:
        _describe_ended(run, targets)
    await _ask_machine(machine, targets, request, found)
    sections = (settings, redis, run, verifier, learner, *replicas, _compare(found), machine)
    asked = tuple(section for section in sections if section.findings)
    return Diagnosis(asked, tuple(_not_asked(targets, learner_url, replicas, request))), targets


async def _within(section: Section, request: DoctorRequest, work: Awaitable[None]) -> None:
    """A part that hangs in spite of its deadlines is itself a finding."""
    try:
        async with asyncio.timeout(_QUESTIONS * request.seconds):
            await work
    except TimeoutError:
        section.failed(
            "deadline", f"no end after {_QUESTIONS * request.seconds:g} s", "ask again with a larger --timeout"
        )


async def _ask_redis(redis: Section, run: Section, targets: Targets, request: DoctorRequest, found: _Findings) -> None:
    if targets.redis_url is None:
        return
    if importlib.util.find_spec("redis") is None:
        redis.warning("client", "this image has no client of Redis", "ask from the learner's container, or a replica's")
        return
    from services.launcher.doctor.streams import examine_streams

    found.run_name, found.run = await examine_streams(redis, run, targets.redis_url, targets.run, request.seconds)


async def _ask_learner(section: Section, url: str | None, caller: Caller, found: _Findings) -> None:
    if url is not None and _is_url(section, url):
        found.learner = await examine_learner(section, url, caller)
        _note(found, "learner", found.learner.release)


async def _ask_verifier(section: Section, url: str | None, caller: Caller, found: _Findings) -> None:
    if url is not None and _is_url(section, url):
        _note(found, "verifier", await examine_verifier(section, url, caller))


def _is_url(section: Section, url: str) -> bool:
    try:
        check_url(url)
    except ValueError as error:
        section.failed("url", *(str(error).split("; ", 1)))
        return False
    return True


async def _ask_replicas(
    targets: Targets, request: DoctorRequest, caller: Caller, found: _Findings
) -> tuple[Section, ...]:
    """Those given, else those of the registry."""
    infos: dict[str, ReplicaInfo | None] = {info.name: info for info in found.run.replicas}
    urls = {info.name: info.url for info in found.run.replicas}
    if targets.replica_urls and (request.rollout_urls or not urls):
        urls = dict(targets.replica_urls)
    asked = list(urls.items())[:_MOST_REPLICAS]
    sections = tuple(Section(f"replica {name}") for name, _ in asked)
    is_here = targets.redis_url is None or is_loopback(urlsplit(targets.redis_url).hostname or "")
    status = found.learner.status or found.run.status

    async def ask(section: Section, name: str, url: str) -> None:
        info = infos.get(name)
        release, served = await examine_replica(section, url, caller, info, is_here)
        _note(found, section.subject, release)
        if info is not None:
            examine_weights(section, info, served, status)

    work = (_within(section, request, ask(section, *one)) for section, one in zip(sections, asked, strict=True))
    await asyncio.gather(*work)
    return sections


def _note(found: _Findings, part: str, release: str | None) -> None:
    if release is not None:
        found.releases[part] = release or "of an unknown version"


def _compare(found: _Findings) -> Section:
    """Whether all parts are of one release, and of this command's."""
    section = Section("versions")
    if not found.releases:
        return section
    all_parts = {**found.releases, "this command": installed_release() or "of an unknown version"}
    counted = Counter(all_parts.values())
    if len(counted) == 1:
        section.ok("release", f"all are {next(iter(counted))}: {', '.join(all_parts)}")
        return section
    shown = "; ".join(
        f"{release}: {', '.join(part for part, one in all_parts.items() if one == release)}" for release in counted
    )
    section.warning("release", shown, "bring all to one release (docs/operations.md, Upgrade)")
    return section


def _describe_ended(section: Section, targets: Targets) -> None:
    run = targets.local_run
    assert run is not None
    section.subject = f"run {run.name}"
    if run.is_finished:
        section.ok("status", f"finished; its results are in {run.root}/")
    else:
        section.warning("status", f"not running, and not finished: {run.root}/", f"`{run.resume_command}` continues it")


async def _ask_machine(section: Section, targets: Targets, request: DoctorRequest, found: _Findings) -> None:
    holds_weights = targets.snapshots.is_dir()
    examine_shared_memory(section, targets.snapshots, found.learner.bundle_bytes, holds_weights=holds_weights)
    examine_disks(section, targets.runs)
    examine_limits(section, os.environ)
    is_wanted = targets.sglang_python is not None and holds_weights
    if is_wanted or request.asks_gpus:
        python = targets.sglang_python or "python3"
        await examine_sglang(section, python, 4 * request.seconds, is_wanted=is_wanted)
    if request.asks_gpus:
        await examine_gpus(section, 4 * request.seconds)


def _not_asked(
    targets: Targets, learner_url: str | None, replicas: tuple[Section, ...], request: DoctorRequest
) -> Iterator[str]:
    asked = {
        "Redis (--redis-url)": targets.redis_url,
        "verifier (--verifier-url)": targets.verifier_url,
        "learner (--learner-url)": learner_url,
        "replicas (--rollout-url)": replicas,
        "GPUs (--gpu)": request.asks_gpus,
    }
    yield from (name for name, value in asked.items() if not value)
