"""A child without a jail, for machines where someone accepts that model code can do what it likes."""

import fcntl
import json
import os
import resource
import sys

from services.verifier.sandbox.jail.child.run_role import preload, run_role
from services.verifier.sandbox.jail.jail import JAILED_SEAL
from services.verifier.sandbox.jail.resource_limits import ResourceLimits, apply_common_limits


def main() -> None:
    """Runs one job in this process; the options are JSON in the first argument."""
    options = json.loads(sys.argv[1])
    # Upwards first, so that neither lies where the other goes.
    passed = [fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in options["descriptors"]]
    for number, descriptor in enumerate(passed, start=3):
        os.dup2(descriptor, number)
    os.closerange(3 + len(passed), 1 << 16)
    preload()
    with open("/proc/self/statm") as file:
        own_bytes = int(file.read().split()[0]) * resource.getpagesize()
    apply_common_limits()
    ResourceLimits(
        options["cpu_seconds"], own_bytes + options["memory_bytes"], options["output_bytes"], options["num_processes"]
    ).apply()
    os.environ.clear()
    fcntl.fcntl(1, fcntl.F_ADD_SEALS, JAILED_SEAL)
    run_role(options["role"])
