# SPDX-License-Identifier: BSD-3-Clause
"""The isolation tests use what the topology tests have."""

import os
import sys

import pytest

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "topology"))

# pylint: disable=wrong-import-position
from files import Zoo   # noqa: E402
# pytest finds hooks and fixtures by their names here
from session import (nothing_left, pytest_configure, pytest_runtest_makereport,  # noqa: E402,F401
                     pytest_runtest_setup, pytest_sessionfinish, pytest_terminal_summary,
                     pytest_testnodedown, pytest_unconfigure, workdir)


@pytest.fixture(scope="session")
def zoo(nothing_left):      # noqa: F811  pylint: disable=unused-argument
    """Gone before that looks."""
    made = Zoo()
    yield made
    made.close()
