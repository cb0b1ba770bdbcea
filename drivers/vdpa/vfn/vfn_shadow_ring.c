/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The relay of one queue: chains go from the guest's ring into the shadow ring as they are, with
 * the guest's addresses, and come back used. Runs on whichever thread has the relay: the poller
 * of the function's queue, or the driver's own. Section numbers: virtio 1.3.
 */

#include <sys/eventfd.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_cycles.h>

#include "vfn_shadow.h"
#include "vfn_signal.h"

#define BURST 32
/* A burst looks at no more, but for a single chain that is longer: others share the poller. */
#define BURST_DESCS 512

#define PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED  (1u << VRING_PACKED_DESC_F_USED)
#define PACKED_BOTH  (PACKED_AVAIL | PACKED_USED)
#define PACKED_WRAP  (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

/* Of a device one of whose calls has blocked. */
#define HOLD_MS 200

#define NO_SLOT UINT32_MAX

/* A head whose flags are written last: the function sees all of a burst or nothing. */
struct held {
	uint32_t slot;
	uint16_t flags;
};

/* A buffer as a descriptor has it. */
struct piece {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
};

uint64_t
vfn_shadow_ring_layout(bool packed, uint32_t size, uint64_t offset[4])
{
	const uint64_t len[4] = {
		size * sizeof(struct vring_desc),
		packed ? sizeof(struct vring_packed_desc_event) : 6 + 2 * size,
		packed ? sizeof(struct vring_packed_desc_event) : 6 + 8 * size,
		vfn_shadow_ring_segs(size) * sizeof(struct vring_desc),
	};
	uint64_t end = 0;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		offset[i] = end;
		end += RTE_ALIGN_CEIL(len[i], (uint64_t)RTE_CACHE_LINE_SIZE);
	}
	return end;
}

/* Room for long chains, but not for a whole ring of the longest. */
uint32_t
vfn_shadow_ring_segs(uint32_t size)
{
	return RTE_MAX(RTE_MIN(4 * size, size + 4096), 64u);
}

/*
 * The eventfd is the guest's too, who may have it block. Then it is off until the queue starts
 * anew, and the device's others are left alone for a while: each of them may be like that, and the
 * poller is shared.
 */
static void
call_guest(struct vfn_shadow *s)
{
	s->call_owed = false;
	if (s->guest_call < 0 || s->call_blocked)
		return;
	if (unlikely(rte_rdtsc() < __atomic_load_n(s->calls_held, __ATOMIC_RELAXED))) {
		s->call_owed = true;
		return;
	}
	if (likely(vfn_signal(s->guest_call)))
		return;
	s->call_blocked = true;
	__atomic_store_n(
		s->calls_held, rte_rdtsc() + rte_get_tsc_hz() / 1000 * HOLD_MS, __ATOMIC_RELAXED);
	DRV_LOG(ERR,
		"%s: queue %u: its call eventfd blocks, and is left alone until the queue starts "
		"again",
		s->name, s->queue);
}

/* ---- from the guest to the function ---- */

/* Neighbours become one: what vringh cut at the border of regions does, so that it fits. */
static inline uint32_t
next_piece(const struct vringh_chain *c, uint32_t i, struct piece *p)
{
	uint32_t all = c->nb_read + c->nb_write;

	p->addr = c->seg[i].iova;
	p->len = c->seg[i].len;
	p->flags = i >= c->nb_read ? VRING_DESC_F_WRITE : 0;
	for (i++; i < all && i != c->nb_read && c->seg[i].iova == p->addr + p->len; i++)
		p->len += c->seg[i].len;
	return i;
}

static inline uint32_t
count_pieces(const struct vringh_chain *c)
{
	uint32_t all = c->nb_read + c->nb_write, i, n = 0;
	struct piece p;

	if (all <= 1)
		return all;
	for (i = 0; i < all; n++)
		i = next_piece(c, i, &p);
	return n;
}

/* The next entry of the shadow ring. */
static inline void
entry_write(
	struct vfn_shadow *s, struct held *held, const struct piece *p, uint32_t place, bool last)
{
	uint16_t flags = p->flags | (last ? 0 : VRING_DESC_F_NEXT);

	if (s->packed) {
		struct vring_packed_desc *d = &s->packed_ring.desc[s->avail];

		flags |= s->avail_wrap ? PACKED_AVAIL : PACKED_USED;
		d->addr = p->addr;
		d->len = p->len;
		d->id = place;
		if (held->slot == NO_SLOT)
			*held = (struct held){s->avail, flags};
		else
			__atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
		if (++s->avail == s->size) {
			s->avail = 0;
			s->avail_wrap = !s->avail_wrap;
		}
	} else {
		struct vring_desc *d = &s->split.desc[s->next_desc];

		/* In ring order, as IN_ORDER wants it (2.7.9). */
		s->next_desc = (s->next_desc + 1) & (s->size - 1);
		*d = (struct vring_desc){
			.addr = p->addr, .len = p->len, .flags = flags, .next = s->next_desc};
	}
}

/* A chain of n pieces as an indirect table; the descriptor of it. */
static struct piece
table_write(struct vfn_shadow *s, const struct vringh_chain *c, uint32_t n)
{
	uint64_t at = (c->seg - s->seg) * sizeof(struct vring_desc);
	uint8_t *table = (uint8_t *)s->table + at;
	uint32_t i = 0, k;
	struct piece p;

	for (k = 0; k < n; k++) {
		i = next_piece(c, i, &p);
		if (s->packed)
			((struct vring_packed_desc *)table)[k] = (struct vring_packed_desc){
				.addr = p.addr, .len = p.len, .flags = p.flags};
		else
			((struct vring_desc *)table)[k] = (struct vring_desc){.addr = p.addr,
				.len = p.len,
				.flags = p.flags | (k + 1 < n ? VRING_DESC_F_NEXT : 0),
				.next = k + 1 < n ? k + 1 : 0};
	}
	return (struct piece){.addr = s->table_iova + at,
		.len = n * sizeof(struct vring_desc),
		.flags = VRING_DESC_F_INDIRECT};
}

/* False if there is no room for it. */
static inline bool
chain_put(struct vfn_shadow *s, uint32_t place, struct held *held)
{
	struct vringh_chain *c = &s->chain[place];
	uint32_t n = count_pieces(c), i = 0, k;
	/* What a packed transmit queue has to write is not seen in a table, and was not in one. */
	bool table = n > 1 && s->indirect && !(s->packed && s->reads_only && c->nb_write > 0);
	uint32_t entries = table ? 1 : n;
	uint16_t first = s->next_desc;
	struct piece p;

	if (unlikely(c->error != VRINGH_OK || n == 0 || n > s->size)) {
		/* In ring and table together it may be longer than a table can be (2.7.5.3.1). */
		if (n > s->size)
			s->nb_too_long++;
		c->written = 0;
		s->slot[place] = (struct vfn_shadow_slot){.entries = 0, .done = true};
		return true;
	}
	if (entries > s->room)
		return false;
	if (table) {
		p = table_write(s, c, n);
		entry_write(s, held, &p, place, true);
	} else {
		for (k = 0; k < n; k++) {
			i = next_piece(c, i, &p);
			entry_write(s, held, &p, place, k + 1 == n);
		}
	}
	if (!s->packed) {
		s->owner[first] = place;
		s->split.avail->ring[s->avail++ & (s->size - 1)] = first;
	}
	s->slot[place] = (struct vfn_shadow_slot){.entries = entries};
	s->room -= entries;
	s->unkicked += s->packed ? entries : 1;
	return true;
}

/* Does the function want to know (2.7.10, 2.8.14)? */
static bool
should_kick(struct vfn_shadow *s)
{
	uint32_t count = s->unkicked;
	uint16_t flags, off, event;

	s->unkicked = 0;
	/* Ring before event field: pairs with the function's barrier after writing the field. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!s->packed) {
		if (!s->event_idx)
			return !(__atomic_load_n(&s->split.used->flags, __ATOMIC_RELAXED) &
				VRING_USED_F_NO_NOTIFY);
		event = __atomic_load_n(
			(uint16_t *)&s->split.used->ring[s->size], __ATOMIC_RELAXED);
		return vring_need_event(event, s->avail, s->avail - count);
	}
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

static void
publish(struct vfn_shadow *s, const struct held *held)
{
	if (!s->packed)
		/* Pairs with the function's acquire of idx: entries and descriptors are written. */
		__atomic_store_n(&s->split.avail->idx, s->avail, __ATOMIC_RELEASE);
	else if (held->slot != NO_SLOT)
		/* Pairs with the function's acquire of the flags: the whole burst is written. */
		__atomic_store_n(
			&s->packed_ring.desc[held->slot].flags, held->flags, __ATOMIC_RELEASE);
	if (s->kick >= 0 && s->unkicked > 0 && should_kick(s)) {
		eventfd_write(s->kick, 1);
		s->nb_kicks++;
	}
}

/* Fetch where the ring of segments goes on. */
static int
fetch(struct vfn_shadow *s, struct vringh_batch *batch)
{
	uint32_t oldest = s->count > 0 ? s->chain[s->tail].seg - s->seg : 0;
	int n;

	if (s->count == 0)
		s->next_seg = 0;
	*batch = (struct vringh_batch){
		.chain = s->chain,
		.nb_chains = s->head,
		.max_chains = RTE_MIN(s->size, s->head + s->size - s->count),
		.seg = s->seg,
		.nb_segs = s->next_seg,
		/* Never up to the oldest: that would look like an empty one. */
		.max_segs = s->next_seg < oldest ? oldest - 1 : s->nb_segs,
		.max_descs = BURST_DESCS,
	};
	n = vringh_fetch(&s->guest, batch, BURST);
	if (n != 0 || s->count == 0 || s->next_seg < oldest || oldest < 2 ||
		!vringh_pending(&s->guest))
		return n;
	/*
	 * The next one is too long for what is left of the ring. At the very beginning of a batch
	 * vringh would refuse a chain that does not fit, instead of leaving it.
	 */
	s->next_seg = 1;
	batch->nb_segs = 1;
	batch->max_segs = oldest - 1;
	return vringh_fetch(&s->guest, batch, BURST);
}

static unsigned int
relay_chains(struct vfn_shadow *s)
{
	struct held held = {.slot = NO_SLOT};
	struct vringh_batch batch;
	uint32_t i;
	int n;

	s->full = s->count == s->size || s->room == 0;
	if (s->full || !vringh_pending(&s->guest))
		return 0;
	n = fetch(s, &batch);
	if (unlikely(n <= 0)) {
		if (n < 0 && !s->broken_told) {
			s->broken_told = true;
			DRV_LOG(ERR, "%s: queue %u is broken and stopped: %s", s->name, s->queue,
				vringh_strerror(vringh_broken(&s->guest)));
		}
		/* If anything is there it has to wait until the function gives something back. */
		s->full = n == 0 && s->count > 0 && vringh_pending(&s->guest);
		return 0;
	}
	s->next_seg = batch.nb_segs;
	for (i = 0; i < (uint32_t)n; i++) {
		if (likely(chain_put(s, s->head + i, &held)))
			continue;
		s->full = true;
		s->next_seg = s->chain[s->head + i].seg - s->seg;
		vringh_discard(&s->guest, &s->chain[s->head + i], n - i);
		break;
	}
	s->count += i;
	s->head += i;
	if (s->head == s->size)
		s->head = 0;
	publish(s, &held);
	return i;
}

/* ---- from the function to the guest ---- */

/* Places between tail and head. */
static inline uint32_t
age(const struct vfn_shadow *s, uint32_t place)
{
	return place >= s->tail ? place - s->tail : place + s->size - s->tail;
}

static inline uint32_t
place_at(const struct vfn_shadow *s, uint32_t age)
{
	return s->tail + age < s->size ? s->tail + age : s->tail + age - s->size;
}

static inline uint32_t
mark_done(struct vfn_shadow *s, uint32_t place, uint32_t len)
{
	s->slot[place].done = true;
	s->chain[place].written = len;
	return s->slot[place].entries;
}

/*
 * A used entry of the function's. In order it stands for all chains up to this one, those before
 * it are used completely (2.7.9, 2.8.9). *next is the age from which on to look. Returns how many
 * chains it stands for, and their ring entries; 0 if it cannot be one.
 */
static inline uint32_t
came_back(struct vfn_shadow *s, uint32_t place, uint32_t len, uint32_t *next, uint32_t *entries)
{
	uint32_t n = 1, to;

	if (unlikely(place >= s->size || age(s, place) >= s->count || s->slot[place].done ||
		    len > s->chain[place].write_len)) {
		if (!s->wrong_told)
			DRV_LOG(ERR,
				"%s: queue %u stands still, the function has used what it was not "
				"given",
				s->name, s->queue);
		s->wrong_told = true;
		return 0;
	}
	*entries = 0;
	if (s->in_order) {
		for (to = age(s, place); *next < to; (*next)++) {
			uint32_t p = place_at(s, *next);

			if (s->slot[p].done)
				continue;
			*entries += mark_done(s, p, s->chain[p].write_len);
			n++;
		}
	}
	*entries += mark_done(s, place, len);
	return n;
}

static unsigned int
take_split(struct vfn_shadow *s)
{
	/* Pairs with the function's release of idx after the entries. */
	uint16_t idx = __atomic_load_n(&s->split.used->idx, __ATOMIC_ACQUIRE);
	uint32_t next = 0, entries, n = 0, taken = 0;

	for (; s->used != idx; s->used += n, taken += n) {
		const struct vring_used_elem *e = &s->split.used->ring[s->used & (s->size - 1)];

		n = came_back(
			s, e->id < s->size ? s->owner[e->id] : UINT32_MAX, e->len, &next, &entries);
		if (unlikely(n == 0 || n > (uint16_t)(idx - s->used)))
			break;
	}
	return taken;
}

static unsigned int
take_packed(struct vfn_shadow *s)
{
	uint32_t next = 0, entries, taken = 0;

	for (;;) {
		const struct vring_packed_desc *d = &s->packed_ring.desc[s->used];
		/* Pairs with the function's release of the flags after id and length. */
		uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
		uint32_t n;

		if ((flags & PACKED_BOTH) != (s->used_wrap ? PACKED_BOTH : 0))
			return taken;
		n = came_back(s, d->id, flags & VRING_DESC_F_WRITE ? d->len : 0, &next, &entries);
		if (unlikely(n == 0))
			return taken;
		taken += n;
		if (s->used + entries >= s->size) {
			s->used = s->used + entries - s->size;
			s->used_wrap = !s->used_wrap;
		} else {
			s->used += entries;
		}
	}
}

static bool
used_pending(const struct vfn_shadow *s)
{
	if (s->wrong_told)
		return false;
	if (!s->packed)
		return __atomic_load_n(&s->split.used->idx, __ATOMIC_RELAXED) != s->used;
	return (__atomic_load_n(&s->packed_ring.desc[s->used].flags, __ATOMIC_RELAXED) &
		       PACKED_BOTH) == (s->used_wrap ? PACKED_BOTH : 0);
}

/* What came back, up to the first that did not. */
static void
give_back(struct vfn_shadow *s)
{
	bool any = false;

	/* Nothing reaches a broken ring; its position stays what it was. */
	while (s->count > 0 && s->slot[s->tail].done && vringh_broken(&s->guest) == VRINGH_OK) {
		uint32_t most = RTE_MIN(s->size - s->tail, s->count), n = 0;

		do {
			s->room += s->slot[s->tail + n].entries;
			n++;
		} while (n < most && s->slot[s->tail + n].done);
		vringh_complete(&s->guest, &s->chain[s->tail], n);
		s->count -= n;
		s->tail += n;
		if (s->tail == s->size)
			s->tail = 0;
		any = true;
	}
	if ((any && vringh_need_notify(&s->guest)) || unlikely(s->call_owed))
		call_guest(s);
}

static unsigned int
relay_used(struct vfn_shadow *s)
{
	unsigned int n = 0;

	if (!s->wrong_told)
		n = s->packed ? take_packed(s) : take_split(s);
	give_back(s);
	return n;
}

/* ---- notifications of the function ---- */

static void
call_wanted(struct vfn_shadow *s, bool on)
{
	uint16_t at = s->used | (s->packed && s->used_wrap ? PACKED_WRAP : 0);

	if (s->packed && on && s->event_idx) {
		/* The offset before flags that say it is valid. */
		__atomic_store_n(&s->packed_ring.driver->off_wrap, at, __ATOMIC_RELAXED);
		__atomic_store_n(&s->packed_ring.driver->flags, VRING_PACKED_EVENT_FLAG_DESC,
			__ATOMIC_RELEASE);
	} else if (s->packed) {
		__atomic_store_n(&s->packed_ring.driver->flags,
			on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE,
			__ATOMIC_RELAXED);
	} else if (s->event_idx) {
		/* Off is just behind: it matches again after 65,535 chains. */
		__atomic_store_n(
			&s->split.avail->ring[s->size], on ? at : at - 1, __ATOMIC_RELAXED);
	} else {
		__atomic_store_n(&s->split.avail->flags, on ? 0 : VRING_AVAIL_F_NO_INTERRUPT,
			__ATOMIC_RELAXED);
	}
	/* Event field before the ring: pairs with the function's barrier before it decides. */
	if (on)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- towards whoever runs it ---- */

void
vfn_shadow_ring_disarm(struct vfn_shadow *s)
{
	vringh_notify_disable(&s->guest);
	call_wanted(s, false);
	s->armed = false;
}

unsigned int
vfn_shadow_ring_run(struct vfn_job *job)
{
	struct vfn_shadow *s = container_of(job, struct vfn_shadow, job);
	unsigned int n;

	if (s->armed)
		vfn_shadow_ring_disarm(s);
	n = relay_used(s);
	return n + relay_chains(s);
}

bool
vfn_shadow_ring_arm(struct vfn_job *job)
{
	struct vfn_shadow *s = container_of(job, struct vfn_shadow, job);
	bool pending = false;

	s->armed = true;
	/* Who does our job sees for itself what the function has used. */
	if (s->call >= 0)
		call_wanted(s, true);
	if (!s->full)
		pending = vringh_notify_enable(&s->guest);
	return pending || s->call_owed || used_pending(s);
}

void
vfn_shadow_ring_finish(struct vfn_shadow *s)
{
	uint32_t lost = 0, end = 0, i, first;

	relay_used(s);
	/*
	 * A function that stands still has used all up to some chain. If it does not stand still
	 * what it has used can't be handed back: those before go back unused.
	 */
	for (i = 0; i < s->count; i++)
		if (s->slot[place_at(s, i)].done && s->slot[place_at(s, i)].entries > 0)
			end = i + 1;
	for (i = 0; i < end; i++) {
		uint32_t p = place_at(s, i);

		if (!s->slot[p].done) {
			mark_done(s, p, 0);
			lost++;
		}
	}
	if (lost > 0 && vringh_broken(&s->guest) == VRINGH_OK)
		DRV_LOG(ERR, "%s: queue %u: the function stopped without using %u of its chains",
			s->name, s->queue, lost);
	give_back(s);
	/* The last ones first. */
	first = RTE_MIN(s->size - s->tail, s->count);
	vringh_discard(&s->guest, s->chain, s->count - first);
	vringh_discard(&s->guest, &s->chain[s->tail], first);
	s->count = 0;
}
