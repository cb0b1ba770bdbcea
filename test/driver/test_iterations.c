/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A poller iteration by iteration: it is a service whose core was taken away, and the test's
 * thread runs it. So what a poller does can be counted, and nothing depends on time.
 */

#include <sys/resource.h>
#include <unistd.h>

#include <rte_common.h>

#include "fn_harness.h"

static struct frame f, got;
/* Post and publish without a kick. */
static void
tx_put(struct guest *g, unsigned int queue, unsigned int n)
{
	while (n-- > 0)
		assert_true(tx_post(g, queue, &f, NULL, 0) >= 0);
	mock_publish(&g->q[queue].drv);
}

static void
counters_tell_busy_from_idle(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.name = "a"});
	struct guest *other = guest_open(&(struct guest_conf){.name = "b"});
	struct vfn_poller_stats before, after;

	(void)state;
	rx_post(g, 0, 100, 2048, 1);
	frame_make(&f, 1, 100);
	turns_take_over();
	before = poller_counters(g);
	assert_string_equal(before.name, "vfn-poll-0");
	assert_int_equal(before.cpu, -1);
	turns(1000);
	tx_put(g, 1, 40);
	turns(3); /* a full burst, the rest, nothing */
	after = poller_counters(g);
	/* control has run it once to read them before */
	assert_int_equal(after.iterations - before.iterations, 1003 + 1);
	assert_int_equal(after.busy_iterations - before.busy_iterations, 2);
	assert_int_equal(after.chains - before.chains, 40);
	assert_true(after.busy_cycles > before.busy_cycles);
	assert_true(after.idle_cycles > before.idle_cycles);
	assert_true(after.hz > 1000000);

	before = after;
	turns(1000);
	after = poller_counters(other);
	assert_int_equal(after.id, before.id);
	assert_int_equal(after.iterations - before.iterations, 1000 + 1);
	assert_int_equal(after.busy_cycles, before.busy_cycles);
	assert_int_equal(vfn_manage_poller_stats(g->fn, 1, &after), -ENOENT);
}

/* A sender whose receiver has no buffers is looked at, and is no work that was done. */
static void
stalled_sender_is_not_counted_as_busy(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.name = "a"});
	struct vfn_poller_stats before, after;

	(void)state;
	frame_make(&f, 1, 100);
	turns_take_over();
	tx_put(g, 1, 1);
	before = poller_counters(g);
	turns(100);
	after = poller_counters(g);
	assert_int_equal(after.busy_iterations, before.busy_iterations);
	assert_int_equal(after.busy_cycles, before.busy_cycles);
	rx_post(g, 0, 1, 2048, 1);
	turns(1);
	assert_int_equal(poller_counters(g).busy_iterations, before.busy_iterations + 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
}

/* ---- many queues ---- */

#define GUESTS	 16u
#define PAIRS	 64u
#define QUEUES	 (GUESTS * (PAIRS + 1)) /* control queues included */
#define SWEEP	 1024u			/* iterations after which a queue is quiet */
#define LOOKS	 16u			/* quiet queues per iteration */
#define ROUND	 ((QUEUES + LOOKS - 1) / LOOKS)
#define PATIENCE (2 * ROUND + 1)

static struct guest *many[GUESTS];

static void
many_open(void)
{
	struct guest_conf conf = {.pairs = PAIRS,
		.size = 4,
		.buf_len = 256,
		.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)};
	char name[16];
	unsigned int i;

	for (i = 0; i < GUESTS; i++) {
		snprintf(name, sizeof(name), "fn%u", i);
		conf.name = name;
		many[i] = guest_open(&conf);
		guest_use_pairs(many[i], PAIRS);
	}
}

/* Iterations until a frame on that queue is taken; the frame goes round. */
static unsigned int
served_after(struct guest *g, unsigned int pair)
{
	uint64_t before = stat_of(g, TXQ(pair), VFN_STAT_PACKETS);
	unsigned int n = 0;

	tx_put(g, TXQ(pair), 1);
	while (stat_of(g, TXQ(pair), VFN_STAT_PACKETS) == before) {
		turns(1);
		assert_true(++n <= 100 * PATIENCE);
	}
	rx_wait(g, RXQ(pair), &got);
	frames_equal(&got, &f);
	tx_wait(g, TXQ(pair), 1);
	return n;
}

/*
 * Looked at in every iteration. Turns are by time: where other processes take the CPU a queue may
 * have to rest, so it gets another try.
 */
static bool
served_at_once(struct guest *g, unsigned int pair)
{
	unsigned int tries;

	for (tries = 0; served_after(g, pair) > 1; tries++) {
		if (tries == 10)
			return false;
		rx_post(g, RXQ(pair), 1, 256, 1);
	}
	return true;
}

static void
quiet_queues_are_looked_at_in_turn(void **state)
{
	unsigned int i, n, most = 0, busy = 0;
	uint64_t seed = 7;

	(void)state;
	many_open();
	frame_make(&f, 1, 100);
	rx_post(many[0], RXQ(0), 4, 256, 1);
	turns_take_over();
	turns(2 * SWEEP);
	for (i = 0; i < 60; i++) {
		struct guest *g = many[mock_random(&seed) % GUESTS];
		unsigned int pair = mock_random(&seed) % PAIRS;

		rx_post(g, RXQ(pair), 3, 256, 1);
		n = served_after(g, pair);
		assert_true(n <= PATIENCE);
		most = RTE_MAX(most, n);
		/* now it is looked at in every iteration, as is one with traffic of its own */
		assert_true(served_at_once(g, pair));
		busy += served_after(many[0], 0);
		rx_post(many[0], RXQ(0), 1, 256, 1);
		turns(mock_random(&seed) % 100);
	}
	/* or all were looked at in every iteration */
	assert_true(most > ROUND / 2);
	assert_true(busy < 60 + PATIENCE);
}

/* Guests whose receivers have no buffers are always worth a try, and may not cost the others. */
static void
stalled_queues_do_not_starve_others(void **state)
{
	unsigned int pair, i;

	(void)state;
	many_open();
	frame_make(&f, 1, 100);
	rx_post(many[1], RXQ(5), 4, 256, 1);
	turns_take_over();
	for (pair = 0; pair < PAIRS; pair++)
		tx_put(many[0], TXQ(pair), 1);
	turns(2 * SWEEP);
	assert_true(served_after(many[1], 5) <= PATIENCE + PAIRS);
	for (i = 0; i < 3; i++)
		assert_true(served_at_once(many[1], 5));
	/* they are not forgotten either */
	for (pair = 0; pair < PAIRS; pair++)
		rx_post(many[0], RXQ(pair), 1, 256, 1);
	/* turns are by time: more of them where that is short */
	for (i = 0; i < 100 && stat_of(many[0], RXQ(PAIRS - 1), VFN_STAT_PACKETS) == 0; i++)
		turns(PATIENCE);
	turns(PATIENCE);
	for (pair = 0; pair < PAIRS; pair++) {
		assert_true(rx_try(many[0], RXQ(pair), &got, 0));
		frames_equal(&got, &f);
	}
}

/* A queue that broke is not looked at any more; its neighbours are. */
static void
broken_queues_do_not_starve_others(void **state)
{
	unsigned int pair, i;

	(void)state;
	many_open();
	frame_make(&f, 1, 100);
	rx_post(many[1], RXQ(5), 4, 256, 1);
	turns_take_over();
	for (pair = 0; pair < PAIRS; pair++)
		mock_set_avail_idx(&many[0]->q[TXQ(pair)].drv, 1000);
	turns(2 * SWEEP);
	for (pair = 0; pair < PAIRS; pair++)
		assert_int_equal(stat_of(many[0], TXQ(pair), VFN_STAT_ERRORS_AVAIL_IDX), 1);
	assert_true(served_after(many[1], 5) <= PATIENCE);
	for (i = 0; i < 3; i++)
		assert_true(served_at_once(many[1], 5));
}

static void
requests_wait_for_one_iteration_of_many_queues(void **state)
{
	struct vfn_poller_stats before, after;

	(void)state;
	many_open();
	rx_post(many[1], RXQ(5), 4, 256, 1);
	frame_make(&f, 1, 100);
	turns_take_over();
	turns(2 * SWEEP);
	before = poller_counters(many[0]);
	queue_suspend(many[3], TXQ(7), true);
	after = poller_counters(many[0]);
	/* its queues are taken away, and given back without the one; and the counters were read */
	assert_int_equal(after.iterations - before.iterations, 2 + 1);
	/* the others' stayed quiet meanwhile, and are found */
	assert_true(served_after(many[1], 5) <= PATIENCE);
	/* what came back is looked at anew */
	rx_post(many[3], RXQ(8), 4, 256, 1);
	assert_true(served_at_once(many[3], 8));
	guest_close(many[2]);
	assert_true(served_at_once(many[3], 8));
	assert_true(served_at_once(many[1], 5));
}

/* In every iteration a burst of each. */
static bool
both_in_every_iteration(void)
{
	struct guest *g[2];
	bool alike = true;
	unsigned int i, k;

	g[0] = guest_open(&(struct guest_conf){.name = "a"});
	g[1] = guest_open(&(struct guest_conf){.name = "b", .features = BIT(VIRTIO_F_RING_PACKED)});
	frame_make(&f, 1, 100);
	for (k = 0; k < 2; k++)
		rx_post(g[k], 0, 250, 2048, 1);
	turns_take_over();
	turns(2 * SWEEP);
	/* the second one is there first */
	tx_put(g[1], 1, 32);
	turns(1);
	tx_put(g[0], 1, 200);
	tx_put(g[1], 1, 200);
	for (i = 1; i <= 6; i++) {
		turns(1);
		alike = alike && stat_of(g[0], 1, VFN_STAT_PACKETS) == 32 * i &&
			stat_of(g[1], 1, VFN_STAT_PACKETS) == 32 * (i + 1);
	}
	/* one that has to wait for the other is not forgotten */
	for (i = 0; i < 1000 &&
		(stat_of(g[0], 1, VFN_STAT_PACKETS) < 200 ||
			stat_of(g[1], 1, VFN_STAT_PACKETS) < 232);
		i++)
		turns(1);
	assert_int_equal(stat_of(g[0], 1, VFN_STAT_PACKETS), 200);
	assert_int_equal(stat_of(g[1], 1, VFN_STAT_PACKETS), 232);
	return alike;
}

/* Turns are by time: on a machine that does other things one queue may seem to have had much. */
static void
busy_queues_are_served_alike(void **state)
{
	unsigned int tries = 1;

	while (!both_in_every_iteration()) {
		assert_true(++tries < 200);
		turns_give_back(state);
		usleep(20000); /* what else runs may be through by then */
	}
}

int
main(void)
{
#define TURN(test) cmocka_unit_test_teardown(test, turns_give_back)
	const struct CMUnitTest tests[] = {
		TURN(counters_tell_busy_from_idle),
		TURN(stalled_sender_is_not_counted_as_busy),
		TURN(quiet_queues_are_looked_at_in_turn),
		TURN(stalled_queues_do_not_starve_others),
		TURN(broken_queues_do_not_starve_others),
		TURN(requests_wait_for_one_iteration_of_many_queues),
		TURN(busy_queues_are_served_alike),
	};
	struct rlimit files;

	/* four eventfds per queue */
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (turns_eal_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("iterations", tests, NULL, NULL);
}
