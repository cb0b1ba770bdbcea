/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Pollers as services: EAL is started with a service core (-s), which the application may take
 * away at any time.
 */

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include <rte_bus_vdev.h>
#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_service.h>

#include "fn_harness.h"
#include "vfn_guard.h"

#define CORE 1u /* the service core */

static struct guest_conf one_pair;
static struct frame f;
static struct sigaction bus_error;

static uint32_t
poller_service(void)
{
	uint32_t id;

	assert_int_equal(rte_service_get_by_name("vfn-poll-0", &id), 0);
	return id;
}

static struct guest *
open_with_buffers(const struct guest_conf *conf)
{
	struct guest *g = guest_open(conf);

	rx_post(g, 0, 60, 2048, 1);
	return g;
}

static void
service_core_moves_the_frames(const struct shape *shape)
{
	struct guest *g =
		open_with_buffers(&(struct guest_conf){.features = shape_features(shape)});
	unsigned int i;

	for (i = 0; i < 50; i++) {
		frame_make(&f, i, 100 + i);
		frame_passes(g, 1, g, 0, &f);
	}
	/* Not before: a service core takes notice of a new service on its next round. */
	assert_int_equal(rte_service_may_be_active(poller_service()), 1);
}

/* Though the application, and so each of its threads, blocks the signal. */
static void
memory_may_be_cut_off(void **state)
{
	struct guest *g = guest_open(&one_pair);
	int fd = memfd_create("cut", MFD_CLOEXEC);
	struct vfn_dma_map map = {
		.iova = FREE_AT, .len = 4096, .fd = fd, .readable = true, .writable = true};
	struct mock_buf buf = {.len = 100, .fixed = true, .iova = FREE_AT};
	uint64_t end = now_ms() + PATIENCE_MS;

	(void)state;
	/* cmocka takes the signal for itself before every test */
	sigaction(SIGBUS, &bus_error, NULL);
	assert_int_equal(ftruncate(fd, 4096), 0);
	map.host = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map.host != MAP_FAILED);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_true(mock_post(&g->q[1].drv, &buf, 1, 0, 0) >= 0);
	mock_publish(&g->q[1].drv);
	while (!(CGET(g, device_status) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		assert_true(now_ms() < end);
		nap_us(100);
	}
	guests_close(NULL);
	munmap(map.host, 4096);
	close(fd);
}

static void
service_goes_with_the_last_function(void **state)
{
	uint32_t id;

	guest_open(&(struct guest_conf){.name = "a"});
	guest_open(&(struct guest_conf){.name = "b"});
	assert_int_equal(rte_service_get_count(), 1);
	guests_close(state);
	assert_int_equal(rte_service_get_count(), 0);
	assert_true(rte_service_get_by_name("vfn-poll-0", &id) < 0);
}

static void
poll_cpu_wins_over_service_cores(void **state)
{
	cpu_set_t cpus;
	struct guest *g;
	unsigned int cpu;

	(void)state;
	sched_getaffinity(0, sizeof(cpus), &cpus);
	for (cpu = 0; !CPU_ISSET(cpu, &cpus); cpu++)
		;
	g = open_with_buffers(&(struct guest_conf){.nb_cpus = 1, .cpu = {cpu}});
	assert_int_equal(rte_service_get_count(), 0);
	frame_make(&f, 1, 100);
	frame_passes(g, 1, g, 0, &f);
}

/* Every way in which control asks the poller for something. */
static void
control_works(struct guest *g)
{
	uint64_t start = now_ms();

	queue_suspend(g, 1, true);
	assert_int_equal(queue_state(g, 1).avail, queue_state(g, 1).used);
	queue_suspend(g, 1, false);
	guest_map(g, FREE_AT, 4096, VRINGH_PERM_RW);
	assert_int_equal(guest_unmap(g, FREE_AT, 4096), 0);
	assert_true(now_ms() - start < 5000);
}

static void
function_can_be_stopped_when_the_core_was(void **state)
{
	struct guest *g = open_with_buffers(&one_pair);
	unsigned int i;

	(void)state;
	for (i = 0; i < 5; i++) {
		frame_make(&f, i, 100);
		frame_passes(g, 1, g, 0, &f);
		/* what an application does that wants its core back */
		assert_int_equal(rte_service_runstate_set(poller_service(), 0), 0);
		assert_int_equal(rte_service_lcore_stop(CORE), 0);
		control_works(g);
	}
	/* and the function has found itself a core again */
	frame_make(&f, i, 100);
	frame_passes(g, 1, g, 0, &f);
	assert_int_equal(rte_service_runstate_set(poller_service(), 0), 0);
	assert_int_equal(rte_service_lcore_stop(CORE), 0);
	guest_close(g);
	assert_int_equal(rte_service_lcore_start(CORE), 0);
}

static void
function_can_be_stopped_without_any_service_core(void **state)
{
	struct guest *g = open_with_buffers(&one_pair);

	(void)state;
	frame_make(&f, 1, 100);
	frame_passes(g, 1, g, 0, &f);
	assert_int_equal(rte_service_runstate_set(poller_service(), 0), 0);
	assert_int_equal(rte_service_lcore_stop(CORE), 0);
	assert_int_equal(rte_service_lcore_del(CORE), 0);
	control_works(g);
	queue_suspend(g, 0, true);
	guest_reset(g);
	/* given back, it is taken by the next start */
	assert_int_equal(rte_service_lcore_add(CORE), 0);
	assert_int_equal(rte_service_lcore_start(CORE), 0);
	guest_start(g);
	rx_post(g, 0, 4, 2048, 1);
	frame_passes(g, 1, g, 0, &f);
}

static void
paused_service_resumes_with_nothing_lost(void **state)
{
	struct guest *g = open_with_buffers(&one_pair);
	struct mock_used used;
	static struct frame got;
	unsigned int i;

	(void)state;
	assert_int_equal(rte_service_runstate_set(poller_service(), 0), 0);
	while (rte_service_may_be_active(poller_service()) == 1)
		nap_us(10);
	for (i = 0; i < 20; i++) {
		frame_make(&f, i, 100);
		tx_send(g, 1, &f);
	}
	assert_false(used_try(g, 1, &used, 5));
	assert_int_equal(rte_service_runstate_set(poller_service(), 1), 0);
	for (i = 0; i < 20; i++) {
		frame_make(&f, i, 100);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
	}
	tx_wait(g, 1, 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(memory_may_be_cut_off),
		PLAIN(service_goes_with_the_last_function),
		PLAIN(poll_cpu_wins_over_service_cores),
		PLAIN(function_can_be_stopped_when_the_core_was),
		PLAIN(function_can_be_stopped_without_any_service_core),
		PLAIN(paused_service_resumes_with_nothing_lost),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(service_core_moves_the_frames),
	};
	unsigned int first, last;
	char lcores[64];
	bool lost;
	sigset_t bus;
	cpu_set_t cpus;
	int ret;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	sigprocmask(SIG_BLOCK, &bus, NULL);
	/* two lcores, on two CPUs where there are two */
	sched_getaffinity(0, sizeof(cpus), &cpus);
	for (first = 0; !CPU_ISSET(first, &cpus); first++)
		;
	for (last = CPU_SETSIZE - 1; !CPU_ISSET(last, &cpus); last--)
		;
	snprintf(lcores, sizeof(lcores), "--lcores=0@%u,1@%u", first, last);
	if (fn_eal_init(lcores, "-s", "0x2", NULL) < 0)
		return 1;
	if (vfn_guard_add(&lost, sizeof(lost), &lost) < 0)
		return 1;
	vfn_guard_remove(&lost, &lost);
	sigaction(SIGBUS, NULL, &bus_error);
	ret = run_list("service", tests, DIM(tests), shaped, DIM(shaped));
	/* with a device that is still there: EAL ends its services before its devices */
	if (rte_vdev_init("vdpa_vfn0", "") != 0 || rte_eal_cleanup() != 0)
		return 1;
	return ret;
}
