/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A gate between front-ends, which are the tests, and a library, which is a thread of theirs.
 */

#ifndef GATE_SERVER_TESTS_H
#define GATE_SERVER_TESTS_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <dirent.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gate.h"
#include "gate_frontend.h"

#define PATIENCE_MS 20000
#define LIB_CONNS   64

/* ---- the library ---- */

static struct {
	pthread_t thread;
	int listen_fd, wake_fd;
	char path[64];
	atomic_bool stop, hold;
	atomic_uint refuse;   /* the request that it refuses */
	atomic_uint nb_conns; /* now */
	atomic_uint accepted;
	atomic_uint seen[GATE_NB_REQUESTS];
	atomic_uint last_fds, last_size;
	atomic_int back_fd; /* of SET_BACKEND_REQ_FD */
	int fds[LIB_CONNS];
} lib;

static ssize_t
receive(int fd, struct gate_message *m, int *fds, unsigned int *nb_fds)
{
	char control[CMSG_SPACE(64 * sizeof(int))] __attribute__((aligned(8)));
	uint8_t *bytes = (uint8_t *)&m->request;
	size_t want = GATE_HEADER_SIZE, have = 0;
	ssize_t n;

	*nb_fds = 0;
	memset(m, 0, sizeof(*m));
	while (have < want) {
		struct iovec iov = {bytes + have, want - have};
		struct msghdr hdr = {.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control)};
		struct cmsghdr *c;

		n = recvmsg(fd, &hdr, 0);
		if (n <= 0)
			return -1;
		c = CMSG_FIRSTHDR(&hdr);
		if (c != NULL) {
			*nb_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(c), *nb_fds * sizeof(int));
		}
		have += n;
		if (have >= GATE_HEADER_SIZE)
			want = GATE_HEADER_SIZE + m->size;
	}
	return have;
}

static void
send_with(int fd, const void *bytes, size_t size, const int *fds, unsigned int nb_fds)
{
	char control[CMSG_SPACE(64 * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {(void *)(uintptr_t)bytes, size};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (nb_fds > 0) {
		memset(control, 0, sizeof(control));
		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(nb_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nb_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nb_fds * sizeof(int));
	}
	sendmsg(fd, &hdr, MSG_NOSIGNAL);
}

static void
send_message(int fd, const struct gate_message *m, const int *fds, unsigned int nb_fds)
{
	send_with(fd, &m->request, GATE_HEADER_SIZE + m->size, fds, nb_fds);
}

static bool
lib_message(int fd)
{
	struct gate_message m;
	int fds[64];
	unsigned int n, i;

	if (receive(fd, &m, fds, &n) < 0)
		return false;
	while (lib.hold && !lib.stop)
		usleep(1000);
	lib.last_fds = n;
	lib.last_size = m.size;
	for (i = 0; i < n; i++) {
		if (m.request == GATE_SET_BACKEND_REQ_FD)
			lib.back_fd = fds[i];
		else
			close(fds[i]);
	}
	/* NEED_REPLY is on all of them. */
	if ((m.flags & GATE_NEED_REPLY) == 0)
		return false;
	if (m.request != GATE_GET_VRING_BASE && m.request != GATE_GET_STATUS) {
		m.size = 8;
		m.payload.u64 = m.request == lib.refuse;
	} else if (m.request == GATE_GET_STATUS) {
		m.size = 8;
	}
	m.flags = GATE_VERSION | GATE_REPLY;
	lib.seen[m.request]++;
	send_message(fd, &m, NULL, 0);
	return true;
}

static void *
lib_run(void *arg)
{
	struct pollfd fds[LIB_CONNS + 2];
	unsigned int i, k;

	(void)arg;
	while (!lib.stop) {
		unsigned int n = lib.nb_conns;

		fds[0] = (struct pollfd){.fd = lib.listen_fd, .events = POLLIN};
		fds[1] = (struct pollfd){.fd = lib.wake_fd, .events = POLLIN};
		for (i = 0; i < n; i++)
			fds[i + 2] = (struct pollfd){.fd = lib.fds[i], .events = POLLIN};
		poll(fds, n + 2, -1);
		for (i = k = 0; i < n; i++) {
			if (fds[i + 2].revents != 0 && !lib_message(lib.fds[i]))
				close(lib.fds[i]);
			else
				lib.fds[k++] = lib.fds[i];
		}
		if (fds[0].revents != 0) {
			lib.fds[k++] = accept(lib.listen_fd, NULL, NULL);
			lib.accepted++;
		}
		lib.nb_conns = k;
	}
	for (i = 0; i < lib.nb_conns; i++)
		close(lib.fds[i]);
	return NULL;
}

static int
listen_at(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(un.sun_path, path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 128), 0);
	return fd;
}

/* ---- the gate and its front-ends ---- */

static struct gate *gate;
static char dir[] = "/tmp/vfn-gate-XXXXXX";
static char public_path[64];
static unsigned int fds_before;
static atomic_uint nb_lines;

static void
say(enum gate_log_level level, const char *line)
{
	(void)level;
	nb_lines++;
	printf("# %s\n", line);
}

static unsigned int
count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

#define wait_for(cond) \
	do { \
		int64_t end_ = now_ms() + PATIENCE_MS; \
		while (!(cond)) { \
			if (now_ms() > end_) \
				fail_msg("never: %s", #cond); \
			usleep(1000); \
		} \
	} while (0)

static int
add_socket(int listen_fd)
{
	const struct gate_socket_conf conf = {.name = "socket",
		.path = public_path,
		.private_path = lib.path,
		.listen_fd = listen_fd,
		.features = GF_OFFER,
		.protocol_features = GF_PROTOCOL,
		.slots = true,
		.rings = 4,
		.queues = 2};

	return gate_add_socket(gate, &conf);
}

static void
open_gate(bool client)
{
	const struct gate_conf conf = {.log = say};

	fds_before = count_fds();
	memset(&lib, 0, sizeof(lib));
	lib.back_fd = -1;
	snprintf(lib.path, sizeof(lib.path), "%s/lib", dir);
	snprintf(public_path, sizeof(public_path), "%s/front", dir);
	lib.listen_fd = listen_at(lib.path);
	lib.wake_fd = eventfd(0, EFD_CLOEXEC);
	pthread_create(&lib.thread, NULL, lib_run, NULL);
	gate = gate_open(&conf);
	assert_non_null(gate);
	assert_int_equal(add_socket(client ? -1 : listen_at(public_path)), 0);
}

static void
close_gate(void)
{
	gate_close(gate);
	lib.stop = true;
	eventfd_write(lib.wake_fd, 1);
	pthread_join(lib.thread, NULL);
	close(lib.listen_fd);
	close(lib.wake_fd);
	if (lib.back_fd >= 0)
		close(lib.back_fd);
	wait_for(count_fds() == fds_before);
}

static int
connect_to(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(un.sun_path, path);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

/* The answer's number, or its nack. */
static uint64_t
answer(int fd, uint32_t request)
{
	struct gate_message m;
	unsigned int n;
	int fds[64];

	if (receive(fd, &m, fds, &n) < 0)
		fail_msg("no answer to %s", gate_proto_name(request));
	assert_int_equal(m.request, request);
	assert_int_equal(m.flags, GATE_VERSION | GATE_REPLY);
	while (n > 0)
		close(fds[--n]);
	return m.payload.u64;
}

static uint64_t
ask(int fd, struct gate_message m, const int *fds, unsigned int nb_fds)
{
	send_message(fd, &m, fds, nb_fds);
	return answer(fd, m.request);
}

static void
negotiate(int fd)
{
	struct gate_message m = gf_u64(GATE_SET_PROTOCOL_FEATURES, GF_PROTOCOL);

	m.flags = GATE_VERSION;
	assert_int_equal(ask(fd, gf_empty(GATE_GET_FEATURES), NULL, 0), GF_OFFER);
	send_message(fd, &m, NULL, 0);
}

static void
must_work(void)
{
	int fd = connect_to(public_path);

	negotiate(fd);
	assert_int_equal(ask(fd, gf_empty(GATE_GET_STATUS), NULL, 0), 0);
	close(fd);
}

static bool
hung_up(int fd)
{
	char bytes[4096];
	ssize_t n;

	do
		n = recv(fd, bytes, sizeof(bytes), 0);
	while (n > 0);
	return n == 0 || errno == ECONNRESET;
}

static int
memory(size_t size)
{
	int fd = memfd_create("gate", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

#endif /* GATE_SERVER_TESTS_H */
