/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * All that a driver can write where and when it should not. Runs on the thread that owns the
 * mock_driver, or on one that alters the ring while the device reads it.
 */

#include <stdlib.h>
#include <string.h>

#include "mock_driver.h"

#define BOTH	   (1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED)
#define ENTRY_SIZE sizeof(struct vring_desc)

struct mock_desc
mock_get_entry(const struct mock_driver *d, uint16_t id, unsigned int k)
{
	union {
		struct vring_desc split;
		struct vring_packed_desc packed;
	} e;

	if (!mock_mem_read(d->mem, mock_table_addr(d, id) + k * ENTRY_SIZE, &e, sizeof(e)))
		abort(); /* the test's fault */
	if (d->cfg.packed)
		return (struct mock_desc){e.packed.addr, e.packed.len, e.packed.flags, e.packed.id};
	return (struct mock_desc){e.split.addr, e.split.len, e.split.flags, e.split.next};
}

void
mock_set_entry(struct mock_driver *d, uint16_t id, unsigned int k, const struct mock_desc *m)
{
	union {
		struct vring_desc split;
		struct vring_packed_desc packed;
	} e;

	if (d->cfg.packed)
		e.packed = (struct vring_packed_desc){m->addr, m->len, m->ref, m->flags};
	else
		e.split = (struct vring_desc){m->addr, m->len, m->flags, m->ref};
	if (!mock_mem_write(d->mem, mock_table_addr(d, id) + k * ENTRY_SIZE, &e, sizeof(e)))
		abort(); /* the test's fault */
}

void
mock_set_avail_idx(struct mock_driver *d, uint16_t idx)
{
	__atomic_store_n(&d->avail_ring->idx, idx, __ATOMIC_RELEASE);
}

void
mock_set_head(struct mock_driver *d, uint16_t at, uint16_t head)
{
	__atomic_store_n(&d->avail_ring->ring[at & (d->cfg.size - 1)], head, __ATOMIC_RELAXED);
}

void
mock_set_avail_flags(struct mock_driver *d, uint16_t flags)
{
	__atomic_store_n(&d->avail_ring->flags, flags, __ATOMIC_RELAXED);
}

void
mock_set_slot(struct mock_driver *d, uint16_t slot, const struct mock_desc *m)
{
	struct vring_packed_desc *p = &d->packed[slot];

	p->addr = m->addr;
	p->len = m->len;
	p->id = m->ref;
	__atomic_store_n(&p->flags, m->flags, __ATOMIC_RELEASE);
}

struct mock_desc
mock_get_slot(const struct mock_driver *d, uint16_t slot)
{
	const struct vring_packed_desc *p = &d->packed[slot];

	return (struct mock_desc){p->addr, p->len, p->flags, p->id};
}

void
mock_toggle_slot(struct mock_driver *d, uint16_t slot)
{
	__atomic_store_n(&d->packed[slot].flags, d->packed[slot].flags ^ BOTH, __ATOMIC_RELEASE);
}

void
mock_set_event(struct mock_driver *d, uint16_t position, uint16_t flags)
{
	if (d->cfg.packed) {
		__atomic_store_n(&d->driver_event->off_wrap, position, __ATOMIC_RELAXED);
		__atomic_store_n(&d->driver_event->flags, flags, __ATOMIC_RELEASE);
	} else {
		__atomic_store_n(&d->avail_ring->ring[d->cfg.size], position, __ATOMIC_RELAXED);
	}
}

void
mock_scribble_device(struct mock_driver *d, uint8_t value)
{
	if (d->cfg.packed) {
		memset(d->device_event, value, mock_area_len(&d->cfg, 2));
		if (!d->cfg.apart)
			memset(d->packed, value, mock_area_len(&d->cfg, 0));
	} else {
		memset(d->used_ring, value, mock_area_len(&d->cfg, 2));
	}
}
