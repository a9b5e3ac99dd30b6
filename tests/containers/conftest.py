"""Needs an engine and built images: `make test-containers` has them, the quick suite does not."""

import os

collect_ignore_glob = [] if os.environ.get("IBTPO_TEST_CONTAINERS") else ["test_*.py"]
