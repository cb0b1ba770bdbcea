# SPDX-License-Identifier: BSD-3-Clause
"""A selection of what front-ends do, and do wrong, over link=ntb. All of it, by night or by hand: the
files that are named here, with VFN_LINK=ntb in the environment.
"""

import functools

# pytest finds tests and fixtures by their names here
# pylint: disable=unused-import
from frontend import Server, neighbour, opened, server, shared      # noqa: F401
from test_frontend_control import (DEVS, control, test_commands_are_carried_out,     # noqa: F401
                                   test_position_when_it_stops, test_saved_with_the_parts,
                                   test_what_was_said_goes_on_with_the_driver)
from test_frontend_lifecycle import (test_guest_reboots, test_kicks_where_nothing_runs,  # noqa: F401
                                     test_rings_move_from_region_to_region)
from test_frontend_rings import (test_bad_chain_is_completed_and_counted,       # noqa: F401
                                 test_only_the_broken_queue_stops,
                                 test_receive_chain_that_cannot_be_used)

SERVER = functools.partial(Server, link="ntb")
