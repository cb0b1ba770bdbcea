/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Rules of rings: size, place, position, descriptors. A ring is judged as a whole whenever a part
 * of it, the features, the table or the log change, since librte_vhost translates addresses at
 * moments of its own. Pure functions.
 */

#include <string.h>

#include "gate_rules.h"

#define RING_LOG 0x1u /* flag of SET_VRING_ADDR: the log address counts */

/* virtio 1.3, 2.7 and 2.8: what an entry takes, and what stands beside the entries. */
#define DESC_SIZE	  16u
#define AVAIL_ENTRY	  2u
#define USED_ENTRY	  8u
#define SPLIT_HEAD	  4u
#define SPLIT_EVENT	  2u
#define PACKED_EVENT_AREA 4u

struct area {
	uint64_t uva, size;
	uint32_t align;
};

static bool
lies_in_a_region(
	const struct area *a, const struct gate_region *regions, unsigned int n, bool *aligned)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		const struct gate_wire_region *r = &regions[i].wire;
		uint64_t off = a->uva - r->uva;

		if (a->uva < r->uva || off >= r->size || a->size > r->size - off)
			continue;
		/* Where it is in this process follows from the file's offset. */
		*aligned = (r->offset + off) % a->align == 0 && (r->gpa + off) % a->align == 0;
		return true;
	}
	return false;
}

/* The event words exist whether they are used or not: virtio 1.3, 2.7.6 and 2.7.8. */
static void
areas_of(const struct gate_ring_state *r, bool packed, bool event_idx, struct area areas[3])
{
	const uint64_t n = r->num > 0 ? r->num : 1;
	const uint64_t event = event_idx ? SPLIT_EVENT : 0;

	areas[0] = (struct area){r->desc, DESC_SIZE * n, 16};
	if (packed) {
		areas[1] = (struct area){r->avail, PACKED_EVENT_AREA, 4};
		areas[2] = (struct area){r->used, PACKED_EVENT_AREA, 4};
	} else {
		areas[1] = (struct area){r->avail, SPLIT_HEAD + AVAIL_ENTRY * n + event, 2};
		areas[2] = (struct area){r->used, SPLIT_HEAD + USED_ENTRY * n + event, 4};
	}
}

static const char *
position_fits(const struct gate_ring_state *r, bool packed)
{
	if (!packed)
		return r->base > UINT16_MAX ? "its position is no index" : NULL;
	/* The used position is in the upper half, or there is none. */
	if (r->num > 0 &&
		((r->base & 0x7fff) >= r->num ||
			(r->base > UINT16_MAX && (r->base >> 16 & 0x7fff) >= r->num)))
		return "its position is not in the ring";
	return NULL;
}

static const char *
ring_fits(const struct gate_ring_state *r, uint64_t features, const struct gate_region *regions,
	unsigned int nb_regions, uint64_t log_size)
{
	static const char *const outside[] = {"its descriptors are not in one region",
		"its driver area is not in one region", "its device area is not in one region"};
	const bool packed = gate_has(features, GATE_F_RING_PACKED);
	struct area areas[3];
	bool aligned = true;
	uint64_t pages;
	int i;

	if (!packed && (r->num & (r->num - 1)) != 0)
		return "its size is no power of two";
	if (!r->has_addr)
		return NULL;
	areas_of(r, packed, gate_has(features, GATE_F_EVENT_IDX), areas);
	/* What is translated is known later, and may change; so is where it is logged. */
	if (gate_has(features, GATE_F_ACCESS_PLATFORM)) {
		for (i = 0; i < 3; i++)
			aligned &= areas[i].uva % areas[i].align == 0 &&
				areas[i].uva + (areas[i].size - 1) >= areas[i].uva;
		return aligned ? NULL : "an area of it is not aligned";
	}
	for (i = 0; i < 3; i++) {
		if (!lies_in_a_region(&areas[i], regions, nb_regions, &aligned))
			return outside[i];
		if (!aligned)
			return "an area of it is not aligned";
	}
	/* The used ring is logged at an address of its own, which need not be in the table. */
	pages = log_size * 8;
	if ((r->flags & RING_LOG) != 0 && log_size > 0 &&
		(r->log > UINT64_MAX - areas[2].size ||
			(r->log + areas[2].size - 1) / 4096 >= pages))
		return "its log address is outside the dirty log";
	return NULL;
}

const char *
gate_rings_fit(const struct gate_state *state, uint64_t features, const struct gate_region *regions,
	unsigned int nb_regions, uint64_t log_size)
{
	const char *why;
	unsigned int i;

	for (i = 0; i < GATE_MAX_RINGS; i++) {
		const struct gate_ring_state *r = &state->rings[i];

		if (!r->has_addr && !r->started)
			continue;
		why = ring_fits(r, features, regions, nb_regions, log_size);
		if (why == NULL)
			why = position_fits(r, gate_has(features, GATE_F_RING_PACKED));
		if (why != NULL)
			return why;
	}
	return NULL;
}

static bool
fd_rings(const struct gate_case *c)
{
	/* User-mode Linux is called by a socket. */
	return c->fds[0].kind == GATE_FD_EVENT || c->fds[0].kind == GATE_FD_PIPE ||
		(c->fds[0].kind == GATE_FD_SOCKET && c->msg->request == GATE_SET_VRING_CALL);
}

static const char *
start_ring(const struct gate_case *c, const struct gate_ring_state *r)
{
	const struct gate_state *s = c->state;
	const char *why;

	if (r->num == 0)
		return "its size was not set";
	if (!r->has_addr)
		return "its addresses were not set";
	why = position_fits(r, gate_has(s->features, GATE_F_RING_PACKED));
	return why != NULL ? why :
			     ring_fits(r, s->features, s->regions, s->nb_regions, s->log_size);
}

static const char *
file_says(const struct gate_case *c)
{
	const uint64_t u64 = c->msg->payload.u64;

	if ((u64 & ~(uint64_t)(GATE_RING_MASK | GATE_NO_FD)) != 0)
		return "unknown bits";
	if (c->nb_fds != ((u64 & GATE_NO_FD) == 0))
		return "wrong number of descriptors";
	return c->nb_fds > 0 && !fd_rings(c) ? "its descriptor is no eventfd" : NULL;
}

/* kick, call, err */
static const char *
ring_file(const struct gate_case *c, struct gate_ring_state *r)
{
	const char *why = file_says(c);

	if (why != NULL)
		return why;
	if (c->msg->request == GATE_SET_VRING_KICK) {
		why = start_ring(c, r);
		if (why != NULL)
			return why;
		r->started = true;
	}
	return NULL;
}

/* The ring as it would be: a copy, which becomes the ring if nothing is wrong with it. */
static const char *
change(const struct gate_case *c, struct gate_ring_state *r)
{
	const struct gate_state *s = c->state;
	const union gate_payload *p = &c->msg->payload;
	const bool packed = gate_has(s->features, GATE_F_RING_PACKED);

	switch (c->msg->request) {
	case GATE_SET_VRING_NUM:
		if (p->state.num == 0 || p->state.num > GATE_RING_SIZE_MAX)
			return "a size out of range";
		r->num = p->state.num;
		break;
	case GATE_SET_VRING_BASE:
		r->base = p->state.num;
		return position_fits(r, packed);
	case GATE_SET_VRING_ADDR:
		if ((p->addr.flags & ~RING_LOG) != 0)
			return "unknown flags";
		r->desc = p->addr.desc;
		r->avail = p->addr.avail;
		r->used = p->addr.used;
		r->log = p->addr.log;
		r->flags = p->addr.flags;
		r->has_addr = true;
		break;
	case GATE_GET_VRING_BASE:
		r->has_addr = r->started = false;
		return NULL;
	case GATE_SET_VRING_ENABLE:
		return p->state.num > 1 ? "neither on nor off" : NULL;
	default:
		return ring_file(c, r);
	}
	return ring_fits(r, s->features, s->regions, s->nb_regions, s->log_size);
}

/*
 * virtio-user sets up as many rings as it was asked for, whatever the device has. Those behind the
 * last one are said yes to and exist here only.
 */
static const char *
absent_ring(const struct gate_case *c, uint32_t index, struct gate_ring_state *r)
{
	const char *why;

	if (gate_proto(c->msg->request)->ring == GATE_RING_FILE) {
		why = file_says(c);
		if (why != NULL)
			return why;
	}
	c->j->verdict = GATE_ANSWER;
	if (c->msg->request == GATE_SET_VRING_BASE) {
		r->base = c->msg->payload.state.num;
	} else if (c->msg->request == GATE_GET_VRING_BASE) {
		c->j->out.size = sizeof(c->j->out.payload.state);
		c->j->out.payload.state.index = index;
		c->j->out.payload.state.num = r->base;
	}
	return NULL;
}

const char *
gate_rule_ring(const struct gate_case *c, uint32_t index)
{
	struct gate_ring_state *ring = &c->state->rings[index], next = *ring;
	const char *why;

	if (index >= c->offer->rings)
		return absent_ring(c, index, ring);
	why = change(c, &next);
	if (why != NULL)
		return why;
	c->state->nb_started += next.started - ring->started;
	*ring = next;
	return NULL;
}
