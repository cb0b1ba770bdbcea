/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Poller threads: the CPU they take, interrupts, doorbells of all kinds, where they run. */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>

#include "endpoint_link.h"
#include "fn_harness.h"

static struct guest_conf sleepy = {.sleep = true}, busy;
static struct frame f, got;
static cpu_set_t cpus_at_start;

/* ---- sleeping ---- */

static unsigned int
cpu_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static unsigned int
cpu_ms_of_a_nap(unsigned int ms)
{
	unsigned int before = cpu_ms();

	nap_us(1000 * ms);
	return cpu_ms() - before;
}

static void
quiet_poller_uses_no_cpu(void **state)
{
	struct guest *g = guest_open(&sleepy);

	(void)state;
	assert_true(cpu_ms_of_a_nap(200) < 20);
	rx_post(g, 0, 10, 2048, 1);
	frame_make(&f, 1, 100);
	frame_passes(g, 1, g, 0, &f);
	assert_true(cpu_ms_of_a_nap(200) < 20);
	assert_true(stat_of(g, 1, VFN_STAT_ARMED) > 0);
	guest_close(g);
	/* a control of the measurement */
	guest_open(&busy);
	assert_true(cpu_ms_of_a_nap(400) > 20);
}

static void
poller_without_work_sleeps_though_busy(void **state)
{
	struct guest *g = guest_open(&busy);

	(void)state;
	guest_reset(g);
	assert_true(cpu_ms_of_a_nap(200) < 20);
	guest_start(g);
	rx_post(g, 0, 10, 2048, 1);
	frame_make(&f, 1, 100);
	frame_passes(g, 1, g, 0, &f);
}

/* ---- doorbells ---- */

#define skip_for(why) \
	do { \
		print_message("skipped: %s\n", why); \
		skip(); \
	} while (0)

static void
doorbell_register_wakes_a_sleeping_poller(void **state)
{
	struct guest *g = guest_open(&sleepy);
	unsigned int i;

	(void)state;
	rx_post(g, 0, 100, 2048, 1);
	/* eventfds are set, and the driver uses the register all the same */
	for (i = 0; i < 100; i++) {
		frame_make(&f, i, 100);
		nap_us(100);
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
		mock_publish(&g->q[1].drv);
		assert_int_equal(g->link->ops->write(g->link, g->notify.bar,
					 g->notify.offset + VFN_NOTIFY_STEP, &(uint16_t){1}, 2),
			0);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
	}
}

static void
doorbell_register_wakes_the_poller_that_has_the_queue(void **state)
{
	struct guest *g;

	(void)state;
	if (CPU_COUNT(&cpus_at_start) < 2 || !CPU_ISSET(0, &cpus_at_start) ||
		!CPU_ISSET(1, &cpus_at_start))
		skip_for("needs the CPUs 0 and 1");
	/* one pair in use: what pair 1 sends goes to receive queue 0, so to that one's poller */
	g = guest_open(&(struct guest_conf){.pairs = 2,
		.sleep = true,
		.nb_cpus = 2,
		.cpu = {0, 1},
		.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});
	rx_post(g, 0, 10, 2048, 1);
	nap_us(20000);
	frame_make(&f, 1, 100);
	assert_true(tx_post(g, TXQ(1), &f, NULL, 0) >= 0);
	mock_publish(&g->q[TXQ(1)].drv);
	assert_int_equal(
		g->link->ops->write(g->link, g->notify.bar,
			g->notify.offset + TXQ(1) * VFN_NOTIFY_STEP, &(uint16_t){TXQ(1)}, 2),
		0);
	assert_true(rx_try(g, 0, &got, 1500));
}

static void
strange_doorbells_leave_the_queue_polled(void **state)
{
	struct guest *g = guest_open(&sleepy);
	uint64_t start;
	int fd[4], i;

	(void)state;
	if (over_endpoint())
		return; /* it takes none that is strange */
	fd[0] = open("/proc/self/exe", O_RDONLY);
	fd[1] = open("/dev/null", O_RDWR);
	fd[2] = open("/", O_RDONLY | O_DIRECTORY);
	fd[3] = dup(fd[0]);
	close(fd[3]); /* a number that is no fd */
	rx_post(g, 0, 10, 2048, 1);
	for (i = 0; i < 4; i++) {
		g->link->ops->set_doorbell(g->link, 1, fd[i]);
		nap_us(3000);
		/* nobody kicks, and it works */
		frame_make(&f, i, 100);
		assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
		mock_publish(&g->q[1].drv);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
	}
	assert_int_equal(g->link->ops->set_doorbell(g->link, 1, g->q[1].kick), 0);
	/* the same for the receiver's, on which a sender without buffers waits */
	queue_reset(g, 0);
	queue_setup(g, 0);
	assert_int_equal(g->link->ops->set_doorbell(g->link, 0, fd[0]), 0);
	start = now_ms();
	for (i = 0; i < 10; i++) {
		tx_send(g, 1, &f);
		nap_us(1000);
		assert_true(mock_post(&g->q[0].drv, &(struct mock_buf){.len = 2048, .write = true},
				    1, 0, 0) >= 0);
		mock_publish(&g->q[0].drv);
		rx_wait(g, 0, &got);
	}
	assert_true(now_ms() - start < 500);
	assert_int_equal(g->link->ops->set_doorbell(g->link, 0, g->q[0].kick), 0);
	rx_post(g, 0, 1, 2048, 1);
	for (i = 0; i < 3; i++)
		close(fd[i]);
	frame_make(&f, 9, 100);
	tx_send(g, 1, &f);
	rx_wait(g, 0, &got);
}

static void
doorbells_may_be_replaced_and_closed_under_traffic(void **state)
{
	struct guest *g = guest_open(&sleepy);
	unsigned int i;

	(void)state;
	for (i = 0; i < 100; i++) {
		int old = g->q[1].kick;

		rx_post(g, 0, 2, 2048, 1);
		frame_make(&f, i, 100);
		frame_passes(g, 1, g, 0, &f);
		g->q[1].kick = eventfd(0, i % 2 ? EFD_NONBLOCK : 0);
		/* the function has a duplicate: the guest's end may go before the new one comes */
		close(old);
		assert_int_equal(g->link->ops->set_doorbell(g->link, 1, g->q[1].kick), 0);
		nap_us(i);
		frame_passes(g, 1, g, 0, &f);
	}
}

static void
kick_storm_and_early_kicks_are_harmless(void **state)
{
	struct guest *g = guest_new(&sleepy);
	unsigned int i;

	(void)state;
	g->q[1].kick = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(g->link->ops->set_doorbell(g->link, 1, g->q[1].kick), 0);
	for (i = 0; i < 1000; i++)
		queue_kick_always(g, 1);
	guest_start(g);
	for (i = 0; i < 20000; i++)
		queue_kick_always(g, 1);
	rx_post(g, 0, 10, 2048, 1);
	frame_make(&f, i, 100);
	frame_passes(g, 1, g, 0, &f);
	assert_true(cpu_ms_of_a_nap(200) < 20);
}

/* ---- interrupts ---- */

static bool
called(struct guest *g, unsigned int queue, int ms)
{
	struct pollfd pfd = {.fd = g->q[queue].call, .events = POLLIN};
	eventfd_t v;

	return poll(&pfd, 1, ms) == 1 && eventfd_read(g->q[queue].call, &v) == 0;
}

static void
interrupts_come_when_wanted_only(const struct shape *shape)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = shape_features(shape)});
	unsigned int i;

	for (i = 0; i < 20; i++) {
		bool rx = i & 1, tx = i & 2;
		uint64_t before[2] = {stat_of(g, 0, VFN_STAT_CALLS), stat_of(g, 1, VFN_STAT_CALLS)};

		if (rx)
			mock_events_enable(&g->q[0].drv, 0);
		else
			mock_events_disable(&g->q[0].drv);
		if (tx)
			mock_events_enable(&g->q[1].drv, 0);
		else
			mock_events_disable(&g->q[1].drv);
		rx_post(g, 0, 1, 2048, 1);
		frame_make(&f, i, 100);
		frame_passes(g, 1, g, 0, &f);
		assert_int_equal(called(g, 0, rx ? PATIENCE_MS : 1), rx);
		assert_int_equal(called(g, 1, tx ? PATIENCE_MS : 1), tx);
		stat_wait(g, 0, VFN_STAT_CALLS, before[0] + rx);
		stat_wait(g, 1, VFN_STAT_CALLS, before[1] + tx);
	}
}

static void
full_and_strange_call_fds_do_not_stall(void **state)
{
	struct guest *g = guest_open(&busy);
	int fd[3], pipe_fd[2];
	unsigned int i, n;

	(void)state;
	if (over_endpoint())
		return;	       /* it takes none that is strange */
	fd[0] = eventfd(0, 0); /* blocks its writers */
	assert_int_equal(eventfd_write(fd[0], UINT64_MAX - 1), 0);
	assert_int_equal(pipe(pipe_fd), 0);
	fd[1] = pipe_fd[1];
	assert_true(fcntl(fd[1], F_SETPIPE_SZ, 4096) > 0);
	fd[2] = open("/dev/null", O_RDWR);
	for (i = 0; i < 3; i++) {
		assert_int_equal(g->link->ops->set_irq(g->link, 1, fd[i]), 0);
		assert_int_equal(g->link->ops->set_irq(g->link, 2, fd[i]), 0);
		for (n = 0; n < 700; n++) {
			mock_events_enable(&g->q[0].drv, 0);
			mock_events_enable(&g->q[1].drv, 0);
			rx_post(g, 0, 1, 2048, 1);
			frame_make(&f, n, 100);
			frame_passes(g, 1, g, 0, &f);
		}
	}
	/* no fd at all; one that is none is an error and leaves things as they are */
	assert_int_equal(g->link->ops->set_irq(g->link, 1, -1), 0);
	assert_true(g->link->ops->set_irq(g->link, 1, 12345) < 0);
	rx_post(g, 0, 1, 2048, 1);
	frame_passes(g, 1, g, 0, &f);
	for (i = 0; i < 3; i++)
		close(fd[i]);
	close(pipe_fd[0]);
}

/* ---- where pollers run ---- */

/* Threads of a name; *cpus is the last one's affinity. */
static unsigned int
threads_named(const char *name, cpu_set_t *cpus)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned int n = 0;
	struct dirent *e;

	assert_non_null(dir);
	while ((e = readdir(dir)) != NULL) {
		char path[300], comm[32] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		file = fopen(path, "r");
		if (file == NULL)
			continue;
		if (fscanf(file, "%31s", comm) == 1 && strcmp(comm, name) == 0) {
			n++;
			sched_getaffinity(atoi(e->d_name), sizeof(*cpus), cpus);
		}
		fclose(file);
	}
	closedir(dir);
	return n;
}

static unsigned int
some_cpu(void)
{
	unsigned int cpu;

	for (cpu = CPU_SETSIZE - 1; !CPU_ISSET(cpu, &cpus_at_start); cpu--)
		;
	return cpu;
}

static void
poll_cpu_pins_and_names_the_thread(void **state)
{
	struct guest_conf conf = {.name = "a", .nb_cpus = 1, .cpu = {some_cpu()}};
	cpu_set_t cpus;
	char name[32];

	(void)state;
	snprintf(name, sizeof(name), "vfn-poll-%u", conf.cpu[0]);
	assert_int_equal(threads_named(name, &cpus), 0);
	guest_open(&conf);
	assert_int_equal(threads_named(name, &cpus), 1);
	assert_int_equal(CPU_COUNT(&cpus), 1);
	assert_true(CPU_ISSET(conf.cpu[0], &cpus));
	/* functions on one CPU share a thread */
	conf.name = "b";
	guest_open(&conf);
	assert_int_equal(threads_named(name, &cpus), 1);
	guests_close(state);
	assert_int_equal(threads_named(name, &cpus), 0);
}

static void
poller_without_poll_cpu_is_not_tied_to_the_main_lcore(void **state)
{
	cpu_set_t one, cpus;
	unsigned int first;

	(void)state;
	if (CPU_COUNT(&cpus_at_start) < 2)
		skip_for("needs two CPUs");
	/* as EAL has left its main thread, before fn_eal_init() freed it */
	for (first = 0; !CPU_ISSET(first, &cpus_at_start); first++)
		;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	sched_setaffinity(0, sizeof(one), &one);
	guest_open(&busy);
	sched_setaffinity(0, sizeof(cpus_at_start), &cpus_at_start);
	assert_int_equal(threads_named("vfn-poll", &cpus), 1);
	assert_false(CPU_EQUAL(&cpus, &one));
}

static void
cpu_that_is_not_there_is_refused(void **state)
{
	const struct guest_conf conf = {
		.pairs = 2, .nb_cpus = 2, .cpu = {some_cpu(), CPU_SETSIZE - 1}};
	struct vfn_function *fn;
	struct vfn_link *link;
	cpu_set_t cpus;
	char name[32];

	assert_true(function_open(&conf, &fn, &link) < 0);
	snprintf(name, sizeof(name), "vfn-poll-%u", conf.cpu[0]);
	assert_int_equal(threads_named(name, &cpus), 0);
	/* nothing of it is left in the way */
	guest_open(&busy);
	guests_close(state);
}

static void
pairs_are_spread_over_several_pollers(void **state)
{
	struct guest *g;
	unsigned int pair, i;

	(void)state;
	if (CPU_COUNT(&cpus_at_start) < 2 || !CPU_ISSET(0, &cpus_at_start) ||
		!CPU_ISSET(1, &cpus_at_start))
		skip_for("needs the CPUs 0 and 1");
	g = guest_open(&(struct guest_conf){.pairs = 3,
		.sleep = true,
		.nb_cpus = 2,
		.cpu = {0, 1},
		.features = BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ)});
	for (pair = 0; pair < 3; pair++)
		rx_post(g, RXQ(pair), 60, 2048, 1);
	for (i = 1; i <= 3; i++) {
		guest_use_pairs(g, i);
		for (pair = 0; pair < 60; pair++) {
			frame_make(&f, pair, 100);
			frame_passes(g, TXQ(pair % 3), g, RXQ(pair % 3 % i), &f);
		}
		for (pair = 0; pair < 3; pair++) {
			queue_reset(g, RXQ(pair));
			queue_setup(g, RXQ(pair));
			rx_post(g, RXQ(pair), 60, 2048, 1);
		}
		g->heap = HEAP_AT + (g->heap_end - HEAP_AT) / 2;
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(quiet_poller_uses_no_cpu),
		PLAIN(poller_without_work_sleeps_though_busy),
		PLAIN(doorbell_register_wakes_a_sleeping_poller),
		PLAIN(doorbell_register_wakes_the_poller_that_has_the_queue),
		PLAIN(strange_doorbells_leave_the_queue_polled),
		PLAIN(doorbells_may_be_replaced_and_closed_under_traffic),
		PLAIN(kick_storm_and_early_kicks_are_harmless),
		PLAIN(full_and_strange_call_fds_do_not_stall),
		PLAIN(poll_cpu_pins_and_names_the_thread),
		PLAIN(poller_without_poll_cpu_is_not_tied_to_the_main_lcore),
		PLAIN(cpu_that_is_not_there_is_refused),
		PLAIN(pairs_are_spread_over_several_pollers),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(interrupts_come_when_wanted_only),
	};

	sched_getaffinity(0, sizeof(cpus_at_start), &cpus_at_start);
	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("poller", tests, DIM(tests), shaped, DIM(shaped));
}
