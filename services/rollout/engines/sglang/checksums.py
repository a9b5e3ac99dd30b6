"""Whether a server's processes hold the weights that they were to load, by the checksums that they report.

A server names its weights by a label that it was given. It may compute with others: if an update changed nothing, or
a part, or read another directory.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import SglangClient
from shared.errors import IbtpoError, MalformedAnswer, Unavailable, Unreachable
from shared.runtime.logs import event_logger

log = event_logger(__name__)

WorkerChecksums: TypeAlias = tuple[Mapping[str, str], ...]
"""Of each process of a server, by the names that tensors have there, where some are merged."""

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ExpectedWeights:
    """The digests of a bundle's tensors, and the checksums that the server must report of those in `exact`."""

    digests: Mapping[str, str]
    exact: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldWeights:
    """The digests of a bundle's tensors, and what the server reported once it had loaded them."""

    digests: Mapping[str, str]
    workers: WorkerChecksums


class WeightChecks:
    """Compares what changed in the bundle with what changed at the server. Where its checksums are sha256 of a tensor's
    bytes, as on a CPU, they are compared with the bundle's own; a GPU's cannot be computed here.

    What belongs to which weights is learnt from every start of the server, which reads them by itself.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held: HeldWeights | None = None
        self._refused: HeldWeights | None = None
        self._exact_names: frozenset[str] = frozenset()
        self._as_float32 = False
        self._are_off = False
        self._has_warned = False

    async def learn(self, bundle: Bundle, client: SglangClient) -> None:
        """Of a server that has just started with `bundle`. Unreachable if it is gone."""
        if self._are_off:
            return
        try:
            workers = read_checksums(await client.checksums(self._seconds))
        except Unreachable:
            raise
        except IbtpoError as error:
            self._held = None
            self._warn(f"this server reports none: {error}")
            return
        held = HeldWeights(await asyncio.to_thread(bundle.digests), workers)
        if held == self._refused:
            self._are_off = True
            self._warn("a start with the same weights reports the same as was refused: they do not tell weights apart")
            return
        self._held = held
        await asyncio.to_thread(self._learn_exact, bundle, workers)

    async def expect(self, bundle: Bundle) -> ExpectedWeights:
        """What `check` compares with, computed beside the loop."""
        if self._are_off or self._held is None:
            return ExpectedWeights({}, {})
        exact = await asyncio.to_thread(bundle.sha256_of, self._exact_names, as_float32=self._as_float32)
        digests = await asyncio.to_thread(bundle.digests)
        return ExpectedWeights(digests, {name: digest[:_DIGITS] for name, digest in exact.items()})

    async def check(self, expected: ExpectedWeights, client: SglangClient) -> None:
        """Of a server that says it has loaded a bundle; Unavailable if it holds anything else."""
        if self._are_off or self._held is None:
            return
        workers = read_checksums(await client.checksums(self._seconds))
        found = HeldWeights(expected.digests, workers)
        problem = _wrong_checksum(expected, workers) or _wrong_change(self._held, found)
        if problem is not None:
            self._refused = found
            raise Unavailable(f"SGLang holds other weights than it says: {problem}")
        self._held = found

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            log.warning("weights_not_compared_by_checksum", reason=reason)
        self._has_warned = True

    def _learn_exact(self, bundle: Bundle, workers: WorkerChecksums) -> None:
        """Finds the tensors whose checksum is that of the bundle's bytes, or of these as float32."""
        names = sorted(_common_names(bundle.shapes, workers), key=lambda name: math.prod(bundle.shapes[name].shape))
        for as_float32 in (False, True):
            tried = names[:1]  # a small one tells whether it is worth reading the others
            for some in (tried, names):
                digests = bundle.sha256_of(some, as_float32=as_float32)
                exact = {name for name in some if all(worker[name] == digests[name][:_DIGITS] for worker in workers)}
                if not exact:
                    break
            else:
                self._exact_names, self._as_float32 = frozenset(exact), as_float32
                return
        self._exact_names = frozenset()


def read_checksums(answer: dict[str, Any]) -> WorkerChecksums:
    """From the answer of /weights_checker, in an order of the processes; MalformedAnswer for any other."""
    found: list[tuple[str, Mapping[str, str]]] = []
    workers = answer.get("ranks")
    for worker in workers if isinstance(workers, list) else ():
        checksums = worker.get("checksums") if isinstance(worker, dict) else None
        if not isinstance(checksums, dict) or not all(isinstance(one, str) for one in checksums.values()):
            break
        found.append((repr(worker.get("parallelism_info")), checksums))
    else:
        if found:
            return tuple(checksums for _, checksums in sorted(found, key=lambda pair: pair[0]))
    raise MalformedAnswer("SGLang's checksums cannot be read")


def _wrong_checksum(expected: ExpectedWeights, workers: WorkerChecksums) -> str | None:
    for name, checksum in expected.exact.items():
        for worker in workers:
            if (found := worker.get(name)) != checksum:
                return f"the checksum of {name!r} is {found}, that of the weights to load {checksum}"
    return None


def _wrong_change(before: HeldWeights, now: HeldWeights) -> str | None:
    """What the bundle and the server do not agree to have changed."""
    if len(before.workers) != len(now.workers):
        return f"{len(now.workers)} processes answer, {len(before.workers)} did before"
    for name in _common_names(now.digests, before.workers + now.workers):
        is_new = before.digests.get(name) != now.digests[name]
        has_changed = any(old[name] != new[name] for old, new in zip(before.workers, now.workers, strict=True))
        if is_new != has_changed:
            return (
                f"{name!r} {'is still the old one' if is_new else 'has changed there, and not in the weights to load'}"
            )
    if (before.digests != now.digests) != (before.workers != now.workers):
        return (
            "all is still the old"
            if before.digests != now.digests
            else "it has changed, and the weights to load have not"
        )
    return None


def _common_names(names: Mapping[str, Any], workers: WorkerChecksums) -> list[str]:
    """Those that every process has by the same name."""
    return [name for name in names if all(name in worker for worker in workers)]
