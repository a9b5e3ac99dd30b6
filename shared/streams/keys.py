"""The names of a run's keys in Redis."""

import re

from shared.errors import InvalidInput
from shared.protocol.names import RUN_NAME

RUNS = "ibtpo:runs"
ROLLOUT_GROUP = "rollout"
LEARNER_GROUP = "learner"


class RunKeys:
    """The keys of one run. They share a hash tag, so that a script may use several of them on a cluster too."""

    def __init__(self, run: str) -> None:
        if not re.fullmatch(RUN_NAME, run):
            raise InvalidInput(
                f"a run's name has 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, not {run!r}"
            )
        self.run = run
        self._prefix = prefix = f"ibtpo:{{{run}}}:"
        self.tasks = prefix + "tasks"  # stream: tasks to grow
        self.trees = prefix + "trees"  # stream: grown trees
        self.dead_letters = prefix + "dead-letters"  # stream: tasks given up, until the learner has counted them
        self.handled_dead_letters = prefix + "handled-dead-letters"  # list: the newest counted ones, to be read
        self.replicas = prefix + "replicas"  # set: names of replicas that may be alive
        self.lease = prefix + "lease"  # string with expiry: `<generation> <origin> <owner>`
        self.generation = prefix + "generation"  # number: the highest so far
        self.status = prefix + "status"  # string: the run's RunStatus
        self.stop = prefix + "stop"  # string: exists when the run was asked to stop
        self.learner = prefix + "learner"  # string: the learner's URL
        self.incarnation = prefix + "incarnation"  # string: random; another one after Redis lost its data

    def replica(self, name: str) -> str:
        """String with expiry: the ReplicaInfo of one replica."""
        return f"{self._prefix}replica:{name}"
