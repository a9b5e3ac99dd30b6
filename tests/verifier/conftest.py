"""Fixtures of the verifier's tests."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.verifier import judging


@pytest.fixture
def rows_of() -> Callable[[str], list[dict[str, Any]]]:
    """The rows of a file in tests/verifier/data, by its name."""
    return judging.rows_of
