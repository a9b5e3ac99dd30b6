"""Asks Redis and the run that it holds. Apart from the rest, since the verifier's image has no client of Redis."""

from collections import Counter

from services.launcher.display.finding import Section
from services.launcher.doctor.redis import examine_redis, open_redis
from services.launcher.doctor.run import RunFacts, examine_letters
from shared.errors import IbtpoError
from shared.streams import Connection, RunStreams, list_runs

_MANY_LETTERS = 1000


async def examine_streams(
    redis: Section, run: Section, url: str, name: str | None, seconds: float
) -> tuple[str | None, RunFacts]:
    """The run meant (without a `name` the latest) and what Redis knows of it; None where there is none."""
    connection = await open_redis(redis, url, seconds)
    if connection is None:
        return None, RunFacts()
    try:
        await examine_redis(redis, connection)
        known = await list_runs(connection)
        chosen = name if name is not None else next(iter(known), None)
        if chosen is None:
            run.ok("status", "this Redis knows no run yet")
            return None, RunFacts()
        run.subject = f"run {chosen}"
        if chosen not in known:
            names = f"it knows {', '.join(known[:10])}" if known else "it knows none"
            run.warning("name", f"this Redis has no run {chosen!r}; {names}", "compare the names and Redis of services")
        return chosen, await _read_run(run, connection, chosen)
    except IbtpoError as error:
        redis.failed("commands", str(error), "see its log, and what its user may do (ACL)")
        return None, RunFacts()
    finally:
        await connection.close()


async def _read_run(section: Section, connection: Connection, run: str) -> RunFacts:
    streams = RunStreams(connection, run)
    examine_letters(section, Counter(await streams.dead_letters.newest_reasons(_MANY_LETTERS)))
    try:
        status = await streams.status_keys.read()
        replicas = await streams.replicas.live()
        learner_url = await streams.status_keys.learner_url()
    except IbtpoError as error:
        section.failed("status", str(error), "bring all services to one release, on one Redis")
        return RunFacts()
    return RunFacts(status, tuple(replicas), learner_url)
