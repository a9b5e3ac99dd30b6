"""The child of UnsafeSandbox: like a jailed one, but with limits and without a jail."""

import fcntl
import json
import os
import sys

from services.verifier.sandbox.jail.child.preloading import preload
from services.verifier.sandbox.jail.child.run_role import run_role
from services.verifier.sandbox.jail.resource_limits import apply_common_limits, apply_limits, read_address_space
from services.verifier.sandbox.messages import READY_SEAL
from services.verifier.sandbox.sandbox import Limits

# The kernel counts all processes of the service's user.
_OTHER_PROCESSES = 4096


def main() -> None:
    """Runs one job in this process. The first argument is JSON: `role`, `descriptors`, `limits`."""
    options = json.loads(sys.argv[1])
    # First upwards, so that no source is overwritten as a target.
    passed = [fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in options["descriptors"]]
    for number, descriptor in enumerate(passed, start=3):
        os.dup2(descriptor, number)
    os.closerange(3 + len(passed), 1 << 16)
    preload()
    apply_common_limits()
    apply_limits(Limits(**options["limits"]).for_kernel, read_address_space(), _OTHER_PROCESSES)
    os.environ.clear()
    fcntl.fcntl(1, fcntl.F_ADD_SEALS, READY_SEAL)
    run_role(options["role"])
