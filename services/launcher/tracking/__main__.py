"""One process, one tracker: `python -m services.launcher.tracking`, with a TrackingOrder on its standard input.

It ends when its input closes, within the order's time, and when the tracker fails or does not answer; whoever started
it starts it again.
"""

import fcntl
import os
import sys
from io import FileIO
from pathlib import Path
from threading import Event, Thread

from services.launcher.tracking.choice import make_tracker, without_keys
from services.launcher.tracking.sender import Sender
from services.launcher.tracking.watchdog import Watchdog
from services.learner.record.tracking import TrackingOrder, record_path, write_problem

_NICENESS = 10


def main() -> int:
    """Returns the exit code."""
    os.nice(_NICENESS)
    sys.path.append(str(Path.cwd()))  # trackers of one's own are found, after all that is installed
    orders = FileIO(0)
    order = TrackingOrder.model_validate_json(orders.readline())
    record, ended = record_path(order.run_dir, order.tracker), Event()
    record.parent.mkdir(parents=True, exist_ok=True)
    watchdog = Watchdog(lambda: write_problem(record, "it does not answer"))
    Thread(target=_await_end, args=(orders, ended, watchdog, order.end_seconds), daemon=True).start()
    with record.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another learner's, which was killed, still sends: it has its own deadline
        try:
            sender = Sender(order, make_tracker(order.tracker, order.options), watchdog.postpone)
            sender.start()
            sender.follow(ended)
        except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises
            write_problem(record, without_keys(f"{type(error).__name__}: {error}"))
            return 1
    return 0


def _await_end(orders: FileIO, ended: Event, watchdog: Watchdog, seconds: float) -> None:
    """Waits until the input closes: the learner has ended, however that was."""
    while orders.read(4096):
        pass
    watchdog.expect_end(seconds)
    ended.set()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of a library may wait for their server
