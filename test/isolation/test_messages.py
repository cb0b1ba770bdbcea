# SPDX-License-Identifier: BSD-3-Clause
"""Every request in every state with every wrong value, size, flag and descriptor (table.py), next to an
honest tenant. As many as there is time for, each request in each state first; all of them nightly.
"""

import os
import random
import time

import pytest

from arena import SETTINGS, arena
from harness import NIGHTLY, SLOW
from hostile import Lane, close_all, second_states
from oracle import Oracle, try_all
from table import UNKNOWN, cases, rows

SECONDS = 8             # for each setting, in the short form
SEED = os.environ.get("VFN_SEED", "isolation")


def everything(lane, zoo, pid, rng):
    """(state, case) of all: first each request in each state once, then the rest, in any order."""
    kit = lane.kit
    hints = kit.hints(pid)
    states = [*kit.states(), *second_states()]
    first, rest = [], []
    for request in [*rows(), *UNKNOWN]:
        made = list(cases(request, kit.right(request), hints, zoo.fds))
        for state in states:
            here = [(state, case) for case in made]
            rng.shuffle(here)
            first.append(here[0])
            rest += here[1:]
    rng.shuffle(rest)
    # states are expensive to reach: stay in one for a while
    order = {state: n for n, state in enumerate(states)}
    found = sorted(first, key=lambda pair: order[pair[0]])
    for at in range(0, len(rest), 512):
        found += sorted(rest[at:at + 512], key=lambda pair: order[pair[0]])
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_every_message(workdir, zoo, setting):
    rng = random.Random(f"{SEED}/{setting}")
    with arena(setting, workdir) as a:
        lane = Lane(a.ports[0], setting, zoo)
        oracle = Oracle(lane.kit, zoo)
        todo = everything(lane, zoo, a.server.pid, rng)
        taken, done, end = [], 0, time.monotonic() + SECONDS * SLOW
        for done, (state, case) in enumerate(todo, 1):
            verdict = a.whatever(lambda at=(state, case): lane.attempt(*at), f"{state}: {case}")
            if verdict == "taken" and oracle.must_refuse(state, case):
                taken.append(f"{state}: {case}")
            a.alive()
            if done % 2000 == 0:
                a.check()
                a.snapshot()
                assert not lane.kit.seen(a.magic), "another tenant's memory in ours"
            if not NIGHTLY and time.monotonic() > end:
                break
        assert not lane.kit.seen(a.magic), "another tenant's memory in ours"
        lane.leave()
        counts = {**lane.counts, "of": len(todo)}
        close_all(lane.kit)
        a.finish("messages", counts)
    assert not taken, f"{len(taken)} messages were taken:\n" + "\n".join(taken[:100])


@pytest.mark.parametrize("setting", SETTINGS[:2], ids=str)
def test_what_is_never_right(workdir, zoo, setting):
    """All cases of which it is known, in a few states; the same ones each time."""
    with arena(setting, workdir) as a:
        taken, counts = try_all(a, zoo, [*rows(), *UNKNOWN])
        left = a.left_to_the_library()
        a.finish("never right", counts)
    assert not taken, f"{len(taken)} messages were taken:\n" + "\n".join(taken[:100])
    assert counts["refused"] > 1000
    assert left == 0, f"{left} messages were left to the library to refuse"
