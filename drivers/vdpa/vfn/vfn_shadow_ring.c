/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The relay of one queue: chains go from the guest's ring into the shadow ring as they are, with
 * the guest's addresses, and come back used; or, by windows, with copies of their bytes. Runs on
 * whichever thread has the relay: the poller of the function's queue, or the driver's own. Section
 * numbers: virtio 1.3.
 */

#include <sys/eventfd.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_cycles.h>

#include "vfn_shadow.h"
#include "vfn_shadow_far.h"
#include "vfn_signal.h"

#define BURST 32
/* A burst looks at no more, but for a single chain that is longer: others share the poller. */
#define BURST_DESCS 512

/* Of a device one of whose calls has blocked. */
#define HOLD_MS 200

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
	DEV_LOG(ERR, s,
		"queue %u: its call eventfd blocks, and is left alone until the queue starts "
		"again",
		s->queue);
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

/* It is of this many entries, which are in the ring. */
static inline void
chain_is_put(
	struct vfn_shadow *s, struct held *held, uint32_t place, uint32_t entries, uint16_t first)
{
	if (!s->packed) {
		s->owner[first] = place;
		s->split.avail->ring[s->avail++ & (s->size - 1)] = first;
	}
	held->chains++;
	s->slot[place].entries = entries;
	s->slot[place].done = false;
	s->room -= entries;
	s->unkicked += s->packed ? entries : 1;
}

/* It goes back as it came. */
static inline void
chain_refuse(struct vfn_shadow *s, uint32_t place)
{
	s->chain[place].written = 0;
	s->slot[place] = (struct vfn_shadow_slot){.done = true};
}

/* The same behind windows: its bytes are copied, one buffer for each direction. */
static __attribute__((noinline)) bool
chain_copy(struct vfn_shadow *s, uint32_t place, struct held *held)
{
	struct vringh_chain *c = &s->chain[place];
	/* One of no bytes at all goes across, too: it is the function that refuses it. */
	bool write = c->nb_write > 0, read = c->nb_read > 0 || !write;
	uint32_t entries = read + write;
	uint16_t first = s->next_desc;
	struct piece p;

	if (unlikely(c->error != VRINGH_OK || entries > s->size || !vfn_window_fits(s, c))) {
		if (c->error == VRINGH_OK)
			s->nb_too_long++;
		chain_refuse(s, place);
		return true;
	}
	if (entries > s->room || !vfn_window_put(s, place))
		return false;
	if (read) {
		p = (struct piece){.addr = s->out.iova + s->slot[place].out_at, .len = c->read_len};
		entry_write(s, held, &p, place, !write);
	}
	if (write) {
		p = (struct piece){.addr = s->in.iova + s->slot[place].in_at,
			.len = c->write_len,
			.flags = VRING_DESC_F_WRITE};
		entry_write(s, held, &p, place, true);
	}
	chain_is_put(s, held, place, entries, first);
	return true;
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
		chain_refuse(s, place);
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
	chain_is_put(s, held, place, entries, first);
	return true;
}

/*
 * Kick if the function wants it. Behind windows what is written is posted, and each side may look
 * at the other's word before it has arrived: so entries stay unkicked until they are known to be
 * used, the question is asked again, and who goes to sleep kicks all the same.
 */
static void
kick(struct vfn_shadow *s, bool sleeps)
{
	if (s->kick < 0 || s->kick_blocked || s->unkicked == 0)
		return;
	if (!sleeps && !should_kick(s, s->unkicked)) {
		if (s->io == NULL || s->count == 0)
			s->unkicked = 0;
		return;
	}
	s->unkicked = 0;
	s->kick_blocked = !vfn_signal(s->kick);
	s->nb_kicks++;
	if (unlikely(s->kick_blocked))
		DEV_LOG(ERR, s,
			"queue %u: the function's kick eventfd blocks, and is left "
			"alone until the queue starts again",
			s->queue);
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
	n = vringh_fetch(&s->guest, batch, s->is_ctrl ? 1 : BURST);
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

	s->full = s->count == s->size || s->room == 0 || (s->is_ctrl && s->count > 0);
	if (s->full || !vringh_pending(&s->guest))
		return 0;
	n = fetch(s, &batch);
	if (unlikely(n <= 0)) {
		if (n < 0 && !s->broken_told) {
			s->broken_told = true;
			DEV_LOG(ERR, s, "queue %u is broken and stopped: %s", s->queue,
				vringh_strerror(vringh_broken(&s->guest)));
		}
		/* If anything is there it has to wait until the function gives something back. */
		s->full = n == 0 && s->count > 0 && vringh_pending(&s->guest);
		return 0;
	}
	s->next_seg = batch.nb_segs;
	for (i = 0; i < (uint32_t)n; i++) {
		if (likely(s->io == NULL ? chain_put(s, s->head + i, &held) :
					   chain_copy(s, s->head + i, &held)))
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
	burst_publish(s, &held);
	kick(s, false);
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
	if (unlikely(s->io != NULL) && len > 0)
		vfn_window_get(s, place);
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
			DEV_LOG(ERR, s,
				"queue %u stands still, the function has used what it was not "
				"given",
				s->queue);
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
	uint32_t next = 0, entries, n = 0, taken = 0;
	uint16_t idx;

	far_invalidate(s, &s->split.used->idx, sizeof(s->split.used->idx));
	/* Pairs with the function's release of idx after the entries. */
	idx = __atomic_load_n(&s->split.used->idx, __ATOMIC_ACQUIRE);
	for (; s->used != idx; s->used += n, taken += n) {
		const struct vring_used_elem *e = &s->split.used->ring[s->used & (s->size - 1)];
		uint32_t id;

		far_invalidate(s, e, sizeof(*e));
		/* Once: the function may be one that writes to them meanwhile. */
		id = __atomic_load_n(&e->id, __ATOMIC_RELAXED);

		n = came_back(s, id < s->size ? s->owner[id] : UINT32_MAX,
			__atomic_load_n(&e->len, __ATOMIC_RELAXED), &next, &entries);
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
		const struct vring_packed_desc *d = &s->packed_ring.used[s->used];
		uint16_t flags;
		uint32_t n;

		far_invalidate(s, &d->flags, sizeof(d->flags));
		/* Pairs with the function's release of the flags after id and length. */
		flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
		if ((flags & PACKED_BOTH) != (s->used_wrap ? PACKED_BOTH : 0))
			return taken;
		far_invalidate(s, &d->len, sizeof(d->len) + sizeof(d->id));
		n = came_back(s, __atomic_load_n(&d->id, __ATOMIC_RELAXED),
			flags & VRING_DESC_F_WRITE ? __atomic_load_n(&d->len, __ATOMIC_RELAXED) : 0,
			&next, &entries);
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
			if (unlikely(s->io != NULL))
				vfn_window_free(s, s->tail + n);
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
	s->unsaid |= s->is_ctrl && n > 0;
	if (likely(!s->unsaid))
		give_back(s);
	return n;
}

void
vfn_shadow_ring_answer(struct vfn_shadow *s)
{
	s->unsaid = false;
	give_back(s);
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
	if (unlikely(s->io != NULL))
		kick(s, false);
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
	if (unlikely(s->io != NULL))
		kick(s, true);
	if (!s->full)
		pending = vringh_notify_enable(&s->guest);
	return pending || s->call_owed || used_pending(s);
}

bool
vfn_shadow_ring_pending(const struct vfn_shadow *s)
{
	return used_pending(s) || (!s->full && vringh_pending(&s->guest));
}

void
vfn_shadow_ring_finish(struct vfn_shadow *s)
{
	uint32_t lost = 0, end = 0, i, first;

	relay_used(s);
	/* Nobody knows what was said: it is to be said again, which changes nothing. */
	if (s->unsaid && s->count > 0)
		s->slot[s->tail].done = false;
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
		DEV_LOG(ERR, s, "queue %u: the function stopped without using %u of its chains",
			s->queue, lost);
	give_back(s);
	/* The last ones first. */
	first = RTE_MIN(s->size - s->tail, s->count);
	vringh_discard(&s->guest, s->chain, s->count - first);
	vringh_discard(&s->guest, &s->chain[s->tail], first);
	s->count = 0;
}
