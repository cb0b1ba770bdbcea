/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Rules of what a front-end shares: memory tables, dirty logs, in-flight regions. Pure functions.
 */

#include <string.h>

#include "gate_rules.h"

#define PAGE 4096u /* also the unit of the dirty log */

static bool
overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b ? b - a < a_size : a - b < b_size;
}

/* What librte_vhost takes for it: it maps from the start of the file. */
static uint64_t
space_of(const struct gate_region *r)
{
	const uint64_t end = r->wire.offset + r->wire.size;
	const uint64_t block = r->file.block > 0 ? r->file.block : PAGE;

	return end > UINT64_MAX - block ? UINT64_MAX : (end + block - 1) / block * block;
}

static const char *
region_fits(const struct gate_region *r)
{
	const struct gate_wire_region *w = &r->wire;

	if (w->size == 0)
		return "an empty region";
	/* The last address there is may be in it; the end of a file must be a number. */
	if (w->gpa > UINT64_MAX - (w->size - 1) || w->uva > UINT64_MAX - (w->size - 1) ||
		w->offset > UINT64_MAX - w->size)
		return "a region that wraps";
	if (w->offset % PAGE != 0)
		return "an offset that is not aligned";
	if (r->file.kind != GATE_FD_MEMORY)
		return "memory that is no file on a file system that is trusted";
	if (w->offset + w->size > r->file.size)
		return "a region longer than its file";
	return NULL;
}

bool
gate_log_covers(uint64_t log_size, const struct gate_region *regions, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if ((regions[i].wire.gpa + regions[i].wire.size - 1) / PAGE / 8 >= log_size)
			return false;
	return true;
}

static const char *
table_fits(const struct gate_case *c, const struct gate_region *regions, unsigned int n,
	uint64_t *space)
{
	const struct gate_state *s = c->state;
	const char *why;
	unsigned int i, k;
	uint64_t one;

	*space = 0;
	for (i = 0; i < n; i++) {
		why = region_fits(&regions[i]);
		if (why != NULL)
			return why;
		for (k = 0; k < i; k++) {
			const struct gate_wire_region *a = &regions[i].wire, *b = &regions[k].wire;

			if (overlap(a->gpa, a->size, b->gpa, b->size) ||
				overlap(a->uva, a->size, b->uva, b->size))
				return "regions that overlap";
		}
		one = space_of(&regions[i]);
		if (one > c->offer->space_max - *space)
			return "more address space than a connection may take";
		*space += one;
	}
	if (s->log_size > 0 && gate_has(s->features, GATE_F_LOG_ALL) &&
		!gate_log_covers(s->log_size, regions, n))
		return "memory that the dirty log does not cover";
	return gate_rings_fit(s, s->features, regions, n, s->log_size);
}

static void
take_table(const struct gate_case *c, const struct gate_region *regions, unsigned int n,
	uint64_t space)
{
	memcpy(c->state->regions, regions, n * sizeof(*regions));
	c->state->nb_regions = n;
	c->state->space = space;
	c->j->take_fds = true;
}

const char *
gate_rule_mem_table(const struct gate_case *c)
{
	const union gate_payload *p = &c->msg->payload;
	struct gate_region regions[GATE_MAX_REGIONS];
	const uint32_t n = p->table.nb_regions;
	const char *why;
	uint64_t space;
	uint32_t i;

	if (n == 0 || n > GATE_MAX_REGIONS)
		return "a number of regions out of range";
	if (c->msg->size < 8 + n * sizeof(*p->table.regions))
		return "fewer regions than it says";
	if (c->nb_fds != n)
		return "wrong number of descriptors";
	for (i = 0; i < n; i++)
		regions[i] = (struct gate_region){p->table.regions[i], c->fds[i]};
	why = table_fits(c, regions, n, &space);
	if (why != NULL)
		return why;
	take_table(c, regions, n, space);
	c->j->out.size = 8 + n * sizeof(*p->table.regions);
	return NULL;
}

/* The library has no regions one by one (nor has DPDK 22.11 at all): it gets the whole table. */
static void
as_table(const struct gate_case *c)
{
	const struct gate_state *s = c->state;
	struct gate_message *out = &c->j->out;
	unsigned int i;

	memset(&out->payload, 0, sizeof(out->payload));
	out->request = GATE_SET_MEM_TABLE;
	out->size = 8 + s->nb_regions * sizeof(out->payload.table.regions[0]);
	out->payload.table.nb_regions = s->nb_regions;
	for (i = 0; i < s->nb_regions; i++) {
		out->payload.table.regions[i] = s->regions[i].wire;
		c->j->fds[i] = s->regions[i].file.fd;
	}
	c->j->nb_fds = s->nb_regions;
}

const char *
gate_rule_add_mem_reg(const struct gate_case *c)
{
	struct gate_region regions[GATE_MAX_REGIONS];
	unsigned int n = c->state->nb_regions, i;
	const char *why;
	uint64_t space;

	/* QEMU 7.2 says it again for each pair of queues, and the removal as well. */
	for (i = 0; i < n; i++) {
		if (memcmp(&c->state->regions[i].wire, &c->msg->payload.slot.region,
			    sizeof(struct gate_wire_region)) == 0) {
			c->j->verdict = GATE_ANSWER;
			return NULL;
		}
	}
	if (n == GATE_MAX_REGIONS)
		return "more regions than there are slots";
	for (i = 0; i < n; i++)
		if (c->state->regions[i].file.fd < 0)
			return "a region beside a table from before regions were negotiated";
	memcpy(regions, c->state->regions, n * sizeof(*regions));
	regions[n] = (struct gate_region){c->msg->payload.slot.region, c->fds[0]};
	why = table_fits(c, regions, n + 1, &space);
	if (why != NULL)
		return why;
	take_table(c, regions, n + 1, space);
	as_table(c);
	return NULL;
}

const char *
gate_rule_rem_mem_reg(const struct gate_case *c)
{
	const struct gate_wire_region *w = &c->msg->payload.slot.region;
	struct gate_region regions[GATE_MAX_REGIONS];
	unsigned int n = 0, i;
	const char *why;
	uint64_t space;

	for (i = 0; i < c->state->nb_regions; i++) {
		const struct gate_region *r = &c->state->regions[i];

		if (r->wire.gpa == w->gpa && r->wire.uva == w->uva && r->wire.size == w->size)
			continue;
		if (r->file.fd < 0)
			return "a region beside a table from before regions were negotiated";
		regions[n++] = *r;
	}
	if (n == c->state->nb_regions) {
		c->j->verdict = GATE_ANSWER;
		return NULL;
	}
	why = table_fits(c, regions, n, &space);
	if (why != NULL)
		return why;
	take_table(c, regions, n, space);
	as_table(c);
	return NULL;
}

const char *
gate_rule_log_base(const struct gate_case *c)
{
	const struct gate_state *s = c->state;
	const uint64_t size = c->msg->payload.log.size, offset = c->msg->payload.log.offset;
	const char *why;

	if (size == 0 || size > c->offer->log_max)
		return "a size out of range";
	if (offset > UINT64_MAX - size || offset % PAGE != 0)
		return "an offset out of range or not aligned";
	if (c->fds[0].kind != GATE_FD_MEMORY)
		return "a log that is no file on a file system that is trusted";
	if (offset + size > c->fds[0].size)
		return "a log longer than its file";
	if (!gate_log_covers(size, s->regions, s->nb_regions))
		return "a log that does not cover the memory";
	why = gate_rings_fit(s, s->features, s->regions, s->nb_regions, size);
	if (why != NULL)
		return why;
	c->state->log_size = size;
	return NULL;
}

/* What a queue takes at least ("Inflight I/O tracking"). */
static uint64_t
inflight_size(uint32_t queue_size, bool packed)
{
	return packed ? 32 * (uint64_t)queue_size + 29 : 16 * (uint64_t)queue_size + 16;
}

const char *
gate_rule_inflight(const struct gate_case *c)
{
	const union gate_payload *p = &c->msg->payload;
	const uint64_t size = p->inflight.size, offset = p->inflight.offset;
	const uint16_t queues = p->inflight.queues, queue_size = p->inflight.queue_size;
	uint64_t least;

	if (queues == 0 || queues > c->offer->rings)
		return "more queues than there are, or none";
	if (queue_size == 0 || queue_size > GATE_RING_SIZE_MAX)
		return "a queue size out of range";
	least = queues *
		inflight_size(queue_size, gate_has(c->state->features, GATE_F_RING_PACKED));
	if (least > c->offer->inflight_max)
		return "more memory than a connection may take";
	c->j->out.size = sizeof(p->inflight);
	if (c->msg->request == GATE_GET_INFLIGHT_FD)
		return NULL;
	if (size < least || size > c->offer->inflight_max)
		return "a size that its queues don't take";
	if (offset > UINT64_MAX - size || offset % PAGE != 0)
		return "an offset out of range or not aligned";
	if (c->fds[0].kind != GATE_FD_MEMORY)
		return "a region that is no file on a file system that is trusted";
	if (offset + size > c->fds[0].size)
		return "a region longer than its file";
	return NULL;
}

/* Front-end addresses may go on from one region into another. */
static bool
lies_in_memory(const struct gate_state *s, uint64_t uva, uint64_t size)
{
	unsigned int i = 0;

	while (size > 0 && i < s->nb_regions) {
		const struct gate_wire_region *r = &s->regions[i].wire;
		uint64_t off = uva - r->uva;

		if (off >= r->size) {
			i++;
			continue;
		}
		if (size <= r->size - off)
			return true;
		uva += r->size - off;
		size -= r->size - off;
		i = 0;
	}
	return size == 0;
}

const char *
gate_rule_iotlb(const struct gate_case *c)
{
	const uint64_t iova = c->msg->payload.iotlb.iova, size = c->msg->payload.iotlb.size;
	const uint64_t uva = c->msg->payload.iotlb.uva;

	if (!gate_has(c->state->features, GATE_F_ACCESS_PLATFORM))
		return "its device feature was not negotiated";
	switch (c->msg->payload.iotlb.type) {
	case GATE_IOTLB_UPDATE:
		if (c->msg->payload.iotlb.perm < 1 || c->msg->payload.iotlb.perm > 3)
			return "unknown permissions";
		if (size == 0 || iova + (size - 1) < iova || uva + (size - 1) < uva)
			return "a range that is empty or wraps";
		return lies_in_memory(c->state, uva, size) ? NULL : "it is not in the table";
	case GATE_IOTLB_INVALIDATE:
		/* 0, 0 is everything. */
		return size == 0 && iova != 0 ? "a range that is empty or wraps" : NULL;
	case GATE_IOTLB_ACCESS_FAIL:
		return iova + size < iova ? "a range that is empty or wraps" : NULL;
	default:
		return "an unknown type";
	}
}
