/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Functions come and go: many queues, many functions, under traffic; nothing stays behind. */

#include <dirent.h>
#include <pthread.h>
#include <unistd.h>

#include <rte_malloc.h>
#include <rte_pause.h>

#include "fn_harness.h"

#define MQ (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_MQ))

static struct frame f, got;

static unsigned int
entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

struct resources {
	unsigned int fds, threads;
	size_t bytes;
	unsigned int blocks;
};

static struct resources
resources(void)
{
	struct rte_malloc_socket_stats stats;
	struct resources r = {.fds = entries("/proc/self/fd")};
	unsigned int last;

	/* A thread that was joined may be listed for a moment. */
	do {
		last = r.threads;
		usleep(20000);
		r.threads = entries("/proc/self/task");
	} while (r.threads != last);
	assert_int_equal(rte_malloc_get_socket_stats(0, &stats), 0);
	r.bytes = stats.heap_allocsz_bytes;
	r.blocks = stats.alloc_count;
	return r;
}

static void
assert_same(const struct resources *a)
{
	struct resources b = resources();

	assert_int_equal(a->fds, b.fds);
	assert_int_equal(a->threads, b.threads);
	assert_int_equal(a->bytes, b.bytes);
	assert_int_equal(a->blocks, b.blocks);
}

static void
all_64_pairs_work_and_can_be_enabled_again(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){
		.pairs = VFN_MAX_PAIRS, .size = 16, .features = MQ | BIT(VIRTIO_F_RING_PACKED)});
	unsigned int round, pair;

	(void)state;
	assert_int_equal(g->nb_queues, VFN_MAX_QUEUES);
	for (round = 0; round < 3; round++) {
		guest_use_pairs(g, VFN_MAX_PAIRS);
		for (pair = 0; pair < VFN_MAX_PAIRS; pair++) {
			rx_post(g, RXQ(pair), 1, 2048, 1);
			frame_make(&f, pair, 100);
			tx_send(g, TXQ(pair), &f);
		}
		for (pair = 0; pair < VFN_MAX_PAIRS; pair++) {
			frame_make(&f, pair, 100);
			rx_wait(g, RXQ(pair), &got);
			frames_equal(&got, &f);
			tx_wait(g, TXQ(pair), 1);
		}
		if (round == 1) {
			guest_reset(g);
			guest_start(g);
			continue;
		}
		g->heap = HEAP_AT;
		for (pair = 0; pair < 2 * VFN_MAX_PAIRS; pair++) {
			queue_reset(g, pair);
			queue_setup(g, pair);
		}
	}
}

static void
functions_leave_nothing_behind(void **state)
{
	struct resources before = {0};
	unsigned int i;

	for (i = 0; i < 120; i++) {
		struct guest *a = guest_open(&(struct guest_conf){.name = "a",
			.pairs = 2,
			.sleep = i & 1,
			.features = MQ,
			.size = 32,
			.wiring = VFN_WIRING_WIRE});
		struct guest *b = guest_open(&(struct guest_conf){.name = "b",
			.peer = "a",
			.sleep = i & 2,
			.size = 32,
			.wiring = VFN_WIRING_WIRE,
			.nb_cpus = !!(i & 4),
			.features = BIT(VIRTIO_F_RING_PACKED)});

		rx_post(b, 0, 4, 2048, 1);
		frame_make(&f, i, 100);
		frame_passes(a, 1, b, 0, &f);
		guest_map(a, FREE_AT, 4096, VRINGH_PERM_RW);
		/* in either order, running or reset, with frames under way */
		if (i & 8)
			guest_reset(a);
		else
			tx_send(a, 3, &f);
		if (i & 16)
			guest_close(a);
		guests_close(state);
		if (i == 9)
			before = resources();
	}
	assert_same(&before);
}

static void
replaced_eventfds_leave_nothing_behind(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.sleep = true});
	struct resources before = resources();
	unsigned int i;

	(void)state;
	for (i = 0; i < 30; i++) {
		assert_int_equal(g->link->ops->set_irq(g->link, i % 3, g->q[0].call), 0);
		assert_int_equal(g->link->ops->set_doorbell(g->link, i % 2, g->q[0].kick), 0);
		assert_true(g->link->ops->set_irq(g->link, 1, 12345) < 0);
	}
	/* vectors 1 and 2 had theirs, 0 is new */
	assert_int_equal(g->link->ops->set_irq(g->link, 0, -1), 0);
	assert_same(&before);
}

static void
failed_creations_leave_nothing_behind(void **state)
{
	const struct guest_conf no_cpu = {
		.name = "x", .pairs = 4, .nb_cpus = 2, .cpu = {0, CPU_SETSIZE - 1}};
	const struct guest_conf no_name = {.name = "a"};
	const struct guest_conf no_peer = {.name = "c", .wiring = VFN_WIRING_WIRE, .peer = "a"};
	struct vfn_function *fn;
	struct resources before;
	struct vfn_link *link;
	unsigned int i;

	guest_open(&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE});
	guest_open(&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a"});
	before = resources();
	for (i = 0; i < 20; i++) {
		/* a CPU that is not there, a name that is taken, an end that is wired */
		assert_true(function_open(&no_cpu, &fn, &link) < 0);
		assert_int_equal(function_open(&no_name, &fn, &link), -EEXIST);
		assert_int_equal(function_open(&no_peer, &fn, &link), -EBUSY);
	}
	assert_same(&before);
	(void)state;
}

static void
memory_that_runs_out_is_an_error_and_comes_back(void **state)
{
	static struct vfn_link *link[4000];
	struct resources before = resources();
	unsigned int n, i;
	int ret = 0;

	(void)state;
	for (n = 0; n < DIM(link); n++) {
		struct guest_conf conf = {.pairs = VFN_MAX_PAIRS};
		struct vfn_function *fn;
		char name[16];

		snprintf(name, sizeof(name), "f%u", n);
		conf.name = name;
		ret = function_open(&conf, &fn, &link[n]);
		if (ret < 0)
			break;
	}
	assert_int_equal(ret, -ENOMEM);
	for (i = 0; i < n; i++)
		link[i]->ops->close(link[i]);
	assert_same(&before);
}

static void
peer_may_come_and_go_under_traffic(void **state)
{
	struct guest *a = guest_open(
		&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE, .peer = "b"});
	unsigned int i, n, sent = 0;

	(void)state;
	for (i = 0; i < 60; i++) {
		struct guest *b = guest_open(&(struct guest_conf){.name = "b",
			.wiring = VFN_WIRING_WIRE,
			.features = i & 1 ? BIT(VIRTIO_F_RING_PACKED) : 0});

		rx_post(b, 0, 64, 2048, 1);
		for (n = 0; n < 40; n++, sent++) {
			frame_make(&f, sent, 100);
			tx_send(a, 1, &f);
		}
		if (i % 4 != 0)
			nap_us(i);
		guest_close(b);
		tx_wait(a, 1, 40);
	}
	assert_int_equal(stat_of(a, 1, VFN_STAT_PACKETS), sent);
}

/* ---- several threads at the links ---- */

struct reader {
	struct guest *g;
	bool stop;
	unsigned int reads;
};

static void *
reader(void *arg)
{
	struct reader *r = arg;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		uint64_t stats[VFN_NET_STAT_MAX];

		r->g->link->ops->read(
			r->g->link, VFN_REGION_BAR0, VFN_OFF_STATS, stats, sizeof(stats));
		r->g->link->ops->set_irq(r->g->link, 1, r->g->q[0].call);
		r->reads++;
	}
	return NULL;
}

static void
other_threads_may_use_other_links(void **state)
{
	struct reader r = {.g = guest_open(&(struct guest_conf){.name = "read"})};
	pthread_t thread;
	unsigned int i;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, reader, &r), 0);
	for (i = 0; i < 30; i++) {
		struct guest *g = guest_open(&(struct guest_conf){0});

		rx_post(g, 0, 4, 2048, 1);
		frame_make(&f, i, 100);
		frame_passes(g, 1, g, 0, &f);
		guest_close(g);
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_true(r.reads > 0);
}

static void
function_may_go_away_with_commands_pending(void **state)
{
	struct mock_buf buf[2] = {{.len = 4}, {.len = 1, .write = true}};
	unsigned int i, n, spin;

	(void)state;
	for (i = 0; i < 300; i++) {
		struct guest *g =
			guest_open(&(struct guest_conf){.pairs = 4, .size = 16, .features = MQ});

		/* noticed by the poller, carried out by another thread: at any point of it */
		for (n = 0; n < 1 + i % 7; n++) {
			assert_true(mock_post(&g->q[8].drv, buf, 2, 0, 0) >= 0);
			mock_publish(&g->q[8].drv);
			for (spin = 0; spin < i * 10; spin++)
				rte_pause();
		}
		if (i % 5 == 4)
			guest_reset(g);
		guest_close(g);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(all_64_pairs_work_and_can_be_enabled_again),
		PLAIN(functions_leave_nothing_behind),
		PLAIN(replaced_eventfds_leave_nothing_behind),
		PLAIN(failed_creations_leave_nothing_behind),
		PLAIN(memory_that_runs_out_is_an_error_and_comes_back),
		PLAIN(peer_may_come_and_go_under_traffic),
		PLAIN(other_threads_may_use_other_links),
		/* last: when it fails, the process is gone */
		PLAIN(function_may_go_away_with_commands_pending),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("lifecycle", tests, DIM(tests), NULL, 0);
}
