/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A poller iteration by iteration: it is a service whose core was taken away, and the test's
 * thread runs it. So what a poller does can be counted, and nothing depends on time.
 */

#include <sched.h>

#include <rte_lcore.h>
#include <rte_service.h>

#include "fn_harness.h"

#define CORE 1u /* the service core */

static struct frame f, got;
static uint32_t service;

/* From here on nobody but iterate() runs the poller; control stands in for it where it must. */
static void
take_over(void)
{
	assert_int_equal(rte_service_get_by_name("vfn-poll-0", &service), 0);
	assert_int_equal(rte_service_runstate_set(service, 0), 0);
	assert_int_equal(rte_service_lcore_stop(CORE), 0);
	assert_int_equal(rte_service_lcore_del(CORE), 0);
	assert_int_equal(rte_service_runstate_set(service, 1), 0);
}

static int
give_back(void **state)
{
	int ret = guests_close(state);

	if (rte_service_lcore_add(CORE) == 0)
		rte_service_lcore_start(CORE);
	return ret;
}

static void
iterate(unsigned int n)
{
	while (n-- > 0) {
		int ret = rte_service_run_iter_on_app_lcore(service, 1);

		assert_true(ret == 0 || ret == -EAGAIN);
	}
}

static struct vfn_poller_stats
counters(struct guest *g)
{
	struct vfn_poller_stats stats;

	assert_int_equal(VGET(g, nb_pollers), 1);
	assert_true(VGET(g, poller_step) >= sizeof(stats));
	assert_int_equal(g->link->ops->read(g->link, g->vendor.bar, VGET(g, poller_offset), &stats,
				 sizeof(stats)),
		0);
	return stats;
}

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
	uint64_t v;

	(void)state;
	rx_post(g, 0, 100, 2048, 1);
	frame_make(&f, 1, 100);
	take_over();
	before = counters(g);
	assert_string_equal(before.name, "vfn-poll-0");
	assert_int_equal(before.cpu, -1);
	iterate(1000);
	tx_put(g, 1, 40);
	iterate(3); /* a full burst, the rest, nothing */
	after = counters(g);
	/* control has run it once to read them before */
	assert_int_equal(after.iterations - before.iterations, 1003 + 1);
	assert_int_equal(after.busy_iterations - before.busy_iterations, 2);
	assert_int_equal(after.packets - before.packets, 40);
	assert_true(after.busy_cycles > before.busy_cycles);
	assert_true(after.idle_cycles > before.idle_cycles);
	assert_true(after.hz > 1000000);

	before = after;
	iterate(1000);
	after = counters(other);
	assert_int_equal(after.id, before.id);
	assert_int_equal(after.iterations - before.iterations, 1000 + 1);
	assert_int_equal(after.busy_cycles, before.busy_cycles);
	/* within the block any access will do, behind it none */
	assert_int_equal(
		g->link->ops->read(g->link, g->vendor.bar,
			VGET(g, poller_offset) + offsetof(struct vfn_poller_stats, packets), &v,
			sizeof(v)),
		0);
	assert_int_equal(v, after.packets);
	assert_int_equal(g->link->ops->read(g->link, g->vendor.bar,
				 VGET(g, poller_offset) + VGET(g, poller_step), &v, sizeof(v)),
		-EINVAL);
}

/* A sender whose receiver has no buffers is looked at, and is no work that was done. */
static void
stalled_sender_is_not_counted_as_busy(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.name = "a"});
	struct vfn_poller_stats before, after;

	(void)state;
	frame_make(&f, 1, 100);
	take_over();
	tx_put(g, 1, 1);
	before = counters(g);
	iterate(100);
	after = counters(g);
	assert_int_equal(after.busy_iterations, before.busy_iterations);
	assert_int_equal(after.busy_cycles, before.busy_cycles);
	rx_post(g, 0, 1, 2048, 1);
	iterate(1);
	assert_int_equal(counters(g).busy_iterations, before.busy_iterations + 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
}

int
main(void)
{
#define TURN(test) cmocka_unit_test_teardown(test, give_back)
	const struct CMUnitTest tests[] = {
		TURN(counters_tell_busy_from_idle),
		TURN(stalled_sender_is_not_counted_as_busy),
	};
	unsigned int first, last;
	char lcores[64];
	cpu_set_t cpus;

	sched_getaffinity(0, sizeof(cpus), &cpus);
	for (first = 0; !CPU_ISSET(first, &cpus); first++)
		;
	for (last = CPU_SETSIZE - 1; !CPU_ISSET(last, &cpus); last--)
		;
	snprintf(lcores, sizeof(lcores), "--lcores=0@%u,1@%u", first, last);
	if (fn_eal_init(lcores, "-s", "0x2", NULL) < 0)
		return 1;
	return cmocka_run_group_tests_name("iterations", tests, NULL, NULL);
}
