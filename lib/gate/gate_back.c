/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The channel on which the back-end asks the front-end ("Back-end message types"). librte_vhost
 * waits for answers without a time limit; so it has a channel to the gate, which always answers:
 * with what the front-end says, or no, after a deadline. On the gate's thread; nothing waits.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gate_private.h"

static const char *
check_question(uint32_t request, uint32_t flags, uint32_t size)
{
	(void)request;
	(void)flags;
	return size > GATE_PAYLOAD_MAX ? "it is too long" : NULL;
}

static const char *
check_answer(uint32_t request, uint32_t flags, uint32_t size)
{
	(void)request;
	if ((flags & GATE_REPLY) == 0 || (flags & GATE_VERSION_MASK) != GATE_VERSION)
		return "it is no answer";
	return size != sizeof(uint64_t) ? "its size is wrong" : NULL;
}

static struct gate_asked *
oldest(struct gate_back *b)
{
	return &b->asked[b->first];
}

/* The first that the back-end waits for; those before it were answered in the front-end's stead. */
static struct gate_asked *
waiting(struct gate_back *b)
{
	unsigned int i;

	for (i = 0; i < b->nb_asked; i++) {
		struct gate_asked *a = &b->asked[(b->first + i) % GATE_BACK_ASKED];

		if (!a->late)
			return a;
	}
	return NULL;
}

static void
tell_library(struct gate_back *b, uint32_t request, uint64_t value)
{
	b->to_lib.msg = (struct gate_message){.request = request,
		.flags = GATE_VERSION | GATE_REPLY,
		.size = sizeof(value),
		.payload.u64 = value};
	b->to_lib.nb_fds = 0;
	b->to_lib.full = true;
}

/* librte_vhost asks one at a time, so there is always room to say no. */
static void
refuse(struct gate_back *b, struct gate_asked *a)
{
	a->late = true;
	tell_library(b, a->request, 1);
}

/* A question; false if there is none. */
static bool
take_question(struct gate_back *b)
{
	struct gate_in *in = &b->from_lib;
	struct gate_socket *sock = b->conn->sock;
	struct gate_asked *a;
	const char *why = NULL;
	enum gate_io io;

	if (b->to_lib.full || b->to_front.full || b->front.fd < 0)
		return false;
	io = gate_receive(b->lib.fd, in, 0, check_question, sock->closer, &why);
	if (io == GATE_IO_WAIT)
		return false;
	if (io == GATE_IO_DONE)
		why = gate_judge_back(&in->msg, in->nb_fds);
	if (io != GATE_IO_DONE || why != NULL) {
		gate_unwatch(sock->gate, &b->lib);
		return false;
	}
	if ((in->msg.flags & GATE_NEED_REPLY) != 0) {
		/* It asks one at a time: what it asked before it waits for no more. */
		a = waiting(b);
		if (a != NULL)
			a->late = true;
		if (b->nb_asked == GATE_BACK_ASKED) {
			/* So many were never answered: this one is not asked. */
			tell_library(b, in->msg.request, 1);
			gate_in_close_fds(in, sock->closer);
			gate_in_reset(in);
			return true;
		}
		a = &b->asked[(b->first + b->nb_asked++) % GATE_BACK_ASKED];
		*a = (struct gate_asked){
			in->msg.request, false, gate_in_ms(sock->gate, GATE_BACK_MS)};
		gate_at(sock->gate, a->deadline);
	}
	b->to_front.msg = in->msg;
	b->to_front.nb_fds = in->nb_fds;
	memcpy(b->to_front.fds, in->fds, in->nb_fds * sizeof(in->fds[0]));
	b->to_front.own = (1u << in->nb_fds) - 1;
	b->to_front.full = true;
	b->to_front.deadline = gate_in_ms(sock->gate, GATE_BACK_MS);
	gate_at(sock->gate, b->to_front.deadline);
	in->nb_fds = 0;
	gate_in_reset(in);
	return true;
}

/* An answer; false if there is none. Unasked and wrong ones end the channel. */
static bool
take_answer(struct gate_back *b)
{
	struct gate_in *in = &b->from_front;
	struct gate_socket *sock = b->conn->sock;
	const char *why;
	enum gate_io io;

	if (b->to_lib.full || b->front.fd < 0)
		return false;
	io = gate_receive(b->front.fd, in, 0, check_answer, sock->closer, &why);
	if (io == GATE_IO_WAIT)
		return false;
	gate_in_close_fds(in, sock->closer);
	if (io != GATE_IO_DONE || b->nb_asked == 0 || in->msg.request != oldest(b)->request) {
		gate_unwatch(sock->gate, &b->front);
		gate_out_drop(&b->to_front);
		return true;
	}
	if (!oldest(b)->late)
		tell_library(b, in->msg.request, in->msg.payload.u64);
	b->first = (b->first + 1) % GATE_BACK_ASKED;
	b->nb_asked--;
	gate_in_reset(in);
	return true;
}

void
gate_back_event(struct gate_back *b)
{
	struct gate *gate = b->conn->sock->gate;
	struct gate_asked *a;
	uint32_t front = 0, lib = 0;
	bool more = true;

	while (more && b->lib.fd >= 0) {
		more = take_answer(b);
		more |= take_question(b);
		/* Who has hung up says no to what was asked, and is asked nothing more. */
		if (b->front.fd < 0) {
			gate_out_drop(&b->to_front);
			a = waiting(b);
			if (a != NULL && !b->to_lib.full)
				refuse(b, a);
			else if (a == NULL && !b->to_lib.full)
				gate_unwatch(gate, &b->lib);
		} else if (gate_send(b->front.fd, &b->to_front) == GATE_IO_END) {
			gate_unwatch(gate, &b->front);
			more = true;
		}
		if (b->lib.fd >= 0 && gate_send(b->lib.fd, &b->to_lib) == GATE_IO_END)
			gate_unwatch(gate, &b->lib);
	}
	if (b->lib.fd < 0) {
		gate_unwatch(gate, &b->front);
		return;
	}
	if (b->to_front.full)
		front |= EPOLLOUT;
	else
		lib |= EPOLLIN;
	if (b->to_lib.full)
		lib |= EPOLLOUT;
	else
		front |= EPOLLIN;
	if ((b->front.fd >= 0 && gate_watch(gate, &b->front, front) != 0) ||
		gate_watch(gate, &b->lib, lib) != 0) {
		gate_unwatch(gate, &b->front);
		gate_unwatch(gate, &b->lib);
	}
}

void
gate_back_expire(struct gate_back *b, int64_t now)
{
	struct gate *gate = b->conn->sock->gate;
	struct gate_asked *a = waiting(b);

	if (b->lib.fd < 0)
		return;
	if (a != NULL && now >= a->deadline && !b->to_lib.full) {
		refuse(b, a);
		a = waiting(b);
	}
	if (b->to_front.full && now >= b->to_front.deadline) {
		/* Half of the stream is not taken: what is behind it would not be either. */
		gate_out_drop(&b->to_front);
		gate_unwatch(gate, &b->front);
	}
	if (a != NULL)
		gate_at(gate, a->deadline);
	if (b->to_front.full)
		gate_at(gate, b->to_front.deadline);
	gate_back_event(b);
}

struct gate_back *
gate_back_open(struct gate_conn *conn, int front_fd, int *lib_fd)
{
	struct gate_back *b = calloc(1, sizeof(*b));
	int pair[2];

	if (b == NULL)
		return NULL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
		free(b);
		return NULL;
	}
	b->conn = conn;
	b->front = (struct gate_source){GATE_SOURCE_BACK_FRONT, front_fd, 0, b};
	b->lib = (struct gate_source){GATE_SOURCE_BACK_LIB, pair[0], 0, b};
	*lib_fd = pair[1];
	gate_back_event(b);
	return b;
}

void
gate_back_close(struct gate_back *b)
{
	struct gate_socket *sock = b->conn->sock;

	gate_in_close_fds(&b->from_front, sock->closer);
	gate_in_close_fds(&b->from_lib, sock->closer);
	gate_out_drop(&b->to_front);
	gate_out_drop(&b->to_lib);
	gate_unwatch(sock->gate, &b->front);
	gate_unwatch(sock->gate, &b->lib);
	gate_free_later(sock->gate, b);
}
