/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One connection: messages of a front-end through the judge to the back-end, answers back in the
 * order of the questions. On the gate's thread; nothing waits.
 *
 * Each side has room for one message on its way out. While it is taken nothing is read that could
 * need it, so a peer that does not read stops being read from, and after a deadline it is hung up
 * on. Up to GATE_WINDOW messages are with the back-end at a time; it acknowledges each one, as
 * NEED_REPLY is set on all.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gate_private.h"

#define TURN	     32 /* messages before others have theirs */
#define RECONNECT_MS 10
#define DRAIN_MS     100 /* until the next front-end is let through all the same */
#define COLLECT_MS   20	 /* acknowledgements that nobody waits for are looked at so late */
#define COLLECT_MAX  (GATE_WINDOW / 2)

static bool
keeps_regions(const struct gate_conn *c)
{
	return (c->state.protocol_features >> GATE_PF_CONFIGURE_MEM_SLOTS & 1) != 0;
}

static void
takes_space(struct gate_socket *sock, uint64_t more)
{
	sock->space += more;
	sock->gate->space += more;
	gate_stat(sock, space, sock->space);
}

void
gate_conn_finish(struct gate_conn *c)
{
	if (!c->no_more)
		c->sock->drain_end = gate_in_ms(c->sock->gate, DRAIN_MS);
	c->no_more = true;
	gate_in_close_fds(&c->from_front, c->sock->closer);
	gate_in_reset(&c->from_front);
}

void
gate_conn_library_left(struct gate_conn *c)
{
	if (!c->no_more)
		gate_say(c->sock, GATE_LOG_NOTICE, "the library hung up");
	gate_conn_end(c);
}

/* ---- to the library ---- */

/* The device belongs to the connection before until the back-end has closed that. */
static bool
waits_for_device(const struct gate_conn *c)
{
	const struct gate_conn *o;

	if (c->sock->gate->now >= c->sock->drain_end)
		return false;
	LIST_FOREACH(o, &c->sock->conns, next)
	if (o != c && o->lib.fd >= 0 && (o->draining || o->no_more))
		return true;
	return false;
}

static bool
reach_library(struct gate_conn *c)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd;

	if (c->lib.fd >= 0)
		return true;
	if (waits_for_device(c)) {
		c->reconnect = c->sock->drain_end;
		gate_at(c->sock->gate, c->reconnect);
		return false;
	}
	strncpy(un.sun_path, c->sock->private_path, sizeof(un.sun_path) - 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0) {
		c->lib.fd = fd;
		c->reconnect = 0;
		return true;
	}
	/* No room in its queue, or no descriptors: both pass. */
	c->reconnect = gate_in_ms(c->sock->gate, RECONNECT_MS);
	gate_at(c->sock->gate, c->reconnect);
	if (fd >= 0)
		close(fd);
	return false;
}

static void
close_kept(struct gate_conn *c, const int *fds, unsigned int n, const struct gate_state *except)
{
	unsigned int i, k;

	for (i = 0; i < n; i++) {
		bool keep = fds[i] < 0;

		for (k = 0; except != NULL && k < except->nb_regions; k++)
			keep |= except->regions[k].file.fd == fds[i];
		if (!keep)
			gate_fd_close(c->sock->closer,
				&(struct gate_fd){.kind = GATE_FD_MEMORY, .fd = fds[i]});
	}
}

static unsigned int
kept_fds(const struct gate_state *s, int fds[GATE_MAX_REGIONS])
{
	unsigned int i;

	for (i = 0; i < s->nb_regions; i++)
		fds[i] = s->regions[i].file.fd;
	return s->nb_regions;
}

/* The message goes into the slot, with the descriptors that belong to it. */
static void
pass(struct gate_conn *c, const struct gate_judgement *j)
{
	struct gate_in *in = &c->from_front;
	struct gate_out *out = &c->to_lib;
	struct gate_pending *p = gate_push(c, in->msg.request);
	unsigned int i;

	out->msg = j->out;
	out->msg.flags = GATE_VERSION | GATE_NEED_REPLY;
	out->nb_fds = j->nb_fds;
	memcpy(out->fds, j->fds, j->nb_fds * sizeof(out->fds[0]));
	out->own = j->take_fds && keeps_regions(c) ? 0 : (1u << j->nb_fds) - 1;
	out->full = true;
	/* What a table took over is its state's if regions are kept, else it goes with the slot. */
	if (j->take_fds && !keeps_regions(c))
		for (i = 0; i < c->state.nb_regions; i++)
			c->state.regions[i].file.fd = -1;
	if (in->msg.request != GATE_REM_MEM_REG)
		in->nb_fds = 0;

	p->expected = true;
	p->own = j->answered;
	p->owed = j->answered || j->acked;
	p->size = in->msg.size;
	if (j->certain && j->acked && !c->to_front.full) {
		p->owed = false;
		p->owed = gate_is_owed(c);
		if (!p->owed)
			gate_reply(c, p->request, &(uint64_t){0}, sizeof(uint64_t));
	}
}

/* Its own end of a new channel goes to the library in place of the front-end's. */
static const char *
open_back(struct gate_conn *c, struct gate_judgement *j)
{
	struct gate_back *back;

	back = gate_back_open(c, j->fds[0], &j->fds[0]);
	if (back == NULL)
		return "no descriptors for its back-channel";
	c->from_front.nb_fds = 0; /* its descriptor is the channel's now */
	if (c->back != NULL)
		gate_back_close(c->back);
	c->back = back;
	return NULL;
}

static void
judge(struct gate_conn *c)
{
	struct gate_in *in = &c->from_front;
	struct gate_socket *sock = c->sock;
	struct gate_fd facts[GATE_MAX_FDS];
	int kept[GATE_MAX_REGIONS];
	struct gate_judgement j;
	const uint64_t space = c->state.space;
	const unsigned int nb_kept = kept_fds(&c->state, kept);
	unsigned int i;

	if (in->surplus) {
		gate_refused(sock, in->msg.request, -1, "wrong number of descriptors");
		gate_conn_finish(c);
		return;
	}
	for (i = 0; i < in->nb_fds; i++)
		gate_fd_look(in->fds[i], &facts[i]);
	sock->offer.space_max = gate_socket_space(sock, space);
	gate_judge(&sock->offer, &c->state, &in->msg, facts, in->nb_fds, &j);
	takes_space(sock, c->state.space - space);
	if (j.verdict == GATE_PASS && in->msg.request == GATE_SET_BACKEND_REQ_FD) {
		j.reason = open_back(c, &j);
		if (j.reason != NULL)
			j.verdict = j.acked ? GATE_REFUSE : GATE_HANG_UP;
	}
	switch (j.verdict) {
	case GATE_PASS:
		gate_count(sock, passed);
		c->useful = true;
		if (j.take_fds)
			close_kept(c, kept, nb_kept, &c->state);
		pass(c, &j);
		break;
	case GATE_ANSWER:
		gate_count(sock, answered);
		c->useful = true;
		if (j.answered)
			gate_answer_local(
				c, in->msg.request, j.out.payload.raw, j.out.size, j.certain);
		else if (j.acked)
			gate_answer_local(
				c, in->msg.request, &(uint64_t){0}, sizeof(uint64_t), j.certain);
		break;
	case GATE_REFUSE:
		gate_refused(sock, in->msg.request, j.ring, j.reason);
		gate_answer_local(c, in->msg.request, &(uint64_t){1}, sizeof(uint64_t), false);
		break;
	default:
		gate_refused(sock, in->msg.request, j.ring, j.reason);
		gate_conn_finish(c);
		break;
	}
	gate_in_close_fds(in, sock->closer);
	gate_in_reset(in);
}

/* True if there was something to do. */
static bool
take(struct gate_conn *c)
{
	struct gate_in *in = &c->from_front;
	struct gate *gate = c->sock->gate;
	const char *why;

	if (c->no_more || c->paused != 0 || c->to_lib.full || c->nb_pending == GATE_WINDOW)
		return false;
	if (in->have == 0) {
		c->paused = gate_socket_may_send(c->sock);
		if (c->paused != 0) {
			gate_at(gate, c->paused);
			gate_count(c->sock, held_back);
			return false;
		}
	}
	switch (gate_receive(c->front.fd, in, 0, gate_judge_header, c->sock->closer, &why)) {
	case GATE_IO_WAIT:
		if (in->have > 0 && in->deadline == 0) {
			in->deadline = gate_in_ms(gate, GATE_HALF_MS);
			gate_at(gate, in->deadline);
		}
		return false;
	case GATE_IO_DONE:
		gate_socket_sent(c->sock);
		judge(c);
		return true;
	case GATE_IO_NONSENSE:
		gate_socket_sent(c->sock);
		gate_refused(c->sock, in->msg.request, -1, why);
		break;
	case GATE_IO_END:
		break;
	}
	gate_conn_finish(c);
	return true;
}

/* ---- the whole ---- */

/* Send what waits. False if the connection is over. */
static bool
flush(struct gate_conn *c)
{
	/* Who does not listen any more may still have sent something, which is carried out. */
	gate_send(c->front.fd, &c->to_front);
	if (c->to_front.full)
		gate_at(c->sock->gate, c->to_front.deadline);
	if (c->to_lib.full && reach_library(c) && gate_send(c->lib.fd, &c->to_lib) == GATE_IO_END) {
		gate_conn_library_left(c);
		return false;
	}
	if (!c->no_more || c->to_lib.full)
		return true;
	if (c->lib.fd >= 0 && !c->lib_told) {
		shutdown(c->lib.fd, SHUT_WR);
		c->lib_told = true;
	}
	if (c->nb_pending == 0 && !c->to_front.full) {
		gate_conn_end(c);
		return false;
	}
	return true;
}

/* What the library still says to nobody, until it hangs up. */
static void
drain(struct gate_conn *c)
{
	const char *why;
	enum gate_io io;

	do {
		io = gate_receive(
			c->lib.fd, &c->from_lib, 0, gate_check_answer, c->sock->closer, &why);
		gate_in_close_fds(&c->from_lib, c->sock->closer);
		if (io == GATE_IO_DONE)
			gate_in_reset(&c->from_lib);
	} while (io == GATE_IO_DONE);
	if (io == GATE_IO_WAIT)
		gate_watch(c->sock->gate, &c->lib, EPOLLIN);
	else
		gate_conn_free(c);
}

/*
 * Acknowledgements that were given in advance come back one by one: the thread is not woken for
 * each of them.
 */
static bool
may_collect_later(struct gate_conn *c)
{
	struct gate *gate = c->sock->gate;

	if (c->nb_pending == 0 || c->nb_pending >= COLLECT_MAX || c->no_more || gate_is_owed(c)) {
		c->collect = 0;
		return false;
	}
	if (c->collect == 0)
		c->collect = gate_in_ms(gate, COLLECT_MS);
	gate_at(gate, c->collect);
	return true;
}

static void
watch(struct gate_conn *c)
{
	struct gate *gate = c->sock->gate;
	uint32_t front = 0, lib = 0;
	bool failed;

	if (c->to_front.full)
		front |= EPOLLOUT;
	else if (!may_collect_later(c))
		lib |= EPOLLIN;
	if (!c->no_more && c->paused == 0 && !c->to_lib.full && c->nb_pending < GATE_WINDOW)
		front |= EPOLLIN;
	if (c->to_lib.full)
		lib |= EPOLLOUT;
	failed = gate_watch(gate, &c->front, front) != 0;
	if (c->lib.fd >= 0)
		failed |= gate_watch(gate, &c->lib, lib) != 0;
	if (failed) {
		gate_say(c->sock, GATE_LOG_ERR, "a socket cannot be waited for");
		gate_conn_end(c);
	}
}

void
gate_conn_run(struct gate_conn *c)
{
	unsigned int turn;
	bool more = true;
	int full;

	c->again = false;
	c->look |= c->nb_pending >= COLLECT_MAX || c->no_more;
	for (turn = 0; more && turn < TURN && !c->draining && !c->dead; turn++) {
		more = gate_answer(c);
		if (c->draining || c->dead)
			break;
		more |= take(c);
		full = c->to_front.full + c->to_lib.full;
		if (!flush(c))
			break;
		/* There may be answers that waited for room; nobody else will say so. */
		more |= c->to_front.full + c->to_lib.full < full;
	}
	if (c->dead)
		return;
	if (c->draining) {
		drain(c);
	} else {
		c->again = more;
		if (more)
			gate_at(c->sock->gate, c->sock->gate->now);
		watch(c);
	}
}

void
gate_conn_expire(struct gate_conn *c, int64_t now)
{
	struct gate *gate = c->sock->gate;

	if (c->draining)
		return;
	if (c->back != NULL)
		gate_back_expire(c->back, now);
	if (c->from_front.deadline != 0 && now >= c->from_front.deadline) {
		gate_refused(c->sock, c->from_front.msg.request, -1, "half a message");
		gate_conn_end(c);
		return;
	}
	if (c->to_front.full && now >= c->to_front.deadline) {
		gate_refused(c->sock, c->to_front.msg.request, -1, "its answer is not read");
		gate_conn_end(c);
		return;
	}
	if (c->paused != 0 && now >= c->paused) {
		c->paused = 0;
		c->again = true;
	}
	if (c->reconnect != 0 && now >= c->reconnect) {
		c->reconnect = 0;
		c->again = true;
	}
	if (c->collect != 0 && now >= c->collect) {
		c->collect = 0;
		c->look = c->again = true;
	}
	if (c->from_front.deadline != 0)
		gate_at(gate, c->from_front.deadline);
	if (c->to_front.full)
		gate_at(gate, c->to_front.deadline);
	if (c->paused != 0)
		gate_at(gate, c->paused);
	if (c->reconnect != 0)
		gate_at(gate, c->reconnect);
	if (c->collect != 0)
		gate_at(gate, c->collect);
	if (c->again)
		gate_conn_run(c);
}

void
gate_conn_open(struct gate_socket *sock, int fd)
{
	struct gate_conn *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		close(fd);
		return;
	}
	c->sock = sock;
	c->front = (struct gate_source){GATE_SOURCE_FRONT, fd, 0, c};
	c->lib = (struct gate_source){GATE_SOURCE_LIB, -1, 0, c};
	LIST_INSERT_HEAD(&sock->conns, c, next);
	sock->gate->nb_conns++;
	gate_stat(sock, connections, ++sock->nb_front);
	gate_conn_run(c);
}

static void
close_front(struct gate_conn *c)
{
	int kept[GATE_MAX_REGIONS];

	if (c->front.fd < 0)
		return;
	gate_unwatch(c->sock->gate, &c->front);
	gate_in_close_fds(&c->from_front, c->sock->closer);
	gate_out_drop(&c->to_front);
	gate_out_drop(&c->to_lib);
	if (c->back != NULL)
		gate_back_close(c->back);
	c->back = NULL;
	close_kept(c, kept, kept_fds(&c->state, kept), NULL);
	gate_stat(c->sock, connections, --c->sock->nb_front);
	gate_socket_lost(c->sock, c->useful);
}

void
gate_conn_end(struct gate_conn *c)
{
	if (c->draining || c->dead)
		return;
	close_front(c);
	if (c->lib.fd < 0) {
		gate_conn_free(c);
		return;
	}
	/* What was sent is read there first, as it was without a gate. */
	shutdown(c->lib.fd, SHUT_WR);
	c->draining = true;
	c->sock->nb_drain++;
	c->sock->drain_end = gate_in_ms(c->sock->gate, DRAIN_MS);
	if (gate_watch(c->sock->gate, &c->lib, EPOLLIN) != 0)
		gate_conn_free(c);
}

void
gate_conn_free(struct gate_conn *c)
{
	struct gate_socket *sock = c->sock;

	close_front(c);
	if (c->lib.fd >= 0)
		gate_unwatch(sock->gate, &c->lib);
	gate_in_close_fds(&c->from_lib, sock->closer);
	if (c->draining)
		sock->nb_drain--;
	takes_space(sock, -c->state.space);
	c->dead = true; /* for whoever still holds it in this round */
	LIST_REMOVE(c, next);
	sock->gate->nb_conns--;
	gate_free_later(sock->gate, c);
	gate_socket_freed(sock);
}
