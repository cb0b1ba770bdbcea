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
 *
 * The region is as large as the protocol has it, and most of it is laid out as there. But before
 * a device hears of it librte_vhost looks at it, and changes it where it takes it for one that it
 * knows: it sets version and desc_num, and resolves the last batch as if batches had one chain.
 * What a successor needs is in places that this leaves alone (mark, word, place).
 */

#include <errno.h>
#include <string.h>

#include "vringh_core.h"

/* In word: this layout, 1 more for packed rings. */
#define MAGIC 0x316e6676

/* Chain and descriptor states. The protocol's inflight stays 0. */
struct state_split {
	uint8_t inflight;
	uint8_t mark;
	uint8_t padding[4];
	uint16_t next;
	uint64_t counter;
};

struct region_split {
	uint64_t word; /* MAGIC, queue size, used_idx; "features" in the protocol */
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct state_split desc[];
};

struct state_packed {
	uint8_t inflight;
	uint8_t mark;
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
	uint64_t word; /* MAGIC + 1, queue size */
	uint64_t lists;
	uint64_t used;
	/*
	 * Stored in one piece: the head of the free list and the used position, with the wrap
	 * counter as in struct vringh_state, and both as they were before an update that is in
	 * progress: free_head, old_free_head, used, old_used.
	 */
	uint64_t place;
	struct state_packed desc[];
};

_Static_assert(sizeof(struct region_split) == 16 && sizeof(struct state_split) == 16, "protocol");
_Static_assert(sizeof(struct region_packed) == 32 && sizeof(struct state_packed) == 32, "protocol");

/*
 * A successor sees one thread's stores as far as it got: the compiler must not change their
 * order, and nothing else does.
 */
static vringh_inline void
word_put(void *p, uint64_t v, size_t len)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (len == sizeof(uint8_t))
		mem_store8(p, v);
	else if (len == sizeof(uint16_t))
		mem_store16(p, v);
	else if (len == sizeof(uint32_t))
		mem_store32(p, v);
	else
		mem_store64(p, v);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static vringh_inline uint64_t
word_get(const void *p, size_t len)
{
	if (len == sizeof(uint8_t))
		return mem_load8(p);
	if (len == sizeof(uint16_t))
		return mem_load16(p);
	return len == sizeof(uint32_t) ? mem_load32(p) : mem_load64(p);
}

#define get(field)	  word_get(&(field), sizeof(field))
#define put(field, value) word_put(&(field), value, sizeof(field))

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

/* What a region says that was in use by a queue like this, but for what it has in its last half. */
static uint64_t
region_word(const struct vringh *vr, uint16_t used_idx)
{
	return (MAGIC + vr->packed) | (uint64_t)vr->size << 32 | (uint64_t)used_idx << 48;
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
			return -EINVAL;
		put(r->desc[head].mark, 0);
		head = get(r->desc[head].next);
	}
	for (head = 0; head < vr->size; head++)
		if (get(r->desc[head].mark) != 0)
			in->resubmit[in->nb_resubmit++] = head;
	/* A region at rest may be behind by any number. */
	if (batch > vr->size && in->nb_resubmit > 0)
		return -EINVAL;
	put(r->word, region_word(vr, vr->used));
	vr->avail = vr->avail_seen = vr->used + in->nb_resubmit;
	return 0;
}

static void
put_place(struct region_packed *r, uint16_t head, uint16_t old_head, uint16_t used, uint16_t old)
{
	put(r->place, head | (uint64_t)old_head << 16 | (uint64_t)used << 32 | (uint64_t)old << 48);
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

	if (vr->area_mem[AREA_DESC]->kind == VRINGH_MEM_IOMEM)
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

	io_invalidate(vr->area_mem[AREA_DESC], flags, sizeof(*flags));
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
		io_flush(vr->area_mem[AREA_DESC], flags, sizeof(*flags));
		if (vr->logs)
			vringh_log_area(vr, AREA_DESC, flags, sizeof(*flags));
	}
}

/*
 * Every entry is either free or belongs to one chain in flight, which is in resubmit[] then.
 * Returns the number of those, or -EINVAL.
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
			return -EINVAL;
		seen[i] = SEEN;
		put(r->desc[i].mark, 0);
		nb_free++;
	}
	for (i = 0; i < vr->size; i++) {
		if (get(r->desc[i].mark) == 0)
			continue;
		for (at = i;; at = next) {
			if (at >= vr->size || seen[at] != UNSEEN)
				return -EINVAL;
			seen[at] = at == i ? HEAD : SEEN;
			in_flight++;
			next = get(r->desc[at].next);
			if (!(get(r->desc[at].flags) & VRING_DESC_F_NEXT))
				break;
		}
	}
	if (nb_free + in_flight != vr->size)
		return -EINVAL;
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
		return -EINVAL;
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
	if (vr->broken != VRINGH_OK || (uintptr_t)region % sizeof(uint64_t) != 0 ||
		len < vringh_inflight_size(vr->packed, vr->size))
		return -EINVAL;
	*inflight = (struct vringh_inflight){.region = region, .resubmit = resubmit};
	vr->inflight = inflight;
	ret = vr->packed ? resume_packed(vr) : resume_split(vr);
	if (ret < 0)
		return ret;
	sort_resubmit(vr);
	vr->tracked = true;
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

	for (; in->next_resubmit < in->nb_resubmit && max > 0; max--, done++) {
		struct vringh_chain *chain = &batch->chain[batch->nb_chains];
		uint16_t head = in->resubmit[in->next_resubmit];
		int ret = vr->ops->again(vr, batch, head);

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

/* Does the driver offer, from the used position on, just what is to come again? */
static bool
split_holds(struct vringh *vr)
{
	const struct vringh_inflight *in = vr->inflight;
	const struct vring_avail *ring = vr->split.avail;
	uint32_t i;

	io_invalidate(vr->area_mem[AREA_DRIVER], ring, area_size(vr, AREA_DRIVER));
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
				io_invalidate(vr->area_mem[AREA_DESC], d, sizeof(*d));
				if (mem_load64(&d->addr) != words.addr)
					return false;
			} else {
				words.rest &= ~((uint64_t)PACKED_BOTH << 48);
				mem_store64(&d->len, words.rest | (uint64_t)avail << 48);
				io_flush(vr->area_mem[AREA_DESC], &d->len, sizeof(words.rest));
				if (vr->logs)
					vringh_log_area(vr, AREA_DESC, d, sizeof(*d));
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

	if (!vr->tracked || in->nb_resubmit == 0)
		return 0;
	/* What is restored would be read back. */
	if (vr->packed && vr->area_mem[AREA_DESC]->kind == VRINGH_MEM_IOMEM)
		return -EINVAL;
	if (!(vr->packed ? packed_holds(vr, false) && packed_holds(vr, true) : split_holds(vr)))
		return -EINVAL;
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
