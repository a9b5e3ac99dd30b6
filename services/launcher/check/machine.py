"""What this machine has: memory, disk, shared memory, a Redis."""

import os
from pathlib import Path

from services.launcher.display.finding import Section
from services.launcher.doctor.redis import examine_redis, open_redis
from services.launcher.settings.plan import RunPlan
from shared.errors import IbtpoError

_REDIS_SECONDS = 5.0
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"))
_LIMITS = ("memory.max", "memory.limit_in_bytes")
_OF_LEARNER = 6
"""Versions on its disk: the newest, and the one before while the difference is taken, which may be as large; earlier
differences, less than one (`Lineage`); one that a slow replica still fetches; and in the end the trained policy."""
_OF_REPLICA = 2
"""The one that it serves and the one that comes, in the run's folder, too."""
_USED = ("memory.current", "memory.usage_in_bytes")


def available_memory() -> int:
    """Bytes that processes can still have: of the machine, or of this container where that is less."""
    found = [_of_machine()]
    for folder in _CGROUPS:
        for limit, used in zip(_LIMITS, _USED, strict=True):
            most, now = _read_number(folder / limit), _read_number(folder / used)
            if most is not None and now is not None:
                found.append(max(0, most - now))
    return min(found)


def _of_machine() -> int:
    for line in _MEMINFO.read_text(encoding="ascii").splitlines() if _MEMINFO.exists() else ():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def format_bytes(number: float) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}" if number < 100 * unit else f"{number / unit:,.0f} {name}"
    return f"{number:.0f} bytes"


def _policy_bytes(plan: RunPlan, num_parameters: int) -> int:
    """Of a version, as replicas get it."""
    return (2 if plan.learner.precision.value == "bfloat16" else 4) * num_parameters


def examine_disk(section: Section, plan: RunPlan, num_parameters: int, num_trained: int) -> None:
    """Whether checkpoints and published weights fit beside the run's folder."""
    learner = plan.learner
    checkpoint = 12 * num_trained if learner.lora else 4 * num_parameters + 8 * num_trained
    versions = _OF_LEARNER + _OF_REPLICA * plan.launcher.replicas
    published = versions * _policy_bytes(plan, num_parameters)
    needed = (learner.keep_checkpoints + 1) * checkpoint + published
    place = plan.run.root.resolve()
    while not place.exists():
        place = place.parent
    free = os.statvfs(place).f_frsize * os.statvfs(place).f_bavail
    said = f"{format_bytes(free)} free at {place}; the run takes up to {format_bytes(needed)}"
    if free < checkpoint + published:
        section.failed("disk", said, "lower learner.keep_checkpoints, or --runs on another disk")
    elif free < needed:
        section.warning("disk", said, "make room, or lower learner.keep_checkpoints")
    else:
        section.ok("disk", said)


def examine_snapshots(section: Section, plan: RunPlan, num_parameters: int) -> None:
    """Whether two versions of the weights fit where a replica of a deployment keeps them."""
    policy = _policy_bytes(plan, num_parameters)
    place = Path("/dev/shm")  # noqa: S108
    if not place.is_dir():
        return
    free = os.statvfs(place).f_frsize * os.statvfs(place).f_bavail
    said = f"{format_bytes(free)} free at {place}; a replica keeps two policies of {format_bytes(policy)} there"
    if free < _OF_REPLICA * policy:
        section.warning(
            "shared memory", said, "no matter for `ibtpo train`; in containers shm_size, ROLLOUT_SHM or sizeLimit"
        )
    else:
        section.ok("shared memory", said)


async def examine_given_redis(section: Section, url: str) -> None:
    """Whether the Redis that is given answers, and is set up as runs need it."""
    connection = await open_redis(section, url, _REDIS_SECONDS)
    if connection is None:
        return
    try:
        await examine_redis(section, connection)
    except IbtpoError as error:
        section.failed("Redis", str(error), "see its log, and what its user may do (ACL)")
    finally:
        await connection.close()
