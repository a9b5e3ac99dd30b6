"""The rollout service with an engine that serves bytes: `python replica_process.py CONFIG`.

`GET /served` says which version and which bits these are.
"""

import sys
from typing import Any

from services.rollout import wiring
from services.rollout.config import RolloutConfig
from services.rollout.engines.engine import EngineLimits
from shared.runtime.serve import serve
from tests.rollout.fetching.engine import EngineOfBytes, digest_of


class ServedBytes(EngineOfBytes):
    """As much of an engine as a replica without tasks needs."""

    limits = EngineLimits(1000, 1000)
    computes_in_float32 = True

    async def close(self) -> None:
        self.served = {}


def main(config: RolloutConfig) -> int:
    engine: Any = ServedBytes()
    wiring._build_engine = lambda *_: engine
    service = wiring.RolloutService(config)

    @service.app.get("/served")
    def served() -> tuple[str, str, str]:
        return str(engine.version or ""), digest_of(engine.served), service.policy.problem

    return serve(service.app, host=config.host, port=config.port, token=None, grace_seconds=1.0)


if __name__ == "__main__":
    sys.exit(main(RolloutConfig.model_validate_json(sys.argv[1])))
