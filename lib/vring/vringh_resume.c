/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a predecessor left in flight, taken up by a queue that begins. Runs on the thread that owns
 * the queue.
 */

#include <string.h>

#include "vringh_region.h"

static uint64_t
counter_of(const struct vringh *vr, uint16_t i)
{
	const struct region_packed *packed = vr->inflight->region;
	const struct region_split *split = vr->inflight->region;

	return vr->packed ? get(packed->desc[i].counter) : get(split->desc[i].counter);
}

/* Move an entry down to where it belongs in a heap of n. */
static void
sift(struct vringh *vr, uint32_t i, uint32_t n)
{
	uint16_t *a = vr->inflight->resubmit, head = a[i];
	uint64_t counter = counter_of(vr, head);
	uint32_t child;

	for (; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && counter_of(vr, a[child + 1]) > counter_of(vr, a[child]))
			child++;
		if (counter_of(vr, a[child]) <= counter)
			break;
		a[i] = a[child];
	}
	a[i] = head;
}

/* Heapsort: in place, and bounded whatever happens to the counters meanwhile. */
static void
sort_resubmit(struct vringh *vr)
{
	uint16_t *a = vr->inflight->resubmit;
	uint32_t n = vr->inflight->nb_resubmit, i;

	for (i = n / 2; i-- > 0;)
		sift(vr, i, n);
	if (n > 0)
		vr->inflight->counter = counter_of(vr, a[0]) + 1;
	for (i = n; i-- > 1;) {
		uint16_t last = a[0];

		a[0] = a[i];
		a[i] = last;
		sift(vr, 0, i);
	}
}

static void
split_start(struct vringh *vr, struct region_split *r)
{
	uint32_t i;

	for (i = 0; i < vr->size; i++)
		put(r->desc[i].mark, 0);
	put(r->word, region_word(vr, vr->used));
}

/* Split: what was in flight, after the last batch was finished. */
static int
resume_split(struct vringh *vr)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_split *r = in->region;
	uint64_t word = get(r->word);
	uint16_t batch, i;
	uint32_t head;

	if ((word & (UINT64_MAX >> 16)) != region_word(vr, 0)) {
		split_start(vr, r);
		return 0;
	}
	/* The driver has seen these, though their marks may still be there. */
	batch = vr->used - (uint16_t)(word >> 48);
	for (i = 0, head = get(r->last_batch_head); i < batch && batch <= vr->size; i++) {
		if (head >= vr->size)
			return -VRINGH_E_INFLIGHT;
		put(r->desc[head].mark, 0);
		head = get(r->desc[head].next);
	}
	for (head = 0; head < vr->size; head++)
		if (get(r->desc[head].mark) != 0)
			in->resubmit[in->nb_resubmit++] = head;
	/* A region at rest may be behind by any number. */
	if (batch > vr->size && in->nb_resubmit > 0)
		return -VRINGH_E_INFLIGHT;
	put(r->word, region_word(vr, vr->used));
	vr->avail = vr->avail_seen = vr->used + in->nb_resubmit;
	return 0;
}

static void
packed_start(struct vringh *vr, struct region_packed *r)
{
	uint16_t used = vringh_get_state(vr).used;
	uint32_t i;

	put(r->word, 0);
	for (i = 0; i < vr->size; i++) {
		put(r->desc[i].mark, 0);
		put(r->desc[i].next, i + 1);
	}
	put_place(r, 0, 0, used, used);
	put(r->word, region_word(vr, 0));
}

/*
 * Are all slots either available in the first lap, or empty? Such a ring stands at its start. The
 * AVAIL and USED bits of an empty slot are those of one used in the second lap; that one has an
 * address, and what was written to it if anything was. The driver may just be filling empty ones.
 * In an IO window what was used is not read back, and no ring counts as cleared.
 */
static bool
ring_is_clear(const struct vringh *vr)
{
	uint32_t i;

	if (vr->area_mem[VRINGH_AREA_DESC]->kind == VRINGH_MEM_IOMEM)
		return false;
	for (i = 0; i < vr->size; i++) {
		const struct vring_packed_desc *d = &vr->packed_ring.desc[i];
		uint16_t flags = mem_load16(&d->flags);

		if (flags & PACKED_USED)
			return false;
		if (!(flags & PACKED_AVAIL) &&
			((flags & VRING_DESC_F_WRITE) ||
				(mem_load32(&d->len) == 0 && mem_load64(&d->addr) != 0)))
			return false;
	}
	return true;
}

/*
 * Did the driver not see the last batch? Then the first of its slots still is as the driver made
 * it available; else it may be used, and even available again.
 */
static bool
slot_is_available(const struct vringh *vr, uint16_t at)
{
	const uint16_t *flags = &vr->packed_ring.desc[at & (PACKED_WRAP - 1)].flags;

	io_invalidate(vr->area_mem[VRINGH_AREA_DESC], flags, sizeof(*flags));
	return (mem_load16_acquire(flags) & PACKED_BOTH) ==
		(at & PACKED_WRAP ? PACKED_AVAIL : PACKED_USED);
}

/*
 * A batch that the driver has not seen is written but for its first slot: the others must not
 * come into sight when that one is used by another batch.
 */
static void
take_back(struct vringh *vr, uint16_t from, uint16_t end)
{
	uint16_t slot = from & (PACKED_WRAP - 1);
	bool wrap = from & PACKED_WRAP;

	for (;;) {
		uint16_t *flags;

		if (++slot == vr->size) {
			slot = 0;
			wrap = !wrap;
		}
		if (slot == (end & (PACKED_WRAP - 1)))
			return;
		flags = &vr->packed_ring.desc[slot].flags;
		mem_store16(flags, wrap ? PACKED_AVAIL : PACKED_USED);
		io_flush(vr->area_mem[VRINGH_AREA_DESC], flags, sizeof(*flags));
		if (vr->dirty)
			vringh_dirty_area(vr, VRINGH_AREA_DESC, flags, sizeof(*flags));
	}
}

/*
 * Every entry is either free or belongs to one chain in flight, which is in resubmit[] then.
 * Returns the number of those, or -VRINGH_E_INFLIGHT.
 */
static int
packed_partition(struct vringh *vr, struct region_packed *r)
{
	enum { UNSEEN, SEEN, HEAD };
	uint16_t *seen = vr->inflight->resubmit;
	uint32_t nb_free = 0, in_flight = 0, i, at, next;

	memset(seen, 0, vr->size * sizeof(*seen));
	for (i = vr->inflight->free_head; i < vr->size; i = get(r->desc[i].next)) {
		if (seen[i] != UNSEEN)
			return -VRINGH_E_INFLIGHT;
		seen[i] = SEEN;
		put(r->desc[i].mark, 0);
		nb_free++;
	}
	for (i = 0; i < vr->size; i++) {
		if (get(r->desc[i].mark) == 0)
			continue;
		for (at = i;; at = next) {
			if (at >= vr->size || seen[at] != UNSEEN)
				return -VRINGH_E_INFLIGHT;
			seen[at] = at == i ? HEAD : SEEN;
			in_flight++;
			next = get(r->desc[at].next);
			if (!(get(r->desc[at].flags) & VRING_DESC_F_NEXT))
				break;
		}
	}
	if (nb_free + in_flight != vr->size)
		return -VRINGH_E_INFLIGHT;
	for (i = 0; i < vr->size; i++)
		if (seen[i] == HEAD)
			vr->inflight->resubmit[vr->inflight->nb_resubmit++] = i;
	return in_flight;
}

/* Where the ring stands when all that is in flight was fetched. */
static void
packed_position(struct vringh *vr, uint16_t used, uint32_t in_flight)
{
	uint32_t avail = (used & (PACKED_WRAP - 1)) + in_flight;
	bool wrap = used & PACKED_WRAP;

	vr->used = used & (PACKED_WRAP - 1);
	vr->used_flags = wrap ? PACKED_BOTH : 0;
	vr->in_flight = vr->inflight->slots = in_flight;
	if (avail >= vr->size) {
		avail -= vr->size;
		wrap = !wrap;
	}
	vr->avail = avail;
	vr->avail_flags = wrap ? PACKED_AVAIL : PACKED_USED;
}

/* Packed: the last batch is finished or taken back, what is free is not in flight. */
static int
resume_packed(struct vringh *vr)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_packed *r = in->region;
	uint64_t place = get(r->place);
	uint16_t used = place >> 32, old = place >> 48;
	int in_flight;
	bool seen;

	if (get(r->word) != region_word(vr, 0)) {
		packed_start(vr, r);
		return 0;
	}
	if ((used & (PACKED_WRAP - 1)) >= vr->size || (old & (PACKED_WRAP - 1)) >= vr->size)
		return -VRINGH_E_INFLIGHT;
	seen = used == old || !slot_is_available(vr, old);
	/* Cleared after the predecessor ended, it begins where its driver says. */
	if ((seen ? used : old) != PACKED_WRAP && ring_is_clear(vr)) {
		packed_start(vr, r);
		return 0;
	}
	if (!seen)
		take_back(vr, old, used);
	else
		old = used;
	in->free_head = place >> (seen ? 0 : 16) & UINT16_MAX;
	put_place(r, in->free_head, in->free_head, old, old);
	in_flight = packed_partition(vr, r);
	if (in_flight < 0)
		return in_flight;
	packed_position(vr, old, in_flight);
	return 0;
}

int
vringh_set_inflight(struct vringh *vr, struct vringh_inflight *inflight, void *region, size_t len,
	uint16_t *resubmit)
{
	int ret;

	vr->tracked = false;
	if (inflight == NULL)
		return 0;
	if (vr->broken != VRINGH_OK)
		return -(int)vr->broken;
	if (vr->apart || (uintptr_t)region % sizeof(uint64_t) != 0 ||
		len < vringh_inflight_size(vr->packed, vr->size))
		return -VRINGH_E_INFLIGHT;
	*inflight = (struct vringh_inflight){.region = region, .resubmit = resubmit};
	vr->inflight = inflight;
	ret = vr->packed ? resume_packed(vr) : resume_split(vr);
	if (ret < 0)
		return ret;
	sort_resubmit(vr);
	vr->tracked = true;
	return inflight->nb_resubmit;
}

/* Does the driver offer, from the used position on, just what is to come again? */
static bool
split_holds(struct vringh *vr)
{
	const struct vringh_inflight *in = vr->inflight;
	const struct vring_avail *ring = vr->split.avail;
	uint32_t i;

	io_invalidate(vr->area_mem[VRINGH_AREA_DRIVER], ring, area_size(vr, VRINGH_AREA_DRIVER));
	if ((uint16_t)(mem_load16_acquire(&ring->idx) - vr->used) < in->nb_resubmit)
		return false;
	for (i = 0; i < in->nb_resubmit; i++)
		if (mem_load16(&ring->ring[(vr->used + i) & (vr->size - 1)]) != in->resubmit[i])
			return false;
	return true;
}

/*
 * What was made available in the slots from the used position on is what is to come again, as far
 * as addresses tell: used ones have none. With restore the rest of each slot becomes as it was.
 */
static bool
packed_holds(struct vringh *vr, bool restore)
{
	const struct vringh_inflight *in = vr->inflight;
	uint16_t avail = vr->used_flags != 0 ? PACKED_AVAIL : PACKED_USED;
	uint32_t i, slot = vr->used, left = in->slots;

	for (i = 0; i < in->nb_resubmit; i++) {
		int at = in->resubmit[i];

		for (; at >= 0; left--) {
			struct vring_packed_desc *d = &vr->packed_ring.desc[slot];
			struct vringh_words words;

			if (left == 0)
				return false;
			at = vringh_inflight_desc(vr, at, &words);
			if (!restore) {
				io_invalidate(vr->area_mem[VRINGH_AREA_DESC], d, sizeof(*d));
				if (mem_load64(&d->addr) != words.addr)
					return false;
			} else {
				words.rest &= ~((uint64_t)PACKED_BOTH << 48);
				mem_store64(&d->len, words.rest | (uint64_t)avail << 48);
				io_flush(vr->area_mem[VRINGH_AREA_DESC], &d->len,
					sizeof(words.rest));
				if (vr->dirty)
					vringh_dirty_area(vr, VRINGH_AREA_DESC, d, sizeof(*d));
			}
			if (++slot == vr->size) {
				slot = 0;
				avail ^= PACKED_BOTH;
			}
		}
	}
	return left == 0;
}

int
vringh_rewind(struct vringh *vr)
{
	struct vringh_inflight *in = vr->inflight;

	if (vr->broken != VRINGH_OK)
		return -(int)vr->broken;
	if (!vr->tracked || in->nb_resubmit == 0)
		return 0;
	/* What is restored would be read back. */
	if (vr->packed && vr->area_mem[VRINGH_AREA_DESC]->kind == VRINGH_MEM_IOMEM)
		return -VRINGH_E_INFLIGHT;
	if (!(vr->packed ? packed_holds(vr, false) && packed_holds(vr, true) : split_holds(vr)))
		return -VRINGH_E_INFLIGHT;
	/* As if they were handed back, the last one first. */
	while (in->nb_resubmit > 0) {
		struct vringh_chain chain = {.mark = in->resubmit[in->nb_resubmit - 1]};

		chain.id = chain.mark;
		in->nb_resubmit--;
		vringh_inflight_discard(vr, &chain, 1);
	}
	in->slots = vr->in_flight = 0;
	vr->avail = vr->avail_seen = vr->used;
	if (vr->packed)
		vr->avail_flags = vr->used_flags != 0 ? PACKED_AVAIL : PACKED_USED;
	return 0;
}
