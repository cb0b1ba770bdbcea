/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a poller does in one turn of a queue is bounded, whatever lies in the queue; and nobody who
 * shares the poller goes without. By counters, turn by turn: how long turns take is measured by
 * devtools/bench_fair.py.
 */

#include "hostile.h"

#define TURNS 300u

/* False if the other one had less than its share of the turns. */
static bool
turn_is_bounded(const struct hostile *h)
{
	struct guest *other = honest_open("other", 64, NULL), *g = hostile_open(h, NULL);
	uint64_t before, most = 0, moved = 0, bursts = 0, of_other = 0;
	unsigned int i;

	turns_take_over();
	for (i = 0; i < TURNS; i++) {
		uint64_t n;

		honest_pump(other);
		hostile_pump(g, h);
		before = stat_of(g, h->queue, h->stat);
		of_other = stat_of(other, 1, VFN_STAT_PACKETS);
		turns(1);
		n = stat_of(g, h->queue, h->stat) - before;
		most = n > most ? n : most;
		moved += n;
		bursts += stat_of(other, 1, VFN_STAT_PACKETS) > of_other;
		if (h->per_turn != 0 && n > h->per_turn)
			fail_msg("%s: %" PRIu64 " in a turn", h->name, n);
	}
	/* stalled ones and commands are not counted here */
	if (!h->stands && h->per_turn != 0 && h->conf.rate_mbps == 0 && moved == 0)
		fail_msg("%s: nothing was taken", h->name);
	print_message("# %s: %" PRIu64 " turns of %u are left\n", h->name, bursts, TURNS);
	return bursts >= TURNS / 3;
}

static unsigned int shape_at;

static void
each_in_turn(void **state)
{
	unsigned int tries = 1;

	for (shape_at = 0; shape_at < nb_hostiles; shape_at++) {
		/* turns are by time: on a machine that does other things one may seem long */
		while (!turn_is_bounded(&hostiles[shape_at])) {
			assert_true(++tries < 10);
			turns_give_back(state);
		}
		turns_give_back(state);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(each_in_turn, turns_give_back),
	};

	if (turns_eal_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("fair", tests, NULL, NULL);
}
