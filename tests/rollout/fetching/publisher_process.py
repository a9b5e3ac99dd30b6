"""A learner without training: `python publisher_process.py REDIS DIRECTORY PORT GENERATION TRUTH`.

Publishes a version for each line on its standard input: the share of values that move, or `config`. Before anybody can
have a version, its bits are noted in the file TRUTH.
"""

import asyncio
import json
import sys
from pathlib import Path

from services.learner.app import build_router
from services.learner.metrics import LearnerMetrics
from services.learner.serving.delivery import WeightDelivery
from services.learner.serving.publisher import Publisher
from shared.protocol.status import RunState, RunStatus
from shared.runtime.app import create_app
from shared.runtime.client import http_client
from shared.runtime.serve import open_listener, serve_in_background
from shared.streams import RunStreams, connect
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, SnapshotStore
from tests.rollout.fetching.engine import digest_of
from tests.rollout.fetching.parts import write_readable
from tests.weights.bundles import Weights, contents


async def main(redis: str, directory: Path, port: int, generation: int, truth: Path) -> None:
    weights, number = Weights(generation), 0
    streams, metrics = RunStreams(connect(redis), "r"), LearnerMetrics()

    def version() -> WeightVersion:
        return WeightVersion(generation, number, f"{generation:04x}")

    def status() -> RunStatus:
        return RunStatus(run="r", state=RunState.TRAINING, version=publisher.latest and publisher.latest.version)

    def write(_: object, draft: Path) -> None:
        write_readable(weights, draft, version())
        with truth.open("a") as file:
            (draft / "manifest.json").unlink()
            print(json.dumps([str(version()), digest_of(contents(draft))]), file=file)

    async with http_client(None, 5.0) as http:
        delivery = WeightDelivery(streams, http, metrics, 5.0)
        store, lineage = SnapshotStore(directory, 1, run="r"), Lineage(directory / ".deltas")
        publisher = Publisher(
            "r", store, lineage, delivery, metrics, directory / ".draft", write, on_written=lambda _: None
        )
        router = build_router(publisher, status, lambda: None)
        app = create_app(
            "learner", router, lifespan=None, ready=lambda: None, registry=metrics.registry, token=None,
            max_body_bytes=1 << 20,
        )  # fmt: skip
        async with serve_in_background(app, open_listener("127.0.0.1", port, None)):
            while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
                if line == "config":
                    weights.config = json.dumps({"model_type": "tiny", "number": number})
                else:
                    weights.move(float(line))
                await publisher.begin({}, version(), 0.0)
                await streams.status_keys.publish(status().model_copy(update={"max_staleness": 1}))
                number += 1
                print(version(), flush=True)


if __name__ == "__main__":
    _, redis, directory, port, generation, truth = sys.argv
    asyncio.run(main(redis, Path(directory), int(port), int(generation), Path(truth)))
