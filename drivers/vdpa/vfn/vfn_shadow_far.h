/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The driver side of a relay's ring, in memory of its own or, behind windows, on the far side:
 * there it is only written, each burst is flushed once, and what the function has to say is found
 * in the window in. Included by vfn_shadow_ring.c alone, and runs where that does. Section numbers:
 * virtio 1.3.
 */

#ifndef VFN_SHADOW_FAR_H
#define VFN_SHADOW_FAR_H

#include <rte_branch_prediction.h>
#include <rte_common.h>

#include "vfn_shadow.h"

#define PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED  (1u << VRING_PACKED_DESC_F_USED)
#define PACKED_BOTH  (PACKED_AVAIL | PACKED_USED)
#define PACKED_WRAP  (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

#define NO_SLOT UINT32_MAX

/* What of a burst is still to be made visible. */
struct held {
	uint32_t slot; /* the first descriptor; packed: its flags are written last */
	uint16_t flags;
	uint16_t chains;
	uint32_t entries;
};

/* A buffer as a descriptor has it. */
struct piece {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
};

static inline void
far_flush(const struct vfn_shadow *s, const void *p, size_t len)
{
	s->io->flush(s->io->arg, p, len);
}

static inline void
far_invalidate(const struct vfn_shadow *s, const void *p, size_t len)
{
	if (unlikely(s->io != NULL))
		s->io->invalidate(s->io->arg, p, len);
}

/* Entries of a ring, which may go round its end. */
static inline void
far_flush_ring(
	const struct vfn_shadow *s, const void *ring, size_t entry, uint32_t from, uint32_t n)
{
	uint32_t first = RTE_MIN(n, s->size - from);

	if (first > 0)
		far_flush(s, RTE_PTR_ADD(ring, from * entry), first * entry);
	if (n > first)
		far_flush(s, ring, (n - first) * entry);
}

/* The next entry of the ring. */
static inline void
entry_write(
	struct vfn_shadow *s, struct held *held, const struct piece *p, uint32_t place, bool last)
{
	uint16_t flags = p->flags | (last ? 0 : VRING_DESC_F_NEXT);

	held->entries++;
	if (s->packed) {
		struct vring_packed_desc *d = &s->packed_ring.desc[s->avail];

		flags |= s->avail_wrap ? PACKED_AVAIL : PACKED_USED;
		d->addr = p->addr;
		d->len = p->len;
		d->id = place;
		if (held->slot == NO_SLOT) {
			held->slot = s->avail;
			held->flags = flags;
		} else {
			__atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
		}
		if (++s->avail == s->size) {
			s->avail = 0;
			s->avail_wrap = !s->avail_wrap;
		}
	} else {
		struct vring_desc *d = &s->split.desc[s->next_desc];

		if (held->slot == NO_SLOT)
			held->slot = s->next_desc;
		/* In ring order, as IN_ORDER wants it (2.7.9). */
		s->next_desc = (s->next_desc + 1) & (s->size - 1);
		*d = (struct vring_desc){
			.addr = p->addr, .len = p->len, .flags = flags, .next = s->next_desc};
	}
}

/* A burst gets across, what announces it last: that one is flushed by the caller. */
static __attribute__((noinline)) void
far_burst(const struct vfn_shadow *s, const struct held *held)
{
	const struct vring_packed_desc *desc = s->packed_ring.desc;

	if (s->packed) {
		far_flush(s, &desc[held->slot], offsetof(struct vring_packed_desc, flags));
		far_flush_ring(s, desc, sizeof(*desc),
			held->slot + 1 < s->size ? held->slot + 1 : 0, held->entries - 1);
	} else {
		far_flush_ring(s, s->split.desc, sizeof(*s->split.desc), held->slot, held->entries);
		far_flush_ring(s, s->split.avail->ring, sizeof(s->split.avail->ring[0]),
			(uint16_t)(s->avail - held->chains) & (s->size - 1), held->chains);
	}
	far_flush(s, desc, 0);
}

/* The function sees all of a burst or nothing. */
static inline void
burst_publish(struct vfn_shadow *s, const struct held *held)
{
	if (held->slot == NO_SLOT)
		return;
	if (unlikely(s->io != NULL))
		far_burst(s, held);
	if (!s->packed) {
		/* Pairs with the function's acquire of idx: entries and descriptors are written. */
		__atomic_store_n(&s->split.avail->idx, s->avail, __ATOMIC_RELEASE);
		if (unlikely(s->io != NULL))
			far_flush(s, &s->split.avail->idx, sizeof(s->split.avail->idx));
	} else {
		uint16_t *flags = &s->packed_ring.desc[held->slot].flags;

		/* Pairs with the function's acquire of the flags: the whole burst is written. */
		__atomic_store_n(flags, held->flags, __ATOMIC_RELEASE);
		if (unlikely(s->io != NULL))
			far_flush(s, flags, sizeof(*flags));
	}
}

/* Does the function want to know of the last count entries (2.7.10, 2.8.14)? */
static bool
should_kick(struct vfn_shadow *s, uint32_t count)
{
	uint16_t flags, off, event, *at;

	/* Ring before event field: pairs with the function's barrier after writing the field. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!s->packed) {
		at = s->event_idx ? (uint16_t *)&s->split.used->ring[s->size] :
				    &s->split.used->flags;
		far_invalidate(s, at, sizeof(*at));
		event = __atomic_load_n(at, __ATOMIC_RELAXED);
		if (!s->event_idx)
			return !(event & VRING_USED_F_NO_NOTIFY);
		return vring_need_event(event, s->avail, s->avail - count);
	}
	far_invalidate(s, s->packed_ring.device, sizeof(*s->packed_ring.device));
	/* Pairs with the function's release of flags: the offset is valid when they say so. */
	flags = __atomic_load_n(&s->packed_ring.device->flags, __ATOMIC_ACQUIRE);
	if (flags != VRING_PACKED_EVENT_FLAG_DESC)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	off = __atomic_load_n(&s->packed_ring.device->off_wrap, __ATOMIC_RELAXED);
	event = off & (PACKED_WRAP - 1);
	if (!!(off & PACKED_WRAP) != s->avail_wrap)
		event -= s->size;
	return count > s->size || vring_need_event(event, s->avail, s->avail - count);
}

static bool
used_pending(const struct vfn_shadow *s)
{
	if (s->wrong_told)
		return false;
	if (!s->packed) {
		far_invalidate(s, &s->split.used->idx, sizeof(s->split.used->idx));
		return __atomic_load_n(&s->split.used->idx, __ATOMIC_RELAXED) != s->used;
	}
	far_invalidate(s, &s->packed_ring.used[s->used].flags, sizeof(uint16_t));
	return (__atomic_load_n(&s->packed_ring.used[s->used].flags, __ATOMIC_RELAXED) &
		       PACKED_BOTH) == (s->used_wrap ? PACKED_BOTH : 0);
}

static void
driver_store(const struct vfn_shadow *s, uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
	if (unlikely(s->io != NULL))
		far_flush(s, p, sizeof(*p));
}

/* Is the driver to be told of what is used? */
static void
call_wanted(struct vfn_shadow *s, bool on)
{
	uint16_t at = s->used | (s->packed && s->used_wrap ? PACKED_WRAP : 0);

	if (s->packed && on && s->event_idx) {
		/* The offset before flags that say it is valid. */
		driver_store(s, &s->packed_ring.driver->off_wrap, at);
		driver_store(s, &s->packed_ring.driver->flags, VRING_PACKED_EVENT_FLAG_DESC);
	} else if (s->packed) {
		driver_store(s, &s->packed_ring.driver->flags,
			on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE);
	} else if (s->event_idx) {
		/* Off is just behind: it matches again after 65,535 chains. */
		driver_store(s, &s->split.avail->ring[s->size], on ? at : at - 1);
	} else {
		driver_store(s, &s->split.avail->flags, on ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
	}
	/* Event field before the ring: pairs with the function's barrier before it decides. */
	if (on)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif /* VFN_SHADOW_FAR_H */
