/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The driver side of a virtqueue. Runs on the thread that owns the mock_driver. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mock_driver.h"

#define AVAIL	   (1 << VRING_PACKED_DESC_F_AVAIL)
#define USED	   (1 << VRING_PACKED_DESC_F_USED)
#define BOTH	   (AVAIL | USED)
#define WRAP	   0x8000
#define NONE	   UINT32_MAX
#define ENTRY_SIZE sizeof(struct vring_desc)

static uint16_t
avail_bits(bool wrap)
{
	return wrap ? AVAIL : USED;
}

static uint16_t
used_bits(bool wrap)
{
	return wrap ? BOTH : 0;
}

uint32_t
mock_area_len(const struct mock_config *cfg, int area)
{
	uint32_t event = cfg->event_idx ? 2 : 0;

	if (area == 0)
		return cfg->size * ENTRY_SIZE;
	if (cfg->apart && area == 2)
		return VRINGH_APART_OFFSET + cfg->size * ENTRY_SIZE;
	if (cfg->packed)
		return sizeof(struct vring_packed_desc_event);
	return area == 1 ? 4 + 2 * cfg->size + event : 4 + 8 * cfg->size + event;
}

static void *
area_at(const struct mock_driver *d, const struct mock_mem *mem, uint64_t iova, int area)
{
	return mock_mem_at(mem != NULL ? mem : d->mem, iova, mock_area_len(&d->cfg, area));
}

bool
mock_remap(struct mock_driver *d)
{
	const struct mock_config *cfg = &d->cfg;
	void *desc = area_at(d, cfg->desc_mem, cfg->desc, 0);
	void *driver = area_at(d, cfg->driver_mem, cfg->driver, 1);
	void *device = area_at(d, cfg->device_mem, cfg->device, 2);

	if (desc == NULL || driver == NULL || device == NULL)
		return false;
	if (cfg->packed) {
		d->packed = d->packed_used = desc;
		if (cfg->apart)
			d->packed_used = (void *)((uint8_t *)device + VRINGH_APART_OFFSET);
		d->driver_event = driver;
		d->device_event = device;
	} else {
		d->desc = desc;
		d->avail_ring = driver;
		d->used_ring = device;
	}
	return true;
}

bool
mock_init(struct mock_driver *d, struct mock_mem *mem, const struct mock_config *cfg)
{
	uint32_t i;

	*d = (struct mock_driver){.cfg = *cfg, .mem = mem, .held = NONE};
	if (!mock_remap(d))
		return false;
	if (cfg->nb_bufs == 0)
		d->cfg.nb_bufs = cfg->size;
	d->free = calloc(cfg->size, sizeof(*d->free));
	d->link = calloc(cfg->size, sizeof(*d->link));
	d->order = calloc(cfg->size, sizeof(*d->order));
	d->record = calloc(cfg->size, sizeof(*d->record));
	if (d->free == NULL || d->link == NULL || d->order == NULL || d->record == NULL) {
		mock_free(d);
		return false;
	}
	for (i = 0; i < cfg->size; i++)
		d->free[i] = i;
	d->nb_free = d->nb_room = cfg->size;
	d->avail = d->used = cfg->start.used;
	if (cfg->packed) {
		d->avail_wrap = d->used_wrap = cfg->start.used & WRAP;
		d->avail = d->used = cfg->start.used & (WRAP - 1);
		/* What an empty ring looks like there: all slots used, in this lap or the last. */
		for (i = 0; i < cfg->size; i++)
			d->packed[i].flags = d->packed_used[i].flags =
				used_bits(d->used_wrap == (i < d->used));
		d->driver_event->flags = VRING_PACKED_EVENT_FLAG_ENABLE;
		d->device_event->flags = VRING_PACKED_EVENT_FLAG_ENABLE;
	} else {
		d->avail_ring->idx = d->used_ring->idx = cfg->start.used;
	}
	return true;
}

void
mock_free(struct mock_driver *d)
{
	free(d->free);
	free(d->link);
	free(d->order);
	free(d->record);
	d->free = d->link = d->order = NULL;
	d->record = NULL;
}

static uint16_t
free_take(struct mock_driver *d)
{
	uint16_t v = d->free[d->free_at];

	d->free_at = d->free_at + 1 == d->cfg.size ? 0 : d->free_at + 1;
	d->nb_free--;
	return v;
}

static void
free_put(struct mock_driver *d, uint16_t v)
{
	uint32_t at = d->free_at + d->nb_free++;

	d->free[at < d->cfg.size ? at : at - d->cfg.size] = v;
}

void
mock_shuffle(struct mock_driver *d, uint64_t *seed)
{
	uint32_t i;

	/* 2.7.9: a driver in order takes descriptors as they come. */
	if (d->cfg.in_order && !d->cfg.packed)
		return;
	for (i = 1; i < d->nb_free; i++) {
		uint16_t *a = &d->free[(d->free_at + i) % d->cfg.size];
		uint16_t *b = &d->free[(d->free_at + mock_random(seed) % (i + 1)) % d->cfg.size];
		uint16_t v = *a;

		*a = *b;
		*b = v;
	}
}

/* Write a packed descriptor, all but the flags of the first one since mock_publish(). */
static void
packed_put(struct mock_driver *d, uint16_t slot, bool wrap, const struct mock_desc *m)
{
	struct vring_packed_desc *p = &d->packed[slot];
	uint16_t flags = (m->flags & ~BOTH) | avail_bits(wrap);

	p->addr = m->addr;
	p->len = m->len;
	p->id = m->ref;
	if (d->held == NONE || d->held == slot) {
		d->held = slot;
		d->held_flags = flags;
	} else {
		/*
		 * Release although the held flags publish all: a device may look at a
		 * descriptor that is not yet its turn.
		 */
		__atomic_store_n(&p->flags, flags, __ATOMIC_RELEASE);
	}
}

static bool
table_put(
	struct mock_driver *d, uint64_t table, const struct mock_desc *m, uint32_t n, bool scatter)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		/* 0, n-1, n-2, ... 1: linked, in no order. */
		uint32_t at = scatter && i > 0 ? n - i : i;
		uint32_t next = scatter ? n - i - 1 : i + 1;
		union {
			struct vring_desc split;
			struct vring_packed_desc packed;
		} e;

		if (d->cfg.packed)
			e.packed = (struct vring_packed_desc){.addr = m[i].addr,
				.len = m[i].len,
				.flags = m[i].flags & VRING_DESC_F_WRITE};
		else
			e.split = (struct vring_desc){.addr = m[i].addr,
				.len = m[i].len,
				.flags = m[i].flags,
				.next = i + 1 < n ? next : 0};
		if (!mock_mem_write(d->mem, table + at * ENTRY_SIZE, &e, sizeof(e)))
			return false;
	}
	return true;
}

int
mock_post(struct mock_driver *d, const struct mock_buf *buf, unsigned int nb, uint32_t flags,
	uint64_t token)
{
	uint32_t direct = flags & MOCK_INDIRECT ? flags >> 8 : nb;
	uint32_t slots = flags & MOCK_INDIRECT ? direct + 1 : nb;
	struct mock_desc *table = NULL;
	struct mock_record *r;
	uint32_t i, own = 0;
	uint16_t id, at;

	if (nb == 0 || slots > d->nb_room || d->nb_free == 0 || direct > nb ||
		nb - direct > d->cfg.table_entries * !!(flags & MOCK_INDIRECT))
		return -1;
	if (direct < nb) {
		table = calloc(nb - direct, sizeof(*table));
		if (table == NULL)
			return -1;
	}
	id = free_take(d);
	at = d->cfg.packed ? d->avail : id;
	r = &d->record[id];
	*r = (struct mock_record){.token = token, .head = at, .slots = slots, .busy = true};
	for (i = 0; i < nb + !!table; i++) {
		struct mock_desc m = {.ref = id};

		if (i < nb) {
			m.addr = buf[i].fixed ? buf[i].iova : mock_buf_addr(d, id, own);
			m.len = buf[i].len;
			m.flags = buf[i].write ? VRING_DESC_F_WRITE : 0;
			if (i + 1 < nb || (table != NULL && i < direct))
				m.flags |= VRING_DESC_F_NEXT;
			own += buf[i].fixed ? 0 : m.len;
			r->write_len += buf[i].write ? m.len : 0;
			if (i >= direct) {
				table[i - direct] = m;
				continue;
			}
		} else {
			m.addr = mock_table_addr(d, id);
			m.len = (nb - direct) * ENTRY_SIZE;
			m.flags = VRING_DESC_F_INDIRECT;
		}
		if (d->cfg.packed) {
			packed_put(d, d->avail, d->avail_wrap, &m);
			if (++d->avail == d->cfg.size) {
				d->avail = 0;
				d->avail_wrap = !d->avail_wrap;
			}
		} else {
			d->link[at] = m.flags & VRING_DESC_F_NEXT ? free_take(d) : 0;
			d->desc[at] = (struct vring_desc){.addr = m.addr,
				.len = m.len,
				.flags = m.flags,
				.next = d->link[at]};
			at = d->link[at];
		}
	}
	if (own > d->cfg.buf_len ||
		(table != NULL &&
			!table_put(d, mock_table_addr(d, id), table, nb - direct,
				flags & MOCK_SCATTER && !d->cfg.packed)))
		abort(); /* the test's fault */
	free(table);
	if (!d->cfg.packed)
		__atomic_store_n(
			&d->avail_ring->ring[d->avail++ & (d->cfg.size - 1)], id, __ATOMIC_RELAXED);
	d->order[(d->order_at + d->nb_busy) % d->cfg.size] = id;
	d->nb_room -= slots;
	d->nb_busy++;
	d->nb_unkicked += d->cfg.packed ? slots : 1;
	return id;
}

void
mock_publish(struct mock_driver *d)
{
	if (!d->cfg.packed)
		/* Pairs with the device's acquire of idx: entries and descriptors are written. */
		__atomic_store_n(&d->avail_ring->idx, d->avail, __ATOMIC_RELEASE);
	else if (d->held != NONE)
		/* Pairs with the device's acquire of the flags: the whole chain is written. */
		__atomic_store_n(&d->packed[d->held].flags, d->held_flags, __ATOMIC_RELEASE);
	d->held = NONE;
}

/* Ring entry k of a chain; *wrap is the lap it is in. */
static uint16_t
slot_of(const struct mock_driver *d, uint16_t id, unsigned int k, bool *wrap)
{
	uint32_t at = d->record[id].head;

	if (d->cfg.packed) {
		at = (at + k) % d->cfg.size;
		*wrap = d->avail_wrap == (at < d->avail);
		return at;
	}
	while (k-- > 0)
		at = d->link[at];
	return at;
}

struct mock_desc
mock_get_desc(const struct mock_driver *d, uint16_t id, unsigned int k)
{
	bool wrap;
	uint16_t at = slot_of(d, id, k, &wrap);

	if (d->cfg.packed)
		return (struct mock_desc){
			.addr = d->packed[at].addr,
			.len = d->packed[at].len,
			.flags = (d->held == at ? d->held_flags : d->packed[at].flags) & ~BOTH,
			.ref = d->packed[at].id,
		};
	return (struct mock_desc){
		d->desc[at].addr, d->desc[at].len, d->desc[at].flags, d->desc[at].next};
}

void
mock_set_desc(struct mock_driver *d, uint16_t id, unsigned int k, const struct mock_desc *m)
{
	bool wrap;
	uint16_t at = slot_of(d, id, k, &wrap);

	if (d->cfg.packed)
		packed_put(d, at, wrap, m);
	else
		d->desc[at] = (struct vring_desc){m->addr, m->len, m->flags, m->ref};
}

/* Flags of the next descriptor to be used; pairs with the device's release of the head's. */
static uint16_t
used_flags(const struct mock_driver *d)
{
	const struct vring_packed_desc *p = &d->packed_used[d->used];

#ifdef __SANITIZE_THREAD__
	/* It pairs accesses by address: the device releases the word that starts with len. */
	return __atomic_load_n((const uint64_t *)&p->len, __ATOMIC_ACQUIRE) >> 48;
#else
	return __atomic_load_n(&p->flags, __ATOMIC_ACQUIRE);
#endif
}

bool
mock_has_used(const struct mock_driver *d)
{
	if (d->in_run)
		return true;
	if (d->cfg.packed)
		return (used_flags(d) & BOTH) == used_bits(d->used_wrap);
	return __atomic_load_n(&d->used_ring->idx, __ATOMIC_ACQUIRE) != d->used;
}

/* Read the next used entry. 0 if there is none, -1 if it cannot be one. */
static int
used_next(struct mock_driver *d, uint32_t *id, uint32_t *len)
{
	if (d->cfg.packed) {
		const struct vring_packed_desc *p = &d->packed_used[d->used];
		uint16_t flags = used_flags(d);

		if (d->nb_busy == 0 || (flags & BOTH) != used_bits(d->used_wrap))
			return 0;
		*id = p->id;
		*len = p->len;
		if ((flags & ~(BOTH | VRING_DESC_F_WRITE)) != 0 ||
			(*len > 0 && !(flags & VRING_DESC_F_WRITE))) {
			snprintf(d->fault, sizeof(d->fault), "slot %u: flags %#x, len %u", d->used,
				flags, *len);
			return -1;
		}
	} else {
		/* Pairs with the device's release of idx after the entries. */
		uint16_t idx = __atomic_load_n(&d->used_ring->idx, __ATOMIC_ACQUIRE);
		const struct vring_used_elem *e = &d->used_ring->ring[d->used & (d->cfg.size - 1)];

		if ((uint16_t)(idx - d->used) > d->nb_busy) {
			snprintf(d->fault, sizeof(d->fault), "index %u at %u with %u chains out",
				idx, d->used, d->nb_busy);
			return -1;
		}
		if (idx == d->used)
			return 0;
		*id = e->id;
		*len = e->len;
	}
	return 1;
}

/*
 * In order, one entry may stand for a run of chains and names the last of them; those before
 * it are used completely (2.7.9, 2.8.9). 0 or -1 as used_next().
 */
static int
run_next(struct mock_driver *d, uint32_t *id, uint32_t *len, bool *skipped)
{
	if (!d->in_run) {
		uint32_t last, n;
		int ret = used_next(d, &last, &d->run_len);

		if (ret <= 0)
			return ret;
		for (n = 0; n < d->nb_busy && d->order[(d->order_at + n) % d->cfg.size] != last;)
			n++;
		if (n == d->nb_busy ||
			(!d->cfg.packed &&
				(uint16_t)(__atomic_load_n(&d->used_ring->idx, __ATOMIC_ACQUIRE) -
					d->used) <= (uint16_t)n)) {
			snprintf(d->fault, sizeof(d->fault), "at %u: id %u is %s", d->used, last,
				n == d->nb_busy ? "not out" :
						  "in a run longer than the index says");
			return -1;
		}
		d->in_run = true;
		d->run_end = last;
	}
	*id = d->order[d->order_at];
	*skipped = *id != d->run_end;
	*len = *skipped ? d->record[*id].write_len : d->run_len;
	d->in_run = *skipped;
	d->order_at = (d->order_at + 1) % d->cfg.size;
	return 1;
}

int
mock_collect(struct mock_driver *d, struct mock_used *used, unsigned int max)
{
	unsigned int i, k;

	for (i = 0; i < max; i++) {
		struct mock_record *r;
		bool skipped = false;
		uint32_t id, len;
		int ret = d->cfg.in_order ? run_next(d, &id, &len, &skipped) :
					    used_next(d, &id, &len);

		if (ret < 0)
			return -1;
		if (ret == 0)
			break;
		r = id < d->cfg.size ? &d->record[id] : NULL;
		if (r == NULL || !r->busy || len > r->write_len) {
			snprintf(d->fault, sizeof(d->fault), "at %u: id %u is %s, len %u of %ju",
				d->used, id,
				r == NULL	? "unknown" :
					r->busy ? "out" :
						  "not out",
				len, r == NULL ? 0 : (uintmax_t)r->write_len);
			return -1;
		}
		used[i] = (struct mock_used){
			.token = r->token, .len = len, .id = id, .skipped = skipped};
		if (d->cfg.packed) {
			free_put(d, id);
			d->used += r->slots;
			if (d->used >= d->cfg.size) {
				d->used -= d->cfg.size;
				d->used_wrap = !d->used_wrap;
			}
		} else {
			for (k = 0; k < r->slots; k++, id = d->link[id])
				free_put(d, id);
			d->used++;
		}
		d->nb_room += r->slots;
		d->nb_busy--;
		r->busy = false;
	}
	return i;
}

bool
mock_should_kick(struct mock_driver *d)
{
	uint32_t count = d->nb_unkicked;
	uint16_t flags, off, event;

	d->nb_unkicked = 0;
	/* Ring before event field: pairs with the device's barrier after writing the field. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (count == 0)
		return false;
	if (!d->cfg.packed) {
		if (!d->cfg.event_idx)
			return !(__atomic_load_n(&d->used_ring->flags, __ATOMIC_RELAXED) &
				VRING_USED_F_NO_NOTIFY);
		event = __atomic_load_n(
			(uint16_t *)&d->used_ring->ring[d->cfg.size], __ATOMIC_RELAXED);
		return count > UINT16_MAX || vring_need_event(event, d->avail, d->avail - count);
	}
	/* Pairs with the device's release of flags: the offset is valid when they say so. */
	flags = __atomic_load_n(&d->device_event->flags, __ATOMIC_ACQUIRE);
	if (flags != VRING_PACKED_EVENT_FLAG_DESC)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	off = __atomic_load_n(&d->device_event->off_wrap, __ATOMIC_RELAXED);
	event = off & (WRAP - 1);
	if (!!(off & WRAP) != d->avail_wrap)
		event -= d->cfg.size;
	return count > d->cfg.size || vring_need_event(event, d->avail, d->avail - count);
}

uint16_t
mock_used_position(const struct mock_driver *d, uint32_t ahead)
{
	uint32_t at;

	if (!d->cfg.packed)
		return d->used + ahead;
	at = d->used + ahead % (2 * d->cfg.size);
	return at % d->cfg.size | (d->used_wrap ^ (at / d->cfg.size & 1) ? WRAP : 0);
}

bool
mock_events_enable(struct mock_driver *d, uint32_t ahead)
{
	uint16_t at = mock_used_position(d, ahead);

	if (!d->cfg.packed) {
		if (d->cfg.event_idx)
			__atomic_store_n(&d->avail_ring->ring[d->cfg.size], at, __ATOMIC_RELAXED);
		else
			__atomic_store_n(&d->avail_ring->flags, 0, __ATOMIC_RELAXED);
	} else if (d->cfg.event_idx) {
		/* As Linux does it: the offset before flags that say it is valid. */
		__atomic_store_n(&d->driver_event->off_wrap, at, __ATOMIC_RELAXED);
		__atomic_store_n(
			&d->driver_event->flags, VRING_PACKED_EVENT_FLAG_DESC, __ATOMIC_RELEASE);
	} else {
		__atomic_store_n(
			&d->driver_event->flags, VRING_PACKED_EVENT_FLAG_ENABLE, __ATOMIC_RELAXED);
	}
	/* Event field before the ring: pairs with the device's barrier before its decision. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return mock_has_used(d);
}

void
mock_events_disable(struct mock_driver *d)
{
	if (d->cfg.packed)
		__atomic_store_n(
			&d->driver_event->flags, VRING_PACKED_EVENT_FLAG_DISABLE, __ATOMIC_RELAXED);
	else if (d->cfg.event_idx)
		/* Just behind: it matches again after 65,535 chains. */
		__atomic_store_n(&d->avail_ring->ring[d->cfg.size], d->used - 1, __ATOMIC_RELAXED);
	else
		__atomic_store_n(
			&d->avail_ring->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}
