/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The in-flight region's layout, and its fields' loads and stores. Runs on the thread that owns
 * the queue.
 *
 * The process may end between any two stores: they are made in the protocol's order. The other
 * side can write the region too: numbers found in it are checked before they are used, and what
 * counts is kept in private.
 *
 * The region is as large as the protocol has it (vhost-user, "Inflight I/O tracking"), and most of
 * it is laid out as there. But before a device hears of it librte_vhost looks at it, and changes it
 * where it takes it for one that it knows: it sets version and desc_num, and resolves the last
 * batch as if batches had one chain. What a successor needs is in places that this leaves alone
 * (mark, word, place).
 */

#ifndef VRINGH_REGION_H
#define VRINGH_REGION_H

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

/* What a region says that was in use by a queue like this, but for what it has in its last half. */
static inline uint64_t
region_word(const struct vringh *vr, uint16_t used_idx)
{
	return (MAGIC + vr->packed) | (uint64_t)vr->size << 32 | (uint64_t)used_idx << 48;
}

static inline void
put_place(struct region_packed *r, uint16_t head, uint16_t old_head, uint16_t used, uint16_t old)
{
	put(r->place, head | (uint64_t)old_head << 16 | (uint64_t)used << 32 | (uint64_t)old << 48);
}

#endif /* VRINGH_REGION_H */
