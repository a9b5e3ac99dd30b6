"""Another client of a loaded verifier: python -m tests.verifier.load_client URL TIMES.

It prints its waits when it has asked so often, and stdin is closed.
"""

import json
import sys
import threading
import time

import httpx

from tests.verifier.serving import make_item

_ITEMS = [make_item("math", f"It is \\boxed{{{n}}}.", {"gold": "4"}, str(n)) for n in range(8)]
_PAUSE_SECONDS = 0.01


def main(url: str, times: int) -> None:
    """Asks for the service's health and for a small batch in turn."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    waits: dict[str, list[float]] = {"health": [], "batch": []}
    with httpx.Client(base_url=url, timeout=60) as client:
        while not ended.wait(_PAUSE_SECONDS) or len(waits["health"]) < times:
            start = time.perf_counter()
            assert client.get("/healthz").status_code == 200
            middle = time.perf_counter()
            verdicts = client.post("/v1/verdicts", json={"items": _ITEMS}).json()["verdicts"]
            waits["batch"].append(time.perf_counter() - middle)
            waits["health"].append(middle - start)
            assert [verdict["reward"] for verdict in verdicts] == [float(n == 4) for n in range(8)]
    print(json.dumps(waits))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
