"""Asks Redis: is it there, of a version and kind that serves, and does it keep what it is given?"""

from urllib.parse import urlsplit

from services.launcher.display.finding import Section
from services.launcher.doctor.probe import explain
from shared.errors import IbtpoError, InvalidInput
from shared.runtime.middleware import is_loopback
from shared.streams import Connection, ServerFacts, connect, greet, inspect_server

_CLOCK_SECONDS = 2.0
_NEARLY_FULL, _FULL = 0.75, 0.95
_POLICIES = "--maxmemory-policy noeviction (redis.conf: maxmemory-policy noeviction)"
_PERSISTENCE = "--appendonly yes --appendfsync everysec"


async def open_redis(section: Section, url: str, seconds: float) -> Connection | None:
    """A connection to a Redis that answers commands; None, and what is wrong, where there is none."""
    try:
        connection = connect(url, timeout_seconds=seconds)
    except InvalidInput as error:
        section.failed("url", *_split(error))
        return None
    section.where = connection.address
    try:
        await greet(url, seconds)
        await connection.command("PING")
    except IbtpoError as error:
        found, remedy = _split(error)
        if "SSL" in found:
            remedy = "rediss:// is for a server with TLS: write redis://, or trust its certificate (?ssl_ca_certs=FILE)"
        section.failed("reached", found, remedy)
    except (OSError, TimeoutError, ValueError) as error:
        failure = explain(error, seconds, url)
        section.failed("reached", failure.found, "is Redis up, and may this machine reach it? " + failure.remedy)
    else:
        is_given = bool(urlsplit(url).password)
        section.ok("password", "takes the one given" if is_given else "wants none: its network alone guards it")
        return connection
    await connection.close()
    return None


async def examine_redis(section: Section, connection: Connection) -> None:
    try:
        facts = await inspect_server(connection)
        await connection.vet()
    except InvalidInput as error:
        section.failed("version", *_split(error))
        return
    except IbtpoError as error:
        section.failed("info", str(error), "give its user the commands INFO and TIME, and wait until it has loaded")
        return
    section.ok("reached", f"{facts.software}, answers in {facts.answer_seconds * 1000:.0f} ms")
    _examine_kind(section, facts)
    _examine_memory(section, facts, is_own=is_loopback(urlsplit(connection.address).hostname or ""))
    _examine_disk(section, facts)
    _examine_rest(section, facts)


def _split(error: IbtpoError) -> tuple[str, str]:
    """Our errors say what is wrong, then the remedy."""
    for mark in ("; ", ": give "):
        found, cut, remedy = str(error).rpartition(mark)
        if cut:
            return found, f"{mark.removeprefix(': ').removeprefix('; ')}{remedy}"
    return str(error), "see its log"


def _examine_kind(section: Section, facts: ServerFacts) -> None:
    if facts.is_cluster:
        section.failed("kind", "it is a node of a Redis Cluster", "give the URL of a single server")
    if not facts.is_primary:
        section.failed("kind", "it is a read-only replica", "give the URL of its primary")


def _examine_memory(section: Section, facts: ServerFacts, *, is_own: bool) -> None:
    if facts.policy == "noeviction":
        section.ok("eviction", "maxmemory-policy noeviction: full, it refuses new tasks and loses none")
    else:
        section.failed(
            "eviction",
            f"maxmemory-policy is {facts.policy}: when full, it deletes tasks and trees",
            f"start it with {_POLICIES}",
        )
    if facts.evicted_keys:
        section.warning(
            "evicted",
            f"it has deleted {facts.evicted_keys} keys so far",
            "the learner feeds lost tasks again; give more memory",
        )
    used = f"{facts.used_bytes / 2**20:.0f} MiB used"
    if not facts.max_bytes:
        if is_own:
            section.ok("memory", f"{used}, without a limit of its own")
        else:
            section.warning(
                "memory", f"{used}, and no maxmemory: it grows until the kernel ends it",
                "start it with --maxmemory of three quarters of the container's memory",
            )  # fmt: skip
        return
    share = facts.used_bytes / facts.max_bytes
    shown = f"{used} of {facts.max_bytes / 2**20:.0f} MiB ({share:.0%})"
    remedy = "raise maxmemory and the container's memory (docs/operations.md, Sizing), or write checkpoints more often"
    if share >= _FULL:
        section.failed("memory", f"full: {shown}", remedy)
    elif share >= _NEARLY_FULL:
        section.warning("memory", shown, remedy)
    else:
        section.ok("memory", shown)


def _examine_disk(section: Section, facts: ServerFacts) -> None:
    if facts.write_trouble:
        section.failed(
            "persistence",
            f"its last {facts.write_trouble} to disk failed, and it may refuse writes (MISCONF)",
            "is its disk full, or not its user's? See its log",
        )
    elif facts.appends:
        section.ok("persistence", "append-only file")
    elif facts.saves:
        section.warning(
            "persistence",
            f"snapshots only (save {facts.saves}): a restart loses all since the last",
            f"start it with {_PERSISTENCE}; what is lost is fed again",
        )
    else:
        section.warning(
            "persistence",
            "none that it tells of: a restart loses all work in flight",
            f"start it with {_PERSISTENCE}; what is lost is fed again",
        )


def _examine_rest(section: Section, facts: ServerFacts) -> None:
    if abs(facts.clock_ahead_seconds) > _CLOCK_SECONDS:
        side = "ahead of" if facts.clock_ahead_seconds > 0 else "behind"
        section.warning(
            "clock", f"it is {abs(facts.clock_ahead_seconds):.0f} s {side} this machine's", "let NTP set both clocks"
        )
    if facts.max_clients and facts.clients > 0.9 * facts.max_clients:
        section.warning("clients", f"{facts.clients} of at most {facts.max_clients}", "raise maxclients")
