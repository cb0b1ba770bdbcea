/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Virtqueues, the driver's side (virtio 1.3, 2.7, 2.8). Descriptors are taken in the order of the
 * ring, and chains are expected back in the order in which they were made available: the device
 * under test has no reason for another one. The test's thread.
 */

#include "device.h"

#define AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED  (1u << VRING_PACKED_DESC_F_USED)

static void
area_write(struct dev *d, unsigned int area, uint64_t at)
{
	const uint32_t offset = VIRTIO_PCI_COMMON_Q_DESCLO + 8 * area;

	set(d, &d->common, offset, 4, (uint32_t)at);
	set(d, &d->common, offset + 4, 4, at >> 32);
}

void
ring_lay(struct ring *r, struct dev *d, uint16_t queue, uint16_t size)
{
	assert_true(size <= RING_MAX);
	*r = (struct ring){.dev = d,
		.index = queue,
		.size = size,
		.free = size,
		.packed = d->features & PACKED,
		.event_idx = d->features & EVENT_IDX,
		.in_order = d->features & BIT(VIRTIO_F_IN_ORDER),
		.wrap = true,
		.used_wrap = true};
	if (r->packed) {
		r->slot = mem_alloc(d, 16u * size, &r->area[0]);
		r->driver_event = mem_alloc(d, sizeof(*r->driver_event), &r->area[1]);
		r->device_event = mem_alloc(d, sizeof(*r->device_event), &r->area[2]);
	} else {
		r->desc = mem_alloc(d, 16u * size, &r->area[0]);
		r->avail = mem_alloc(d, 6 + 2u * size, &r->area[1]);
		r->used = mem_alloc(d, 6 + 8u * size, &r->area[2]);
	}
}

bool
ring_enable(struct ring *r)
{
	struct dev *d = r->dev;
	unsigned int i;

	CSET(d, queue_select, r->index);
	CSET(d, queue_size, r->size);
	for (i = 0; i < 3; i++)
		area_write(d, i, r->area[i]);
	CSET(d, queue_enable, 1);
	settle(d);
	return CGET(d, queue_enable) == 1;
}

void
ring_setup(struct ring *r, struct dev *d, uint16_t queue, uint16_t size)
{
	ring_lay(r, d, queue, size);
	assert_true(ring_enable(r));
}

/* ---- making chains available ---- */

/* A table of elements; its length in bytes. */
static uint32_t
table_write(struct ring *r, const struct elem *e, unsigned int n, uint64_t *at)
{
	uint8_t *to = mem_alloc(r->dev, 16u * n, at);
	unsigned int i;

	for (i = 0; i < n; i++) {
		const uint16_t write = e[i].write ? VRING_DESC_F_WRITE : 0;
		struct vring_packed_desc p = {.addr = e[i].at, .len = e[i].len, .flags = write};
		struct vring_desc s = {.addr = e[i].at, .len = e[i].len, .flags = write};

		if (i + 1 < n) {
			s.flags |= VRING_DESC_F_NEXT;
			s.next = i + 1;
		}
		memcpy(to + 16 * i, r->packed ? (void *)&p : (void *)&s, 16);
	}
	return 16 * n;
}

static void
split_put(struct ring *r, uint16_t at, struct elem e, uint16_t flags)
{
	r->desc[at] = (struct vring_desc){
		.addr = e.at, .len = e.len, .flags = flags, .next = (at + 1) % r->size};
}

/* The flags of the chain's first descriptor are the last that is written (2.8.21.1). */
static uint16_t
packed_put(struct ring *r, uint16_t at, uint16_t id, struct elem e, uint16_t flags, bool first)
{
	flags |= r->wrap ? AVAIL : USED;
	r->slot[at].addr = e.at;
	r->slot[at].len = e.len;
	r->slot[at].id = id;
	if (!first)
		r->slot[at].flags = flags;
	return flags;
}

void
ring_post(struct ring *r, const struct elem *e, unsigned int n, unsigned int direct)
{
	const uint16_t head = r->next, nb = direct + (direct < n);
	uint16_t i, at = head, first_flags = 0;

	assert_true(nb > 0 && nb <= r->free);
	for (i = 0; i < nb; i++) {
		uint16_t flags = i + 1 < nb ? VRING_DESC_F_NEXT : 0, put;
		struct elem one;

		if (i < direct) {
			one = e[i];
			flags |= one.write ? VRING_DESC_F_WRITE : 0;
		} else {
			one.len = table_write(r, e + direct, n - direct, &one.at);
			flags |= VRING_DESC_F_INDIRECT | r->indirect_flags;
		}
		if (r->packed) {
			put = packed_put(r, at, head, one, flags, i == 0);
			first_flags = i == 0 ? put : first_flags;
		} else {
			split_put(r, at, one, flags);
		}
		at = (at + 1) % r->size;
		if (at == 0)
			r->wrap = !r->wrap;
	}
	if (r->packed) {
		__atomic_store_n(&r->slot[head].flags, first_flags, __ATOMIC_RELEASE);
	} else {
		r->avail->ring[r->avail_idx % r->size] = head;
		__atomic_store_n(&r->avail->idx, ++r->avail_idx, __ATOMIC_RELEASE);
	}
	r->next = at;
	r->free -= nb;
	i = (r->out_first + r->out_nb++) % RING_MAX;
	r->out[i].id = head;
	r->out[i].nb = nb;
}

/* By the rules of 2.9 and 4.1.5.2, wanted or not. */
void
ring_notify(struct ring *r)
{
	struct dev *d = r->dev;
	uint32_t off, id = r->index, next;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	CSET(d, queue_select, r->index);
	off = CGET(d, queue_notify_off) * d->multiplier;
	if (d->features & BIT(F_NOTIF_CONFIG_DATA))
		id = get(d, &d->common, QUEUE_NOTIF_DATA);
	next = r->packed ? r->next | r->wrap << 15 : r->avail_idx;
	if (d->features & BIT(F_NOTIFICATION_DATA))
		set(d, &d->notify, off, 4, id | next << 16);
	else
		set(d, &d->notify, off, 2, id);
}

void
ring_break(struct ring *r)
{
	uint16_t i;

	if (r->packed) {
		/* a chain without an end */
		for (i = r->size; i-- > 0;) {
			const uint16_t at = (r->next + i) % r->size;
			const bool wrap = at < r->next ? !r->wrap : r->wrap;

			__atomic_store_n(&r->slot[at].flags,
				VRING_DESC_F_NEXT | (wrap ? AVAIL : USED), __ATOMIC_RELEASE);
		}
	} else {
		/* more than there can be */
		__atomic_store_n(&r->avail->idx, r->avail_idx + r->size + 1, __ATOMIC_RELEASE);
	}
}

/* ---- taking them back ---- */

/* IN_ORDER: one entry stands for all up to its id (2.7.9, 2.8.8). */
static uint16_t
run_of(struct ring *r, uint32_t id)
{
	uint16_t i;

	for (i = 0; i < r->out_nb; i++)
		if (r->out[(r->out_first + i) % RING_MAX].id == id)
			break;
	assert_true(i < r->out_nb);
	assert_true(i == 0 || r->in_order);
	return i + 1;
}

/* The entry that says so; false if there is none. */
static bool
used_entry(struct ring *r, uint32_t *id, uint32_t *len)
{
	if (r->packed) {
		const struct vring_packed_desc *s = &r->slot[r->used_idx];
		uint16_t flags = __atomic_load_n(&s->flags, __ATOMIC_ACQUIRE);

		if (!(flags & AVAIL) != !(flags & USED) || !(flags & USED) != !r->used_wrap ||
			r->out_nb == 0)
			return false;
		*id = s->id;
		*len = flags & VRING_DESC_F_WRITE ? s->len : 0;
		return true;
	}
	if (__atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE) == r->used_idx)
		return false;
	*id = r->used->ring[r->used_idx % r->size].id;
	*len = r->used->ring[r->used_idx % r->size].len;
	return true;
}

bool
ring_used(struct ring *r, uint32_t *len)
{
	uint16_t nb;
	uint32_t id;

	*len = 0;
	if (r->run == 0) {
		if (!used_entry(r, &id, len))
			return false;
		r->run = run_of(r, id);
	}
	if (--r->run > 0)
		*len = UINT32_MAX; /* used completely */
	nb = r->out[r->out_first].nb;
	r->out_first = (r->out_first + 1) % RING_MAX;
	r->out_nb--;
	r->free += nb;
	r->used_idx += r->packed ? nb : 1;
	if (r->packed && r->used_idx >= r->size) {
		r->used_idx -= r->size;
		r->used_wrap = !r->used_wrap;
	}
	return true;
}

uint32_t
ring_wait(struct ring *r)
{
	uint64_t end = clock_ms() + PATIENCE_MS;
	uint32_t len;

	while (!ring_used(r, &len)) {
		assert_true(clock_ms() < end);
		nap_ms(0);
	}
	return len;
}

bool
ring_quiet(struct ring *r, unsigned int ms)
{
	uint32_t id, len;

	nap_ms(ms);
	return !used_entry(r, &id, &len);
}

void
ring_events(struct ring *r, bool on)
{
	if (r->packed)
		r->driver_event->flags =
			on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE;
	else if (r->event_idx)
		r->avail->ring[r->size] = r->used_idx - !on;
	else
		r->avail->flags = on ? 0 : VRING_AVAIL_F_NO_INTERRUPT;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
