/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One socket: who may connect, or how often is connected to whom, and what all connections of it
 * may take together. On the gate's thread.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gate_private.h"

#define NS_PER_S	INT64_C(1000000000)
#define NO_FDS_MS	100 /* until it is tried again whether there are descriptors */
#define CLOSING_LOOK_MS 100
#define LOG_BURST	40 /* lines at once, then so many a second: */
#define LOG_LINES_PER_S 4

/* ---- what it says ---- */

/* A bucket as one number: the time at which it was empty. False: there is nothing in it. */
static bool
bucket_take(int64_t *empty, int64_t now, int64_t cost, int64_t room)
{
	if (*empty < now - room)
		*empty = now - room;
	if (*empty + cost > now)
		return false;
	*empty += cost;
	return true;
}

void
gate_say(struct gate_socket *sock, enum gate_log_level level, const char *fmt, ...)
{
	struct gate *gate = sock->gate;
	char line[512];
	va_list ap;
	int n;

	if (!bucket_take(&sock->log_empty, gate->now, NS_PER_S / LOG_LINES_PER_S,
		    LOG_BURST * NS_PER_S / LOG_LINES_PER_S))
		return;
	n = snprintf(line, sizeof(line), "%s: ", sock->name);
	va_start(ap, fmt);
	if (n > 0 && (size_t)n < sizeof(line))
		vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	gate->conf.log(level, line);
}

/* Number of a reason, or GATE_MAX_REASONS if there is no room for it. */
static uint32_t
count_reason(struct gate_socket *sock, const char *reason)
{
	struct gate_stats *s = &sock->stats;
	uint32_t i;

	pthread_mutex_lock(&sock->gate->lock);
	s->refused++;
	for (i = 0; i < s->nb_reasons; i++)
		if (s->reasons[i].reason == reason)
			break;
	if (i < GATE_MAX_REASONS) {
		s->reasons[i].reason = reason;
		s->reasons[i].count++;
		if (i == s->nb_reasons)
			s->nb_reasons++;
	}
	pthread_mutex_unlock(&sock->gate->lock);
	return i;
}

/* Each reason is said once a second, so that one that comes often does not hide the others. */
void
gate_refused(struct gate_socket *sock, uint32_t request, int ring, const char *reason)
{
	const uint32_t i = count_reason(sock, reason);
	struct gate_said *said = &sock->said[i];
	char where[32] = "", more[48] = "";

	if (said->at != 0 && sock->gate->now < said->at + NS_PER_S) {
		said->lost++;
		return;
	}
	if (ring >= 0)
		snprintf(where, sizeof(where), " of ring %d", ring);
	if (said->lost > 0)
		snprintf(more, sizeof(more), " (%u more of these before)", said->lost);
	said->at = sock->gate->now;
	said->lost = 0;
	gate_say(sock, GATE_LOG_WARNING, "%s%s refused: %s%s", gate_proto_name(request), where,
		reason, more);
}

/* ---- what it may take ---- */

uint64_t
gate_socket_space(const struct gate_socket *sock, uint64_t has)
{
	const struct gate *gate = sock->gate;
	const uint64_t all = gate->conf.space_max, others = sock->space - has;
	const uint64_t rest = all - (gate->space - has);
	uint64_t share = all / (gate->nb_sockets > 0 ? gate->nb_sockets : 1), left;

	/* Whoever takes half of what is left at most never takes the last of it. */
	if (share < rest / 2)
		share = rest / 2;
	left = others < share ? share - others : 0;
	if (left > rest)
		left = rest;
	return left < GATE_CONN_SPACE_MAX ? left : GATE_CONN_SPACE_MAX;
}

int64_t
gate_socket_may_send(const struct gate_socket *sock)
{
	const int64_t now = sock->gate->now, cost = NS_PER_S / GATE_MSGS_PER_S;

	if (vfn_closer_waiting(sock->closer) > GATE_CLOSING_MAX)
		return now + CLOSING_LOOK_MS * 1000000;
	/* A quarter of a bucket, so that it is not woken for every message. */
	return sock->rate_empty + cost > now ? now + GATE_MSGS_BURST / 4 * cost : 0;
}

void
gate_socket_sent(struct gate_socket *sock)
{
	const int64_t cost = NS_PER_S / GATE_MSGS_PER_S;

	gate_count(sock, messages);
	bucket_take(&sock->rate_empty, sock->gate->now, cost, GATE_MSGS_BURST * cost);
}

/* Also while the back-end has not closed what it had: it has as many connections as we. */
static bool
is_full(const struct gate_socket *sock)
{
	const struct gate *gate = sock->gate;

	return sock->nb_front + sock->nb_drain >= gate_connections(gate) ||
		gate->nb_conns + gate->nb_sockets >= GATE_BACKEND_MAX;
}

/* ---- who comes, and who is called ---- */

static void
retry(struct gate_socket *sock, int64_t ms)
{
	sock->retry_at = gate_in_ms(sock->gate, ms);
	gate_at(sock->gate, sock->retry_at);
}

static void
accept_all(struct gate_socket *sock)
{
	int fd;

	while (!is_full(sock)) {
		fd = accept4(sock->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno == EAGAIN)
				break;
			/* It stays in the queue, which must not be looked at all the time. */
			gate_say(sock, GATE_LOG_ERR, "cannot accept a connection: %s",
				strerror(errno));
			gate_watch(sock->gate, &sock->listen, 0);
			retry(sock, NO_FDS_MS);
			return;
		}
		gate_count(sock, accepted);
		gate_conn_open(sock, fd);
	}
	if (gate_watch(sock->gate, &sock->listen, is_full(sock) ? 0 : EPOLLIN) != 0)
		retry(sock, NO_FDS_MS);
}

/* Each failure doubles the time to the next attempt. */
static void
call_later(struct gate_socket *sock)
{
	retry(sock, sock->retry_ms);
	sock->retry_ms *= 2;
	if (sock->retry_ms > GATE_RETRY_MAX_MS)
		sock->retry_ms = GATE_RETRY_MAX_MS;
}

static void
call(struct gate_socket *sock)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd;

	if (sock->nb_front > 0 || is_full(sock)) {
		if (sock->nb_front == 0)
			call_later(sock);
		return;
	}
	strncpy(un.sun_path, sock->path, sizeof(un.sun_path) - 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0) {
		sock->said_retry = false;
		gate_count(sock, accepted);
		sock->heard = sock->stats.messages;
		sock->silent_at = gate_in_ms(sock->gate, GATE_SILENT_MS);
		gate_at(sock->gate, sock->silent_at);
		gate_conn_open(sock, fd);
		return;
	}
	if (!sock->said_retry)
		gate_say(sock, GATE_LOG_NOTICE, "cannot connect to %s: %s, it is tried again",
			sock->path, strerror(errno));
	sock->said_retry = true;
	if (fd >= 0)
		close(fd);
	call_later(sock);
}

void
gate_socket_begin(struct gate_socket *sock)
{
	sock->retry_at = sock->silent_at = GATE_NEVER_NS;
	sock->retry_ms = GATE_RETRY_MIN_MS;
	if (sock->client)
		call(sock);
	else
		accept_all(sock);
}

void
gate_socket_event(struct gate_socket *sock)
{
	accept_all(sock);
}

void
gate_socket_lost(struct gate_socket *sock, bool useful)
{
	if (sock->removed)
		return;
	if (sock->client) {
		if (useful)
			sock->retry_ms = GATE_RETRY_MIN_MS;
		call_later(sock);
	} else {
		retry(sock, 0);
	}
}

void
gate_socket_freed(struct gate_socket *sock)
{
	struct gate_conn *c;

	/* Some may have waited for the device. */
	LIST_FOREACH(c, &sock->conns, next)
	if (c->reconnect != 0)
		c->reconnect = sock->gate->now;
	gate_at(sock->gate, sock->gate->now);
	if (!sock->removed && !sock->client)
		retry(sock, 0);
}

void
gate_socket_expire(struct gate_socket *sock, int64_t now)
{
	struct gate_conn *c, *next;

	if (!sock->removed && now >= sock->retry_at) {
		sock->retry_at = GATE_NEVER_NS;
		if (sock->client)
			call(sock);
		else
			accept_all(sock);
	}
	if (now >= sock->silent_at) {
		sock->silent_at = GATE_NEVER_NS;
		if (sock->nb_front > 0 && sock->stats.messages == sock->heard)
			gate_say(sock, GATE_LOG_NOTICE,
				"connected to %s, where nobody speaks: does the front-end know "
				"that "
				"its back-end was gone? testpmd does not with --tx-first",
				sock->path);
	}
	gate_at(sock->gate, sock->retry_at);
	gate_at(sock->gate, sock->silent_at);
	for (c = LIST_FIRST(&sock->conns); c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		gate_conn_expire(c, now);
	}
}

void
gate_socket_free(struct gate_socket *sock)
{
	gate_unwatch(sock->gate, &sock->listen);
	vfn_closer_free(sock->closer);
	free(sock->name);
	free(sock->path);
	free(sock->private_path);
	gate_free_later(sock->gate, sock);
}
