/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What is to be fetched next, worked out from guest memory once more: slow, plain, and without
 * any code of the library. Runs on the target's thread.
 */

#include <string.h>

#include "fuzz_ring.h"

#define WRAP 0x8000

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t ref;
};

static void
area_read(struct fuzz *f, int area, uint64_t off, void *dst, uint64_t len)
{
	guest_read(guest_area(&f->g, area), f->g.area[area] + off, dst, len);
}

static struct desc
decode(bool packed, const uint8_t *raw)
{
	struct vring_packed_desc p;
	struct vring_desc s;

	memcpy(&p, raw, sizeof(p));
	memcpy(&s, raw, sizeof(s));
	return packed ? (struct desc){p.addr, p.len, p.flags, p.id} :
			(struct desc){s.addr, s.len, s.flags, s.next};
}

static struct desc
ring_desc(struct fuzz *f, uint32_t i)
{
	uint8_t raw[16];

	area_read(f, AREA_DESC, 16ull * i, raw, sizeof(raw));
	return decode(f->cfg.packed, raw);
}

uint16_t
model_avail_idx(struct fuzz *f)
{
	uint16_t idx;

	area_read(f, AREA_DRIVER, 2, &idx, sizeof(idx));
	return idx;
}

/* Whether a range can be used; what can't is noted. */
static bool
reachable(struct fuzz *f, struct model_chain *mc, uint64_t iova, uint64_t len, uint32_t perm,
	uint32_t *nb_segs)
{
	struct guest_space *s = &f->g.space[0];

	if (len > 0 && iova + (len - 1) < iova) {
		mc->bad = true;
		return false;
	}
	while (len > 0) {
		uint64_t n = len;

		if (guest_piece(s, iova, &n, perm) == NULL) {
			if (s->mem.kind == VRINGH_MEM_IOTLB && guest_find(s, iova) == NULL)
				mc->miss = true;
			else
				mc->bad = true;
			return false;
		}
		iova += n;
		len -= n;
		if (nb_segs != NULL)
			++*nb_segs;
	}
	return true;
}

static void
add(struct fuzz *f, struct model_chain *mc, const struct desc *d)
{
	bool write = d->flags & VRING_DESC_F_WRITE;

	if (mc->nb_pieces > 0 && mc->piece[mc->nb_pieces - 1].write && !write)
		mc->bad = true;
	/* A chain can be no longer than this without being bad. */
	if (mc->nb_pieces == DIM(mc->piece)) {
		mc->bad = true;
		return;
	}
	mc->piece[mc->nb_pieces++] = (struct model_piece){d->addr, d->len, write};
	reachable(
		f, mc, d->addr, d->len, write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ, &mc->nb_segs);
}

static void
add_table(struct fuzz *f, struct model_chain *mc, const struct desc *outer)
{
	uint32_t n = outer->len / 16, i = 0, seen;

	if (n == 0 || outer->len % 16 != 0 || n > f->cfg.size ||
		outer->addr + (outer->len - 1) < outer->addr) {
		mc->bad = true;
		return;
	}
	for (seen = 0; seen < n; seen++) {
		uint8_t raw[16];
		struct desc d;

		if (!reachable(f, mc, outer->addr + 16ull * i, 16, VRINGH_PERM_READ, NULL))
			return;
		guest_read(&f->g.space[0], outer->addr + 16ull * i, raw, sizeof(raw));
		d = decode(f->cfg.packed, raw);
		if (f->cfg.packed && f->cfg.reads_only)
			d.flags &= ~VRING_DESC_F_WRITE;
		if (d.flags & VRING_DESC_F_INDIRECT) {
			mc->bad = true;
			return;
		}
		add(f, mc, &d);
		if (f->cfg.packed) {
			i++;
			continue;
		}
		if (!(d.flags & VRING_DESC_F_NEXT))
			return;
		if (d.ref >= n)
			break;
		i = d.ref;
	}
	if (!f->cfg.packed)
		mc->bad = true;
}

static void
add_ring(struct fuzz *f, struct model_chain *mc, const struct desc *d)
{
	if (!(d->flags & VRING_DESC_F_INDIRECT))
		add(f, mc, d);
	else if (!f->cfg.indirect || d->flags & VRING_DESC_F_NEXT)
		mc->bad = true;
	else
		add_table(f, mc, d);
}

static void
finish(struct fuzz *f, struct model_chain *mc)
{
	uint64_t sum[2] = {0, 0};
	uint32_t i;

	mc->there = true;
	for (i = 0; i < mc->nb_pieces; i++)
		sum[mc->piece[i].write] += mc->piece[i].len;
	if (sum[0] > UINT32_MAX || sum[1] > UINT32_MAX)
		mc->bad = true;
	/* The specification counts tables apart (2.7.5.3.1), and differently in places. */
	if (mc->nb_pieces > f->cfg.size)
		mc->may_bad = true;
}

void
model_split(struct fuzz *f, uint16_t head, struct model_chain *mc)
{
	uint32_t seen, i = head;

	memset(mc, 0, offsetof(struct model_chain, piece));
	mc->id = head;
	mc->slots = 1;
	for (seen = 1;; seen++) {
		struct desc d = ring_desc(f, i);

		add_ring(f, mc, &d);
		if (!(d.flags & VRING_DESC_F_NEXT))
			break;
		if (d.ref >= f->cfg.size || seen == f->cfg.size) {
			mc->bad = true;
			break;
		}
		i = d.ref;
	}
	finish(f, mc);
}

static bool
slot_available(const struct desc *d, bool wrap)
{
	bool avail = d->flags & 1 << VRING_PACKED_DESC_F_AVAIL;
	bool used = d->flags & 1 << VRING_PACKED_DESC_F_USED;

	return avail == wrap && used != wrap;
}

static void
next_packed(struct fuzz *f, uint16_t at, uint32_t room, struct model_chain *mc)
{
	uint32_t slot = at & (WRAP - 1);
	bool wrap = at & WRAP;
	struct desc d = ring_desc(f, slot);

	if (!slot_available(&d, wrap))
		return;
	if (room == 0)
		mc->broken = VRINGH_E_RUNAWAY;
	while (mc->broken == VRINGH_OK) {
		mc->slots++;
		add_ring(f, mc, &d);
		if (!(d.flags & VRING_DESC_F_NEXT)) {
			mc->id = d.ref;
			finish(f, mc);
			return;
		}
		if (mc->slots == room) {
			mc->broken = VRINGH_E_RUNAWAY;
			break;
		}
		if (++slot == f->cfg.size) {
			slot = 0;
			wrap = !wrap;
		}
		d = ring_desc(f, slot);
		if (!slot_available(&d, wrap)) {
			mc->partial = true;
			return;
		}
	}
}

/* For split rings it is the caller who minds how much is available. */
void
model_next(struct fuzz *f, struct vringh_state at, uint32_t in_flight, struct model_chain *mc)
{
	uint16_t head;

	memset(mc, 0, offsetof(struct model_chain, piece));
	if (f->cfg.packed) {
		next_packed(f, at.avail, f->cfg.size - in_flight, mc);
		return;
	}
	area_read(f, AREA_DRIVER, 4 + 2 * (at.avail & (f->cfg.size - 1)), &head, sizeof(head));
	if (head >= f->cfg.size)
		mc->broken = VRINGH_E_HEAD;
	else
		model_split(f, head, mc);
}
