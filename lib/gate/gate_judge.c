/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The judge: the protocol's table first, then what each request's own rule says, see
 * gate_rules.h. Pure functions.
 */

#include <stddef.h>
#include <string.h>

#include "gate_rules.h"

#define MTU_MIN 68
#define MTU_MAX 65535

#define DRIVER_OK 0x4 /* virtio 1.3, 2.1 */

_Static_assert(offsetof(struct gate_message, payload) - offsetof(struct gate_message, request) ==
		GATE_HEADER_SIZE,
	"as on the wire");
_Static_assert(sizeof(union gate_payload) >= GATE_PAYLOAD_MAX, "room for every payload");

enum gate_phase
gate_phase(const struct gate_state *state)
{
	if (!state->has_features)
		return GATE_PHASE_NEW;
	if (state->nb_regions == 0)
		return GATE_PHASE_FEATURES;
	return state->nb_started == 0 ? GATE_PHASE_MEMORY : GATE_PHASE_RUNNING;
}

const char *
gate_judge_header(uint32_t request, uint32_t flags, uint32_t size)
{
	const struct gate_proto *row = gate_proto(request);

	if ((flags & GATE_VERSION_MASK) != GATE_VERSION)
		return "another version of the protocol";
	if ((flags & GATE_REPLY) != 0)
		return "an answer to nothing that was asked";
	if (row == NULL)
		return "no such request";
	if (size < row->size_min || size > row->size_max)
		return "the size of its payload is wrong";
	return NULL;
}

static const char *
rule_features(const struct gate_case *c)
{
	const uint64_t bits = c->msg->payload.u64;
	struct gate_state *s = c->state;
	const char *why;

	if ((bits & ~c->offer->features) != 0)
		return "features that were not offered";
	if (s->nb_started > 0 && ((s->features ^ bits) & ~(UINT64_C(1) << GATE_F_LOG_ALL)) != 0)
		return "other features while a ring is running";
	if (gate_has(bits, GATE_F_LOG_ALL) && s->log_size > 0 &&
		!gate_log_covers(s->log_size, s->regions, s->nb_regions))
		return "the dirty log does not cover the memory";
	why = gate_rings_fit(s, bits, s->regions, s->nb_regions, s->log_size);
	if (why != NULL)
		return why;
	s->features = bits;
	s->has_features = true;
	return NULL;
}

static const char *
rule_protocol_features(const struct gate_case *c)
{
	const uint64_t bits = c->msg->payload.u64;

	if ((bits & ~c->offer->protocol_features) != 0)
		return "protocol features that were not offered";
	if (c->state->nb_started > 0 && bits != c->state->protocol_features)
		return "other protocol features while a ring is running";
	c->state->protocol_features = bits;
	/* Regions one by one are the gate's own. */
	c->j->out.payload.u64 = bits & ~(UINT64_C(1) << GATE_PF_CONFIGURE_MEM_SLOTS);
	return NULL;
}

static const char *
rule_config(const struct gate_case *c)
{
	const union gate_payload *p = &c->msg->payload;

	if (p->config.size > GATE_CONFIG_SIZE ||
		p->config.offset > GATE_CONFIG_SIZE - p->config.size)
		return "more than the configuration has";
	if (c->msg->request == GATE_SET_CONFIG && p->config.flags > 1)
		return "unknown flags";
	return c->msg->size < GATE_CONFIG_HEAD + p->config.size ? "fewer bytes than it says" : NULL;
}

static void
answer_u64(const struct gate_case *c, uint64_t value)
{
	c->j->out.size = sizeof(value);
	c->j->out.payload.u64 = value;
}

static const char *
rule(const struct gate_case *c)
{
	const uint64_t u64 = c->msg->payload.u64;

	switch (c->msg->request) {
	case GATE_GET_FEATURES:
		answer_u64(c, c->offer->features);
		return NULL;
	case GATE_GET_PROTOCOL_FEATURES:
		answer_u64(c, c->offer->protocol_features);
		return NULL;
	case GATE_GET_QUEUE_NUM:
		answer_u64(c, c->offer->queues);
		return NULL;
	case GATE_GET_MAX_MEM_SLOTS:
		answer_u64(c, GATE_MAX_REGIONS);
		return NULL;
	case GATE_SET_FEATURES:
		return rule_features(c);
	case GATE_SET_PROTOCOL_FEATURES:
		return rule_protocol_features(c);
	case GATE_RESET_OWNER:
		memset(c->state, 0, sizeof(*c->state));
		c->j->take_fds = true;
		return NULL;
	case GATE_SET_MEM_TABLE:
		return gate_rule_mem_table(c);
	case GATE_ADD_MEM_REG:
		return gate_rule_add_mem_reg(c);
	case GATE_REM_MEM_REG:
		return gate_rule_rem_mem_reg(c);
	case GATE_SET_LOG_BASE:
		return gate_rule_log_base(c);
	case GATE_GET_INFLIGHT_FD:
	case GATE_SET_INFLIGHT_FD:
		return gate_rule_inflight(c);
	case GATE_IOTLB_MSG:
		return gate_rule_iotlb(c);
	case GATE_GET_CONFIG:
	case GATE_SET_CONFIG:
		return rule_config(c);
	case GATE_NET_SET_MTU:
		return u64 < MTU_MIN || u64 > MTU_MAX ? "an MTU out of range" : NULL;
	case GATE_SET_STATUS:
		if (u64 > UINT8_MAX)
			return "a status of more than 8 bits";
		c->state->status = u64;
		return NULL;
	case GATE_SET_BACKEND_REQ_FD:
		return c->fds[0].kind != GATE_FD_SOCKET ? "its descriptor is no socket" : NULL;
	case GATE_SET_OWNER:
	case GATE_SEND_RARP:
	case GATE_GET_STATUS:
	case GATE_SET_LOG_FD:
		return NULL;
	default:
		return "not served";
	}
}

static const char *
which_ring(const struct gate_proto *row, const struct gate_message *msg, int *ring)
{
	uint32_t index;

	*ring = -1;
	if (row->ring == GATE_RING_NONE)
		return NULL;
	index = row->ring == GATE_RING_FILE ? msg->payload.u64 & GATE_RING_MASK :
					      msg->payload.state.index;
	if (index >= GATE_MAX_RINGS)
		return "there is no such ring";
	*ring = index;
	return NULL;
}

static const char *
row_says(const struct gate_proto *row, const struct gate_case *c)
{
	const struct gate_state *s = c->state;

	if (row->fate == GATE_FATE_REFUSED)
		return "not offered";
	if (row->feature != GATE_PF_NONE && !gate_has(s->protocol_features, row->feature))
		return "its protocol feature was not negotiated";
	if ((row->phases & GATE_IN(gate_phase(s))) == 0)
		return s->has_features ? "it comes before memory" : "it comes before features";
	if (c->nb_fds < row->fds_min || c->nb_fds > row->fds_max)
		return "wrong number of descriptors";
	return NULL;
}

/* Can the device have been started? The library waits for DRIVER_OK if it may. */
static bool
is_live(const struct gate_state *s)
{
	return s->nb_started > 0 &&
		(!gate_has(s->protocol_features, GATE_PF_STATUS) || (s->status & DRIVER_OK) != 0);
}

/*
 * The answer may go out at once if nothing is running on which a front-end would wait to see the
 * effect of this message or of those before it, and if the library has no reason to refuse: if it
 * does all the same, the connection ends, as it would with an acknowledgement that says so.
 */
static bool
is_certain(const struct gate_case *c, bool was_live)
{
	if (c->j->verdict == GATE_ANSWER)
		return !was_live;
	switch (c->msg->request) {
	case GATE_SET_OWNER:
	case GATE_SET_MEM_TABLE:
	case GATE_ADD_MEM_REG:
	case GATE_SET_FEATURES:
	case GATE_SET_PROTOCOL_FEATURES:
	case GATE_SET_VRING_NUM:
	case GATE_SET_VRING_ADDR:
	case GATE_SET_VRING_BASE:
	case GATE_SET_VRING_KICK:
	case GATE_SET_VRING_CALL:
	case GATE_SET_VRING_ERR:
	case GATE_SET_VRING_ENABLE:
	case GATE_SET_STATUS:
		return !was_live;
	case GATE_IOTLB_MSG:
		/* What is not known yet is waited for, and what was known goes first. */
		return c->msg->payload.iotlb.type == GATE_IOTLB_UPDATE;
	default:
		return false;
	}
}

void
gate_judge(const struct gate_offer *offer, struct gate_state *state, const struct gate_message *msg,
	const struct gate_fd *fds, unsigned int nb_fds, struct gate_judgement *j)
{
	const struct gate_proto *row = gate_proto(msg->request);
	const struct gate_case c = {offer, state, msg, fds, nb_fds, j};
	/* User-mode Linux counts on it from the message on that negotiates it, as librte_vhost. */
	const uint64_t protocol = msg->request == GATE_SET_PROTOCOL_FEATURES ?
		msg->payload.u64 & offer->protocol_features :
		state->protocol_features;
	const bool reply_ack = gate_has(protocol, GATE_PF_REPLY_ACK);
	const bool was_live = is_live(state);
	unsigned int i;

	j->out = *msg;
	j->nb_fds = nb_fds;
	for (i = 0; i < nb_fds; i++)
		j->fds[i] = fds[i].fd;
	j->take_fds = false;
	j->answered = row->reply != GATE_REPLY_NONE;
	j->acked = !j->answered && reply_ack && (msg->flags & GATE_NEED_REPLY) != 0;
	j->verdict = row->fate == GATE_FATE_ANSWERED ? GATE_ANSWER : GATE_PASS;

	j->reason = which_ring(row, msg, &j->ring);
	if (j->reason == NULL)
		j->reason = row_says(row, &c);
	if (j->reason == NULL)
		j->reason = j->ring >= 0 ? gate_rule_ring(&c, j->ring) : rule(&c);
	if (j->reason != NULL)
		j->verdict = reply_ack && (msg->flags & GATE_NEED_REPLY) != 0 ? GATE_REFUSE :
										GATE_HANG_UP;
	j->certain = j->verdict <= GATE_ANSWER && is_certain(&c, was_live);
}

const char *
gate_judge_back(const struct gate_message *msg, unsigned int nb_fds)
{
	const bool no_fd = (msg->payload.u64 & GATE_NO_FD) != 0;

	if ((msg->flags & GATE_VERSION_MASK) != GATE_VERSION)
		return "another version of the protocol";
	switch (msg->request) {
	case GATE_BACK_CONFIG_CHANGE:
		return msg->size != 0 || nb_fds != 0 ? "its size is wrong" : NULL;
	case GATE_BACK_VRING_HOST_NOTIFIER:
		if (msg->size != 24)
			return "its size is wrong";
		return nb_fds != !no_fd ? "wrong number of descriptors" : NULL;
	case GATE_BACK_IOTLB_MSG:
		return msg->size < 26 || msg->size > 32 || nb_fds != 0 ? "its size is wrong" : NULL;
	default:
		return "no such message";
	}
}
