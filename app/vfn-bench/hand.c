/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A split ring in one mapping, by hand. Runs on the thread that owns the ring. */

#include "hand.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

/* Tables need not be aligned (2.7.5.3); volatile so that a word is read once. */
static inline struct desc
load(const struct vring_desc *p)
{
	typedef const volatile uint64_t __attribute__((may_alias, aligned(1))) word;
	uint64_t rest = *(word *)&p->len;

	return (struct desc){*(word *)&p->addr, rest, rest >> 32, rest >> 48};
}

/* What does not change during a burst, so that it can stay in registers. */
struct view {
	const struct vring_desc *desc;
	uint8_t *host;
	uint64_t iova;
	uint64_t len;
	uint32_t size;
};

static inline bool
inside(const struct view *v, uint64_t addr, uint32_t len)
{
	uint64_t off = addr - v->iova;

	return off < v->len && len <= v->len - off;
}

static inline uint8_t *
host_of(const struct view *v, uint64_t addr)
{
	return v->host + (addr - v->iova);
}

/* A walk along a chain: in the ring's table or an indirect one. */
struct walk {
	const struct vring_desc *table;
	uint32_t size;
	uint32_t left; /* most descriptors to follow */
	struct desc d;
	struct hand_seg *seg;
};

enum walk_end { WALK_DONE, WALK_TURN, WALK_BAD, WALK_LONG };

/* Descriptors of one direction; what that was is seen in w->d. Lengths fit: 16 bits of them. */
static inline __attribute__((always_inline)) enum walk_end
walk_run(const struct view *v, struct walk *w, bool write, uint64_t *len)
{
	for (;;) {
		if (w->d.flags & VRING_DESC_F_INDIRECT ||
			!(w->d.flags & VRING_DESC_F_WRITE) != !write)
			return WALK_TURN;
		*len += w->d.len;
		if (likely(w->d.len > 0)) {
			if (unlikely(!inside(v, w->d.addr, w->d.len)))
				return WALK_BAD;
			*w->seg++ = (struct hand_seg){host_of(v, w->d.addr), w->d.len};
		}
		if (!(w->d.flags & VRING_DESC_F_NEXT))
			return WALK_DONE;
		if (unlikely(w->d.next >= w->size))
			return WALK_BAD;
		if (unlikely(--w->left == 0))
			return WALK_LONG;
		w->d = load(&w->table[w->d.next]);
	}
}

/* Go on in an indirect table (2.7.5.3). */
static inline bool
walk_enter(const struct view *v, struct walk *w)
{
	uint32_t n = w->d.len / sizeof(*w->table);

	if (w->d.flags & VRING_DESC_F_NEXT || n == 0 || n > v->size ||
		w->d.len % sizeof(*w->table) != 0 || !inside(v, w->d.addr, w->d.len))
		return false;
	w->table = (const struct vring_desc *)host_of(v, w->d.addr);
	w->size = n;
	w->d = load(w->table);
	return true;
}

/*
 * Any chain that is not one good direct descriptor. The next free segment; NULL if the room may
 * not do for this chain.
 */
static inline __attribute__((always_inline)) struct hand_seg *
walk(const struct view *view, struct hand_chain *chain, struct desc d, uint16_t head,
	struct hand_seg *first, const struct hand_seg *last)
{
	const struct view v = *view;
	struct walk w = {v.desc, v.size, v.size, d, first};
	uint64_t read_len = 0, write_len = 0;
	bool nested = false, write = false;
	struct hand_seg *first_write;
	enum walk_end end;

	for (;;) {
		uint32_t room = last - w.seg;

		/* The longest there can be, of which every one takes a segment. */
		w.left = w.size < room ? w.size : room;
		if (w.left == 0)
			return NULL;
		if (!write)
			end = walk_run(&v, &w, false, &read_len);
		if (!write && end == WALK_TURN && !(w.d.flags & VRING_DESC_F_INDIRECT)) {
			write = true;
			first_write = w.seg;
		}
		if (write)
			end = walk_run(&v, &w, true, &write_len);
		if (end == WALK_LONG && w.size > room)
			return NULL;
		if (end != WALK_TURN)
			break;
		if (nested || !(w.d.flags & VRING_DESC_F_INDIRECT) || !walk_enter(&v, &w))
			break;
		nested = true;
	}
	if (unlikely(end != WALK_DONE || read_len > UINT32_MAX || write_len > UINT32_MAX)) {
		*chain = (struct hand_chain){.seg = first, .id = head, .bad = true};
		return first;
	}
	if (!write)
		first_write = w.seg;
	*chain = (struct hand_chain){
		.seg = first,
		.read_len = read_len,
		.write_len = write_len,
		.nb_read = first_write - first,
		.nb_write = w.seg - first_write,
		.id = head,
	};
	return w.seg;
}

static inline uint16_t
head_of(const struct hand_ring *r, unsigned int i)
{
	return __atomic_load_n(
		&r->avail_ring->ring[(r->avail + i) & (r->size - 1)], __ATOMIC_RELAXED);
}

/*
 * The rest of a burst from the first chain on that is not a single descriptor. A function of its
 * own, so that it takes no registers from bursts of single ones. How many chains the burst has.
 */
static __attribute__((noinline)) unsigned int
fetch_rest(const struct hand_ring *r, const struct view *view, struct hand_chain *chain,
	unsigned int i, unsigned int max, struct hand_seg *seg, const struct hand_seg *end,
	uint16_t head, struct desc d)
{
	const struct view v = *view;

	for (;;) {
		struct hand_seg *after = walk(&v, &chain[i], d, head, seg, end);

		if (unlikely(after == NULL)) {
			if (i > 0)
				return i;
			chain[i] = (struct hand_chain){.seg = seg, .id = head, .bad = true};
			after = seg;
		}
		seg = after;
		if (++i == max)
			return i;
		head = head_of(r, i);
		if (unlikely(head >= v.size))
			return i;
		d = load(&v.desc[head]);
	}
}

int
hand_fetch(struct hand_ring *r, struct hand_chain *chain, unsigned int max, struct hand_seg *seg,
	uint32_t max_segs)
{
	const struct view v = {r->desc, r->host, r->iova, r->len, r->size};
	const struct hand_seg *end = seg + max_segs;
	uint16_t known = r->avail_seen - r->avail;
	unsigned int i;

	if (unlikely(r->broken))
		return -1;
	if (known < max) {
		/* Pairs with the driver's release of idx after the entries (2.7.13.3). */
		uint16_t idx = __atomic_load_n(&r->avail_ring->idx, __ATOMIC_ACQUIRE);

		known = idx - r->avail;
		if (unlikely(known > v.size - (uint16_t)(r->avail - r->used)))
			goto broken;
		r->avail_seen = idx;
		if (known < max)
			max = known;
	}
	for (i = 0; i < max; i++) {
		uint16_t head = head_of(r, i);
		struct desc d;
		bool write;

		if (unlikely(head >= v.size)) {
			if (i == 0)
				goto broken;
			break;
		}
		d = load(&v.desc[head]);
		if (unlikely(d.flags & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT) ||
			    !inside(&v, d.addr, d.len) || d.len == 0 || seg == end)) {
			i = fetch_rest(r, &v, chain, i, max, seg, end, head, d);
			break;
		}
		write = d.flags & VRING_DESC_F_WRITE;
		chain[i] = (struct hand_chain){
			.seg = seg,
			.read_len = write ? 0 : d.len,
			.write_len = write ? d.len : 0,
			.nb_read = !write,
			.nb_write = write,
			.id = head,
		};
		*seg++ = (struct hand_seg){host_of(&v, d.addr), d.len};
	}
	r->avail += i;
	return i;

broken:
	r->broken = true;
	return -1;
}

void
hand_complete(struct hand_ring *r, const struct hand_chain *chain, unsigned int n)
{
	uint16_t mask = r->size - 1, used = r->used;
	unsigned int i;

	if (unlikely(r->broken))
		return;
	for (i = 0; i < n; i++) {
		uint64_t entry = chain[i].id | (uint64_t)chain[i].written << 32;

		/* Entries are aligned to 4 only (2.7). */
		memcpy(&r->used_ring->ring[used++ & mask], &entry, sizeof(entry));
	}
	r->used = used;
	/* Pairs with the driver's acquire of idx: the entries are written. */
	__atomic_store_n(&r->used_ring->idx, used, __ATOMIC_RELEASE);
}
