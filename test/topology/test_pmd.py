# SPDX-License-Identifier: BSD-3-Clause
"""What the tests themselves stand on: a process and what it prints."""

import os
import time

from harness import wait_until
from pmd import Process


class Late(Process):
    """Whose reader comes too late."""

    def _read(self):
        time.sleep(5)
        super()._read()


def test_what_was_printed_is_in_the_log(workdir):
    """A test that sees the effect of something may look at once for what was said of it."""
    done = os.path.join(workdir, "done")
    process = Late(["sh", "-c", f"echo said; echo said again >&2; touch {done}; exec sleep 60"])
    try:
        assert process.mark() == 0 or "said" in process.log()
        assert wait_until(lambda: os.path.exists(done))
        assert process.log() == "said\nsaid again\n"
        assert process.mark() == len("said\nsaid again\n")
    finally:
        process.kill()
    assert process.log() == "said\nsaid again\n"
