/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * From descriptors to segments, for both formats and every kind of memory: always inlined, the
 * kind is a constant in each instance. At the end, what makes the instances of a format. Runs on
 * the thread that owns the queue.
 *
 * Guest memory changes under our hands: each word is loaded once into a local, and only the
 * local is judged and used.
 */

#ifndef VRINGH_WALK_H
#define VRINGH_WALK_H

#include "vringh_core.h"

/* Verdicts of a walk beside 0, the chain is done, and enum vringh_error. */
#define WALK_STOP -1 /* leave this chain for later: no room, or not all of it is available */

/* A descriptor of either format, read once. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t ref; /* split: next; packed: buffer id */
};

static vringh_inline struct desc
split_desc(struct vringh_words w)
{
	return (struct desc){
		.addr = w.addr,
		.len = (uint32_t)w.rest,
		.flags = (uint16_t)(w.rest >> 32),
		.ref = (uint16_t)(w.rest >> 48),
	};
}

static vringh_inline struct desc
packed_desc(struct vringh_words w)
{
	return (struct desc){
		.addr = w.addr,
		.len = (uint32_t)w.rest,
		.ref = (uint16_t)(w.rest >> 32),
		.flags = (uint16_t)(w.rest >> 48),
	};
}

/* A chain under construction; never in memory as long as everything is inlined. */
struct walk {
	struct vringh_seg *first;
	struct vringh_seg *seg; /* next free one */
	struct vringh_seg *end;
	struct vringh_seg *first_write; /* NULL until a writable descriptor was seen */
	uint64_t len;			/* bytes of the direction in work */
	uint32_t read_len;		/* bytes to read once first_write is set */
	uint32_t seen;			/* descriptors */
};

static vringh_inline struct walk
walk_start(struct vringh_seg *seg, const struct vringh_batch *batch)
{
	return (struct walk){.first = seg, .seg = seg, .end = &batch->seg[batch->max_segs]};
}

static vringh_inline void
seg_fill(struct vringh_seg *seg, const struct vringh_region *hit, uint8_t *host, uint64_t iova,
	uint32_t len, uint64_t gen, enum vringh_mem_kind kind)
{
	_Static_assert(
		offsetof(struct vringh_seg, len) == 24 && offsetof(struct vringh_seg, gen) == 28,
		"a word of a segment");
	seg->addr = host;
	seg->iova = iova;
	if (kind == VRINGH_MEM_IOTLB) {
		seg->dirty = iova - hit->iova + hit->dirty;
		*(u64_alias *)&seg->len = gen | len;
	} else {
		seg->len = len;
	}
}

/* Of the translations, as it is beside a segment's length. */
static vringh_inline uint64_t
seg_gen(const struct vringh *vr)
{
	return (uint64_t)vr->gen << 32;
}

/* Look up a buffer that is not in the region hit last, or not all of it, and have that be hit. */
static vringh_inline uint8_t *
hit_find(struct vringh *vr, struct vringh_region *hit, uint64_t addr, uint32_t *len, uint32_t perm,
	enum vringh_error *error)
{
	const struct vringh_region before = *hit;
	uint8_t *host;

	/* A request's data and what is around them may be in two regions, turn by turn. */
	if (addr - vr->other.iova < vr->other.len && (vr->other.perm & perm) == perm)
		*hit = vr->other;
	host = vringh_mem_find(vr->mem, hit, addr, len, perm, error);
	if (hit->iova != before.iova)
		vr->other = before;
	return host;
}

/*
 * A buffer that is not wholly in the region hit last: it may lie across regions. Returns the
 * next free segment, or NULL and an error.
 */
static __attribute__((noinline)) struct vringh_seg *
add_across(struct vringh *vr, struct vringh_seg *seg, const struct vringh_seg *end, uint64_t addr,
	uint32_t left, uint32_t perm, enum vringh_error *error)
{
	struct vringh_region *hit = &vr->hit[perm == VRINGH_PERM_WRITE];

	*error = VRINGH_E_ADDR;
	if (addr + (left - 1) < addr)
		return NULL;
	while (left > 0) {
		uint32_t len = left;
		uint8_t *host = hit_find(vr, hit, addr, &len, perm, error);

		if (host == NULL) {
			if (*error == VRINGH_E_MISS)
				vr->miss = (struct vringh_miss){.iova = addr, .perm = perm};
			return NULL;
		}
		if (seg == end) {
			*error = VRINGH_E_SEGS;
			return NULL;
		}
		seg_fill(seg++, hit, host, addr, len, seg_gen(vr), VRINGH_MEM_IOTLB);
		addr += len;
		left -= len;
	}
	return seg;
}

/* Translate one descriptor's buffer into segments. */
static vringh_inline enum vringh_error
walk_add(struct vringh *vr, struct walk *w, const struct desc *d, enum vringh_mem_kind kind)
{
	bool write = d->flags & VRING_DESC_F_WRITE;
	const struct vringh_region *hit = &vr->hit[write];
	uint64_t off;

	w->seen++;
	if (write != (w->first_write != NULL)) {
		if (vringh_unlikely(!write))
			return VRINGH_E_ORDER;
		w->first_write = w->seg;
		w->read_len = w->len;
		w->len = 0;
	}
	w->len += d->len;
	if (vringh_unlikely(w->len > UINT32_MAX))
		return VRINGH_E_LEN;
	if (vringh_unlikely(!region_holds(hit, d->addr, d->len, &off) || w->seg == w->end)) {
		enum vringh_error error;
		struct vringh_seg *seg;

		if (d->len == 0)
			return VRINGH_OK;
		seg = add_across(vr, w->seg, w->end, d->addr, d->len,
			write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ, &error);
		if (seg == NULL)
			return error;
		w->seg = seg;
		return VRINGH_OK;
	}
	seg_fill(w->seg++, hit, hit->host + off, d->addr, d->len, seg_gen(vr), kind);
	return VRINGH_OK;
}

/*
 * Entry of an indirect table, which may lie across regions and need not be aligned. Tables have
 * a last hit of their own.
 */
static __attribute__((noinline)) enum vringh_error
table_load_across(struct vringh *vr, uint64_t addr, struct vringh_words *entry)
{
	const struct vringh_mem *mem = vr->mem;
	uint32_t done = 0;

	while (done < sizeof(*entry)) {
		uint32_t len = sizeof(*entry) - done;
		enum vringh_error error;
		const uint8_t *host;

		host = vringh_mem_find(
			mem, &vr->table, addr + done, &len, VRINGH_PERM_READ, &error);
		if (host == NULL) {
			if (error == VRINGH_E_MISS)
				vr->miss = (struct vringh_miss){
					.iova = addr + done, .perm = VRINGH_PERM_READ};
			return error;
		}
		if (mem->kind == VRINGH_MEM_IOMEM)
			vringh_io_read(mem, (uint8_t *)entry + done, host, len);
		else
			mem_copy((uint8_t *)entry + done, host, len);
		done += len;
	}
	return VRINGH_OK;
}

static vringh_inline enum vringh_error
table_load(struct vringh *vr, uint64_t addr, struct vringh_words *entry, enum vringh_mem_kind kind)
{
	uint64_t off;

	if (kind == VRINGH_MEM_IOMEM ||
		vringh_unlikely(!region_holds(&vr->table, addr, sizeof(*entry), &off)))
		return table_load_across(vr, addr, entry);
	*entry = mem_load_words_unaligned(vr->table.host + off);
	return VRINGH_OK;
}

/*
 * Indirect table. Split (2.7.5.3): linked through next. Packed (2.8.8): in order, WRITE is the
 * only flag.
 */
static vringh_inline enum vringh_error
walk_table(struct vringh *vr, struct walk *w, const struct desc *outer, bool packed,
	enum vringh_mem_kind kind)
{
	uint32_t n = outer->len / sizeof(struct vring_desc);
	uint32_t i = 0, seen;

	if (vringh_unlikely(n == 0 || outer->len % sizeof(struct vring_desc) != 0 || n > vr->size))
		return VRINGH_E_TABLE;
	if (vringh_unlikely(outer->addr + (outer->len - 1) < outer->addr))
		return VRINGH_E_ADDR;
	for (seen = 0; seen < n; seen++) {
		struct vringh_words entry;
		enum vringh_error error;
		struct desc d;

		error = table_load(vr, outer->addr + i * sizeof(entry), &entry, kind);
		if (vringh_unlikely(error != VRINGH_OK))
			return error;
		d = packed ? packed_desc(entry) : split_desc(entry);
		if (vringh_unlikely(d.flags & VRING_DESC_F_INDIRECT))
			return VRINGH_E_INDIRECT;
		if (packed && vr->reads_only)
			d.flags &= ~VRING_DESC_F_WRITE;
		error = walk_add(vr, w, &d, kind);
		if (vringh_unlikely(error != VRINGH_OK))
			return error;
		if (packed) {
			i++;
			continue;
		}
		if (!(d.flags & VRING_DESC_F_NEXT))
			return VRINGH_OK;
		if (vringh_unlikely(d.ref >= n))
			return VRINGH_E_NEXT;
		i = d.ref;
	}
	return packed ? VRINGH_OK : VRINGH_E_LOOP;
}

static vringh_inline enum vringh_error
walk_desc(struct vringh *vr, struct walk *w, const struct desc *d, bool packed,
	enum vringh_mem_kind kind)
{
	if (!(d->flags & VRING_DESC_F_INDIRECT))
		return walk_add(vr, w, d, kind);
	if (!vr->indirect || (d->flags & VRING_DESC_F_NEXT))
		return VRINGH_E_INDIRECT;
	return walk_table(vr, w, d, packed, kind);
}

/* Does this error leave the chain for later? */
static vringh_inline bool
walk_stops(const struct vringh *vr, const struct walk *w, const struct vringh_batch *batch,
	enum vringh_error *error)
{
	if (*error == VRINGH_E_SEGS)
		return w->first != batch->seg;
	if (*error != VRINGH_E_MISS)
		return false;
	if (!vr->refuse_miss)
		return true;
	*error = VRINGH_E_ADDR;
	return false;
}

/*
 * Write a chain down, in four words. Behind seg come the lengths, then the counts with id and
 * slots, then what the caller writes and what is wrong.
 */
static vringh_inline void
chain_fill(struct vringh_chain *chain, struct vringh_seg *seg, uint64_t lens, uint64_t counts,
	uint64_t error)
{
	_Static_assert(offsetof(struct vringh_chain, read_len) == 8 &&
			offsetof(struct vringh_chain, nb_read) == 16 &&
			offsetof(struct vringh_chain, written) == 24 &&
			offsetof(struct vringh_chain, error) == 28,
		"words of a chain");
	chain->seg = seg;
	*(u64_alias *)&chain->read_len = lens;
	*(u64_alias *)&chain->nb_read = counts;
	*(u64_alias *)&chain->written = error;
}

/*
 * A bad chain has no segments, nothing of it may be touched. more: descriptors of a split ring
 * beside the first. Returns the next free segment.
 */
static vringh_inline struct vringh_seg *
walk_end(struct walk *w, struct vringh_chain *chain, uint16_t id, uint16_t slots, uint16_t more,
	enum vringh_error error)
{
	uint64_t name = (uint64_t)id << 32 | (uint64_t)slots << 48;
	uint64_t mark = (uint64_t)more << 48;

	if (vringh_unlikely(w->seg - w->first > UINT16_MAX))
		error = VRINGH_E_SEGS;
	if (vringh_unlikely(error != VRINGH_OK)) {
		chain_fill(chain, w->first, 0, name, mark | (uint64_t)error << 32);
		return w->first;
	}
	if (w->first_write == NULL)
		chain_fill(chain, w->first, w->len, name | (w->seg - w->first), mark);
	else
		chain_fill(chain, w->first, w->read_len | w->len << 32,
			name | (w->first_write - w->first) |
				(uint64_t)(w->seg - w->first_write) << 16,
			mark);
	return w->seg;
}

/*
 * One direct descriptor inside the last region hit: by far the most frequent chain. False if it
 * is not there. There has to be room for a segment.
 */
static vringh_inline bool
single(struct vringh_seg *seg, struct vringh_chain *chain, const struct desc *d, uint16_t id,
	const struct vringh_region *hit, uint64_t gen, bool write, enum vringh_mem_kind kind)
{
	uint64_t name = (uint64_t)id << 32 | UINT64_C(1) << 48;
	uint64_t off;

	if (vringh_unlikely(!region_holds(hit, d->addr, d->len, &off)))
		return false;
	seg_fill(seg, hit, hit->host + off, d->addr, d->len, gen, kind);
	if (write)
		chain_fill(chain, seg, (uint64_t)d->len << 32, name | 1 << 16, 0);
	else
		chain_fill(chain, seg, d->len, name | 1, 0);
	return true;
}

/* Is one direct descriptor's buffer in another translation? Those are small. */
static __attribute__((noinline)) bool
single_elsewhere(struct vringh *vr, const struct desc *d, bool write)
{
	enum vringh_error error;
	uint32_t len = d->len;

	return len > 0 &&
		hit_find(vr, &vr->hit[write], d->addr, &len,
			write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ, &error) != NULL &&
		len == d->len;
}

/*
 * A short cut for chains as they mostly are: all buffers in the region hit last, an indirect
 * table wholly in the one of the last table. The parts of it, with everything in registers;
 * whoever meets anything else takes the long way from the chain's first descriptor on, and uses
 * nothing of what was read before.
 */
struct quick {
	struct vringh_seg *seg;
	uint64_t total; /* bytes of the direction in work */
	uint64_t gen;	/* seg_gen() */
};

/* How a run of buffers of one direction ends: with the chain, at the other one, or not so. */
enum turn { LAST, TURN, ODD };

/* Is this a buffer of the direction in work? */
static vringh_inline bool
quick_is(const struct desc *d, bool write)
{
	return (d->flags & (VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE)) ==
		(write ? VRING_DESC_F_WRITE : 0);
}

/* Add a buffer; false if it is not as they mostly are. */
static vringh_inline bool
quick_add(const struct vringh *vr, struct quick *q, const struct vringh_region *hit,
	const struct desc *d, enum vringh_mem_kind kind)
{
	uint64_t off;

	if (vringh_unlikely(!region_holds(hit, d->addr, d->len, &off))) {
		uint32_t perm =
			d->flags & VRING_DESC_F_WRITE ? VRINGH_PERM_WRITE : VRINGH_PERM_READ;

		hit = &vr->other;
		if ((hit->perm & perm) == 0 || !region_holds(hit, d->addr, d->len, &off))
			return false;
	}
	q->total += d->len;
	seg_fill(q->seg++, hit, hit->host + off, d->addr, d->len, q->gen, kind);
	return true;
}

static vringh_inline struct vringh_seg *
quick_end(const struct quick *q, struct vringh_chain *chain, struct vringh_seg *first, uint32_t max,
	uint64_t read_len, uint64_t nb_read, uint16_t id, uint16_t slots, uint64_t more)
{
	uint64_t name = (uint64_t)id << 32 | (uint64_t)slots << 48;

	/* Longer than that it goes round in a circle. */
	if (vringh_unlikely((read_len | q->total) > UINT32_MAX || q->seg - first > max))
		return NULL;
	chain_fill(chain, first, read_len | q->total << 32,
		name | nb_read | (uint64_t)(q->seg - first - nb_read) << 16, more << 48);
	return q->seg;
}

static vringh_inline uint32_t
least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Where a fetch stands. */
struct cursor {
	struct vringh_chain *chain; /* next free ones */
	struct vringh_seg *seg;
	const struct vringh_seg *end; /* of the segments */
	unsigned int i, max;	      /* chains fetched, and to be fetched */
	struct vringh_words d;	      /* first descriptor of the next chain */
	uint16_t head;		      /* split: and its head */
};

static vringh_inline struct cursor
cursor_start(const struct vringh_batch *batch, unsigned int max)
{
	uint32_t room = batch->max_segs - batch->nb_segs;
	/* Each descriptor takes a segment, but on the long way. 0 is out of reach. */
	uint32_t enough = batch->max_descs - 1;
	struct vringh_seg *seg = &batch->seg[batch->nb_segs];

	return (struct cursor){
		.chain = &batch->chain[batch->nb_chains],
		.seg = seg,
		.end = seg + least(room, enough),
		.max = max,
	};
}

/* Has the long way been taken for enough descriptors? */
static vringh_inline bool
walked_enough(const struct vringh *vr, const struct vringh_batch *batch)
{
	return vr->walked > batch->max_descs - 1;
}

/* So many chains of a segment each were filled. */
static vringh_inline void
cursor_skip(struct cursor *c, uint32_t n)
{
	c->chain += n;
	c->seg += n;
	c->i += n;
}

static vringh_inline int
cursor_end(const struct cursor *c, struct vringh_batch *batch)
{
	batch->nb_chains += c->i;
	batch->nb_segs = c->seg - batch->seg;
	return c->i;
}

/* The indirect table that a descriptor names; NULL if anything is odd about it. */
static vringh_inline const struct vring_desc *
quick_table(const struct vringh *vr, const struct desc *d, uint32_t *n)
{
	uint64_t off;

	*n = d->len / sizeof(struct vring_desc);
	if (vringh_unlikely(!vr->indirect || (d->flags & VRING_DESC_F_NEXT) ||
		    d->len % sizeof(struct vring_desc) != 0 || *n > vr->size ||
		    !region_holds(&vr->table, d->addr, d->len, &off)))
		return NULL;
	return (const void *)(vr->table.host + off);
}

/* Which instances leave what they can to vringh_avx2.c. */
#ifdef VRINGH_AVX2
#define VECTORS(kind, io) (((kind) == VRINGH_MEM_REGION || (kind) == VRINGH_MEM_IOTLB) && !(io))
#else
#define VECTORS(kind, io) false
#endif

/*
 * The instances of a format, named after the kind of memory. A format defines INSTANCE() for what
 * fetches, and complete_chains().
 */
#define OPS_ENTRY(name, order) \
	{ \
		{fetch_##name, complete_##order, again_##name}, \
		{ \
			fetch_##name##_io, complete_##order##_io, again_##name##_io \
		} \
	}
/* A direct mapping is a table of one region. */
#define OPS_TABLE(order) \
	{ \
		[VRINGH_MEM_DIRECT] = OPS_ENTRY(region, order), \
		[VRINGH_MEM_REGION] = OPS_ENTRY(region, order), \
		[VRINGH_MEM_IOTLB] = OPS_ENTRY(iotlb, order), \
		[VRINGH_MEM_IOMEM] = OPS_ENTRY(iomem, order), \
	}

/* One chain at a time is frequent enough to be spared the loop. */
#define COMPLETE(name, in_order, io) \
	static __attribute__((noinline)) void batch_##name( \
		struct vringh *vr, const struct vringh_chain *chain, unsigned int n) \
	{ \
		complete_chains(vr, chain, n, in_order, io); \
	} \
	static void complete_##name( \
		struct vringh *vr, const struct vringh_chain *chain, unsigned int n) \
	{ \
		if (n == 1) \
			complete_chains(vr, chain, 1, in_order, io); \
		else \
			batch_##name(vr, chain, n); \
	}

#define INSTANCES(table) \
	INSTANCE(region, VRINGH_MEM_REGION, false) \
	INSTANCE(region_io, VRINGH_MEM_REGION, true) \
	INSTANCE(iotlb, VRINGH_MEM_IOTLB, false) \
	INSTANCE(iotlb_io, VRINGH_MEM_IOTLB, true) \
	INSTANCE(iomem, VRINGH_MEM_IOMEM, false) \
	INSTANCE(iomem_io, VRINGH_MEM_IOMEM, true) \
	COMPLETE(plain, false, false) \
	COMPLETE(plain_io, false, true) \
	COMPLETE(in_order, true, false) \
	COMPLETE(in_order_io, true, true) \
	const struct vringh_ops table[2][VRINGH_MEM_MAX][NB_IO] = { \
		OPS_TABLE(plain), \
		OPS_TABLE(in_order), \
	};

#endif /* VRINGH_WALK_H */
