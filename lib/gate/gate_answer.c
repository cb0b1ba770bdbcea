/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Answers of one connection, in the order of the questions: the back-end's, and the gate's own. On
 * the gate's thread; nothing waits.
 */

#include <string.h>

#include "gate_private.h"

/* An acknowledgement. */
#define ACK_SIZE (GATE_HEADER_SIZE + sizeof(uint64_t))

struct gate_pending *
gate_push(struct gate_conn *c, uint32_t request)
{
	struct gate_pending *p = &c->pending[(c->first + c->nb_pending++) % GATE_WINDOW];

	*p = (struct gate_pending){.request = request};
	return p;
}

static void
pop(struct gate_conn *c)
{
	c->first = (c->first + 1) % GATE_WINDOW;
	c->nb_pending--;
}

bool
gate_is_owed(const struct gate_conn *c)
{
	unsigned int i;

	for (i = 0; i < c->nb_pending; i++)
		if (c->pending[(c->first + i) % GATE_WINDOW].owed)
			return true;
	return false;
}

void
gate_reply(struct gate_conn *c, uint32_t request, const void *bytes, uint32_t size)
{
	struct gate_out *out = &c->to_front;

	out->msg = (struct gate_message){
		.request = request, .flags = GATE_VERSION | GATE_REPLY, .size = size};
	memcpy(out->msg.payload.raw, bytes, size);
	out->nb_fds = 0;
	out->full = true;
	out->deadline = gate_in_ms(c->sock->gate, GATE_UNREAD_MS);
}

/* In its turn, or at once if nobody could tell the difference. */
void
gate_answer_local(
	struct gate_conn *c, uint32_t request, const void *bytes, uint32_t size, bool certain)
{
	struct gate_pending *p;

	if (certain && !c->to_front.full && !gate_is_owed(c)) {
		gate_reply(c, request, bytes, size);
		return;
	}
	p = gate_push(c, request);
	p->owed = p->local = true;
	p->size = size;
	memcpy(p->bytes, bytes, size);
}

/* Answers of the library's that say no. Its own answers to these have other sizes. */
static bool
says_no(const struct gate_pending *p, const struct gate_message *msg)
{
	if (msg->size != sizeof(msg->payload.u64) || msg->payload.u64 == 0)
		return false;
	return !p->own || p->request == GATE_GET_CONFIG || p->request == GATE_GET_INFLIGHT_FD ||
		p->request == GATE_SET_LOG_BASE;
}

/* What it was judged by does not hold any more, unless nothing is judged by it. */
static void
refused_by_library(struct gate_conn *c, const struct gate_pending *p)
{
	gate_refused(c->sock, p->request, -1, "the library refuses it");
	switch (p->request) {
	case GATE_GET_CONFIG:
	case GATE_SET_CONFIG:
	case GATE_GET_INFLIGHT_FD:
	case GATE_SET_INFLIGHT_FD:
	case GATE_SEND_RARP:
	case GATE_NET_SET_MTU:
		if (p->owed)
			return;
		break;
	case GATE_SET_LOG_BASE:
		c->state.log_size = 0;
		if (p->owed)
			return;
		break;
	}
	gate_conn_finish(c);
}

const char *
gate_check_answer(uint32_t request, uint32_t flags, uint32_t size)
{
	(void)request;
	if ((flags & GATE_REPLY) == 0)
		return "it is none";
	return size > GATE_PAYLOAD_MAX ? "it is too long" : NULL;
}

/* An answer of the library's to the oldest question. */
static void
take_answer(struct gate_conn *c)
{
	struct gate_pending *p = &c->pending[c->first];
	struct gate_in *in = &c->from_lib;
	struct gate_out *out = &c->to_front;
	const bool no = says_no(p, &in->msg);

	if (no)
		refused_by_library(c, p);
	if (p->owed) {
		gate_reply(c, p->request, in->msg.payload.raw, in->msg.size);
		if (p->own && in->nb_fds > 0) {
			out->fds[0] = in->fds[--in->nb_fds];
			out->nb_fds = out->own = 1;
		}
		/* By the text it is 20 bytes long; who asks so is answered so. */
		if (p->request == GATE_GET_INFLIGHT_FD && !no && out->msg.size > p->size)
			out->msg.size = p->size;
	}
	gate_in_close_fds(in, c->sock->closer);
	gate_in_reset(in);
	pop(c);
}

/* True if there was something to do. */
bool
gate_answer(struct gate_conn *c)
{
	struct gate_pending *p = &c->pending[c->first];
	const char *why;
	enum gate_io io;

	if (c->to_front.full)
		return false;
	if (c->nb_pending > 0 && !p->expected) {
		if (p->owed)
			gate_reply(c, p->request, p->bytes, p->size);
		pop(c);
		return true;
	}
	if (c->lib.fd < 0 || !c->look)
		return false;
	/* An acknowledgement is read at once. */
	io = gate_receive(c->lib.fd, &c->from_lib, c->nb_pending > 0 && !p->own ? ACK_SIZE : 0,
		gate_check_answer, c->sock->closer, &why);
	if (io == GATE_IO_WAIT) {
		c->look = false;
		return false;
	}
	if (io != GATE_IO_DONE || c->nb_pending == 0)
		gate_conn_library_left(c);
	else
		take_answer(c);
	return true;
}
