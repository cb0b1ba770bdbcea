/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Notifications, both ways (2.7.7, 2.7.10, 2.8.14). Runs on the thread that owns the queue.
 */

#include "vringh_core.h"

/* A word of the driver area; on an IO window it may have to be fetched first. */
#define driver_load(vr, width, p) \
	(io_invalidate((vr)->area_mem[VRINGH_AREA_DRIVER], p, (width) / 8), mem_load##width(p))

static bool
need_notify_split(const struct vringh *vr, uint32_t count)
{
	const struct vring_avail *avail = vr->split.avail;

	if (!vr->event_idx)
		return !(driver_load(vr, 16, &avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	if (count > UINT16_MAX)
		return true;
	return vring_need_event(
		driver_load(vr, 16, &avail->ring[vr->size]), vr->used, vr->used - count);
}

static bool
need_notify_packed(const struct vringh *vr, uint32_t count)
{
	/* One load: off_wrap in the low half, flags in the high one (2.8.14). */
	uint32_t event = driver_load(vr, 32, vr->packed_ring.driver);
	uint32_t off = event & (PACKED_WRAP - 1);
	bool wrap = event & PACKED_WRAP;
	uint32_t flags = event >> 16;
	uint32_t behind;

	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vr->event_idx || off >= vr->size ||
		count > vr->size)
		return true;
	/* How many slots ago was the event's slot the next to be used? */
	if (wrap == !!(vr->used_flags & PACKED_AVAIL)) {
		if (off >= vr->used)
			return false;
		behind = vr->used - off;
	} else {
		if (off < vr->used)
			return false;
		behind = vr->used + vr->size - off;
	}
	return behind <= count;
}

bool
vringh_need_notify(struct vringh *vr)
{
	uint32_t count = vr->unnotified;

	if (count == 0 || vr->broken != VRINGH_OK)
		return false;
	vr->unnotified = 0;
	/*
	 * Used entries before the event field: pairs with the driver's barrier between writing
	 * the field and looking at the ring once more. To log them needs the same barrier.
	 */
	if (!vr->fenced)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vr->fenced = false;
	return vr->packed ? need_notify_packed(vr, count) : need_notify_split(vr, count);
}

/* Write a 16-bit word of the device area. */
static void
event_store(struct vringh *vr, uint16_t *p, uint16_t v)
{
	mem_store16_release(p, v);
	io_flush(vr->area_mem[VRINGH_AREA_DEVICE], p, sizeof(*p));
	if (vringh_unlikely(vr->dirty))
		vringh_dirty_area(vr, VRINGH_AREA_DEVICE, p, sizeof(*p));
}

static void
event_enable_packed(struct vringh *vr)
{
	struct vring_packed_desc_event *event = vr->packed_ring.device;

	if (vr->event_idx) {
		event_store(vr, &event->off_wrap, vringh_get_state(vr).avail);
		/* The offset is valid before the flags say so. */
		event_store(vr, &event->flags, VRING_PACKED_EVENT_FLAG_DESC);
	} else {
		event_store(vr, &event->flags, VRING_PACKED_EVENT_FLAG_ENABLE);
	}
}

bool
vringh_pending_special(const struct vringh *vr)
{
	struct vringh_watch watch = vringh_watch(vr);

	return vringh_watch_pending(&watch);
}

bool
vringh_notify_enable(struct vringh *vr)
{
	if (vr->broken != VRINGH_OK)
		return false;
	if (vr->packed)
		event_enable_packed(vr);
	else if (vr->event_idx)
		event_store(vr, (uint16_t *)&vr->split.used->ring[vr->size], vr->avail);
	else
		event_store(vr, &vr->split.used->flags, 0);
	/* Event field before the ring: pairs with the driver's barrier before its kick decision. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vringh_pending(vr);
}

void
vringh_notify_disable(struct vringh *vr)
{
	if (vr->broken != VRINGH_OK)
		return;
	if (vr->packed)
		event_store(vr, &vr->packed_ring.device->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
	else if (!vr->event_idx)
		event_store(vr, &vr->split.used->flags, VRING_USED_F_NO_NOTIFY);
	/* With an event index the field is left behind: 65,535 chains pass before it matches. */
}

struct vringh_watch
vringh_watch(const struct vringh *vr)
{
	const uint16_t flags = 1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED;

	bool again = vr->tracked && vr->inflight->next_resubmit < vr->inflight->nb_resubmit;

	/* Without a mask the answer is always the same one. */
	if (vr->broken != VRINGH_OK || again)
		return (struct vringh_watch){
			.word = &vr->avail, .differs = vr->broken != VRINGH_OK};
	if (vr->packed)
		return (struct vringh_watch){.word = &vr->packed_ring.desc[vr->avail].flags,
			.mask = flags,
			.value = vr->avail_flags,
			.io = vr->linked ? vr->area_mem[VRINGH_AREA_DESC]->io : NULL};
	return (struct vringh_watch){.word = &vr->split.avail->idx,
		.mask = UINT16_MAX,
		.value = vr->avail,
		.differs = true,
		.io = vr->linked ? vr->area_mem[VRINGH_AREA_DRIVER]->io : NULL};
}
