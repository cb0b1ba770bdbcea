/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Doorbells that a poller can't wait for, as descriptors, memory or epoll watches have run out: by
 * an epoll_ctl() of our own. Whatever fails, nobody is waited for who is not heard.
 */

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "fn_harness.h"

static struct frame f;

/* The next call but so many fails, 0: none does. Of the others, how many are held. */
static struct {
	int error;
	unsigned int after; /* atomic */
	unsigned int failed;
	int create_error;
	int added, removed;
} fails;

int
epoll_create1(int flags)
{
	if (fails.create_error != 0) {
		errno = fails.create_error;
		return -1;
	}
	return syscall(SYS_epoll_create1, flags);
}

int
epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
	int ret;

	if (op == EPOLL_CTL_ADD && __atomic_load_n(&fails.after, __ATOMIC_RELAXED) > 0 &&
		__atomic_sub_fetch(&fails.after, 1, __ATOMIC_RELAXED) == 0) {
		fails.failed++;
		errno = fails.error;
		return -1;
	}
	ret = syscall(SYS_epoll_ctl, epoll_fd, op, fd, event);
	if (ret == 0)
		__atomic_fetch_add(
			op == EPOLL_CTL_ADD ? &fails.added : &fails.removed, 1, __ATOMIC_RELAXED);
	return ret;
}

static void
fail_at(unsigned int after, int error)
{
	fails.error = error;
	fails.failed = 0;
	__atomic_store_n(&fails.after, after, __ATOMIC_RELAXED);
}

static int
teardown(void **state)
{
	fail_at(0, 0);
	fails.create_error = 0;
	return guests_close(state);
}

static void
works(struct guest *g, unsigned int n)
{
	unsigned int i;

	rx_post(g, 0, n, 2048, 1);
	for (i = 0; i < n; i++) {
		frame_make(&f, i, 100);
		frame_passes(g, 1, g, 0, &f);
		nap_us(1000); /* longer than a poller looks before it sleeps */
	}
}

/* Each of the calls in turn. The poller spins then, and says so. */
static void
no_watch_to_be_had(void **state)
{
	unsigned int n;
	uint64_t errors;

	(void)state;
	/* its poller is there then; without a watch for its wake-up there would be none */
	guest_open(&(struct guest_conf){.name = "other", .sleep = true});
	for (n = 1; n < 100; n++) {
		struct guest *g;

		fail_at(n, n % 2 ? ENOSPC : ENOMEM);
		g = guest_open(&(struct guest_conf){.sleep = true});
		__atomic_store_n(&fails.after, 0, __ATOMIC_RELAXED);
		works(g, 5);
		errors = stat_of(g, 0, VFN_STAT_DOORBELL_ERRORS) +
			stat_of(g, 1, VFN_STAT_DOORBELL_ERRORS);
		assert_true(errors <= fails.failed);
		guest_close(g);
		if (fails.failed == 0)
			break;
	}
	assert_true(n > 3 && n < 100);
}

/* Of the two that remain after a start one is deaf: not the one that is asked for is heard. */
static void
poller_does_not_sleep_for_a_deaf_queue(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.sleep = true});
	uint64_t sleeps;

	(void)state;
	works(g, 1);
	/* a queue is suspended and resumed: its doorbell is added anew */
	queue_suspend(g, 1, true);
	fail_at(1, ENOSPC);
	queue_suspend(g, 1, false);
	assert_int_equal(fails.failed, 1);
	assert_int_equal(
		stat_of(g, 0, VFN_STAT_DOORBELL_ERRORS) + stat_of(g, 1, VFN_STAT_DOORBELL_ERRORS),
		1);
	nap_us(1000);
	sleeps = poller_counters(g).sleeps;
	works(g, 5);
	assert_int_equal(poller_counters(g).sleeps, sleeps);
	/* there are watches again */
	queue_suspend(g, 1, true);
	queue_suspend(g, 1, false);
	works(g, 5);
	assert_true(poller_counters(g).sleeps > sleeps);
}

/* What can't be found out is not held against an eventfd. */
static void
good_doorbell_is_kept_when_descriptors_run_out(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.sleep = true});
	int fd = eventfd(0, EFD_NONBLOCK);
	uint64_t sleeps;

	(void)state;
	works(g, 1);
	fails.create_error = EMFILE;
	assert_int_equal(g->link->ops->set_doorbell(g->link, 1, fd), 0);
	fails.create_error = 0;
	close(g->q[1].kick);
	g->q[1].kick = fd;
	sleeps = poller_counters(g).sleeps;
	works(g, 5);
	assert_true(poller_counters(g).sleeps > sleeps);
}

/* What nobody can wait for is polled, known or not. */
static void
file_for_a_doorbell_is_polled(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.sleep = true});
	int fd = open("/proc/self/exe", O_RDONLY), i;

	(void)state;
	for (i = 0; i < 2; i++) {
		fails.create_error = i ? EMFILE : 0;
		assert_int_equal(g->link->ops->set_doorbell(g->link, 1, fd), 0);
		fails.create_error = 0;
		works(g, 5);
	}
	close(fd);
}

/* A queue that broke is still its poller's: its doorbell is let go before it is closed. */
static void
doorbell_of_a_broken_queue_is_let_go(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.sleep = true});

	(void)state;
	works(g, 1);
	mock_set_avail_idx(&g->q[1].drv, 1000);
	queue_kick_always(g, 1);
	stat_wait(g, 1, VFN_STAT_ERRORS_AVAIL_IDX, 1);
	assert_int_equal(g->link->ops->set_doorbell(g->link, 1, -1), 0);
	guest_close(g);
	/* pollers' own wake-ups, and the probes, are removed by being closed */
	assert_true(fails.added >= fails.removed);
	fails.added = fails.removed = 0;
	g = guest_open(&(struct guest_conf){.sleep = true});
	fails.added = fails.removed = 0;
	mock_set_avail_idx(&g->q[1].drv, 1000);
	queue_kick_always(g, 1);
	stat_wait(g, 1, VFN_STAT_ERRORS_AVAIL_IDX, 1);
	assert_int_equal(fails.added, 0);
	assert_int_equal(g->link->ops->set_doorbell(g->link, 1, -1), 0);
	/* the pair's two; the queue that broke is not started anew */
	assert_int_equal(fails.removed, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(no_watch_to_be_had, teardown),
		cmocka_unit_test_teardown(poller_does_not_sleep_for_a_deaf_queue, teardown),
		cmocka_unit_test_teardown(good_doorbell_is_kept_when_descriptors_run_out, teardown),
		cmocka_unit_test_teardown(file_for_a_doorbell_is_polled, teardown),
		cmocka_unit_test_teardown(doorbell_of_a_broken_queue_is_let_go, teardown),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
