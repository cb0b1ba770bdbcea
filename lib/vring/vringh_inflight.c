/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Chains in flight, in memory that outlives the process: what is marked and unmarked while the
 * queue runs. Runs on the thread that owns the queue.
 */

#include "vringh_region.h"

size_t
vringh_inflight_size(bool packed, uint32_t size)
{
	return packed ? sizeof(struct region_packed) + size * sizeof(struct state_packed) :
			sizeof(struct region_split) + size * sizeof(struct state_split);
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

/* Packed: nothing is in progress. */
static void
place_is(struct vringh *vr)
{
	uint16_t used = vringh_get_state(vr).used, head = vr->inflight->free_head;

	put_place(vr->inflight->region, head, head, used, used);
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
		uint16_t flags = (uint16_t)(words.rest >> 48) & ~VRING_DESC_F_NEXT;
		struct state_packed *d = &r->desc[at];

		if (at >= vr->size)
			return false;
		if (i == 0) {
			put(d->num, chain->slots);
			put(d->counter, in->counter++);
			put(d->mark, 1);
		}
		put(d->addr, words.addr);
		put(d->len, (uint32_t)words.rest);
		/* The library may have seen another id than this, and another number of slots. */
		put(d->id, chain->id);
		put(d->flags, flags | (i + 1 < chain->slots ? VRING_DESC_F_NEXT : 0));
		put(r->desc[head].last, at);
		at = get(d->next);
		if (++slot == vr->size)
			slot = 0;
	}
	in->free_head = at;
	place_is(vr);
	chain->mark = head;
	return true;
}

static void
track_split(struct vringh *vr, const struct vringh_chain *chain)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_split *r = in->region;

	put(r->desc[chain->id].counter, in->counter++);
	put(r->desc[chain->id].mark, 1);
}

/* The region is not what it was: the queue is broken, and ends before this chain. */
static int
fetch_ends(
	struct vringh *vr, struct vringh_batch *batch, const struct vringh_chain *chain, int done)
{
	batch->nb_chains = chain - batch->chain;
	batch->nb_segs = chain->seg - batch->seg;
	vringh_fail(vr, VRINGH_E_STATE);
	return done > 0 ? done : -VRINGH_E_STATE;
}

int
vringh_inflight_fetch(struct vringh *vr, struct vringh_batch *batch, unsigned int max)
{
	struct vringh_inflight *in = vr->inflight;
	uint32_t slot;
	int n, i, done = 0;

	vr->walked = 0;
	for (; in->next_resubmit < in->nb_resubmit && max > 0; max--, done++) {
		struct vringh_chain *chain = &batch->chain[batch->nb_chains];
		uint16_t head = in->resubmit[in->next_resubmit];
		int ret;

		if (vr->walked > batch->max_descs - 1)
			return done;
		ret = vr->ops->again(vr, batch, head);
		if (ret != 0)
			return ret > 0 && done == 0 ? -ret : done;
		if (vr->packed) {
			/* Together they take what they took when they were counted. */
			if (chain->slots > in->slots)
				return fetch_ends(vr, batch, chain, done);
			in->slots -= chain->slots;
		}
		chain->again = true;
		chain->mark = head;
		in->next_resubmit++;
	}
	slot = vr->avail;
	n = vr->ops->fetch(vr, batch, max);
	for (i = 0; i < n; i++) {
		struct vringh_chain *chain = &batch->chain[batch->nb_chains - n + i];

		if (!vr->packed) {
			track_split(vr, chain);
			continue;
		}
		if (!track_packed(vr, chain, slot)) {
			vr->tracked = false; /* these are not in it */
			vringh_discard(vr, chain, n - i);
			vr->tracked = true;
			return fetch_ends(vr, batch, chain, done + i);
		}
		slot += chain->slots;
		if (slot >= vr->size)
			slot -= vr->size;
	}
	return n > 0 || done == 0 ? done + n : done;
}

/* Put a chain's entries in front of the free list, which nobody believes before put_place(). */
static void
free_packed(struct vringh *vr, const struct vringh_chain *chain)
{
	struct vringh_inflight *in = vr->inflight;
	struct region_packed *r = in->region;
	uint16_t last = get(r->desc[chain->mark].last);

	if (last < vr->size)
		put(r->desc[last].next, in->free_head);
	in->free_head = chain->mark;
}

unsigned int
vringh_inflight_discard(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	struct vringh_inflight *in = vr->inflight;
	unsigned int i, again;

	for (again = 0; again < n && chain[again].again; again++)
		in->slots += chain[again].slots;
	in->next_resubmit -= again;
	/* The last one first: at any time the marks are those of a ring fetched up to there. */
	for (i = n; i > again; i--) {
		if (vr->packed) {
			struct region_packed *r = in->region;

			free_packed(vr, &chain[i - 1]);
			place_is(vr);
			put(r->desc[chain[i - 1].mark].mark, 0);
		} else {
			struct region_split *r = in->region;

			put(r->desc[chain[i - 1].id].mark, 0);
		}
	}
	return again;
}

void
vringh_inflight_before(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	struct region_split *r = vr->inflight->region;
	unsigned int i;

	if (vr->packed) {
		uint16_t old = vringh_get_state(vr).used, wrap = old & PACKED_WRAP;
		uint16_t old_head = vr->inflight->free_head;
		uint32_t used = vr->used;

		for (i = 0; i < n; i++) {
			free_packed(vr, &chain[i]);
			used += chain[i].slots;
		}
		if (used >= vr->size) {
			used -= vr->size;
			wrap ^= PACKED_WRAP;
		}
		put_place(
			vr->inflight->region, vr->inflight->free_head, old_head, used | wrap, old);
		return;
	}
	for (i = 0; i < n; i++) {
		put(r->desc[chain[i].id].next, get(r->last_batch_head));
		put(r->last_batch_head, chain[i].id);
	}
}

void
vringh_inflight_after(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	struct region_packed *packed = vr->inflight->region;
	struct region_split *split = vr->inflight->region;
	unsigned int i;

	if (vr->packed) {
		for (i = 0; i < n; i++)
			put(packed->desc[chain[i].mark].mark, 0);
		place_is(vr);
		return;
	}
	for (i = 0; i < n; i++)
		put(split->desc[chain[i].id].mark, 0);
	put(split->word, region_word(vr, vr->used));
}
