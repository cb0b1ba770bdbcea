# SPDX-License-Identifier: BSD-3-Clause
"""Random sequences of messages (wild.py) next to an honest tenant. VFN_SEED is the seed, else there is
a new one each time; it is in the report. An hour for each setting nightly.
"""

import contextlib
import json
import os
import re
import secrets
import time

import pytest

from arena import SETTINGS, arena, script
from harness import NIGHTLY, SLOW, PmdError
from hostile import PATIENCE

SECONDS = 900 if NIGHTLY else 5     # for each setting


def counts_of(process):
    lines = re.findall(r"^wild (.*\})$", process.log(), re.M)
    return json.loads(lines[-1]) if lines else {}


def end_it(process):
    """It has files to remove."""
    with contextlib.suppress(PmdError):
        process.popen.terminate()
        process.wait(5)
    process.kill()


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_anything(workdir, setting):
    seed = os.environ.get("VFN_SEED") or secrets.token_hex(4)
    print("VFN_SEED =", seed)
    seconds = float(os.environ.get("VFN_ISOLATION_SECONDS", SECONDS)) * SLOW
    with arena(setting, workdir) as a:
        def start(number, port):
            return script("wild.py", json.dumps({
                "setting": setting.name, "path": port, "seed": f"{seed}/{setting}/{number}",
                "pid": a.server.pid, "magic": a.magic.hex(), "seconds": seconds}))
        wild = [start(number, port) for number, port in enumerate(a.ports)]
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.5)
                a.check()
                a.snapshot()
                for process in wild:
                    if not process.alive() and process.popen.returncode:
                        raise process.error("ended")
            for process in wild:
                code = process.wait(PATIENCE)
                if code:
                    raise process.error(f"ended with {code}")
        except BaseException:
            a.alive()           # the cause, if it is the server's
            raise
        finally:
            for process in wild:
                end_it(process)
        found = [counts_of(process) for process in wild]
        a.finish("random", {"seed": seed, **{k: sum(f[k] for f in found) for k in found[0]}})
