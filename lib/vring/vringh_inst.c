/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The core: fetching and completing, an instance per format, picked by one indirect call per
 * burst. Runs on the thread that owns the queue.
 *
 * Guest memory changes under our hands: each word of a ring is loaded once into a local, and
 * only the local is judged and used.
 */

#include <string.h>

#include "vringh_core.h"

/* Verdicts of a walk beside enum vringh_error. */
#define WALK_STOP -1 /* leave this chain for later: no room, or not all of it is available */

typedef uint64_t __attribute__((may_alias)) u64_alias;

/* A descriptor of either format, read once. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t ref; /* split: next; packed: buffer id */
};

/* Two loads: descriptors are aligned to 16 bytes (2.7, 2.8) unless in an indirect table. */
static vringh_inline struct desc
load_split(const struct vring_desc *p)
{
	uint64_t rest = __atomic_load_n((const u64_alias *)&p->len, __ATOMIC_RELAXED);

	return (struct desc){
		.addr = __atomic_load_n((const u64_alias *)&p->addr, __ATOMIC_RELAXED),
		.len = (uint32_t)rest,
		.flags = (uint16_t)(rest >> 32),
		.ref = (uint16_t)(rest >> 48),
	};
}

/* flags were loaded before, with acquire: they say whether the rest is valid. */
static vringh_inline struct desc
load_packed(const struct vring_packed_desc *p, uint16_t flags)
{
	uint64_t rest = __atomic_load_n((const u64_alias *)&p->len, __ATOMIC_RELAXED);

	return (struct desc){
		.addr = __atomic_load_n((const u64_alias *)&p->addr, __ATOMIC_RELAXED),
		.len = (uint32_t)rest,
		.flags = flags,
		.ref = (uint16_t)(rest >> 32),
	};
}

/* A chain under construction. */
struct walk {
	struct vringh *vr;
	struct vringh_batch *batch;
	struct vringh_chain *chain;
	uint32_t first_seg;
	bool write; /* a writable descriptor was seen */
};

static vringh_inline void
chain_start(struct vringh_chain *chain, struct vringh_seg *seg, uint16_t id)
{
	*chain = (struct vringh_chain){.seg = seg, .id = id, .slots = 1};
}

/* The chain is bad: nothing of it may be touched, its identity is kept. */
static void
chain_fail(struct walk *w, enum vringh_error error)
{
	w->batch->nb_segs = w->first_seg;
	w->chain->nb_read = 0;
	w->chain->nb_write = 0;
	w->chain->read_len = 0;
	w->chain->write_len = 0;
	w->chain->error = error;
}

/* Translate one descriptor's buffer into segments; it may lie across regions. */
static enum vringh_error
walk_add(struct walk *w, const struct desc *d)
{
	struct vringh_chain *chain = w->chain;
	bool write = d->flags & VRING_DESC_F_WRITE;
	uint32_t *total = write ? &chain->write_len : &chain->read_len;
	uint16_t *count = write ? &chain->nb_write : &chain->nb_read;
	uint64_t addr = d->addr;
	uint32_t left = d->len;

	if (w->write && !write)
		return VRINGH_E_ORDER;
	w->write = write;
	if (*total + (uint64_t)left > UINT32_MAX)
		return VRINGH_E_LEN;
	if (left > 0 && addr + (left - 1) < addr)
		return VRINGH_E_ADDR;
	*total += left;
	while (left > 0) {
		struct vringh_batch *batch = w->batch;
		enum vringh_error error;
		uint32_t len = left;
		uint8_t *host;

		host = vringh_mem_find(
			w->vr, addr, &len, write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ, &error);
		if (host == NULL)
			return error;
		if (batch->nb_segs == batch->max_segs || *count == UINT16_MAX)
			return VRINGH_E_SEGS;
		batch->seg[batch->nb_segs++] = (struct vringh_seg){.addr = host, .len = len};
		(*count)++;
		addr += len;
		left -= len;
	}
	return VRINGH_OK;
}

/* Entry of an indirect table, which may lie across regions and need not be aligned. */
static enum vringh_error
table_load(struct vringh *vr, uint64_t addr, void *entry)
{
	uint32_t done = 0;

	while (done < sizeof(struct vring_desc)) {
		uint32_t len = sizeof(struct vring_desc) - done;
		enum vringh_error error;
		uint8_t *host = vringh_mem_find(vr, addr + done, &len, VRINGH_PERM_READ, &error);

		if (host == NULL)
			return error;
		memcpy((uint8_t *)entry + done, host, len);
		done += len;
	}
	return VRINGH_OK;
}

/*
 * Indirect table. Split (2.7.5.3): linked through next. Packed (2.8.8): in order, WRITE is the
 * only flag.
 */
static enum vringh_error
walk_table(struct walk *w, const struct desc *outer, bool packed)
{
	uint32_t n = outer->len / sizeof(struct vring_desc);
	uint32_t i = 0, seen;

	if (n == 0 || outer->len % sizeof(struct vring_desc) != 0 || n > w->vr->size)
		return VRINGH_E_TABLE;
	if (outer->addr + (outer->len - 1) < outer->addr)
		return VRINGH_E_ADDR;
	for (seen = 0; seen < n; seen++) {
		union {
			struct vring_desc split;
			struct vring_packed_desc packed;
		} entry;
		enum vringh_error error;
		struct desc d;

		error = table_load(w->vr, outer->addr + i * sizeof(entry), &entry);
		if (error != VRINGH_OK)
			return error;
		d = packed ? load_packed(&entry.packed, entry.packed.flags) :
			     load_split(&entry.split);
		if (d.flags & VRING_DESC_F_INDIRECT)
			return VRINGH_E_INDIRECT;
		if (packed && w->vr->reads_only)
			d.flags &= ~VRING_DESC_F_WRITE;
		error = walk_add(w, &d);
		if (error != VRINGH_OK)
			return error;
		if (packed) {
			i++;
			continue;
		}
		if (!(d.flags & VRING_DESC_F_NEXT))
			return VRINGH_OK;
		if (d.ref >= n)
			return VRINGH_E_NEXT;
		i = d.ref;
	}
	return packed ? VRINGH_OK : VRINGH_E_LOOP;
}

static enum vringh_error
walk_desc(struct walk *w, const struct desc *d, bool packed)
{
	if (!(d->flags & VRING_DESC_F_INDIRECT))
		return walk_add(w, d);
	if (!w->vr->indirect || (d->flags & VRING_DESC_F_NEXT))
		return VRINGH_E_INDIRECT;
	return walk_table(w, d, packed);
}

/* Any chain that is not one direct descriptor in the last region hit. 0 or WALK_STOP. */
static __attribute__((noinline)) int
walk_split(struct walk *w, struct desc d)
{
	struct vringh *vr = w->vr;
	enum vringh_error error;
	uint32_t seen;

	for (seen = 1;; seen++) {
		error = walk_desc(w, &d, false);
		if (error != VRINGH_OK || !(d.flags & VRING_DESC_F_NEXT))
			break;
		if (d.ref >= vr->size)
			error = VRINGH_E_NEXT;
		else if (seen == vr->size)
			error = VRINGH_E_LOOP;
		if (error != VRINGH_OK)
			break;
		d = load_split(&vr->split.desc[d.ref]);
	}
	if (error == VRINGH_E_SEGS && w->first_seg > 0) {
		w->batch->nb_segs = w->first_seg;
		return WALK_STOP;
	}
	if (error != VRINGH_OK)
		chain_fail(w, error);
	return 0;
}

/*
 * The same for packed rings. The walk goes on after an error: only the last descriptor tells
 * the chain's id and how many slots it takes. 0, WALK_STOP or VRINGH_E_RUNAWAY.
 */
static __attribute__((noinline)) int
walk_packed(struct walk *w, struct desc d)
{
	enum vringh_error error = VRINGH_OK;
	struct vringh *vr = w->vr;
	uint16_t want = vr->avail_flags;
	uint32_t slot = vr->avail;
	uint32_t slots;

	for (slots = 1;; slots++) {
		uint16_t flags;

		if (error == VRINGH_OK)
			error = walk_desc(w, &d, true);
		if (error == VRINGH_E_SEGS && w->first_seg > 0)
			goto stop;
		if (!(d.flags & VRING_DESC_F_NEXT))
			break;
		if (slots == vr->size - vr->in_flight) {
			w->batch->nb_segs = w->first_seg;
			return VRINGH_E_RUNAWAY;
		}
		if (++slot == vr->size) {
			slot = 0;
			want ^= PACKED_BOTH;
		}
		/* The driver made all of the chain available before its head (2.8.21). */
		flags = __atomic_load_n(&vr->packed_ring.desc[slot].flags, __ATOMIC_ACQUIRE);
		if ((flags & PACKED_BOTH) != want)
			goto stop;
		d = load_packed(&vr->packed_ring.desc[slot], flags);
	}
	w->chain->id = d.ref;
	w->chain->slots = slots;
	if (error != VRINGH_OK)
		chain_fail(w, error);
	return 0;

stop:
	w->batch->nb_segs = w->first_seg;
	return WALK_STOP;
}

/* One direct descriptor inside the last region hit: by far the most frequent chain. */
static vringh_inline bool
single(struct vringh *vr, struct vringh_batch *batch, struct vringh_chain *chain,
	const struct desc *d)
{
	bool write = d->flags & VRING_DESC_F_WRITE;
	struct vringh_seg *seg = &batch->seg[batch->nb_segs];
	uint8_t *host;

	if (vringh_unlikely(d->flags & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT)))
		return false;
	host = vringh_mem_hit(vr, d->addr, d->len, write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ);
	if (vringh_unlikely(host == NULL || d->len == 0 || batch->nb_segs == batch->max_segs))
		return false;
	*seg = (struct vringh_seg){.addr = host, .len = d->len};
	batch->nb_segs++;
	chain->nb_read = !write;
	chain->nb_write = write;
	chain->read_len = write ? 0 : d->len;
	chain->write_len = write ? d->len : 0;
	return true;
}

static int
fetch_split(struct vringh *vr, struct vringh_batch *batch, unsigned int max)
{
	uint16_t mask = vr->size - 1;
	uint16_t known = vr->avail_seen - vr->avail;
	unsigned int i;

	if (known < max) {
		/* Pairs with the driver's release of idx after the entries (2.7.13.3). */
		uint16_t idx = __atomic_load_n(&vr->split.avail->idx, __ATOMIC_ACQUIRE);

		known = idx - vr->avail;
		/* What is out already counts: only so many chains fit into the ring. */
		if (vringh_unlikely(known > vr->size - (uint16_t)(vr->avail - vr->used))) {
			vr->broken = VRINGH_E_AVAIL_IDX;
			return 0;
		}
		vr->avail_seen = idx;
		if (known < max)
			max = known;
	}
	for (i = 0; i < max; i++) {
		struct vringh_chain *chain = &batch->chain[batch->nb_chains];
		uint16_t head =
			__atomic_load_n(&vr->split.avail->ring[vr->avail & mask], __ATOMIC_RELAXED);
		struct desc d;

		if (vringh_unlikely(head >= vr->size)) {
			if (i == 0)
				vr->broken = VRINGH_E_HEAD;
			break;
		}
		d = load_split(&vr->split.desc[head]);
		chain_start(chain, &batch->seg[batch->nb_segs], head);
		if (vringh_unlikely(!single(vr, batch, chain, &d))) {
			struct walk w = {vr, batch, chain, batch->nb_segs, false};

			if (walk_split(&w, d) != 0)
				break;
		}
		batch->nb_chains++;
		vr->avail++;
	}
	return i;
}

static int
fetch_packed(struct vringh *vr, struct vringh_batch *batch, unsigned int max)
{
	unsigned int i;

	for (i = 0; i < max; i++) {
		const struct vring_packed_desc *p = &vr->packed_ring.desc[vr->avail];
		struct vringh_chain *chain = &batch->chain[batch->nb_chains];
		/* Pairs with the driver's release of the head's flags (2.8.21). */
		uint16_t flags = __atomic_load_n(&p->flags, __ATOMIC_ACQUIRE);
		uint32_t next;
		struct desc d;

		if ((flags & PACKED_BOTH) != vr->avail_flags)
			break;
		if (vringh_unlikely(vr->in_flight == vr->size)) {
			if (i == 0)
				vr->broken = VRINGH_E_RUNAWAY;
			break;
		}
		d = load_packed(p, flags);
		chain_start(chain, &batch->seg[batch->nb_segs], d.ref);
		if (vringh_unlikely(!single(vr, batch, chain, &d))) {
			struct walk w = {vr, batch, chain, batch->nb_segs, false};
			int ret = walk_packed(&w, d);

			if (ret != 0) {
				if (ret != WALK_STOP && i == 0)
					vr->broken = ret;
				break;
			}
		}
		batch->nb_chains++;
		vr->in_flight += chain->slots;
		next = (uint32_t)vr->avail + chain->slots;
		if (next >= vr->size) {
			next -= vr->size;
			vr->avail_flags ^= PACKED_BOTH;
		}
		vr->avail = next;
	}
	return i;
}

static void
complete_split(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	uint16_t mask = vr->size - 1;
	uint16_t used = vr->used;
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct {
			uint32_t id;
			uint32_t len;
		} elem = {chain[i].id, chain[i].written};

		memcpy(&vr->split.used->ring[used++ & mask], &elem, sizeof(elem));
	}
	vr->used = used;
	vr->unnotified += n;
	/* Pairs with the driver's acquire of idx: the entries and the buffers are written. */
	__atomic_store_n(&vr->split.used->idx, used, __ATOMIC_RELEASE);
}

static void
complete_packed(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	struct vring_packed_desc *ring = vr->packed_ring.desc;
	uint32_t used = vr->used, head = used;
	uint16_t flags = vr->used_flags;
	uint32_t slots = 0;
	uint64_t first = 0;
	unsigned int i;

	for (i = 0; i < n; i++) {
		uint64_t v = chain[i].written | (uint64_t)chain[i].id << 32 |
			(uint64_t)(flags | (chain[i].written > 0 ? VRING_DESC_F_WRITE : 0)) << 48;

		if (i == 0)
			first = v;
		else
			__atomic_store_n((u64_alias *)&ring[used].len, v, __ATOMIC_RELAXED);
		slots += chain[i].slots;
		used += chain[i].slots;
		if (used >= vr->size) {
			used -= vr->size;
			flags ^= PACKED_BOTH;
		}
	}
	vr->used = used;
	vr->used_flags = flags;
	vr->in_flight -= slots;
	vr->unnotified += slots;
	/* Pairs with the driver's acquire of the head's flags (2.8.22): all the rest is written. */
	__atomic_store_n((u64_alias *)&ring[head].len, first, __ATOMIC_RELEASE);
}

const struct vringh_ops vringh_instances[2] = {
	{fetch_split, complete_split},
	{fetch_packed, complete_packed},
};
