"""Two lanes: a run starts in the quick lane; one that is not done after a short slice goes on in the slow lane.

So an endless loop takes a slice, not its whole limit, from the runs behind it. In the slow lane those that wait
(asleep, blocked) wait together; of those that compute, few do so at once, and the others are held: stopped, at no cost
to their time. Nothing is run twice.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from services.verifier.sandbox.service_side.process_usage import ProcessUsage, measure_usage

# The processor time of an ordinary run is some milliseconds; a process that gets no processor has a longer slice.
_SLICE_SECONDS = 0.03
_LONGEST_SLICE_SECONDS = 0.2
_TICK_SECONDS = 0.1
# While the quick lane is full, one run of the slow lane computes in every third tick; in all, if it is full.
_TICKS_PER_TURN = 3
# Computes: has run, or waited for a processor, for this share of the time.
_COMPUTING_SHARE = 0.3
_SHORTEST_COMPARED_SECONDS = 0.02
# What has passed fewer of these in computing goes first, then what came first: at last each runs to its end.
_SHORT_SECONDS = (0.1, 1.0)
_RESIDENT_BYTES_PER_QUICK_RUN = 1 << 30


class Place:
    """One run in its lane: its processes, and the time for which they had no processor. Made by `Lanes.place`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_computing = False
        self.is_held = False
        self.cpu_seconds = 0.0
        self.resident_bytes = 0
        self._usage_of_pidfd: dict[int, ProcessUsage] = {}
        self._starved_seconds_of_ended = 0.0
        self._held_seconds = 0.0
        self.started = self._changed = asyncio.get_running_loop().time()
        self.timer: asyncio.TimerHandle | None = None
        self._compared, self._wanted_seconds = self._changed, 0.0

    def add(self, pidfd: int) -> None:
        """A process of the run has started."""
        self._usage_of_pidfd[pidfd] = ProcessUsage()

    def remove(self, pidfd: int) -> None:
        """It has ended."""
        self._starved_seconds_of_ended += self._usage_of_pidfd.pop(pidfd).starved_seconds

    def measure(self) -> None:
        """Asks the kernel what its processes have used, and whether they compute."""
        for pidfd, last in self._usage_of_pidfd.items():
            usage = measure_usage(pidfd)
            self._usage_of_pidfd[pidfd] = usage if usage.resident_bytes else last
        usages = self._usage_of_pidfd.values()
        self.cpu_seconds = sum(usage.cpu_seconds for usage in usages)
        self.resident_bytes = sum(usage.resident_bytes for usage in usages)
        now = asyncio.get_running_loop().time()
        if self.is_held or now - self._compared < _SHORTEST_COMPARED_SECONDS:
            return
        wanted_seconds = self.cpu_seconds + self.starved_seconds
        self.is_computing = wanted_seconds - self._wanted_seconds > _COMPUTING_SHARE * (now - self._compared)
        self._compared, self._wanted_seconds = now, wanted_seconds

    @property
    def starved_seconds(self) -> float:
        """For how long its processes were ready to run but had no processor, when last measured."""
        return self._starved_seconds_of_ended + sum(usage.starved_seconds for usage in self._usage_of_pidfd.values())

    @property
    def forgiven_seconds(self) -> float:
        """The time that counts against no limit of its wall clock: held or starved."""
        held = asyncio.get_running_loop().time() - self._changed if self.is_held else 0.0
        return self._held_seconds + held + self.starved_seconds

    def hold(self, is_held: bool) -> None:
        """Stops its processes, or lets them go on."""
        if is_held == self.is_held:
            return
        for pidfd in self._usage_of_pidfd:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP if is_held else signal.SIGCONT)
        now = asyncio.get_running_loop().time()
        if self.is_held:
            self._held_seconds += now - self._changed
            self._compared = now
        self.is_held, self._changed = is_held, now


class Lanes:
    """A quick lane for `concurrency` runs, and a slow lane for up to `slow_runs` more."""

    def __init__(self, concurrency: int, slow_runs: int) -> None:
        self._concurrency = concurrency
        self._slow_runs = slow_runs
        self._quick_lane = asyncio.Semaphore(concurrency)
        self._num_places = 0
        self._num_quick = self._most_quick = 0
        self._slow: list[Place] = []
        self._num_ticks = 0
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def num_slow(self) -> int:
        return len(self._slow)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place in the quick lane, when it has room; later perhaps in the slow lane."""
        await self._quick_lane.acquire()
        self._num_quick += 1
        self._most_quick = max(self._most_quick, self._num_quick)
        self._num_places += 1
        place = Place(self._num_places)
        self._time_slice(place)
        try:
            yield place
        finally:
            if place.timer is not None:
                place.timer.cancel()
            self._leave(place)

    def _time_slice(self, place: Place) -> None:
        place.timer = asyncio.get_running_loop().call_later(_SLICE_SECONDS, self._end_slice, place)

    def _end_slice(self, place: Place) -> None:
        """Makes the run slow if it has had its slice and there is room; else looks again later."""
        place.measure()
        seconds = asyncio.get_running_loop().time() - place.started
        is_over = seconds - place.starved_seconds >= _SLICE_SECONDS or seconds > _LONGEST_SLICE_SECONDS
        if not (is_over and self._make_slow(place)):
            self._time_slice(place)

    def _make_slow(self, place: Place) -> bool:
        """False if the slow lane has no room for it."""
        resident_bytes = sum(other.resident_bytes for other in (*self._slow, place))
        if len(self._slow) >= self._slow_runs or resident_bytes > self._max_resident_bytes:
            return False
        self._slow.append(place)
        self._leave_quick_lane()
        self._schedule()
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        return True

    @property
    def _max_resident_bytes(self) -> int:
        return self._concurrency * _RESIDENT_BYTES_PER_QUICK_RUN

    def _leave(self, place: Place) -> None:
        if place in self._slow:
            self._slow.remove(place)
            self._schedule()
        else:
            self._leave_quick_lane()

    def _leave_quick_lane(self) -> None:
        self._num_quick -= 1
        self._quick_lane.release()

    def _tick(self) -> None:
        self._num_ticks += 1
        for place in self._slow:
            if not place.is_held:
                place.measure()
        self._schedule()
        self._most_quick = self._num_quick
        self._ticker = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick) if self._slow else None

    @property
    def _num_processors(self) -> int:
        """As many may compute as the quick lane had room for of late; if it had none, one may, in some ticks."""
        num_unused = self._concurrency - self._most_quick
        is_resting = self._num_ticks % _TICKS_PER_TURN != 0 and len(self._slow) < self._slow_runs
        return num_unused or (0 if is_resting else 1)

    def _schedule(self) -> None:
        """Lets those compute whose turn it is."""
        is_full = sum(place.resident_bytes for place in self._slow) > self._max_resident_bytes

        def turn(place: Place) -> tuple[bool, int, int]:
            # short of memory, what has begun to compute goes on: a held one gives none back
            num_passed = sum(place.cpu_seconds >= seconds for seconds in _SHORT_SECONDS)
            return (is_full and place.is_held, num_passed, place.number)

        computing = sorted((place for place in self._slow if place.is_computing), key=turn)
        for position, place in enumerate(computing):
            place.hold(position >= self._num_processors)
