/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Packed rings (2.8): the core of fetching and completing, an instance per kind of memory,
 * picked by one indirect call per burst. Runs on the thread that owns the queue.
 */

#include "vringh_walk.h"

/* Flags first, with acquire: they say whether the rest is valid. */
static vringh_inline uint16_t
ring_flags(const struct vringh *vr, uint32_t slot, bool io)
{
	const struct vring_packed_desc *p = &vr->packed_ring.desc[slot];
	uint16_t flags;

	if (io)
		io_invalidate(vr->area_mem[VRINGH_AREA_DESC], &p->flags, sizeof(p->flags));
	flags = mem_load16_acquire(&p->flags);
	if (io)
		io_invalidate(vr->area_mem[VRINGH_AREA_DESC], p,
			offsetof(struct vring_packed_desc, flags));
	return flags;
}

static vringh_inline struct desc
ring_desc(const struct vringh *vr, uint32_t slot, uint16_t flags)
{
	struct desc d = packed_desc(mem_load_words(&vr->packed_ring.desc[slot]));

	d.flags = flags;
	return d;
}

/*
 * Any chain that is not one direct descriptor in the last region hit. The walk goes on after an
 * error: only the last descriptor tells the chain's id and how many slots it takes. Returns the
 * next free segment; NULL and *stop, WALK_STOP, VRINGH_E_MISS or VRINGH_E_RUNAWAY, if the chain
 * can't be had.
 */
static vringh_inline struct vringh_seg *
walk_packed(struct vringh *vr, const struct vringh_batch *batch, struct vringh_seg *seg,
	struct vringh_chain *chain, struct desc d, int *stop, enum vringh_mem_kind kind, bool io)
{
	struct walk w = walk_start(seg, batch);
	enum vringh_error error = VRINGH_OK;
	uint16_t want = vr->avail_flags;
	uint32_t slot = vr->avail;
	uint32_t slots;

	for (slots = 1;; slots++) {
		uint16_t flags;

		if (vringh_likely(error == VRINGH_OK)) {
			error = walk_desc(vr, &w, &d, true, kind);
			if (vringh_unlikely(error != VRINGH_OK) &&
				walk_stops(vr, &w, batch, &error)) {
				*stop = error == VRINGH_E_MISS ? (int)VRINGH_E_MISS : WALK_STOP;
				return NULL;
			}
		}
		if (!(d.flags & VRING_DESC_F_NEXT))
			break;
		if (vringh_unlikely(slots == vr->size - vr->in_flight)) {
			*stop = VRINGH_E_RUNAWAY;
			return NULL;
		}
		if (++slot == vr->size) {
			slot = 0;
			want ^= PACKED_BOTH;
		}
		/* The driver made all of the chain available before its head (2.8.21). */
		flags = ring_flags(vr, slot, io);
		if (vringh_unlikely((flags & PACKED_BOTH) != want)) {
			*stop = WALK_STOP;
			return NULL;
		}
		d = ring_desc(vr, slot, flags);
	}
	vr->walked += w.seen + slots;
	return walk_end(&w, chain, d.ref, slots, 0, error);
}

/* The rest of a chain, in the ring or in a table: whatever ends it. */
struct rest {
	const struct vring_packed_desc *p;
	const struct vring_packed_desc *last; /* possible one */
	uint16_t want;			      /* ring: flags that mean available */
	uint16_t ignore;		      /* table: flags without meaning */
	bool table;
};

/* Buffers of one direction. */
static vringh_inline enum turn
quick_turn(const struct vringh *vr, struct quick *q, struct desc *d, struct rest *r, bool write,
	enum vringh_mem_kind kind)
{
	const struct vringh_region *hit = &vr->hit[write];

	if (!quick_is(d, write))
		return TURN;
	do {
		if (vringh_unlikely(!quick_add(vr, q, hit, d, kind)))
			return ODD;
		if (r->table ? r->p == r->last : !(d->flags & VRING_DESC_F_NEXT))
			return LAST;
		if (r->table) {
			*d = packed_desc(mem_load_words_unaligned(++r->p));
			d->flags &= ~r->ignore;
		} else {
			uint16_t flags;

			if (vringh_unlikely(r->p == r->last))
				return ODD;
			flags = mem_load16_acquire(&(++r->p)->flags);
			if (vringh_unlikely((flags & PACKED_BOTH) != r->want))
				return ODD;
			*d = packed_desc(mem_load_words(r->p));
			d->flags = flags;
		}
	} while (vringh_likely(quick_is(d, write)));
	return TURN;
}

/* The short cut; id is a table's. The next free segment, or NULL. */
static vringh_inline struct vringh_seg *
quick_packed(const struct vringh *vr, struct vringh_seg *seg, struct vringh_chain *chain,
	struct desc d, struct rest r, uint16_t id, enum vringh_mem_kind kind)
{
	struct quick q = {.seg = seg, .gen = seg_gen(vr)};
	uint64_t read_len, nb_read;
	enum turn turn;

	turn = quick_turn(vr, &q, &d, &r, false, kind);
	read_len = q.total;
	nb_read = q.seg - seg;
	q.total = 0;
	if (turn == TURN)
		turn = quick_turn(vr, &q, &d, &r, true, kind);
	if (vringh_unlikely(turn != LAST))
		return NULL;
	return quick_end(&q, chain, seg, vr->size, read_len, nb_read, r.table ? id : d.ref,
		r.table ? 1 : q.seg - seg, 0);
}

static vringh_inline struct vringh_seg *
quick_indirect(const struct vringh *vr, struct vringh_seg *seg, const struct vringh_seg *end,
	struct vringh_chain *chain, struct desc d, enum vringh_mem_kind kind)
{
	struct rest r = {.table = true, .ignore = vr->reads_only ? VRING_DESC_F_WRITE : 0};
	struct desc first;
	uint32_t n;

	r.p = (const void *)quick_table(vr, &d, &n);
	if (vringh_unlikely(r.p == NULL || n > end - seg))
		return NULL;
	r.last = r.p + n - 1;
	first = packed_desc(mem_load_words_unaligned(r.p));
	first.flags &= ~r.ignore;
	return quick_packed(vr, seg, chain, first, r, d.ref, kind);
}

/* Is the descriptor in a slot available? Then it is read. */
static vringh_inline bool
next_desc(const struct vringh *vr, struct cursor *c, const struct vring_packed_desc *p,
	uint16_t want, bool io)
{
	uint16_t flags;

	if (io)
		io_invalidate(vr->area_mem[VRINGH_AREA_DESC], &p->flags, sizeof(p->flags));
	/* Pairs with the driver's release of the head's flags (2.8.21). */
	flags = mem_load16_acquire(&p->flags);
	if ((flags & PACKED_BOTH) != want)
		return false;
	if (io)
		io_invalidate(vr->area_mem[VRINGH_AREA_DESC], p,
			offsetof(struct vring_packed_desc, flags));
	c->d = mem_load_words(p);
	/* The flags count that said it is available. */
	c->d.rest = (c->d.rest & (UINT64_MAX >> 16)) | (uint64_t)flags << 48;
	return true;
}

/* What does not change is in locals: the compiler can't tell the ring from what is filled. */
static vringh_inline enum turn
singles_of(struct vringh *vr, struct cursor *t, const struct vring_packed_desc **at,
	const struct vring_packed_desc *end, bool write, enum vringh_mem_kind kind, bool io)
{
	struct vringh_region hit = vr->hit[write];
	const uint64_t gen = seg_gen(vr);
	const struct vring_packed_desc *p = *at;
	const uint16_t want = vr->avail_flags;
	struct desc d = packed_desc(t->d);

	do {
		if (vringh_unlikely(!single(t->seg, t->chain, &d, d.ref, &hit, gen, write, kind))) {
			if (kind != VRINGH_MEM_IOTLB || !single_elsewhere(vr, &d, write))
				return ODD;
			hit = vr->hit[write];
			single(t->seg, t->chain, &d, d.ref, &hit, gen, write, kind);
		}
		t->seg++;
		t->chain++;
		t->i++;
		if (++p == end || !next_desc(vr, t, p, want, io))
			return LAST;
		d = packed_desc(t->d);
	} while (vringh_likely((d.flags & KIND_FLAGS) == (write ? VRING_DESC_F_WRITE : 0)));
	*at = p;
	return TURN;
}

/*
 * Chains of one direct descriptor each, from a slot on, up to n or one that is not. True if the
 * next one is available, then its descriptor is known.
 */
static vringh_inline bool
fetch_singles(struct vringh *vr, struct cursor *c, uint32_t n, enum vringh_mem_kind kind, bool io)
{
	const struct vring_packed_desc *p = &vr->packed_ring.desc[vr->avail], *end = p + n;
	struct cursor t = *c;
	enum turn turn = next_desc(vr, &t, p, vr->avail_flags, io) ? TURN : LAST;

	if (VECTORS(kind, io) && vr->vector && turn == TURN) {
		bool write = t.d.rest >> 48 & VRING_DESC_F_WRITE;
		uint32_t done = kind == VRINGH_MEM_IOTLB ?
			vringh_avx2_packed_iotlb(&vr->hit[write], p, vr->avail_flags, n, write,
				t.seg, t.chain, vr->gen) :
			vringh_avx2_packed(
				&vr->hit[write], p, vr->avail_flags, n, write, t.seg, t.chain);

		cursor_skip(&t, done);
		p += done;
		if (p == end || (done > 0 && !next_desc(vr, &t, p, vr->avail_flags, io)))
			turn = LAST;
	}
	while (turn == TURN) {
		uint16_t flags = (uint16_t)(t.d.rest >> 48) & KIND_FLAGS;

		if (flags == 0)
			turn = singles_of(vr, &t, &p, end, false, kind, io);
		else if (flags == VRING_DESC_F_WRITE)
			turn = singles_of(vr, &t, &p, end, true, kind, io);
		else
			turn = ODD;
	}
	*c = t;
	return turn == ODD;
}

/*
 * Chains by the short cut, of at most n slots together; the first descriptor is known. Returns
 * the number of slots; the descriptor stays known if that is 0.
 */
static vringh_inline uint32_t
fetch_quick(const struct vringh *vr, struct cursor *c, uint32_t n, enum vringh_mem_kind kind)
{
	const struct vring_packed_desc *p = &vr->packed_ring.desc[vr->avail];
	const struct vring_packed_desc *last = p + n - 1;
	const uint16_t want = vr->avail_flags;
	struct cursor t = *c;

	do {
		struct desc d = packed_desc(t.d);
		struct vringh_seg *next;

		if (d.flags & VRING_DESC_F_INDIRECT) {
			next = quick_indirect(vr, t.seg, t.end, t.chain, d, kind);
		} else {
			struct rest r = {.p = p, .last = last, .want = want};

			if (last - p >= t.end - t.seg)
				r.last = p + (t.end - t.seg) - 1;
			next = quick_packed(vr, t.seg, t.chain, d, r, 0, kind);
		}
		if (vringh_unlikely(next == NULL))
			break;
		p += t.chain->slots;
		t.seg = next;
		t.chain++;
		t.i++;
	} while (t.i < t.max && p <= last && t.seg < t.end && next_desc(vr, &t, p, want, false));
	*c = t;
	return p - (last - n + 1);
}

/* So many slots were fetched. */
static vringh_inline void
take(struct vringh *vr, uint32_t slots)
{
	uint32_t next = vr->avail + slots;

	vr->in_flight += slots;
	if (next >= vr->size) {
		next -= vr->size;
		vr->avail_flags ^= PACKED_BOTH;
	}
	vr->avail = next;
}

typedef bool singles_fn(struct vringh *vr, struct cursor *c, uint32_t n);
typedef uint32_t quick_fn(const struct vringh *vr, struct cursor *c, uint32_t n);
typedef struct vringh_seg *walk_fn(struct vringh *vr, const struct vringh_batch *batch,
	struct vringh_seg *seg, struct vringh_chain *chain, struct desc d, int *stop);

static vringh_inline int
fetch_packed(struct vringh *vr, struct vringh_batch *batch, unsigned int max, bool io,
	singles_fn *singles, quick_fn *quick, walk_fn *walk)
{
	struct cursor c = cursor_start(batch, max);
	int stop = 0;

	vr->walked = 0;
	while (c.i < max && c.seg < c.end) {
		/* Up to the ring's end, and not more than the ring can hold. */
		uint32_t room = least(vr->size - vr->avail, vr->size - vr->in_flight);
		uint32_t before = c.i, slots;
		struct vringh_seg *next;
		bool odd;

		if (vringh_unlikely(room == 0)) {
			if (next_desc(
				    vr, &c, &vr->packed_ring.desc[vr->avail], vr->avail_flags, io))
				stop = VRINGH_E_RUNAWAY;
			break;
		}
		odd = singles(vr, &c, least(room, least(max - c.i, c.end - c.seg)));
		take(vr, c.i - before);
		if (!odd) {
			/* At the ring's end it goes on. */
			if (c.i - before == room)
				continue;
			break;
		}
		room -= c.i - before;
		slots = quick(vr, &c, room);
		take(vr, slots);
		if (slots > 0)
			continue;
		next = walk(vr, batch, c.seg, c.chain, packed_desc(c.d), &stop);
		if (next == NULL)
			break;
		c.seg = next;
		take(vr, c.chain->slots);
		c.chain++;
		c.i++;
		if (walked_enough(vr, batch))
			break;
	}
	if (vringh_unlikely(c.i == 0 && stop > 0))
		return stop == VRINGH_E_MISS ? -stop : vringh_fail(vr, stop);
	return cursor_end(&c, batch);
}

/*
 * Descriptors that are out are overwritten by used ones, so that a chain can't be fetched again
 * from the ring: vringh_inflight.c kept them aside.
 */
static vringh_inline int
again_packed(
	struct vringh *vr, struct vringh_batch *batch, uint16_t head, enum vringh_mem_kind kind)
{
	struct vringh_chain *chain = &batch->chain[batch->nb_chains];
	struct walk w = walk_start(&batch->seg[batch->nb_segs], batch);
	enum vringh_error error = VRINGH_OK;
	uint32_t slots;
	uint16_t id;

	for (slots = 1;; slots++) {
		struct vringh_words words;
		struct desc d;
		int next = vringh_inflight_desc(vr, head, &words);

		d = packed_desc(words);
		id = d.ref;
		if (error == VRINGH_OK) {
			error = walk_desc(vr, &w, &d, true, kind);
			if (error != VRINGH_OK && walk_stops(vr, &w, batch, &error))
				return error == VRINGH_E_MISS ? (int)VRINGH_E_MISS : WALK_STOP;
		}
		if (next < 0 || slots == vr->size)
			break;
		head = next;
	}
	vr->walked += w.seen + slots;
	batch->nb_segs = walk_end(&w, chain, id, slots, 0, error) - batch->seg;
	batch->nb_chains++;
	return 0;
}

/* Where complete() stands in the ring. */
struct used {
	uint32_t slot;
	uint64_t flags; /* that mean used in this lap, where they are in a word */
	uint32_t bad;
};

/*
 * Length, id and flags of a used descriptor as they lie in memory, for a chain or a run of them.
 * The entry is the last one's of a run, and in the place of the first one.
 */
static vringh_inline uint64_t
used_word(const struct vringh *vr, struct used *u, const struct vringh_chain *chain,
	unsigned int *i, unsigned int n, bool in_order)
{
	const struct vringh_chain *c = &chain[*i];
	uint64_t counts, v;

	if (in_order)
		for (; *i + 1 < n && in_order_skips(c); c++, (*i)++)
			u->slot += c->slots;
	counts = *(const u64_alias *)&c->nb_read;
	v = c->written | (counts & UINT64_C(0xffff) << 32) | u->flags;
	v |= (uint64_t)(c->written > 0) << (48 + 1); /* WRITE */
	u->bad |= c->error;
	u->slot += counts >> 48;
	if (vringh_unlikely(u->slot >= vr->size)) {
		u->slot -= vr->size;
		u->flags ^= (uint64_t)PACKED_BOTH << 48;
	}
	(*i)++;
	return v;
}

/* Used descriptors in a ring of their own, one for each slot. */
static __attribute__((noinline)) void
complete_apart(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	const struct vringh_mem *mem = vr->area_mem[VRINGH_AREA_DEVICE];
	struct vring_packed_desc *ring =
		(struct vring_packed_desc *)((uint8_t *)vr->packed_ring.device +
			VRINGH_APART_OFFSET);
	uint32_t slot = vr->used, start = slot + 1, total = 0, bad = 0, k;
	u64_alias *head = (u64_alias *)&ring[slot].len;
	uint64_t first = 0;
	unsigned int i;

	for (i = 0; i < n; i++) {
		const struct vringh_chain *c = &chain[i];
		uint64_t v = c->written | (uint64_t)c->id << 32;

		if (c->written > 0)
			v |= (uint64_t)VRING_DESC_F_WRITE << 48;
		bad |= c->error;
		for (k = 0; k < c->slots; k++, total++) {
			uint64_t word = v | (uint64_t)vr->used_flags << 48;

			if (total == 0) {
				first = word;
			} else {
				mem_store64((u64_alias *)&ring[slot].addr, 0);
				mem_store64((u64_alias *)&ring[slot].len, word);
			}
			if (++slot == vr->size) {
				if (slot > start)
					io_flush(mem, &ring[start], (slot - start) * sizeof(*ring));
				slot = start = 0;
				vr->used_flags ^= PACKED_BOTH;
			}
		}
	}
	if (slot > start)
		io_flush(mem, &ring[start], (slot - start) * sizeof(*ring));
	vr->used = slot;
	vr->in_flight -= total;
	vr->unnotified += total;
	/* Bytes of the buffers may be elsewhere, and the head all that is written here. */
	io_flush(mem, head, 0);
	/* Whoever has a chain back finds it counted. */
	if (vringh_unlikely(bad))
		vringh_count_bad(vr, chain, n);
	/* Pairs with the driver's acquire of the head's flags (2.8.22): all the rest is written. */
	mem_store64_release(head, first);
	io_flush(mem, head, sizeof(first));
}

static vringh_inline void
complete_chains(
	struct vringh *vr, const struct vringh_chain *chain, unsigned int n, bool in_order, bool io)
{
	struct vring_packed_desc *ring = vr->packed_ring.desc, *head = &ring[vr->used];
	struct used u = {.slot = vr->used, .flags = (uint64_t)vr->used_flags << 48};
	unsigned int i = 0;
	uint64_t first;
	uint32_t slots;

	if (io && vr->apart) {
		complete_apart(vr, chain, n);
		return;
	}
	first = used_word(vr, &u, chain, &i, n, in_order);

	if (VECTORS(VRINGH_MEM_REGION, io) && vr->vector && i < n) {
		/* The last slot is left to the loop, which knows about the next lap. */
		uint32_t done = vringh_avx2_used(&ring[u.slot], u.flags, &chain[i],
			least(n - i, vr->size - 1 - u.slot), in_order);

		u.slot += done;
		i += done;
	}
	while (i < n) {
		u64_alias *p = (u64_alias *)&ring[u.slot].len;
		uint64_t v = used_word(vr, &u, chain, &i, n, in_order);

		mem_store64(p, v);
		if (io)
			io_flush(vr->area_mem[VRINGH_AREA_DESC], p, sizeof(v));
	}
	slots = u.slot - vr->used;
	if ((u.flags >> 48) != vr->used_flags)
		slots += vr->size;
	vr->used = u.slot;
	vr->used_flags = u.flags >> 48;
	vr->in_flight -= slots;
	vr->unnotified += slots;
	/* Bytes of the buffers may be elsewhere, and the head all that is written to the window. */
	if (io)
		io_flush(vr->area_mem[VRINGH_AREA_DESC], &head->len, 0);
	if (vringh_unlikely(u.bad))
		vringh_count_bad(vr, chain, n);
	/* Pairs with the driver's acquire of the head's flags (2.8.22): all the rest is written. */
	mem_store64_release(&head->len, first);
	if (io)
		io_flush(vr->area_mem[VRINGH_AREA_DESC], &head->len, sizeof(first));
}

#define INSTANCE(name, kind, io) \
	static __attribute__((noinline)) bool singles_##name( \
		struct vringh *vr, struct cursor *c, uint32_t n) \
	{ \
		return fetch_singles(vr, c, n, kind, io); \
	} \
	static __attribute__((noinline)) \
	uint32_t quick_##name(const struct vringh *vr, struct cursor *c, uint32_t n) \
	{ \
		return io || kind == VRINGH_MEM_IOMEM ? 0 : fetch_quick(vr, c, n, kind); \
	} \
	static __attribute__((noinline)) struct vringh_seg *walk_##name(struct vringh *vr, \
		const struct vringh_batch *batch, struct vringh_seg *seg, \
		struct vringh_chain *chain, struct desc d, int *stop) \
	{ \
		return walk_packed(vr, batch, seg, chain, d, stop, kind, io); \
	} \
	static int fetch_##name(struct vringh *vr, struct vringh_batch *batch, unsigned int max) \
	{ \
		return fetch_packed( \
			vr, batch, max, io, singles_##name, quick_##name, walk_##name); \
	} \
	static int again_##name(struct vringh *vr, struct vringh_batch *batch, uint16_t head) \
	{ \
		return again_packed(vr, batch, head, kind); \
	}

INSTANCES(vringh_packed_ops)
