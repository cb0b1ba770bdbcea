# SPDX-License-Identifier: BSD-3-Clause
"""Right messages in any order, twice, in pieces, by halves, with a hang-up between any two bytes, next
to an honest tenant.
"""

import itertools
import random
import time

import pytest

from arena import SETTINGS, arena
from harness import NIGHTLY
from hostile import Gone, Lane, Peer, close_all
from table import Case, rows
from test_messages import SEED

# two that differ in everything
SOME = pytest.mark.parametrize("setting", SETTINGS if NIGHTLY else SETTINGS[1:3], ids=str)
PIECES = 250            # of cuts, in the short form
PAUSE = 0.002           # between two pieces


class Talk:
    """Scripts are sent to a port, each on a connection of its own."""

    def __init__(self, a, zoo):
        self.a, self.zoo = a, zoo
        self.lane = Lane(a.ports[0], a.setting, zoo)
        self.kit = self.lane.kit
        self.scripts = 0

    def script(self):
        """All that a front-end says: start, log, in-flight, stop."""
        kit, states = self.kit, self.kit.states()
        return kit.table() + [kit.inflight_fd()] + kit.up() + states["log on"][0][-2:] + \
            states["stopped"][0][-2:]

    def play(self, script, what):
        """To its end, or to the server's."""
        def attack():
            peer = Peer(self.kit.path)
            try:
                peer.tell(script, self.zoo)
            except Gone:
                pass
            finally:
                peer.close()
        self.scripts += 1
        self.a.whatever(attack, what)
        self.a.alive()
        if self.scripts % 50 == 0:
            self.kit.renew()

    def finish(self, what):
        self.lane.leave()
        close_all(self.kit)
        assert not self.kit.seen(self.a.magic) if self.kit.log else True
        self.a.finish(what, {"scripts": self.scripts})


@pytest.fixture
def talk(workdir, zoo, setting):
    with arena(setting, workdir) as a:
        yield Talk(a, zoo)


@SOME
def test_any_order(talk, setting):
    script = talk.script()
    talk.play(script, "as it should be")
    for at in range(len(script)):
        talk.play(script[:at] + [script[at]] + script[at:], f"message {at} twice")
        talk.play(script[:at] + script[at + 1:], f"without message {at}")
    pairs = list(itertools.combinations(range(len(script)), 2))
    if not NIGHTLY:
        random.Random(f"{SEED}/{setting}").shuffle(pairs)
        pairs = [(at, at + 1) for at in range(len(script) - 1)] + pairs[:60]
    for one, other in pairs:
        swapped = list(script)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        talk.play(swapped, f"messages {one} and {other} swapped")
    talk.play(script[::-1], "from the end to the start")
    talk.play(script * 3, "three times")
    talk.finish("order")


def pieces(kit):
    """(state, request, bytes before the cut) of all."""
    return [(state, request, at) for state in ("fresh", "table", "running") for request in rows()
            for at in range(1, 12 + max(len(kit.right(request)[0]), 1))]


@SOME
def test_messages_in_pieces(talk, setting):
    """A message that comes in two pieces is what it would be in one; with half of it the connection ends."""
    rng = random.Random(f"{SEED}/{setting}")
    todo = pieces(talk.kit)
    rng.shuffle(todo)
    todo = todo if NIGHTLY else sorted(todo[:PIECES])
    half = 0
    for state, request, at in todo:
        case = Case(request, f"cut after {at} bytes", *talk.kit.right(request))
        data, fds = case.raw(), talk.zoo.resolve(case.fds)

        def in_two(lane=talk.lane, state=state, data=data, fds=fds, at=at):
            lane.reach(state)
            lane.peer.send(data[:at], fds)
            time.sleep(PAUSE)
            if rng.random() < 0.5:
                lane.leave()
                return 1
            try:
                lane.peer.send(data[at:])
                lane.peer.sync()
            except Gone:
                pass
            lane.leave()
            return 0
        half += talk.a.whatever(in_two, f"{state}: {case}")
        talk.a.alive()
        talk.scripts += 1
    assert 0 < half < len(todo)
    talk.finish("pieces")
