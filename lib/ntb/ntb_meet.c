/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The simulated bridge: how its two sides meet at a path. On the bridge's thread, which sleeps
 * while the link is up and nothing is on its way.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ntb_private.h"

#define RETRY_NS  UINT64_C(20000000)
#define ANSWER_NS UINT64_C(2000000000)

/* What each side tells the other, with its memory and what rings it. */
struct hello {
	char magic[8];
	uint32_t version;
	uint32_t reserved;
	uint64_t bus, size, limit; /* of its window in; of its window out */
};
#define MAGIC	"vfn-ntb"
#define VERSION 1
#define NB_FDS	2

__attribute__((format(printf, 2, 3))) static void
say(struct sim *s, const char *fmt, ...)
{
	char text[sizeof(s->said)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Once each: it is tried again and again. */
	if (s->log == NULL || strcmp(text, s->said) == 0)
		return;
	strcpy(s->said, text);
	s->log(s->log_arg, text);
}

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- the socket ---- */

static bool
is_our_file(const struct sim *s)
{
	struct stat st;

	return stat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

static void
stop_listening(struct sim *s)
{
	if (s->listen_fd < 0)
		return;
	if (is_our_file(s))
		unlink(s->path);
	close_fd(&s->listen_fd);
}

/*
 * Where nobody listens. What appears at the path is listened on, and is known by its file: of two
 * that do so at once the one that was replaced finds out, see seek().
 */
static void
start_listening(struct sim *s)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s.%d.%d", s->path, (int)getpid(), fd);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 4) < 0 ||
		stat(addr.sun_path, &st) < 0 || rename(addr.sun_path, s->path) < 0) {
		say(s, "cannot wait for the peer at %s: %s", s->path, strerror(errno));
		if (fd >= 0)
			unlink(addr.sun_path);
		close_fd(&fd);
		return;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	s->listen_fd = fd;
}

static bool
send_hello(struct sim *s)
{
	struct hello hello = {MAGIC, VERSION, 0, s->ntb.in.bus, s->ntb.in.size, s->limit};
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(NB_FDS * sizeof(int))];
	} control = {0};
	struct iovec iov = {&hello, sizeof(hello)};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	const int fds[NB_FDS] = {s->memory_fd, s->self_fd};

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	s->deadline_ns = sim_now_ns() + ANSWER_NS;
	return sendmsg(s->conn_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(hello);
}

/* All bytes and descriptors of one; what else comes is closed. */
static bool
receive_hello(struct sim *s, struct hello *hello, int *fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(NB_FDS * sizeof(int))];
	} control;
	struct iovec iov = {hello, sizeof(*hello)};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	ssize_t len = recvmsg(s->conn_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;
	unsigned int n = 0;

	for (c = len >= 0 ? CMSG_FIRSTHDR(&msg) : NULL; c != NULL; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		/* No more fit. */
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	}
	return len == sizeof(*hello) && n == NB_FDS && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

/* ---- the other side ---- */

static const char *
wrong(const struct sim *s, const struct hello *h, const int *fds)
{
	int seals = fcntl(fds[0], F_GET_SEALS), type = 0;
	socklen_t len = sizeof(type);
	struct stat st;

	if (memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
		return "who is there is no such bridge";
	if (h->version != VERSION)
		return "the peer is of another version";
	if (h->size == 0 || h->size % NTB_SIM_ALIGN != 0 || h->size > NTB_SIM_MAX ||
		h->bus % NTB_SIM_ALIGN != 0 || h->bus + (h->size - 1) < h->bus)
		return "the peer's window is of no size, or has no address";
	if (h->bus <= s->ntb.in.bus + (s->ntb.in.size - 1) &&
		s->ntb.in.bus <= h->bus + (h->size - 1))
		return "both windows have the same addresses";
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fds[0], &st) < 0 ||
		(uint64_t)st.st_size < SIM_WINDOW_AT + h->size)
		return "the peer's memory is not what it says";
	if (getsockopt(fds[1], SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_DGRAM)
		return "the peer's doorbell is none";
	return NULL;
}

static void
set_state(struct sim *s, enum sim_state state)
{
	bool was_up = s->state == SIM_UP;

	__atomic_store_n(&s->state, state, __ATOMIC_RELEASE);
	if (was_up != (state == SIM_UP))
		eventfd_write(s->ntb.link_fd, 1);
	pthread_cond_broadcast(&s->changed);
}

static void
meet(struct sim *s)
{
	int fds[NB_FDS] = {-1, -1};
	struct hello hello;
	const char *text;
	uint64_t size;
	unsigned int i;

	if (!receive_hello(s, &hello, fds)) {
		say(s, "who is at %s is no such bridge, or has gone", s->path);
	} else if ((text = wrong(s, &hello, fds)) != NULL) {
		say(s, "%s: %s", s->path, text);
	} else {
		size = hello.size < s->limit ? hello.size : s->limit;
		pthread_mutex_lock(&s->lock);
		if (dup3(fds[1], s->peer_fd, O_CLOEXEC) >= 0 &&
			sim_map_peer(s, fds[0], hello.bus, size) == 0) {
			__atomic_fetch_add(&s->stats.links, 1, __ATOMIC_RELAXED);
			set_state(s, SIM_UP);
		}
		pthread_mutex_unlock(&s->lock);
		if (s->state == SIM_UP)
			say(s, "the link is up: 0x%llx bytes in, 0x%llx out",
				(unsigned long long)s->ntb.in.size, (unsigned long long)size);
	}
	for (i = 0; i < NB_FDS; i++)
		close_fd(&fds[i]);
	if (s->state == SIM_UP)
		stop_listening(s);
	else
		close_fd(&s->conn_fd);
}

/* The peer may be there already, or come. */
static void
seek(struct sim *s)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, error;

	/* Another one waits at the path now. */
	if (s->listen_fd >= 0 && !is_our_file(s))
		close_fd(&s->listen_fd);
	if (s->conn_fd >= 0 || s->listen_fd >= 0)
		return;
	strcpy(addr.sun_path, s->path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
		s->conn_fd = fd;
		if (!send_hello(s))
			close_fd(&s->conn_fd);
		return;
	}
	error = errno;
	close(fd);
	if (error == ENOENT || error == ECONNREFUSED)
		start_listening(s);
	else
		say(s, "cannot reach the peer at %s: %s", s->path, strerror(error));
}

static void
hang_up(struct sim *s, enum sim_state state)
{
	pthread_mutex_lock(&s->lock);
	if (s->state == SIM_UP)
		sim_unmap_peer(s);
	close_fd(&s->conn_fd);
	close_fd(&s->memory_fd);
	set_state(s, state);
	s->disable = false;
	pthread_mutex_unlock(&s->lock);
	stop_listening(s);
}

/* Until something comes, or until then (0: for any time). */
static void
wait_for(struct sim *s, uint64_t until_ns)
{
	struct pollfd p[] = {{s->wake_fd, POLLIN, 0}, {s->conn_fd, POLLIN | POLLRDHUP, 0},
		{s->conn_fd < 0 ? s->listen_fd : -1, POLLIN, 0}};
	uint64_t now = sim_now_ns(), left = until_ns > now ? until_ns - now : 0;
	struct timespec timeout = {left / 1000000000, left % 1000000000};
	eventfd_t count;

	if (ppoll(p, 3, until_ns != 0 ? &timeout : NULL, NULL) <= 0)
		return;
	if (p[0].revents != 0)
		eventfd_read(s->wake_fd, &count);
	if (s->state == SIM_UP && p[1].revents != 0) {
		say(s, "the link is down: the peer has gone");
		hang_up(s, SIM_DOWN);
	} else if (s->state == SIM_SEEKING && p[1].revents != 0) {
		meet(s);
	} else if (s->state == SIM_SEEKING && p[2].revents != 0) {
		s->conn_fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (s->conn_fd >= 0 && !send_hello(s))
			close_fd(&s->conn_fd);
	}
}

void *
sim_thread(void *arg)
{
	struct sim *s = arg;
	enum sim_state state;
	bool quit, disable;

	for (;;) {
		uint64_t until = 0;

		pthread_mutex_lock(&s->lock);
		state = s->state;
		quit = s->quit;
		disable = s->disable;
		pthread_mutex_unlock(&s->lock);
		if (disable)
			hang_up(s, SIM_OFF);
		else if (quit)
			return NULL;
		else if (state == SIM_SEEKING) {
			seek(s);
			until = sim_now_ns() + RETRY_NS;
			/* Who says nothing keeps no other away. */
			if (s->conn_fd >= 0 && sim_now_ns() > s->deadline_ns)
				close_fd(&s->conn_fd);
		} else if (state == SIM_UP)
			until = sim_arrive(s);
		if (!disable)
			wait_for(s, until);
	}
}
