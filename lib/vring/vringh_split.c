/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Split rings (2.7): the core of fetching and completing, an instance per kind of memory,
 * picked by one indirect call per burst. Runs on the thread that owns the queue.
 */

#include "vringh_walk.h"

static vringh_inline struct desc
ring_desc(const struct vringh *vr, uint32_t i, bool io)
{
	const struct vring_desc *p = &vr->split.desc[i];

	if (io)
		io_invalidate(vr->area_mem[VRINGH_AREA_DESC], p, sizeof(*p));
	return split_desc(mem_load_words(p));
}

/*
 * Any chain that is not one direct descriptor in the last region hit. Returns the next free
 * segment; NULL and *stop, WALK_STOP or VRINGH_E_MISS, if the chain has to wait.
 */
static vringh_inline struct vringh_seg *
walk_split(struct vringh *vr, const struct vringh_batch *batch, struct vringh_seg *seg,
	struct vringh_chain *chain, struct desc d, uint16_t head, int *stop,
	enum vringh_mem_kind kind, bool io)
{
	struct walk w = walk_start(seg, batch);
	enum vringh_error error;
	uint32_t seen;

	for (seen = 1;; seen++) {
		error = walk_desc(vr, &w, &d, false, kind);
		if (vringh_unlikely(error != VRINGH_OK) || !(d.flags & VRING_DESC_F_NEXT))
			break;
		if (vringh_unlikely(d.ref >= vr->size))
			error = VRINGH_E_NEXT;
		else if (vringh_unlikely(seen == vr->size))
			error = VRINGH_E_LOOP;
		if (vringh_unlikely(error != VRINGH_OK))
			break;
		d = ring_desc(vr, d.ref, io);
	}
	vr->walked += w.seen;
	if (vringh_unlikely(error != VRINGH_OK) && walk_stops(vr, &w, batch, &error)) {
		*stop = error == VRINGH_E_MISS ? (int)VRINGH_E_MISS : WALK_STOP;
		return NULL;
	}
	return walk_end(&w, chain, head, 1, seen - 1, error);
}

/* Buffers of one direction. */
static vringh_inline enum turn
quick_turn(const struct vringh *vr, struct quick *q, struct desc *d, const struct vring_desc *table,
	uint32_t n, const struct vringh_seg *end, bool write, enum vringh_mem_kind kind)
{
	const struct vringh_region *hit = &vr->hit[write];

	if (!quick_is(d, write))
		return TURN;
	do {
		if (vringh_unlikely(q->seg == end || !quick_add(vr, q, hit, d, kind)))
			return ODD;
		if (!(d->flags & VRING_DESC_F_NEXT))
			return LAST;
		if (vringh_unlikely(d->ref >= n))
			return ODD;
		*d = split_desc(mem_load_words_unaligned(&table[d->ref]));
	} while (vringh_likely(quick_is(d, write)));
	return TURN;
}

/* The short cut. Returns the next free segment, or NULL. */
static vringh_inline struct vringh_seg *
quick_split(const struct vringh *vr, struct vringh_seg *seg, const struct vringh_seg *end,
	struct vringh_chain *chain, struct desc d, uint16_t head, enum vringh_mem_kind kind)
{
	const struct vring_desc *table = vr->split.desc;
	struct quick q = {.seg = seg, .gen = seg_gen(vr)};
	uint64_t read_len, nb_read;
	uint32_t n = vr->size;
	enum turn turn;

	if (d.flags & VRING_DESC_F_INDIRECT) {
		table = quick_table(vr, &d, &n);
		if (vringh_unlikely(table == NULL))
			return NULL;
		d = split_desc(mem_load_words_unaligned(table));
	}
	turn = quick_turn(vr, &q, &d, table, n, end, false, kind);
	read_len = q.total;
	nb_read = q.seg - seg;
	q.total = 0;
	if (turn == TURN)
		turn = quick_turn(vr, &q, &d, table, n, end, true, kind);
	if (vringh_unlikely(turn != LAST))
		return NULL;
	return quick_end(&q, chain, seg, n, read_len, nb_read, head, 1,
		table == vr->split.desc ? q.seg - seg - 1 : 0);
}

/* The next available chain's head and first descriptor. False if it is no head. */
static vringh_inline bool
next_head(const struct vringh *vr, struct cursor *c, const struct vring_desc *desc,
	const uint16_t *ring, uint32_t avail, uint32_t mask, bool io)
{
	const uint16_t *entry = &ring[(avail + c->i) & mask];

	if (io)
		io_invalidate(vr->area_mem[VRINGH_AREA_DRIVER], entry, sizeof(*entry));
	c->head = mem_load16(entry);
	if (vringh_unlikely(c->head > mask))
		return false;
	if (io)
		io_invalidate(vr->area_mem[VRINGH_AREA_DESC], &desc[c->head], sizeof(*desc));
	c->d = mem_load_words(&desc[c->head]);
	return true;
}

/* What does not change is in locals: the compiler can't tell the ring from what is filled. */
static vringh_inline bool
singles_of(struct vringh *vr, struct cursor *t, uint32_t max, bool write, enum vringh_mem_kind kind,
	bool io)
{
	struct vringh_region hit = vr->hit[write];
	const uint64_t gen = seg_gen(vr);
	const struct vring_desc *desc = vr->split.desc;
	const uint16_t *ring = vr->split.avail->ring;
	uint32_t avail = vr->avail, mask = vr->size - 1;
	struct desc d = split_desc(t->d);

	do {
		if (vringh_unlikely(
			    !single(t->seg, t->chain, &d, t->head, &hit, gen, write, kind))) {
			if (kind != VRINGH_MEM_IOTLB || !single_elsewhere(vr, &d, write))
				return false;
			hit = vr->hit[write];
			single(t->seg, t->chain, &d, t->head, &hit, gen, write, kind);
		}
		t->seg++;
		t->chain++;
		if (++t->i == max ||
			vringh_unlikely(!next_head(vr, t, desc, ring, avail, mask, io)))
			return false;
		d = split_desc(t->d);
	} while (vringh_likely((d.flags & KIND_FLAGS) == (write ? VRING_DESC_F_WRITE : 0)));
	return true;
}

/*
 * Chains of one direct descriptor each, up to one that is not. True if the next one has a head,
 * then that and its descriptor are known.
 */
static vringh_inline bool
fetch_singles(struct vringh *vr, struct cursor *c, enum vringh_mem_kind kind, bool io)
{
	uint32_t mask = vr->size - 1, max = c->max;
	struct cursor t = *c;
	bool more = next_head(vr, &t, vr->split.desc, vr->split.avail->ring, vr->avail, mask, io);

	/* Each takes a segment. */
	if (t.end - t.seg < max - t.i)
		max = t.i + (t.end - t.seg);
	if (VECTORS(kind, io) && vr->vector && more) {
		bool write = t.d.rest >> 32 & VRING_DESC_F_WRITE;
		uint32_t at = (vr->avail + t.i) & mask;
		uint32_t n = least(max - t.i, vr->size - at);

		n = kind == VRINGH_MEM_IOTLB ?
			vringh_avx2_split_iotlb(&vr->hit[write], vr->split.desc,
				&vr->split.avail->ring[at], vr->size, n, write, t.seg, t.chain,
				vr->gen) :
			vringh_avx2_split(&vr->hit[write], vr->split.desc,
				&vr->split.avail->ring[at], vr->size, n, write, t.seg, t.chain);
		cursor_skip(&t, n);
		if (n > 0)
			more = t.i < max &&
				next_head(vr, &t, vr->split.desc, vr->split.avail->ring, vr->avail,
					mask, io);
	}
	while (more) {
		uint16_t flags = (uint16_t)(t.d.rest >> 32) & KIND_FLAGS;

		if (flags == 0)
			more = singles_of(vr, &t, max, false, kind, io);
		else if (flags == VRING_DESC_F_WRITE)
			more = singles_of(vr, &t, max, true, kind, io);
		else
			break;
	}
	*c = t;
	return t.head <= mask;
}

/* Chains by the short cut; the first one's head and descriptor are known. */
static vringh_inline bool
fetch_quick(const struct vringh *vr, struct cursor *c, enum vringh_mem_kind kind)
{
	const struct vring_desc *desc = vr->split.desc;
	const uint16_t *ring = vr->split.avail->ring;
	uint32_t avail = vr->avail, mask = vr->size - 1;
	struct cursor t = *c;

	do {
		struct vringh_seg *next =
			quick_split(vr, t.seg, t.end, t.chain, split_desc(t.d), t.head, kind);

		if (vringh_unlikely(next == NULL))
			break;
		t.seg = next;
		t.chain++;
		t.i++;
	} while (t.i < t.max && next_head(vr, &t, desc, ring, avail, mask, false));
	*c = t;
	return t.head <= mask;
}

typedef bool fetch_fn(struct vringh *vr, struct cursor *c);
typedef struct vringh_seg *walk_fn(struct vringh *vr, const struct vringh_batch *batch,
	struct vringh_seg *seg, struct vringh_chain *chain, struct desc d, uint16_t head,
	int *stop);

static vringh_inline int
fetch_split(struct vringh *vr, struct vringh_batch *batch, unsigned int max, bool io,
	fetch_fn *singles, fetch_fn *quick, walk_fn *walk)
{
	const struct vring_avail *ring = vr->split.avail;
	uint16_t known = vr->avail_seen - vr->avail;
	struct cursor c;

	vr->walked = 0;
	if (known < max) {
		uint16_t idx;

		if (io)
			io_invalidate(
				vr->area_mem[VRINGH_AREA_DRIVER], &ring->idx, sizeof(ring->idx));
		/* Pairs with the driver's release of idx after the entries (2.7.13.3). */
		idx = mem_load16_acquire(&ring->idx);
		known = idx - vr->avail;
		/* What is out already counts: only so many chains fit into the ring. */
		if (vringh_unlikely(known > vr->size - (uint16_t)(vr->avail - vr->used)))
			return vringh_fail(vr, VRINGH_E_AVAIL_IDX);
		vr->avail_seen = idx;
		if (known < max)
			max = known;
		/* Most likely the head, if not so far: its line comes along with that of the entry.
		 */
		if (!io)
			__builtin_prefetch(&vr->split.desc[vr->avail & (vr->size - 1)]);
	}
	for (c = cursor_start(batch, max); c.i < max;) {
		struct vringh_seg *next;
		bool head;
		int stop;

		if (c.seg >= c.end)
			break;
		head = singles(vr, &c);
		if (c.i == max || c.seg == c.end)
			break;
		if (head)
			head = quick(vr, &c);
		if (c.i == max || c.seg == c.end)
			break;
		if (vringh_unlikely(!head)) {
			if (c.i == 0)
				return vringh_fail(vr, VRINGH_E_HEAD);
			break;
		}
		next = walk(vr, batch, c.seg, c.chain, split_desc(c.d), c.head, &stop);
		if (next == NULL) {
			if (stop == VRINGH_E_MISS && c.i == 0)
				return -VRINGH_E_MISS;
			break;
		}
		c.seg = next;
		c.chain++;
		c.i++;
		if (walked_enough(vr, batch))
			break;
	}
	vr->avail += c.i;
	return cursor_end(&c, batch);
}

/* A chain that is in flight already, by its head. */
static vringh_inline int
again_split(struct vringh *vr, struct vringh_batch *batch, uint16_t head, bool io, walk_fn *walk)
{
	struct vringh_seg *seg;
	int stop;

	seg = walk(vr, batch, &batch->seg[batch->nb_segs], &batch->chain[batch->nb_chains],
		ring_desc(vr, head, io), head, &stop);
	if (seg == NULL)
		return stop;
	batch->nb_segs = seg - batch->seg;
	batch->nb_chains++;
	return 0;
}

static vringh_inline void
used_write(struct vring_used_elem *p, const struct vringh_chain *chain, bool io)
{
	if (io) {
		mem_store32(&p->id, chain->id);
		mem_store32(&p->len, chain->written);
	} else {
		mem_store64_unaligned(p, chain->id | (uint64_t)chain->written << 32);
	}
}

static vringh_inline void
complete_chains(
	struct vringh *vr, const struct vringh_chain *chain, unsigned int n, bool in_order, bool io)
{
	struct vring_used *ring = vr->split.used;
	uint32_t mask = vr->size - 1, used = vr->used;
	unsigned int i;
	uint32_t bad = 0;

	for (i = 0; i < n; i++) {
		struct vring_used_elem *elem = &ring->ring[(used + i) & mask];

		/* The entry is the last one's of a run, and in the place of the first one. */
		if (in_order)
			while (i + 1 < n && in_order_skips(&chain[i]))
				i++;
		bad |= chain[i].error;
		used_write(elem, &chain[i], io);
		/* Just what was written. */
		if (io && in_order)
			io_flush(vr->area_mem[VRINGH_AREA_DEVICE], elem, sizeof(*elem));
	}
	if (io && !in_order) {
		uint32_t first = used & mask, left = vr->size - first;

		io_flush(vr->area_mem[VRINGH_AREA_DEVICE], &ring->ring[first],
			least(n, left) * sizeof(ring->ring[0]));
		if (n > left)
			io_flush(vr->area_mem[VRINGH_AREA_DEVICE], ring->ring,
				(n - left) * sizeof(ring->ring[0]));
	}
	vr->used = used += n;
	vr->unnotified += n;
	/* Whoever has a chain back finds it counted. */
	if (vringh_unlikely(bad))
		vringh_count_bad(vr, chain, n);
	/* Pairs with the driver's acquire of idx: the entries and the buffers are written. */
	mem_store16_release(&ring->idx, used);
	if (io)
		io_flush(vr->area_mem[VRINGH_AREA_DEVICE], &ring->idx, sizeof(ring->idx));
}

#define INSTANCE(name, kind, io) \
	static __attribute__((noinline)) bool singles_##name(struct vringh *vr, struct cursor *c) \
	{ \
		return fetch_singles(vr, c, kind, io); \
	} \
	static __attribute__((noinline)) bool quick_##name(struct vringh *vr, struct cursor *c) \
	{ \
		return io || kind == VRINGH_MEM_IOMEM ? true : fetch_quick(vr, c, kind); \
	} \
	static __attribute__((noinline)) struct vringh_seg *walk_##name(struct vringh *vr, \
		const struct vringh_batch *batch, struct vringh_seg *seg, \
		struct vringh_chain *chain, struct desc d, uint16_t head, int *stop) \
	{ \
		return walk_split(vr, batch, seg, chain, d, head, stop, kind, io); \
	} \
	static int fetch_##name(struct vringh *vr, struct vringh_batch *batch, unsigned int max) \
	{ \
		return fetch_split(vr, batch, max, io, singles_##name, quick_##name, walk_##name); \
	} \
	static int again_##name(struct vringh *vr, struct vringh_batch *batch, uint16_t head) \
	{ \
		return again_split(vr, batch, head, io, walk_##name); \
	}

INSTANCES(vringh_split_ops)
