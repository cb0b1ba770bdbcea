/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The gate's server, between front-ends that are these tests and a library that is a thread of
 * theirs. Bounds of time are for what would hang; nothing is measured.
 */

#include "gate_server_tests.h"

#include "lingering.h"

/* ---- messages ---- */

static void
byte_by_byte(void **state)
{
	const struct gate_message table = gf_table(2), features = gf_u64(2, GF_FEATURES);
	const uint8_t *bytes = (const uint8_t *)&table.request;
	const size_t size = GATE_HEADER_SIZE + table.size;
	int fd, fds[2], at;
	size_t i;

	(void)state;
	open_gate(false);
	fds[0] = memory(GF_SIZE);
	fds[1] = memory(GF_SIZE_2);
	/* Descriptors with the first byte, in the header, in the payload, with the last. */
	for (at = 0; at < 4; at++) {
		const size_t with[] = {0, 7, 20, size - 1};

		fd = connect_to(public_path);
		negotiate(fd);
		assert_int_equal(ask(fd, features, NULL, 0), 0);
		for (i = 0; i < size; i++)
			send_with(fd, bytes + i, 1, fds, i == with[at] ? 2 : 0);
		assert_int_equal(answer(fd, GATE_SET_MEM_TABLE), 0);
		wait_for(lib.seen[GATE_SET_MEM_TABLE] == (unsigned int)at + 1);
		assert_int_equal(lib.last_fds, 2);
		assert_int_equal(lib.last_size, table.size);
		close(fd);
	}
	assert_int_equal(lib.seen[GATE_SET_MEM_TABLE], 4);
	close(fds[0]);
	close(fds[1]);
	close_gate();
}

static void
half_a_message_costs_its_own_connection(void **state)
{
	const struct gate_message m = gf_u64(2, GF_FEATURES);
	size_t i;

	(void)state;
	open_gate(false);
	for (i = 1; i < GATE_HEADER_SIZE + 8; i += 5) {
		int fd = connect_to(public_path), event = eventfd(0, EFD_CLOEXEC);

		send_with(fd, &m.request, i, &event, 1);
		close(event);
		must_work();
		assert_true(hung_up(fd));
		close(fd);
	}
	close_gate();
}

static void
answers_that_are_not_read(void **state)
{
	const struct gate_message m = gf_empty(GATE_GET_FEATURES);
	int64_t end = now_ms() + PATIENCE_MS;
	int fd;

	(void)state;
	open_gate(false);
	fd = connect_to(public_path);
	/* Until it is hung up on: first it is not read from any more. */
	while (now_ms() < end) {
		ssize_t n = send(fd, &m.request, GATE_HEADER_SIZE, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			must_work();
			usleep(50000);
		} else if (n < 0) {
			break;
		}
	}
	assert_true(now_ms() < end);
	close(fd);
	must_work();
	close_gate();
}

static void
flood_is_held_back_and_nothing_lost(void **state)
{
	static uint32_t headers[GATE_MSGS_BURST][3];
	const unsigned int count = 3 * GATE_MSGS_BURST;
	struct gate_stats stats;
	unsigned int i;
	int64_t start;
	int fd;

	(void)state;
	open_gate(false);
	fd = connect_to(public_path);
	for (i = 0; i < GATE_MSGS_BURST; i++) {
		headers[i][0] = GATE_SET_OWNER;
		headers[i][1] = GATE_VERSION;
	}
	start = now_ms();
	for (i = 0; i < 3; i++)
		send_with(fd, headers, sizeof(headers), NULL, 0);
	wait_for(lib.seen[GATE_SET_OWNER] == count);
	/* Never quicker than this, however slow the machine is. */
	assert_true(now_ms() - start > (count - GATE_MSGS_BURST) * 1000 / GATE_MSGS_PER_S - 100);
	gate_get_stats(gate, 0, &stats);
	assert_int_equal(stats.messages, count);
	close(fd);
	close_gate();
}

static void
surplus_descriptors_are_closed(void **state)
{
	const struct gate_message m = gf_empty(GATE_GET_FEATURES);
	int fd, event = eventfd(0, EFD_CLOEXEC), fds[60], i;

	(void)state;
	open_gate(false);
	for (i = 0; i < 60; i++)
		fds[i] = event;
	for (i = 1; i <= 60; i += 7) {
		fd = connect_to(public_path);
		send_message(fd, &m, fds, i);
		assert_true(hung_up(fd));
		close(fd);
	}
	must_work();
	close(event);
	fds_before--;
	close_gate();
}

static void
descriptor_whose_close_waits(void **state)
{
	const struct gate_message m = gf_empty(GATE_GET_FEATURES);
	struct gate_stats stats;
	const unsigned int nb[] = {1, 100}; /* with it, which is the last one */
	int fd, peer, fds[100];
	unsigned int i, k;
	int64_t start;

	(void)state;
	open_gate(false);
	for (k = 0; k < 2; k++) {
		for (i = 0; i + 1 < nb[k]; i++)
			fds[i] = STDERR_FILENO;
		fds[i] = lingering_socket(&peer);
		fd = connect_to(public_path);
		/* The gate has the last one: it closes nothing before the message is complete. */
		send_with(fd, &m.request, GATE_HEADER_SIZE - 1, fds, nb[k]);
		close(fds[i]);
		send_with(fd, (const char *)&m.request + GATE_HEADER_SIZE - 1, 1, NULL, 0);
		start = now_ms();
		assert_true(hung_up(fd));
		must_work();
		must_work();
		assert_true(now_ms() - start < 2000);
		gate_get_stats(gate, 0, &stats);
		assert_true(stats.waiting > 0);
		close(fd);
		close(peer); /* reset: the close ends */
		wait_for(gate_get_stats(gate, 0, &stats) == 0 && stats.waiting == 0);
	}
	close_gate();
}

/* ---- connections ---- */

static void
more_connections_than_there_may_be(void **state)
{
	int fds[GATE_CONNECTIONS + 2], i;
	struct pollfd p;

	(void)state;
	open_gate(false);
	for (i = 0; i < GATE_CONNECTIONS + 2; i++)
		fds[i] = connect_to(public_path);
	for (i = 0; i < GATE_CONNECTIONS; i++)
		negotiate(fds[i]);
	for (; i < GATE_CONNECTIONS + 2; i++)
		send_message(fds[i], &(struct gate_message){.request = 1, .flags = 1}, NULL, 0);
	p = (struct pollfd){.fd = fds[GATE_CONNECTIONS], .events = POLLIN};
	assert_int_equal(poll(&p, 1, 200), 0);
	/* Each that goes lets one in. */
	for (i = 0; i < 2; i++) {
		close(fds[i]);
		assert_int_equal(answer(fds[GATE_CONNECTIONS + i], 1), GF_OFFER);
	}
	for (; i < GATE_CONNECTIONS + 2; i++)
		close(fds[i]);
	must_work();
	close_gate();
}

static double
cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
no_descriptors_to_accept_with(void **state)
{
	struct rlimit old, limit;
	double cpu;
	int fd;

	(void)state;
	open_gate(false);
	must_work();
	getrlimit(RLIMIT_NOFILE, &old);
	limit = old;
	fd = connect_to(public_path);
	negotiate(fd); /* it has been accepted */
	close(fd);
	wait_for(lib.nb_conns == 0);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	limit.rlim_cur = fd + 1; /* nothing above, and what is below is taken */
	setrlimit(RLIMIT_NOFILE, &limit);
	{
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		int holes[64], n = 0;

		while (n < 64 && (holes[n] = dup(fd)) >= 0)
			n++;
		strcpy(un.sun_path, public_path);
		assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
		cpu = cpu_seconds();
		usleep(500000);
		assert_true(cpu_seconds() - cpu < 0.25);
		while (n > 0)
			close(holes[--n]);
	}
	setrlimit(RLIMIT_NOFILE, &old);
	negotiate(fd);
	assert_true(nb_lines > 0);
	close(fd);
	close_gate();
}

static void
client_is_not_too_quick(void **state)
{
	int listener, fd, count = 0;
	int64_t end;

	(void)state;
	unlink(public_path);
	open_gate(true);
	usleep(50000); /* nobody listens yet */
	listener = listen_at(public_path);
	end = now_ms() + 2000;
	while (now_ms() < end) {
		struct pollfd p = {.fd = listener, .events = POLLIN};

		if (poll(&p, 1, 100) > 0) {
			close(accept(listener, NULL, NULL));
			count++;
		}
	}
	/* 10 ms doubled each time: nine attempts in two seconds, and those before. */
	assert_in_range(count, 2, 12);
	/* One that is right at last is served. */
	do {
		struct pollfd p = {.fd = listener, .events = POLLIN};

		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
		fd = accept(listener, NULL, NULL);
	} while (fd < 0);
	negotiate(fd);
	assert_int_equal(ask(fd, gf_empty(GATE_GET_STATUS), NULL, 0), 0);
	close(fd);
	/* And soon again after that. */
	{
		struct pollfd p = {.fd = listener, .events = POLLIN};

		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	}
	close(listener);
	close_gate();
}

/* ---- the library ---- */

static void
library_that_is_busy(void **state)
{
	struct gate_message m = gf_u64(2, GF_FEATURES);
	int fd, vanishes;
	unsigned int i;

	(void)state;
	open_gate(false);
	fd = connect_to(public_path);
	negotiate(fd);
	assert_int_equal(ask(fd, gf_empty(GATE_GET_STATUS), NULL, 0), 0);
	lib.hold = true;
	m.flags = GATE_VERSION;
	vanishes = connect_to(public_path);
	for (i = 0; i < 200; i++)
		send_message(vanishes, &m, NULL, 0);
	close(vanishes);
	/* What the gate knows itself is answered, and in its turn behind what it does not. */
	assert_int_equal(ask(fd, gf_empty(GATE_GET_FEATURES), NULL, 0), GF_OFFER);
	send_message(fd, &(struct gate_message){.request = GATE_GET_STATUS, .flags = 1}, NULL, 0);
	send_message(fd, &(struct gate_message){.request = GATE_GET_FEATURES, .flags = 1}, NULL, 0);
	{
		struct pollfd p = {.fd = fd, .events = POLLIN};

		assert_int_equal(poll(&p, 1, 100), 0);
	}
	lib.hold = false;
	assert_int_equal(answer(fd, GATE_GET_STATUS), 0);
	assert_int_equal(answer(fd, GATE_GET_FEATURES), GF_OFFER);
	/* All that was sent is carried out. */
	wait_for(lib.seen[GATE_SET_FEATURES] == 200);
	wait_for(lib.nb_conns == 1);
	close(fd);
	close_gate();
}

static void
library_that_refuses(void **state)
{
	int fd;

	(void)state;
	open_gate(false);
	/* Acknowledged already: the connection ends. */
	lib.refuse = GATE_SET_FEATURES;
	fd = connect_to(public_path);
	negotiate(fd);
	send_message(fd, &(struct gate_message){.request = 2, .flags = 9, .size = 8}, NULL, 0);
	assert_true(hung_up(fd));
	close(fd);
	/* Nothing hangs on this one. */
	lib.refuse = GATE_NET_SET_MTU;
	fd = connect_to(public_path);
	negotiate(fd);
	assert_int_equal(ask(fd, gf_u64(GATE_NET_SET_MTU, 1500), NULL, 0), 1);
	lib.refuse = 0;
	assert_int_equal(ask(fd, gf_u64(GATE_NET_SET_MTU, 1500), NULL, 0), 0);
	close(fd);
	close_gate();
}

static void
socket_is_removed_whatever_the_library_does(void **state)
{
	int fd;

	(void)state;
	open_gate(false);
	fd = connect_to(public_path);
	negotiate(fd);
	assert_int_equal(ask(fd, gf_empty(GATE_GET_STATUS), NULL, 0), 0);
	lib.hold = true;
	send_message(fd, &(struct gate_message){.request = GATE_GET_STATUS, .flags = 1}, NULL, 0);
	usleep(10000);
	assert_int_equal(gate_remove_socket(gate, 0, 50), -ETIMEDOUT);
	assert_int_equal(gate_remove_socket(gate, 0, 50), -ENOENT);
	assert_true(hung_up(fd));
	close(fd);
	lib.hold = false;
	wait_for(lib.nb_conns == 0);
	assert_int_equal(add_socket(listen_at(public_path)), 0);
	must_work();
	assert_int_equal(gate_remove_socket(gate, 0, PATIENCE_MS), 0);
	close_gate();
}

static void
regions_one_by_one(void **state)
{
	int fd, i, fds[3];

	(void)state;
	open_gate(false);
	fd = connect_to(public_path);
	negotiate(fd);
	assert_int_equal(ask(fd, gf_empty(GATE_GET_MAX_MEM_SLOTS), NULL, 0), 8);
	assert_int_equal(ask(fd, gf_u64(2, GF_FEATURES), NULL, 0), 0);
	for (i = 0; i < 3; i++) {
		fds[i] = memory(GF_SIZE_2);
		assert_int_equal(ask(fd, gf_slot(GATE_ADD_MEM_REG, i), &fds[i], 1), 0);
		wait_for(lib.seen[GATE_SET_MEM_TABLE] == (unsigned int)i + 1);
		assert_int_equal(lib.last_fds, i + 1);
		close(fds[i]);
	}
	assert_int_equal(ask(fd, gf_slot(GATE_REM_MEM_REG, 1), NULL, 0), 0);
	wait_for(lib.seen[GATE_SET_MEM_TABLE] == 4);
	assert_int_equal(lib.last_fds, 2);
	close(fd);
	close_gate();
}

/* ---- the back-channel ---- */

static void
back_channel(void **state)
{
	struct gate_message question = {.request = GATE_BACK_CONFIG_CHANGE, .flags = 9}, m;
	int fd, pair[2], fds[8], memfd = memory(4096);
	unsigned int n;

	(void)state;
	open_gate(false);
	fds_before--;
	fd = connect_to(public_path);
	negotiate(fd);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(ask(fd, gf_empty(GATE_SET_BACKEND_REQ_FD), &pair[1], 1), 0);
	close(pair[1]);
	wait_for(lib.back_fd >= 0);

	/* Both ways, with a descriptor. */
	m = (struct gate_message){.request = GATE_BACK_VRING_HOST_NOTIFIER, .flags = 9, .size = 24};
	send_message(lib.back_fd, &m, &memfd, 1);
	assert_true(receive(pair[0], &m, fds, &n) > 0);
	assert_int_equal(m.request, GATE_BACK_VRING_HOST_NOTIFIER);
	assert_int_equal(n, 1);
	close(fds[0]);
	m = (struct gate_message){.request = m.request, .flags = 5, .size = 8, .payload.u64 = 7};
	send_message(pair[0], &m, NULL, 0);
	assert_int_equal(answer(lib.back_fd, m.request), 7);

	/* Not answered: the library is told no; the answer that comes then is not the next one's.
	 */
	send_message(lib.back_fd, &question, NULL, 0);
	assert_int_equal(answer(lib.back_fd, question.request), 1);
	assert_true(receive(pair[0], &m, fds, &n) > 0);
	send_message(lib.back_fd, &question, NULL, 0);
	assert_true(receive(pair[0], &m, fds, &n) > 0);
	m = (struct gate_message){.request = m.request, .flags = 5, .size = 8, .payload.u64 = 8};
	send_message(pair[0], &m, NULL, 0);
	m.payload.u64 = 9;
	send_message(pair[0], &m, NULL, 0);
	assert_int_equal(answer(lib.back_fd, question.request), 9);

	/* Hung up, or nonsense: no, at once, and the end. */
	send_message(lib.back_fd, &question, NULL, 0);
	assert_true(receive(pair[0], &m, fds, &n) > 0);
	m = (struct gate_message){.request = 77, .flags = 5, .size = 8};
	send_message(pair[0], &m, NULL, 0);
	assert_int_equal(answer(lib.back_fd, question.request), 1);
	assert_true(hung_up(lib.back_fd));
	assert_int_equal(ask(fd, gf_empty(GATE_GET_STATUS), NULL, 0), 0);
	close(pair[0]);
	close(fd);
	close(memfd);
	close_gate();
}

/* A socket without room: the library is told no, and waits for nobody. */
static void
back_channel_that_is_full(void **state)
{
	struct gate_message question = {.request = GATE_BACK_CONFIG_CHANGE, .flags = 9};
	int fd, pair[2];

	(void)state;
	open_gate(false);
	fd = connect_to(public_path);
	negotiate(fd);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	while (send(pair[1], dir, 1, MSG_DONTWAIT) > 0)
		;
	assert_int_equal(ask(fd, gf_empty(GATE_SET_BACKEND_REQ_FD), &pair[1], 1), 0);
	close(pair[1]);
	wait_for(lib.back_fd >= 0);
	send_message(lib.back_fd, &question, NULL, 0);
	assert_int_equal(answer(lib.back_fd, question.request), 1);
	close(pair[0]);
	close(fd);
	close_gate();
}

static int
make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) == NULL;
}

static int
remove_dir(void **state)
{
	(void)state;
	unlink(lib.path);
	unlink(public_path);
	return rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(half_a_message_costs_its_own_connection),
		cmocka_unit_test(answers_that_are_not_read),
		cmocka_unit_test(flood_is_held_back_and_nothing_lost),
		cmocka_unit_test(surplus_descriptors_are_closed),
		cmocka_unit_test(descriptor_whose_close_waits),
		cmocka_unit_test(more_connections_than_there_may_be),
		cmocka_unit_test(no_descriptors_to_accept_with),
		cmocka_unit_test(client_is_not_too_quick),
		cmocka_unit_test(library_that_is_busy),
		cmocka_unit_test(library_that_refuses),
		cmocka_unit_test(socket_is_removed_whatever_the_library_does),
		cmocka_unit_test(regions_one_by_one),
		cmocka_unit_test(back_channel),
		cmocka_unit_test(back_channel_that_is_full),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
