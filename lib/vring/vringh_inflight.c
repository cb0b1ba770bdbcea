/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Chains in flight, in memory that outlives the process (vhost-user, "Inflight I/O tracking").
 * Runs on the thread that owns the queue.
 *
 * The process may end between any two stores: they are made in the protocol's order. The other
 * side can write the region too: numbers found in it are checked before they are used, and what
 * counts is kept in private.
 */

#include <errno.h>
#include <string.h>

#include "vringh_core.h"

#define VERSION 1

/* Chain and descriptor states, as the protocol lays them out. */
struct state_split {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};

struct region_split {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct state_split desc[];
};

struct state_packed {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next; /* of the free list, and of the chain */
	uint16_t last;
	uint16_t num;
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};

struct region_packed {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head;
	uint16_t old_free_head;
	uint16_t used_idx;
	uint16_t old_used_idx;
	uint8_t used_wrap_counter;
	uint8_t old_used_wrap_counter;
	uint8_t padding[7];
	struct state_packed desc[] __attribute__((aligned(8)));
};

_Static_assert(sizeof(struct region_split) == 16 && sizeof(struct state_split) == 16, "protocol");
_Static_assert(sizeof(struct region_packed) == 32 && sizeof(struct state_packed) == 32, "protocol");

#define get(field)	  __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define put(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELEASE)

size_t
vringh_inflight_size(bool packed, uint32_t size)
{
	return packed ? sizeof(struct region_packed) + size * sizeof(struct state_packed) :
			sizeof(struct region_split) + size * sizeof(struct state_split);
}

static uint64_t
counter_of(const struct vringh *vr, uint16_t i)
{
	const struct region_packed *packed = vr->inflight->region;
	const struct region_split *split = vr->inflight->region;

	return vr->packed ? get(packed->desc[i].counter) : get(split->desc[i].counter);
}

/* Shell's sort: in place, and bounded whatever the counters do meanwhile. */
static void
sort_resubmit(struct vringh *vr)
{
	uint16_t *a = vr->inflight->resubmit;
	uint32_t n = vr->inflight->nb_resubmit, gap, i, j;

	for (gap = n / 2; gap > 0; gap /= 2) {
		for (i = gap; i < n; i++) {
			uint16_t head = a[i];
			uint64_t counter = counter_of(vr, head);

			for (j = i; j >= gap && counter_of(vr, a[j - gap]) > counter; j -= gap)
				a[j] = a[j - gap];
			a[j] = head;
		}
	}
	if (n > 0)
		vr->inflight->counter = counter_of(vr, a[n - 1]) + 1;
}

/* Split: what was in flight, after the last batch was finished. */
static int
resume_split(struct vringh *vr)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_split *r = in->region;
	uint16_t batch, i;
	uint32_t head;

	if (get(r->version) == 0) {
		put(r->desc_num, vr->size);
		put(r->used_idx, vr->used);
		put(r->version, VERSION);
		return 0;
	}
	if (get(r->version) != VERSION || get(r->desc_num) != vr->size)
		return -EINVAL;
	/* The driver has seen these, though their marks may still be there. */
	batch = vr->used - get(r->used_idx);
	if (batch > vr->size)
		return -EINVAL;
	for (i = 0, head = get(r->last_batch_head); i < batch; i++) {
		if (head >= vr->size)
			return -EINVAL;
		put(r->desc[head].inflight, 0);
		head = get(r->desc[head].next);
	}
	put(r->used_idx, vr->used);
	for (head = 0; head < vr->size; head++)
		if (get(r->desc[head].inflight) != 0)
			in->resubmit[in->nb_resubmit++] = head;
	vr->avail = vr->avail_seen = vr->used + in->nb_resubmit;
	return 0;
}

static void
packed_start(struct vringh *vr, struct region_packed *r)
{
	uint32_t i;

	for (i = 0; i < vr->size; i++) {
		put(r->desc[i].inflight, 0);
		put(r->desc[i].next, i + 1);
	}
	put(r->free_head, 0);
	put(r->old_free_head, 0);
	vr->inflight->free_head = 0;
}

/* Was what stands at a position in the ring taken for used? */
static bool
slot_is_used(const struct vringh *vr, uint16_t slot, bool wrap)
{
	uint16_t flags;

	if (slot >= vr->size)
		return false;
	flags = mem_load16_acquire(&vr->packed_ring.desc[slot].flags);
	return (flags & PACKED_BOTH) == (wrap ? PACKED_BOTH : 0);
}

/* Descriptors of the chain that begins at an entry, 0 if it contradicts itself. */
static uint32_t
chain_length(const struct vringh *vr, const struct region_packed *r, uint16_t head)
{
	uint32_t n, i = head;

	for (n = 1; n <= vr->size; n++) {
		if (!(get(r->desc[i].flags) & VRING_DESC_F_NEXT))
			return n;
		i = get(r->desc[i].next);
		if (i >= vr->size)
			break;
	}
	return 0;
}

/* Where the ring stands when all that is in flight was fetched. */
static void
packed_position(struct vringh *vr, uint16_t used, bool wrap, uint32_t in_flight)
{
	uint32_t avail = used + in_flight;

	vr->used = used;
	vr->used_flags = wrap ? PACKED_BOTH : 0;
	vr->in_flight = in_flight;
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
	uint32_t in_flight = 0, nb_free = 0, i, n;

	if (get(r->version) == 0) {
		packed_start(vr, r);
		put(r->used_idx, vr->used);
		put(r->used_wrap_counter, !!(vr->used_flags & PACKED_AVAIL));
		put(r->old_used_idx, vr->used);
		put(r->old_used_wrap_counter, !!(vr->used_flags & PACKED_AVAIL));
		put(r->desc_num, vr->size);
		put(r->version, VERSION);
		return 0;
	}
	if (get(r->version) != VERSION || get(r->desc_num) != vr->size)
		return -EINVAL;
	if (get(r->used_idx) != get(r->old_used_idx) ||
		get(r->used_wrap_counter) != get(r->old_used_wrap_counter)) {
		if (slot_is_used(vr, get(r->old_used_idx), get(r->old_used_wrap_counter))) {
			put(r->old_free_head, get(r->free_head));
			put(r->old_used_idx, get(r->used_idx));
			put(r->old_used_wrap_counter, get(r->used_wrap_counter));
		}
	}
	put(r->free_head, get(r->old_free_head));
	put(r->used_idx, get(r->old_used_idx));
	put(r->used_wrap_counter, get(r->old_used_wrap_counter));
	if (get(r->used_idx) >= vr->size)
		return -EINVAL;
	in->free_head = get(r->free_head);
	for (i = in->free_head; i < vr->size && nb_free < vr->size; nb_free++) {
		put(r->desc[i].inflight, 0);
		i = get(r->desc[i].next);
	}
	for (i = 0; i < vr->size; i++) {
		if (get(r->desc[i].inflight) == 0)
			continue;
		n = chain_length(vr, r, i);
		in_flight += n;
		if (n == 0 || in_flight > vr->size)
			return -EINVAL;
		in->resubmit[in->nb_resubmit++] = i;
	}
	if (nb_free + in_flight != vr->size)
		return -EINVAL;
	packed_position(vr, get(r->used_idx), get(r->used_wrap_counter), in_flight);
	return 0;
}

int
vringh_set_inflight(struct vringh *vr, struct vringh_inflight *inflight, void *region, size_t len,
	uint16_t *resubmit)
{
	int ret;

	vr->inflight = NULL;
	if (inflight == NULL)
		return 0;
	if (vr->broken != VRINGH_OK || (uintptr_t)region % sizeof(uint64_t) != 0 ||
		len < vringh_inflight_size(vr->packed, vr->size))
		return -EINVAL;
	*inflight = (struct vringh_inflight){.region = region, .resubmit = resubmit};
	vr->inflight = inflight;
	ret = vr->packed ? resume_packed(vr) : resume_split(vr);
	if (ret < 0) {
		vr->inflight = NULL;
		return ret;
	}
	sort_resubmit(vr);
	return inflight->nb_resubmit;
}

int
vringh_inflight_desc(struct vringh *vr, uint16_t number, struct vringh_words *words)
{
	const struct region_packed *r = vr->inflight->region;
	const struct state_packed *d = &r->desc[number];
	uint16_t flags = get(d->flags), next = get(d->next);

	words->addr = get(d->addr);
	words->rest = get(d->len) | (uint64_t)get(d->id) << 32 | (uint64_t)flags << 48;
	return (flags & VRING_DESC_F_NEXT) && next < vr->size ? next : -1;
}

/* A chain that was fetched, marked before anybody works on it. */
static bool
track_packed(struct vringh *vr, struct vringh_chain *chain, uint16_t slot)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_packed *r = in->region;
	uint32_t head = in->free_head, at = head, i;

	for (i = 0; i < chain->slots; i++) {
		struct vringh_words words = mem_load_words(&vr->packed_ring.desc[slot]);
		uint16_t flags =
			(uint16_t)(words.rest >> 48) & (VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT);
		struct state_packed *d = &r->desc[at];

		if (at >= vr->size)
			return false;
		if (i == 0) {
			put(d->num, chain->slots);
			put(d->counter, in->counter++);
			put(d->inflight, 1);
		}
		put(d->addr, words.addr);
		put(d->len, (uint32_t)words.rest);
		/* The id is in the last one; the library may have seen another one than this. */
		put(d->id, chain->id);
		put(d->flags, flags | (i + 1 < chain->slots ? VRING_DESC_F_NEXT : 0));
		put(r->desc[head].last, at);
		at = get(d->next);
		if (++slot == vr->size)
			slot = 0;
	}
	in->free_head = at;
	put(r->free_head, at);
	put(r->old_free_head, at);
	chain->mark = head;
	return true;
}

static void
track_split(struct vringh *vr, const struct vringh_chain *chain)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_split *r = in->region;

	put(r->desc[chain->id].counter, in->counter++);
	put(r->desc[chain->id].inflight, 1);
}

int
vringh_inflight_fetch(struct vringh *vr, struct vringh_batch *batch, unsigned int max)
{
	struct vringh_inflight *in = vr->inflight;
	uint32_t slot;
	int n, i, done = 0;

	for (; in->next_resubmit < in->nb_resubmit && max > 0; max--, done++) {
		struct vringh_chain *chain = &batch->chain[batch->nb_chains];
		uint16_t head = in->resubmit[in->next_resubmit];
		int ret = vr->ops->again(vr, batch, head);

		if (ret != 0)
			return ret > 0 && done == 0 ? -ret : done;
		chain->again = true;
		chain->mark = head;
		in->next_resubmit++;
	}
	slot = vr->avail;
	n = vr->ops->fetch(vr, batch, max);
	for (i = 0; i < n; i++) {
		struct vringh_chain *chain = &batch->chain[batch->nb_chains - n + i];

		if (!vr->packed)
			track_split(vr, chain);
		else if (!track_packed(vr, chain, slot))
			return vringh_fail(vr, VRINGH_E_STATE);
		slot += chain->slots;
		if (slot >= vr->size)
			slot -= vr->size;
	}
	return n > 0 || done == 0 ? done + n : done;
}

static void
free_packed(struct vringh *vr, const struct vringh_chain *chain)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_packed *r = in->region;
	uint16_t last = get(r->desc[chain->mark].last);

	if (last < vr->size)
		put(r->desc[last].next, in->free_head);
	in->free_head = chain->mark;
	put(r->free_head, chain->mark);
}

unsigned int
vringh_inflight_discard(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	struct vringh_inflight *in = vr->inflight;
	unsigned int i, again;

	for (again = 0; again < n && chain[again].again; again++)
		;
	in->next_resubmit -= again;
	/* The last one first: at any time the marks are those of a ring fetched up to there. */
	for (i = n; i > again; i--) {
		if (vr->packed) {
			struct region_packed *r = in->region;

			free_packed(vr, &chain[i - 1]);
			put(r->old_free_head, in->free_head);
			put(r->desc[chain[i - 1].mark].inflight, 0);
		} else {
			struct region_split *r = in->region;

			put(r->desc[chain[i - 1].id].inflight, 0);
		}
	}
	return again;
}

void
vringh_inflight_before(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	unsigned int i;

	if (vr->packed) {
		struct region_packed *r = vr->inflight->region;
		uint32_t used = vr->used;
		bool wrap = vr->used_flags & PACKED_AVAIL;

		for (i = 0; i < n; i++) {
			free_packed(vr, &chain[i]);
			used += chain[i].slots;
		}
		if (used >= vr->size) {
			used -= vr->size;
			wrap = !wrap;
		}
		put(r->used_idx, used);
		put(r->used_wrap_counter, wrap);
	} else {
		struct region_split *r = vr->inflight->region;

		for (i = 0; i < n; i++) {
			put(r->desc[chain[i].id].next, get(r->last_batch_head));
			put(r->last_batch_head, chain[i].id);
		}
	}
}

void
vringh_inflight_after(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	unsigned int i;

	if (vr->packed) {
		struct region_packed *r = vr->inflight->region;

		for (i = 0; i < n; i++)
			put(r->desc[chain[i].mark].inflight, 0);
		put(r->old_free_head, vr->inflight->free_head);
		put(r->old_used_idx, vr->used);
		put(r->old_used_wrap_counter, !!(vr->used_flags & PACKED_AVAIL));
	} else {
		struct region_split *r = vr->inflight->region;

		for (i = 0; i < n; i++)
			put(r->desc[chain[i].id].inflight, 0);
		put(r->used_idx, vr->used);
	}
}
