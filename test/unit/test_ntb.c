/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The simulated bridge: what arrives, when it is seen, and what becomes of it without the peer. */

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <ntb_sim.h>

#define SIZE   (64u << 10)
#define BUS_A  UINT64_C(0x100000000)
#define BUS_B  UINT64_C(0x8000000000)
#define WAIT_S 20

static char path[64], said[192];

static void
log_said(void *arg, const char *text)
{
	snprintf(arg, sizeof(said), "%s", text);
}

static struct ntb *
open_side(uint64_t bus, uint64_t limit, uint32_t latency_us)
{
	struct ntb_sim_params params = {.name = "test",
		.path = path,
		.bus = bus,
		.size = SIZE,
		.limit = limit,
		.latency_us = latency_us,
		.log = log_said,
		.log_arg = said};
	struct ntb *ntb;
	char why[128];

	assert_int_equal(ntb_sim_open(&params, &ntb, why, sizeof(why)), 0);
	return ntb;
}

static void
nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void
wait_link(struct ntb *ntb, bool up)
{
	int ms;

	for (ms = 0; ntb_link_up(ntb) != up && ms < WAIT_S * 1000; ms++)
		nap();
	assert_int_equal(ntb_link_up(ntb), up);
}

static bool
is_readable(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, 0) == 1;
}

static void
up(struct ntb *a, struct ntb *b)
{
	assert_int_equal(ntb_link_enable(a), 0);
	assert_int_equal(ntb_link_enable(b), 0);
	wait_link(a, true);
	wait_link(b, true);
}

static void
pair(struct ntb **a, struct ntb **b, uint32_t latency_us)
{
	*a = open_side(BUS_A, 0, latency_us);
	*b = open_side(BUS_B, 0, latency_us);
	up(*a, *b);
}

/* What a has at an offset after it looked. */
static uint8_t
look(struct ntb *ntb, uint64_t at)
{
	ntb_invalidate(ntb, ntb->in.host + at, 1);
	return ntb->in.host[at];
}

static void
put(struct ntb *ntb, uint64_t at, uint8_t v)
{
	ntb->out.host[at] = v;
	ntb_flush(ntb, ntb->out.host + at, 1);
}

static void
test_seen_only_when_flushed_and_invalidated(void **state)
{
	struct ntb *a, *b;

	(void)state;
	pair(&a, &b, 0);
	a->out.host[100] = 7;
	assert_int_equal(look(b, 100), 0);
	ntb_flush(a, a->out.host + 100, 1);
	assert_int_equal(look(b, 100), 7);
	put(a, 100, 8);
	assert_int_equal(b->in.host[100], 7);
	assert_int_equal(look(b, 100), 8);
	/* The other way, and to the last byte. */
	put(b, SIZE - 1, 9);
	assert_int_equal(look(a, SIZE - 1), 9);
	ntb_close(a);
	ntb_close(b);
}

static void
test_nothing_is_read_back(void **state)
{
	struct ntb_stats stats;
	struct ntb *a, *b;

	(void)state;
	pair(&a, &b, 0);
	put(a, 0, 1);
	assert_int_equal(a->out.host[0], NTB_SIM_POISON);
	/* What was not written anew arrives as what it is. */
	ntb_flush(a, a->out.host, 1);
	assert_int_equal(look(b, 0), NTB_SIM_POISON);
	ntb_stats(a, &stats);
	assert_int_equal(stats.reads_across, 0);
	b->in.host[1] = 1;
	ntb_invalidate(a, a->out.host, 8);
	assert_int_equal(a->out.host[1], 0);
	ntb_set_peer_scratchpad(b, 3, 5);
	assert_int_equal(ntb_scratchpad(a, 3), 5);
	ntb_stats(a, &stats);
	assert_int_equal(stats.reads_across, 1);
	assert_int_equal(ntb_peer_scratchpad(b, 3), 5);
	ntb_stats(b, &stats);
	assert_int_equal(stats.reads_across, 1);
	ntb_close(a);
	ntb_close(b);
}

static void
test_addresses_are_the_same_on_both_sides(void **state)
{
	struct ntb *a, *b;
	uint64_t bus;

	(void)state;
	a = open_side(BUS_A, 0, 0);
	b = open_side(BUS_B, SIZE / 2, 0);
	assert_true(a->out.size == 0);
	up(a, b);
	/* Each side knows what the other calls its memory. */
	assert_true(a->out.bus == BUS_B && b->out.bus == BUS_A);
	assert_true(a->out.size == SIZE && b->out.size == SIZE / 2);
	assert_true(ntb_bus(&a->out, a->out.host + 16, 16, &bus) && bus == BUS_B + 16);
	assert_ptr_equal(ntb_host(&b->in, bus, 16), b->in.host + 16);
	assert_null(ntb_host(&b->in, bus, SIZE));
	assert_null(ntb_host(&b->in, BUS_B - 1, 1));
	assert_null(ntb_host(&b->in, bus, UINT64_MAX));
	assert_false(ntb_bus(&a->out, a->in.host, 1, &bus));
	/* Beyond the limit nothing arrives. */
	put(b, SIZE / 2, 1);
	assert_int_equal(look(a, SIZE / 2), 0);
	ntb_close(a);
	ntb_close(b);
}

static void
test_arrives_later_and_in_order(void **state)
{
	struct timespec begin, end;
	struct ntb *a, *b;
	unsigned int i;

	(void)state;
	pair(&a, &b, 20000);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (i = 1; i <= 200; i++) {
		put(a, 0, i);
		put(a, 64, i);
	}
	ntb_set_peer_scratchpad(a, 0, 1);
	ntb_ring(a, 1);
	while (ntb_doorbells(b) == 0) {
		uint8_t second = look(b, 64);

		assert_true(look(b, 0) >= second);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true((end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000 >=
		20000);
	assert_int_equal(look(b, 64), 200);
	assert_int_equal(ntb_scratchpad(b, 0), 1);
	ntb_close(a);
	ntb_close(b);
}

static void
test_doorbells(void **state)
{
	struct ntb *a, *b;

	(void)state;
	pair(&a, &b, 0);
	ntb_ring(a, 0x80000001);
	assert_true(is_readable(b->doorbell_fd));
	assert_int_equal(ntb_doorbells(b), 0x80000001);
	/* What was not cleared is told again. */
	ntb_clear(b, 1);
	assert_true(is_readable(b->doorbell_fd));
	ntb_clear(b, 0x80000000);
	assert_false(is_readable(b->doorbell_fd));
	ntb_mask(b, 2);
	ntb_ring(a, 2);
	assert_false(is_readable(b->doorbell_fd));
	assert_int_equal(ntb_doorbells(b), 2);
	ntb_ring(a, 4);
	assert_true(is_readable(b->doorbell_fd));
	ntb_clear(b, 4);
	assert_false(is_readable(b->doorbell_fd));
	ntb_mask(b, 0);
	assert_true(is_readable(b->doorbell_fd));
	ntb_close(a);
	ntb_close(b);
}

static void
test_what_is_lost_does_not_arrive(void **state)
{
	struct ntb *a, *b;

	(void)state;
	pair(&a, &b, 0);
	ntb_sim_lose(a, NTB_SIM_LOSE_FLUSH, 1);
	put(a, 0, 1);
	put(a, 1, 2);
	assert_int_equal(look(b, 0), 0);
	assert_int_equal(look(b, 1), 2);
	ntb_sim_lose(a, NTB_SIM_LOSE_DOORBELL, UINT32_MAX);
	ntb_ring(a, 1);
	ntb_ring(a, 2);
	assert_int_equal(ntb_doorbells(b), 0);
	ntb_sim_lose(a, NTB_SIM_LOSE_SCRATCHPAD, 1);
	ntb_set_peer_scratchpad(a, 0, 1);
	assert_int_equal(ntb_scratchpad(b, 0), 0);
	ntb_close(a);
	ntb_close(b);
}

static void
run_peer(void)
{
	struct ntb *b = open_side(BUS_B, 0, 0);

	ntb_link_enable(b);
	wait_link(b, true);
	put(b, 5, 5);
	ntb_ring(b, 1);
	pause();
	_exit(1);
}

static void
test_peer_is_killed_and_another_comes(void **state)
{
	struct ntb *a = open_side(BUS_A, 0, 0);
	unsigned int round;
	eventfd_t count;
	pid_t pid;

	(void)state;
	for (round = 0; round < 3; round++) {
		assert_int_equal(ntb_link_enable(a), 0);
		assert_int_equal(ntb_link_enable(a), -EALREADY);
		/* Of the one before nothing is left. */
		assert_int_equal(look(a, 5), 0);
		assert_int_equal(ntb_doorbells(a), 0);
		assert_false(is_readable(a->doorbell_fd));
		pid = fork();
		if (pid == 0)
			run_peer();
		wait_link(a, true);
		assert_int_equal(eventfd_read(a->link_fd, &count), 0);
		while (ntb_doorbells(a) == 0)
			nap();
		assert_int_equal(look(a, 5), 5);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		wait_link(a, false);
		assert_int_equal(eventfd_read(a->link_fd, &count), 0);
		/* Whoever writes on is told nothing, and does no harm. */
		put(a, SIZE - 1, 1);
		ntb_ring(a, 1);
	}
	ntb_close(a);
}

static void
test_waits_for_a_peer_that_is_disabled(void **state)
{
	struct ntb *a, *b;

	(void)state;
	pair(&a, &b, 0);
	ntb_link_disable(b);
	assert_false(ntb_link_up(b));
	wait_link(a, false);
	put(a, 1, 1);
	up(b, a);
	assert_int_equal(look(b, 1), 0);
	ntb_close(b);
	wait_link(a, false);
	/* Closed while it looks for one. */
	assert_int_equal(ntb_link_enable(a), 0);
	ntb_close(a);
	assert_int_equal(access(path, F_OK), -1);
}

static void
test_a_file_that_nobody_listens_on_is_replaced(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	struct ntb *a, *b;

	(void)state;
	strcpy(addr.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	pair(&a, &b, 0);
	ntb_close(a);
	ntb_close(b);
}

static void
test_strangers_are_refused(void **state)
{
	struct ntb *a = open_side(BUS_A, 0, 0), *b = open_side(BUS_A + SIZE / 2, 0, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, silent, ms;

	(void)state;
	assert_int_equal(ntb_link_enable(a), 0);
	assert_int_equal(ntb_link_enable(b), 0);
	for (ms = 0; strstr(said, "same addresses") == NULL && ms < WAIT_S * 1000; ms++)
		nap();
	assert_non_null(strstr(said, "both windows have the same addresses"));
	assert_false(ntb_link_up(a) || ntb_link_up(b));
	ntb_close(b);
	strcpy(addr.sun_path, path);
	/* One that says nothing and one that says nonsense: neither keeps the peer away. */
	for (ms = 0; access(path, F_OK) != 0 && ms < WAIT_S * 1000; ms++)
		nap();
	silent = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	assert_int_equal(connect(silent, (struct sockaddr *)&addr, sizeof(addr)), 0);
	fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(send(fd, "nonsense", 8, MSG_NOSIGNAL), 8);
	b = open_side(BUS_B, 0, 0);
	assert_int_equal(ntb_link_enable(b), 0);
	wait_link(a, true);
	close(fd);
	close(silent);
	ntb_close(a);
	ntb_close(b);
}

static void
test_parameters_are_checked(void **state)
{
	static const struct {
		struct ntb_sim_params params;
		const char *why;
	} cases[] = {
		{{.size = 0}, "window's size"},
		{{.size = 4095}, "window's size"},
		{{.size = NTB_SIM_MAX * 2}, "window's size"},
		{{.size = 4096, .limit = 1}, "window's limit"},
		{{.size = 4096, .bus = 1}, "window's address"},
		{{.size = 8192, .bus = UINT64_MAX - 4095}, "window's address"},
		{{.size = 4096, .mapped = true, .latency_us = 1}, "latency"},
	};
	struct ntb *ntb;
	unsigned int i;
	char why[128];

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ntb_sim_params params = cases[i].params;

		params.name = "test";
		params.path = path;
		assert_int_equal(ntb_sim_open(&params, &ntb, why, sizeof(why)), -EINVAL);
		assert_non_null(strstr(why, cases[i].why));
	}
}

static void
test_mapped_memory_is_the_peers(void **state)
{
	struct ntb_sim_params params = {
		.name = "test", .path = path, .bus = BUS_A, .size = SIZE, .mapped = true};
	struct ntb *a, *b = open_side(BUS_B, 0, 0);
	char why[128];

	(void)state;
	assert_int_equal(ntb_sim_open(&params, &a, why, sizeof(why)), 0);
	up(a, b);
	a->out.host[1] = 3;
	assert_int_equal(look(b, 1), 3);
	put(b, 2, 4);
	assert_int_equal(a->in.host[2], 4);
	ntb_close(b);
	wait_link(a, false);
	a->out.host[SIZE - 1] = 3;
	ntb_close(a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seen_only_when_flushed_and_invalidated),
		cmocka_unit_test(test_nothing_is_read_back),
		cmocka_unit_test(test_addresses_are_the_same_on_both_sides),
		cmocka_unit_test(test_arrives_later_and_in_order),
		cmocka_unit_test(test_doorbells),
		cmocka_unit_test(test_what_is_lost_does_not_arrive),
		cmocka_unit_test(test_peer_is_killed_and_another_comes),
		cmocka_unit_test(test_waits_for_a_peer_that_is_disabled),
		cmocka_unit_test(test_a_file_that_nobody_listens_on_is_replaced),
		cmocka_unit_test(test_strangers_are_refused),
		cmocka_unit_test(test_parameters_are_checked),
		cmocka_unit_test(test_mapped_memory_is_the_peers),
	};

	snprintf(path, sizeof(path), "/tmp/vfn-ntb-%d", getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
