/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A driver's job, done by the poller of a queue. */

#include "fn_harness.h"

static struct guest_conf sleepy = {.sleep = true}, busy;
static struct frame f;

struct counting {
	struct vfn_job job;
	unsigned int runs, arms;
};

static unsigned int
count_run(struct vfn_job *job)
{
	__atomic_fetch_add(&((struct counting *)job)->runs, 1, __ATOMIC_RELAXED);
	return 0;
}

static bool
count_arm(struct vfn_job *job)
{
	__atomic_fetch_add(&((struct counting *)job)->arms, 1, __ATOMIC_RELAXED);
	return false;
}

static bool
runs_on(struct counting *c)
{
	unsigned int before = __atomic_load_n(&c->runs, __ATOMIC_RELAXED);
	uint64_t end = now_ms() + 20;

	while (now_ms() < end && __atomic_load_n(&c->runs, __ATOMIC_RELAXED) == before)
		nap_us(100);
	return __atomic_load_n(&c->runs, __ATOMIC_RELAXED) != before;
}

static void
job_is_done_while_the_queue_runs(void **state)
{
	struct counting c = {.job = {count_run, count_arm}}, d = c;
	struct guest *g = guest_open(&busy);
	unsigned int q;

	(void)state;
	assert_int_equal(g->link->ops->set_job(g->link, g->nb_queues, &c.job), -EINVAL);
	rx_post(g, 0, 10, 2048, 1);
	for (q = 0; q < 2; q++) {
		uint64_t end = now_ms() + PATIENCE_MS;

		queue_suspend(g, q, true);
		assert_int_equal(g->link->ops->set_job(g->link, q, &c.job), 0);
		assert_false(runs_on(&c));
		queue_suspend(g, q, false);
		while (!runs_on(&c) && now_ms() < end)
			;
		frame_make(&f, 1, 100);
		frame_passes(g, 1, g, 0, &f);
		queue_suspend(g, q, true);
		assert_false(runs_on(&c));
		queue_suspend(g, q, false);
		/* another one takes its place, and then none */
		assert_int_equal(g->link->ops->set_job(g->link, q, &d.job), 0);
		assert_false(runs_on(&c));
		while (!runs_on(&d) && now_ms() < end)
			;
		assert_int_equal(g->link->ops->set_job(g->link, q, NULL), 0);
		assert_false(runs_on(&d));
	}
	assert_true(d.runs > 0);
	assert_int_equal(c.arms + d.arms, 0);
}

static void
job_is_asked_before_its_poller_sleeps(void **state)
{
	struct counting c = {.job = {count_run, count_arm}};
	struct guest *g = guest_open(&sleepy);
	unsigned int q, runs;

	(void)state;
	for (q = 0; q < 2; q++) {
		uint64_t end = now_ms() + PATIENCE_MS;

		c.arms = 0;
		assert_int_equal(g->link->ops->set_job(g->link, q, &c.job), 0);
		while (__atomic_load_n(&c.arms, __ATOMIC_RELAXED) == 0 && now_ms() < end)
			nap_us(100);
		assert_true(c.arms > 0);
		/* it sleeps in the end, until the queue's doorbell rings */
		while (runs_on(&c))
			assert_true(now_ms() < end);
		runs = __atomic_load_n(&c.runs, __ATOMIC_RELAXED);
		queue_kick_always(g, q);
		while (__atomic_load_n(&c.runs, __ATOMIC_RELAXED) == runs)
			assert_true(now_ms() < end);
		assert_int_equal(g->link->ops->set_job(g->link, q, NULL), 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(job_is_done_while_the_queue_runs),
		PLAIN(job_is_asked_before_its_poller_sleeps),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("job", tests, DIM(tests), NULL, 0);
}
