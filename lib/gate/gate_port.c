/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One port: who may connect, or how often is connected to whom, and what all connections of it may
 * take together. On the gate's thread.
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
gate_say(struct gate_port *port, enum gate_log_level level, const char *fmt, ...)
{
	struct gate *gate = port->gate;
	char line[512];
	va_list ap;
	int n;

	if (!bucket_take(&port->log_empty, gate->now, NS_PER_S / LOG_LINES_PER_S,
		    LOG_BURST * NS_PER_S / LOG_LINES_PER_S))
		return;
	n = snprintf(line, sizeof(line), "%s: ", port->name);
	va_start(ap, fmt);
	if (n > 0 && (size_t)n < sizeof(line))
		vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	gate->conf.log(level, line);
}

/* Number of a reason, or GATE_MAX_REASONS if there is no room for it. */
static uint32_t
count_reason(struct gate_port *port, const char *reason)
{
	struct gate_stats *s = &port->stats;
	uint32_t i;

	pthread_mutex_lock(&port->gate->lock);
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
	pthread_mutex_unlock(&port->gate->lock);
	return i;
}

/* Each reason is said once a second, so that one that comes often does not hide the others. */
void
gate_refused(struct gate_port *port, uint32_t request, int ring, const char *reason)
{
	const uint32_t i = count_reason(port, reason);
	struct gate_said *said = &port->said[i];
	char where[32] = "", more[48] = "";

	if (said->at != 0 && port->gate->now < said->at + NS_PER_S) {
		said->lost++;
		return;
	}
	if (ring >= 0)
		snprintf(where, sizeof(where), " of ring %d", ring);
	if (said->lost > 0)
		snprintf(more, sizeof(more), " (%u more of these before)", said->lost);
	said->at = port->gate->now;
	said->lost = 0;
	gate_say(port, GATE_LOG_WARNING, "%s%s refused: %s%s", gate_proto_name(request), where,
		reason, more);
}

/* ---- what it may take ---- */

uint64_t
gate_port_space(const struct gate_port *port, uint64_t has)
{
	const struct gate *gate = port->gate;
	const uint64_t all = gate->conf.space_max, others = port->space - has;
	const uint64_t rest = all - (gate->space - has);
	uint64_t share = all / (gate->nb_ports > 0 ? gate->nb_ports : 1), left;

	/* Whoever takes half of what is left at most never takes the last of it. */
	if (share < rest / 2)
		share = rest / 2;
	left = others < share ? share - others : 0;
	if (left > rest)
		left = rest;
	return left < GATE_CONN_SPACE_MAX ? left : GATE_CONN_SPACE_MAX;
}

int64_t
gate_port_may_send(const struct gate_port *port)
{
	const int64_t now = port->gate->now, cost = NS_PER_S / GATE_MSGS_PER_S;

	if (gate_closer_waiting(port->closer) > GATE_CLOSING_MAX)
		return now + CLOSING_LOOK_MS * 1000000;
	/* A quarter of a bucket, so that it is not woken for every message. */
	return port->rate_empty + cost > now ? now + GATE_MSGS_BURST / 4 * cost : 0;
}

void
gate_port_sent(struct gate_port *port)
{
	const int64_t cost = NS_PER_S / GATE_MSGS_PER_S;

	gate_count(port, messages);
	bucket_take(&port->rate_empty, port->gate->now, cost, GATE_MSGS_BURST * cost);
}

/* Also while the back-end has not closed what it had: it has as many connections as we. */
static bool
is_full(const struct gate_port *port)
{
	const struct gate *gate = port->gate;

	return port->nb_front + port->nb_drain >= gate_connections(gate) ||
		gate->nb_conns + gate->nb_ports >= GATE_BACKEND_MAX;
}

/* ---- who comes, and who is called ---- */

static void
retry(struct gate_port *port, int64_t ms)
{
	port->retry_at = gate_in_ms(port->gate, ms);
	gate_at(port->gate, port->retry_at);
}

static void
accept_all(struct gate_port *port)
{
	int fd;

	while (!is_full(port)) {
		fd = accept4(port->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno == EAGAIN)
				break;
			/* It stays in the queue, which must not be looked at all the time. */
			gate_say(port, GATE_LOG_ERR, "cannot accept a connection: %s",
				strerror(errno));
			gate_watch(port->gate, &port->listen, 0);
			retry(port, NO_FDS_MS);
			return;
		}
		gate_count(port, accepted);
		gate_conn_open(port, fd);
	}
	if (gate_watch(port->gate, &port->listen, is_full(port) ? 0 : EPOLLIN) != 0)
		retry(port, NO_FDS_MS);
}

/* Each failure doubles the time to the next attempt. */
static void
call_later(struct gate_port *port)
{
	retry(port, port->retry_ms);
	port->retry_ms *= 2;
	if (port->retry_ms > GATE_RETRY_MAX_MS)
		port->retry_ms = GATE_RETRY_MAX_MS;
}

static void
call(struct gate_port *port)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd;

	if (port->nb_front > 0 || is_full(port)) {
		if (port->nb_front == 0)
			call_later(port);
		return;
	}
	strncpy(un.sun_path, port->path, sizeof(un.sun_path) - 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0) {
		port->said_retry = false;
		gate_count(port, accepted);
		port->heard = port->stats.messages;
		port->silent_at = gate_in_ms(port->gate, GATE_SILENT_MS);
		gate_at(port->gate, port->silent_at);
		gate_conn_open(port, fd);
		return;
	}
	if (!port->said_retry)
		gate_say(port, GATE_LOG_NOTICE, "cannot connect to %s: %s, it is tried again",
			port->path, strerror(errno));
	port->said_retry = true;
	if (fd >= 0)
		close(fd);
	call_later(port);
}

void
gate_port_begin(struct gate_port *port)
{
	port->retry_at = port->silent_at = GATE_NEVER_NS;
	port->retry_ms = GATE_RETRY_MIN_MS;
	if (port->client)
		call(port);
	else
		accept_all(port);
}

void
gate_port_event(struct gate_port *port)
{
	accept_all(port);
}

void
gate_port_lost(struct gate_port *port, bool useful)
{
	if (port->removed)
		return;
	if (port->client) {
		if (useful)
			port->retry_ms = GATE_RETRY_MIN_MS;
		call_later(port);
	} else {
		retry(port, 0);
	}
}

void
gate_port_freed(struct gate_port *port)
{
	struct gate_conn *c;

	/* Some may have waited for the device. */
	LIST_FOREACH(c, &port->conns, next)
	if (c->reconnect != 0)
		c->reconnect = port->gate->now;
	gate_at(port->gate, port->gate->now);
	if (!port->removed && !port->client)
		retry(port, 0);
}

void
gate_port_expire(struct gate_port *port, int64_t now)
{
	struct gate_conn *c, *next;

	if (!port->removed && now >= port->retry_at) {
		port->retry_at = GATE_NEVER_NS;
		if (port->client)
			call(port);
		else
			accept_all(port);
	}
	if (now >= port->silent_at) {
		port->silent_at = GATE_NEVER_NS;
		if (port->nb_front > 0 && port->stats.messages == port->heard)
			gate_say(port, GATE_LOG_NOTICE,
				"connected to %s, where nobody speaks: does the front-end know "
				"that "
				"its back-end was gone? testpmd does not with --tx-first",
				port->path);
	}
	gate_at(port->gate, port->retry_at);
	gate_at(port->gate, port->silent_at);
	for (c = LIST_FIRST(&port->conns); c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		gate_conn_expire(c, now);
	}
}

void
gate_port_free(struct gate_port *port)
{
	gate_unwatch(port->gate, &port->listen);
	gate_closer_free(port->closer);
	free(port->name);
	free(port->path);
	free(port->private_path);
	gate_free_later(port->gate, port);
}
