"""The names of a run's keys in Redis."""

import re
from dataclasses import dataclass

from shared.errors import InvalidInput
from shared.protocol.names import RUN_NAME

RUNS = "ibtpo:runs"
ROLLOUT_GROUP = "rollout"
LEARNER_GROUP = "learner"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run. They share a hash tag, so that a script may use several of them on a cluster too."""

    run: str

    def __post_init__(self) -> None:
        if not re.fullmatch(RUN_NAME, self.run):
            raise InvalidInput(
                f"a run's name has 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, "
                f"not {self.run!r}"
            )

    def _key(self, name: str) -> str:
        return f"ibtpo:{{{self.run}}}:{name}"

    @property
    def tasks(self) -> str:
        """Stream: tasks to grow."""
        return self._key("tasks")

    @property
    def trees(self) -> str:
        """Stream: grown trees."""
        return self._key("trees")

    @property
    def dead_letters(self) -> str:
        """Stream: tasks given up, until the learner has counted them."""
        return self._key("dead-letters")

    @property
    def handled_dead_letters(self) -> str:
        """List: the newest dead letters that the learner has counted, for people to read."""
        return self._key("handled-dead-letters")

    @property
    def replicas(self) -> str:
        """Set: names of replicas that may be alive."""
        return self._key("replicas")

    def replica(self, name: str) -> str:
        """String with expiry: one replica's ReplicaInfo."""
        return self._key(f"replica:{name}")

    @property
    def lease(self) -> str:
        """String with expiry: `<generation> <owner>`."""
        return self._key("lease")

    @property
    def generation(self) -> str:
        """Number: the highest generation so far."""
        return self._key("generation")

    @property
    def status(self) -> str:
        """String: the run's RunStatus."""
        return self._key("status")

    @property
    def stop(self) -> str:
        """String: exists when the run was asked to stop."""
        return self._key("stop")

    @property
    def learner(self) -> str:
        """String: the learner's URL."""
        return self._key("learner")

    @property
    def incarnation(self) -> str:
        """String: random; another one after Redis lost its data."""
        return self._key("incarnation")
