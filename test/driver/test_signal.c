/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Eventfds and pipes that block who signals them. Their owner fills them at the worst moment,
 * between the look whether they are full and the write, every time: here by a poll() of our own.
 * What must come of it is that one call is lost, and nothing of anybody else's.
 */

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>

#include "fn_harness.h"
#include "vfn_signal.h"

static struct frame f;

/* The reading end is the writing end of an eventfd. */
static struct {
	int write_fd, read_fd; /* 0: none */
	unsigned int filled;   /* atomic */
} trap;

static void
fill(void)
{
	static const uint64_t full = UINT64_MAX - 1;
	struct pollfd in = {.fd = trap.read_fd, .events = POLLIN};
	static uint8_t page[4096];
	uint64_t count;
	int flags;

	if (trap.write_fd == trap.read_fd) {
		if (syscall(SYS_ppoll, &in, 1, &(struct timespec){0}, NULL, 0) == 1)
			assert_int_equal(read(trap.read_fd, &count, sizeof(count)), sizeof(count));
		assert_int_equal(write(trap.write_fd, &full, sizeof(full)), sizeof(full));
	} else {
		flags = fcntl(trap.write_fd, F_GETFL);
		fcntl(trap.write_fd, F_SETFL, flags | O_NONBLOCK);
		while (write(trap.write_fd, page, sizeof(page)) > 0)
			;
		fcntl(trap.write_fd, F_SETFL, flags & ~O_NONBLOCK);
	}
	__atomic_fetch_add(&trap.filled, 1, __ATOMIC_RELAXED);
}

/* In the place of libc's. Is it about the file that is a trap, whatever its number? */
int
poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct timespec ts = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000};
	int ret = syscall(SYS_ppoll, fds, n, timeout < 0 ? NULL : &ts, NULL, 0);

	if (trap.write_fd > 0 && n == 1 && ret == 1 && fds->revents == POLLOUT &&
		syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, fds->fd, trap.write_fd) ==
			0)
		fill();
	return ret;
}

static void
trap_set(int write_fd, int read_fd)
{
	trap.filled = 0;
	trap.read_fd = read_fd;
	trap.write_fd = write_fd;
}

static unsigned int
trap_filled(void)
{
	return __atomic_load_n(&trap.filled, __ATOMIC_RELAXED);
}

/* A trap of either kind; its writing end. */
static int
trap_make(bool is_pipe)
{
	int fd[2];

	if (is_pipe) {
		assert_int_equal(pipe(fd), 0);
	} else {
		fd[0] = fd[1] = eventfd(0, 0);
		assert_true(fd[0] >= 0);
	}
	trap_set(fd[1], fd[0]);
	return fd[1];
}

static void
trap_close(void)
{
	int read_fd = trap.read_fd, write_fd = trap.write_fd;

	trap_set(0, 0);
	close(write_fd);
	if (read_fd != write_fd)
		close(read_fd);
}

static int
teardown(void **state)
{
	trap.write_fd = trap.read_fd = 0;
	return guests_close(state);
}

/* Two functions on one poller, the first one's transmit queue has a trap for its call. */
static void
two_on_one_poller(struct guest **evil, struct guest **other, bool is_pipe)
{
	*other = guest_open(&(struct guest_conf){.name = "other"});
	*evil = guest_open(&(struct guest_conf){.name = "evil", .wiring = VFN_WIRING_SINK});
	trap_make(is_pipe);
	(*evil)->link->ops->set_irq((*evil)->link, CGET(*evil, config_msix_vector), -1);
}

static unsigned int
vector_of(struct guest *g, unsigned int queue)
{
	CSET(g, queue_select, queue);
	return CGET(g, queue_msix_vector);
}

static void
send_wanting_call(struct guest *g)
{
	mock_events_enable(&g->q[1].drv, 0);
	tx_send(g, 1, &f);
}

static void
poller_is_freed(bool is_pipe)
{
	struct guest *evil, *other;
	unsigned int vector, i;

	two_on_one_poller(&evil, &other, is_pipe);
	vector = vector_of(evil, 1);
	assert_int_equal(evil->link->ops->set_irq(evil->link, vector, trap.write_fd), 0);
	rx_post(other, 0, 200, 2048, 1);
	frame_make(&f, 1, 100);
	for (i = 0; i < 100; i++) {
		send_wanting_call(evil);
		tx_wait(evil, 1, 1);
		frame_passes(other, 1, other, 0, &f);
	}
	assert_int_equal(trap_filled(), 1);
	assert_int_equal(stat_of(evil, 1, VFN_STAT_CALLS_BLOCKED), 1);
	assert_int_equal(stat_of(evil, 1, VFN_STAT_PACKETS), 100);
	trap_close();
}

static void
eventfd_that_is_filled_behind_the_look_blocks_nobody(void **state)
{
	(void)state;
	poller_is_freed(false);
}

static void
pipe_that_is_filled_behind_the_look_blocks_nobody(void **state)
{
	(void)state;
	poller_is_freed(true);
}

/* A guest that replaces its eventfd each time blocks the poller once a second, not each time. */
static void
replaced_each_time_it_blocks_seldom(void **state)
{
	struct guest *evil, *other;
	uint64_t begin = now_ms(), took;
	unsigned int vector, i;

	(void)state;
	two_on_one_poller(&evil, &other, false);
	vector = vector_of(evil, 1);
	frame_make(&f, 1, 100);
	for (i = 0; i < 100; i++) {
		assert_int_equal(evil->link->ops->set_irq(evil->link, vector, trap.write_fd), 0);
		send_wanting_call(evil);
		tx_wait(evil, 1, 1);
	}
	took = now_ms() - begin;
	/* and once when what was held is released */
	assert_in_range(trap_filled(), 1, 2 + 2 * took / 1000);
	trap_close();
}

/* An eventfd that works again is used again, and nothing that it missed is lost. */
static void
replaced_eventfd_is_called(void **state)
{
	struct guest *evil, *other;
	unsigned int vector;
	struct pollfd in = {.fd = eventfd(0, 0), .events = POLLIN};
	uint64_t count;

	(void)state;
	two_on_one_poller(&evil, &other, false);
	vector = vector_of(evil, 1);
	evil->link->ops->set_irq(evil->link, vector, trap.write_fd);
	frame_make(&f, 1, 100);
	send_wanting_call(evil);
	stat_wait(evil, 1, VFN_STAT_CALLS_BLOCKED, 1);
	tx_wait(evil, 1, 1);
	evil->link->ops->set_irq(evil->link, vector, in.fd);
	/* held back first, then made up for */
	send_wanting_call(evil);
	assert_int_equal(poll(&in, 1, PATIENCE_MS), 1);
	assert_int_equal(read(in.fd, &count, sizeof(count)), sizeof(count));
	tx_wait(evil, 1, 1);
	send_wanting_call(evil);
	assert_int_equal(poll(&in, 1, PATIENCE_MS), 1);
	assert_int_equal(stat_of(evil, 1, VFN_STAT_CALLS_BLOCKED), 1);
	close(in.fd);
	trap_close();
}

/* The interrupt of a change of configuration is raised in control context. */
static void
configuration_vector_blocks_nobody(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.name = "fn"});
	unsigned int vector = CGET(g, num_queues);

	(void)state;
	trap_make(false);
	assert_int_equal(CSET(g, config_msix_vector, vector), 0);
	assert_int_equal(g->link->ops->set_irq(g->link, vector, trap.write_fd), 0);
	vfn_manage_link(g->fn, false);
	assert_int_equal(trap_filled(), 1);
	vfn_manage_link(g->fn, true);
	assert_int_equal(trap_filled(), 1);
	trap_close();
}

/* Full, without anybody cheating: that is a signal pending, and the fd stays in use. */
static void
full_is_pending(void **state)
{
	const uint64_t full = UINT64_MAX - 1;
	uint64_t count;
	int fd = eventfd(0, 0);

	(void)state;
	assert_int_equal(vfn_signal_init(), 0);
	assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
	assert_true(vfn_signal(fd));
	assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
	assert_true(vfn_signal(fd));
	assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	vfn_signal_fini();
	close(fd);
}

/* Would raise SIGPIPE, on a thread that belongs to the application. */
static void
pipe_without_a_reader_ends_nothing(void **state)
{
	int fd[2];

	(void)state;
	assert_int_equal(vfn_signal_init(), 0);
	assert_int_equal(pipe(fd), 0);
	close(fd[0]);
	assert_true(vfn_signal(fd[1]));
	close(fd[1]);
	vfn_signal_fini();
}

/* The watchdog sleeps when nobody signals: it has to wake up for who does. */
static void
watchdog_wakes_up(void **state)
{
	unsigned int i;

	(void)state;
	assert_int_equal(vfn_signal_init(), 0);
	for (i = 0; i < 3; i++) {
		nap_us(VFN_SIGNAL_BOUND_MS * 1000 * 250);
		assert_false(vfn_signal(trap_make(i % 2)));
		trap_close();
	}
	vfn_signal_fini();
}

struct stray {
	bool end;		/* atomic */
	unsigned int elsewhere; /* interrupted outside the write */
	unsigned int blocked;
};

/* What is interrupted is the write alone, whenever the signal comes. */
static void *
signals_and_naps(void *arg)
{
	const struct timespec nap = {.tv_nsec = 100000};
	struct stray *s = arg;

	while (!__atomic_load_n(&s->end, __ATOMIC_RELAXED)) {
		s->blocked += !vfn_signal(trap.write_fd);
		if (nanosleep(&nap, NULL) < 0)
			s->elsewhere++;
	}
	return NULL;
}

/* Frees the writer at about the time at which the watchdog does. */
static void
nothing_but_the_write_is_interrupted(void **state)
{
	struct stray s = {0};
	pthread_t thread;
	uint64_t count, seed = 7, end = now_ms() + 2000;

	(void)state;
	assert_int_equal(vfn_signal_init(), 0);
	trap_make(false);
	assert_int_equal(pthread_create(&thread, NULL, signals_and_naps, &s), 0);
	while (now_ms() < end) {
		nap_us(VFN_SIGNAL_BOUND_MS * 1000 + mock_random(&seed) % 6000);
		if (trap_filled() > 0 && read(trap.read_fd, &count, sizeof(count)) < 0)
			break;
	}
	trap.write_fd = 0;
	__atomic_store_n(&s.end, true, __ATOMIC_RELAXED);
	nap_us(20000);
	pthread_join(thread, NULL);
	assert_int_equal(s.elsewhere, 0);
	assert_true(s.blocked > 0);
	vfn_signal_fini();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(
			eventfd_that_is_filled_behind_the_look_blocks_nobody, teardown),
		cmocka_unit_test_teardown(
			pipe_that_is_filled_behind_the_look_blocks_nobody, teardown),
		cmocka_unit_test_teardown(replaced_each_time_it_blocks_seldom, teardown),
		cmocka_unit_test_teardown(replaced_eventfd_is_called, teardown),
		cmocka_unit_test_teardown(configuration_vector_blocks_nobody, teardown),
		cmocka_unit_test_teardown(full_is_pending, teardown),
		cmocka_unit_test_teardown(pipe_without_a_reader_ends_nothing, teardown),
		cmocka_unit_test_teardown(watchdog_wakes_up, teardown),
		cmocka_unit_test_teardown(nothing_but_the_write_is_interrupted, teardown),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
