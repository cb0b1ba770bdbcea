/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the operator changes while a guest runs: wiring, pollers, rate, address, faults. */

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include "endpoint_link.h"
#include "fn_harness.h"

static struct frame f, got;

static const struct vfn_net_wiring_params loopback = {.kind = VFN_WIRING_LOOPBACK},
					  sink = {.kind = VFN_WIRING_SINK},
					  gen = {.kind = VFN_WIRING_GEN, .gen = 100},
					  to_b = {.kind = VFN_WIRING_WIRE, .peer = "b"};

static void
one_frame_passes(struct guest *from, struct guest *to)
{
	static uint32_t number;

	rx_post(to, 0, 1, 2048, 1);
	frame_make(&f, number++, 100);
	frame_passes(from, 1, to, 0, &f);
}

static void
other_end_changes_while_the_guest_runs(const struct shape *shape)
{
	const struct guest_conf conf = {.name = "a", .features = shape_features(shape)};
	struct guest *a = guest_open(&conf);
	struct guest *b = guest_open(&(struct guest_conf){
		.name = "b", .wiring = VFN_WIRING_WIRE, .features = shape_features(shape)});
	unsigned int round;

	for (round = 0; round < 3; round++) {
		one_frame_passes(a, a);
		assert_int_equal(vfn_manage_link_down(b->fn), VFN_LINK_NO_PEER);
		assert_int_equal(vfn_manage_wiring(a->fn, &to_b), 0);
		one_frame_passes(a, b);
		one_frame_passes(b, a);
		assert_int_equal(vfn_manage_wiring(a->fn, &sink), 0);
		assert_int_equal(vfn_manage_link_down(b->fn), VFN_LINK_NO_PEER);
		frame_make(&f, round, 100);
		tx_send(a, 1, &f);
		tx_wait(a, 1, 1);
		assert_false(rx_try(b, 0, &got, 0));
		assert_int_equal(vfn_manage_wiring(a->fn, &gen), 0);
		rx_post(a, 0, 1, 2048, 1);
		rx_wait(a, 0, &got);
		assert_int_equal(got.len, 100);
		assert_int_equal(vfn_manage_wiring(a->fn, &loopback), 0);
	}
	/* whichever goes first */
	assert_int_equal(vfn_manage_wiring(a->fn, &to_b), 0);
	guest_close(b);
	assert_int_equal(vfn_manage_link_down(a->fn), VFN_LINK_NO_PEER);
	assert_int_equal(vfn_manage_wiring(a->fn, &loopback), 0);
	one_frame_passes(a, a);
}

static void
wiring_that_cannot_be_had_changes_nothing(void **state)
{
	const struct vfn_net_wiring_params to_a = {.kind = VFN_WIRING_WIRE, .peer = "a"};
	const struct vfn_net_wiring_params port = {.kind = VFN_WIRING_ETHDEV, .ethdev = "x"};
	struct guest *a = guest_open(&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE});
	struct guest *b = guest_open(
		&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a"});
	struct guest *c = guest_open(&(struct guest_conf){.name = "c"});

	(void)state;
	assert_int_equal(vfn_manage_wiring(c->fn, &to_a), -EBUSY);
	one_frame_passes(c, c);
	one_frame_passes(a, b);
	assert_int_equal(vfn_manage_wiring(a->fn, &to_a), -EINVAL);
	one_frame_passes(a, b);
	/* its guest was offered to send frames that a port does not take */
	assert_int_equal(vfn_manage_wiring(a->fn, &port), -ENOTSUP);
	one_frame_passes(b, a);
}

struct changer {
	struct guest *g;
	bool quit;
	unsigned int changes;
};

static void *
change(void *arg)
{
	struct changer *c = arg;
	struct vfn_pollers pollers = {.sleep = true};
	cpu_set_t cpus;
	unsigned int i;

	sched_getaffinity(0, sizeof(cpus), &cpus);
	for (i = 0; !CPU_ISSET(i, &cpus); i++)
		;
	pollers.cpu[0] = i;
	while (!__atomic_load_n(&c->quit, __ATOMIC_RELAXED)) {
		pollers.nb_cpus = c->changes % 2;
		pollers.sleep = c->changes / 2 % 2;
		assert_int_equal(vfn_manage_pollers(c->g->fn, &pollers), 0);
		assert_int_equal(vfn_manage_rate(c->g->fn, c->changes % 3 * 1000000), 0);
		c->changes++;
	}
	return NULL;
}

static void
no_frame_is_lost_while_pollers_and_rate_change(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	struct vfn_pollers pollers = {.nb_cpus = 1, .cpu = {CPU_SETSIZE - 1}};
	struct changer c = {.g = g};
	struct vfn_poller_stats stats;
	pthread_t thread;
	unsigned int i;

	assert_int_equal(pthread_create(&thread, NULL, change, &c), 0);
	for (i = 0; i < 300 || __atomic_load_n(&c.changes, __ATOMIC_RELAXED) < 6; i++)
		one_frame_passes(g, g);
	__atomic_store_n(&c.quit, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_int_equal(stat_of(g, 1, VFN_STAT_PACKETS), i);
	/* a CPU that is not there: the ones before go on */
	assert_int_equal(vfn_manage_poller_stats(g->fn, 0, &stats), 0);
	assert_true(vfn_manage_pollers(g->fn, &pollers) < 0);
	pollers.nb_cpus = VFN_MAX_POLLERS + 1;
	assert_int_equal(vfn_manage_pollers(g->fn, &pollers), -EINVAL);
	one_frame_passes(g, g);
}

static void
rate_limit_comes_and_goes(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.wiring = VFN_WIRING_SINK});
	unsigned int i;

	(void)state;
	assert_int_equal(vfn_manage_rate(g->fn, 1), 0);
	frame_make(&f, 1, 1500);
	for (i = 0; i < 200; i++)
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick(g, 1);
	/* 2.4 Mbit at 1 Mbit/s, but for what the bucket holds */
	nap_us(20000);
	assert_in_range(stat_of(g, 1, VFN_STAT_PACKETS), 1, 190);
	assert_int_equal(vfn_manage_rate(g->fn, 0), 0);
	tx_wait(g, 1, 200);
}

static void
address_is_the_next_drivers(void **state)
{
	const uint8_t first[6] = {2, 0, 0, 0, 0, 1}, second[6] = {2, 0, 0, 0, 0, 2},
		      group[6] = {1, 0, 0, 0, 0, 1};
	struct guest *g = guest_new(&(struct guest_conf){0});
	uint8_t mac[6];

	(void)state;
#define MAC(g) \
	assert_int_equal((g)->link->ops->read((g)->link, (g)->device.bar, (g)->device.offset, mac, \
				 sizeof(mac)), \
		0)
	assert_int_equal(vfn_manage_mac(g->fn, group), -EINVAL);
	assert_int_equal(vfn_manage_mac(g->fn, first), 0);
	MAC(g);
	assert_memory_equal(mac, first, 6);
	guest_start(g);
	assert_int_equal(vfn_manage_mac(g->fn, second), 0);
	MAC(g);
	assert_memory_equal(mac, first, 6);
	guest_reset(g);
	MAC(g);
	assert_memory_equal(mac, second, 6);
}

static void
faults_begin_and_end(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){0});

	(void)state;
	vfn_manage_faults(g->fn, VFN_FAULT_NO_SUSPEND);
	VSET(g, suspend, 1);
	assert_int_equal(VGET(g, suspend), 0);
	vfn_manage_faults(g->fn, 0);
	VSET(g, suspend, 1);
	assert_int_equal(VGET(g, suspend), 1);
	VSET(g, suspend, 0);
	one_frame_passes(g, g);
}

/* ---- locks ---- */

struct stuck {
	struct vfn_job job;
	sem_t entered, go;
	bool done;
};

static unsigned int
stuck_run(struct vfn_job *job)
{
	struct stuck *s = (struct stuck *)job;

	if (!s->done) {
		s->done = true;
		sem_post(&s->entered);
		sem_wait(&s->go);
	}
	return 0;
}

static bool
stuck_arm(struct vfn_job *job)
{
	(void)job;
	return false;
}

static void *
suspend(void *guest)
{
	queue_suspend(guest, 0, true);
	return NULL;
}

/* Control of one function may take as long as it will: the others' does not wait for it. */
static void
function_that_is_busy_keeps_nobody_waiting(void **state)
{
	struct stuck s = {.job = {stuck_run, stuck_arm}};
	cpu_set_t cpus;
	unsigned int cpu;
	struct guest *a, *b, *c;
	pthread_t thread;

	(void)state;
	if (over_endpoint())
		skip(); /* no jobs there */
	sched_getaffinity(0, sizeof(cpus), &cpus);
	for (cpu = 0; !CPU_ISSET(cpu, &cpus); cpu++)
		;
	sem_init(&s.entered, 0, 0);
	sem_init(&s.go, 0, 0);
	/* on pollers of their own */
	a = guest_open(
		&(struct guest_conf){.name = "a", .sleep = true, .nb_cpus = 1, .cpu = {cpu}});
	b = guest_open(&(struct guest_conf){.name = "b", .sleep = true});
	assert_int_equal(a->link->ops->set_job(a->link, 0, &s.job), 0);
	sem_wait(&s.entered);
	assert_int_equal(pthread_create(&thread, NULL, suspend, a), 0);
	/* whether it has come to that point or not */
	nap_us(50000);
	assert_int_equal(CGET(b, num_queues), 3);
	queue_suspend(b, 0, true);
	queue_suspend(b, 0, false);
	one_frame_passes(b, b);
	/* others come and go, too */
	c = guest_open(&(struct guest_conf){
		.name = "c", .wiring = VFN_WIRING_WIRE, .peer = "b", .sleep = true});
	guest_close(c);
	sem_post(&s.go);
	pthread_join(thread, NULL);
	queue_suspend(a, 0, false);
	assert_int_equal(a->link->ops->set_job(a->link, 0, NULL), 0);
	one_frame_passes(a, a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(wiring_that_cannot_be_had_changes_nothing),
		PLAIN(rate_limit_comes_and_goes),
		PLAIN(address_is_the_next_drivers),
		PLAIN(faults_begin_and_end),
		PLAIN(function_that_is_busy_keeps_nobody_waiting),
	};
	const struct shaped_test shaped[] = {
		SHAPED(other_end_changes_while_the_guest_runs),
		SHAPED(no_frame_is_lost_while_pollers_and_rate_change),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("manage", tests, DIM(tests), shaped, DIM(shaped));
}
