/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The dirty log: a bit for each page that the device has written (vhost-user, "Migration").
 * Runs on the thread that owns the queue; others set and clear bits of the same bitmap.
 */

#include "vringh_core.h"

#define PAGE_SHIFT 12

/*
 * Log bytes. *page is the one logged last, so that neighbours cost nothing.
 *
 * What was written is visible before the bits are looked at, by a fence of the caller's: pairs
 * with the other side, which clears a bit before it copies the page. So a bit that is set
 * already still covers what was written.
 */
static vringh_inline void
dirty_bytes(const struct vringh_dirty_log *dirty, uint64_t addr, uint64_t len, uint64_t *page)
{
	uint64_t i = addr >> PAGE_SHIFT, last = (addr + (len - 1)) >> PAGE_SHIFT;

	if (i == *page)
		i++;
	for (; i <= last && i / 8 < dirty->len; i++) {
		uint8_t *byte = &dirty->bitmap[i / 8];
		uint8_t bit = 1 << i % 8;

		if (!(__atomic_load_n(byte, __ATOMIC_RELAXED) & bit))
			__atomic_fetch_or(byte, bit, __ATOMIC_RELAXED);
	}
	*page = last;
}

static uint64_t
area_dirty(const struct vringh *vr, unsigned int area)
{
	return area == VRINGH_AREA_DESC ? vr->dirty_log.desc : vr->dirty_log.device;
}

void
vringh_dirty_area(struct vringh *vr, unsigned int area, const void *p, uint32_t len)
{
	uint64_t page = UINT64_MAX;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	dirty_bytes(&vr->dirty_log,
		area_dirty(vr, area) + ((const uint8_t *)p - (const uint8_t *)vr->area_host[area]),
		len, &page);
}

/* Where a range lies now that something was unmapped; what is not mapped can't be written. */
static void
dirty_moved(const struct vringh *vr, uint64_t iova, uint32_t left, uint64_t *page)
{
	struct vringh_region hit = {0};

	while (left > 0) {
		enum vringh_error error;
		uint32_t len = left;

		if (vringh_mem_find(vr->mem, &hit, iova, &len, VRINGH_PERM_WRITE, &error) == NULL)
			return;
		dirty_bytes(&vr->dirty_log, iova - hit.iova + hit.dirty, len, page);
		iova += len;
		left -= len;
	}
}

/* Chains' written bytes lie at the front of their writable segments. */
static inline void
dirty_chain(const struct vringh *vr, const struct vringh_chain *chain, bool iotlb, uint64_t *page)
{
	const struct vringh_seg *seg, *end;
	uint32_t left = chain->written;

	if (left == 0)
		return;
	seg = chain->seg + chain->nb_read;
	end = seg + chain->nb_write;
	/* Small ones are mostly on a page that was logged just now, and in one piece. */
	if (seg < end && left <= seg->len && (!iotlb || seg->gen == vr->mem->gen)) {
		uint64_t addr = iotlb ? seg->dirty : seg->iova;

		if (addr >> PAGE_SHIFT != *page || (addr + (left - 1)) >> PAGE_SHIFT != *page)
			dirty_bytes(&vr->dirty_log, addr, left, page);
		return;
	}
	for (; left > 0 && seg < end; seg++) {
		uint32_t n = left < seg->len ? left : seg->len;

		dirty_bytes(&vr->dirty_log, iotlb ? seg->dirty : seg->iova, n, page);
		/* Some of it may have been written before that, and some after. */
		if (iotlb && seg->gen != vr->mem->gen)
			dirty_moved(vr, seg->iova, n, page);
		left -= n;
	}
}

void
vringh_dirty_chains(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	uint64_t page = UINT64_MAX;
	unsigned int i;

	for (i = 0; i < n && chain[i].written == 0; i++)
		;
	if (i == n)
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vr->mem->kind == VRINGH_MEM_IOTLB)
		for (; i < n; i++)
			dirty_chain(vr, &chain[i], true, &page);
	else
		for (; i < n; i++)
			dirty_chain(vr, &chain[i], false, &page);
}

/* The used entries that complete() has written from a position on, and the index. */
void
vringh_dirty_used(
	struct vringh *vr, uint16_t from, const struct vringh_chain *chain, unsigned int n)
{
	uint64_t base = vr->packed ? vr->dirty_log.desc + offsetof(struct vring_packed_desc, len) :
				     vr->dirty_log.device + offsetof(struct vring_used, ring);
	/* Of the ring's entries, and of what is written of each. */
	uint32_t step =
		vr->packed ? sizeof(struct vring_packed_desc) : sizeof(struct vring_used_elem);
	uint64_t page = UINT64_MAX;
	uint32_t at = from % vr->size, last;
	unsigned int i;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vr->fenced = true;
	if (!vr->packed)
		dirty_bytes(&vr->dirty_log, vr->dirty_log.device + offsetof(struct vring_used, idx),
			sizeof(uint16_t), &page);
	/* Mostly all of them are on one page. */
	last = (vr->used % vr->size + vr->size - (vr->packed ? chain[n - 1].slots : 1)) % vr->size;
	if (last >= at &&
		(base + (uint64_t)at * step) >> PAGE_SHIFT ==
			(base + (uint64_t)last * step + sizeof(uint64_t) - 1) >> PAGE_SHIFT)
		n = 1;
	for (i = 0; i < n; i++) {
		dirty_bytes(&vr->dirty_log, base + (uint64_t)at * step, sizeof(uint64_t), &page);
		for (;; i++) {
			at += vr->packed ? chain[i].slots : 1;
			if (!vr->in_order || i + 1 == n || !in_order_skips(&chain[i]))
				break;
		}
		if (at >= vr->size)
			at -= vr->size;
	}
}

static bool
fits(const struct vringh_dirty_log *dirty, uint64_t addr, uint64_t len)
{
	uint64_t last = addr + (len - 1);

	/* No log reaches that far: no address of it is in one. */
	if (addr == VRINGH_DIRTY_NOWHERE)
		return true;
	return last >= addr && last >> PAGE_SHIFT >> 3 < dirty->len;
}

int
vringh_set_dirty_log(struct vringh *vr, const struct vringh_dirty_log *dirty)
{
	uint32_t i;

	vr->dirty = vr->fenced = false;
	if (dirty == NULL)
		return 0;
	if (vr->apart || !fits(dirty, dirty->device, area_size(vr, VRINGH_AREA_DEVICE)) ||
		(vr->packed && !fits(dirty, dirty->desc, area_size(vr, VRINGH_AREA_DESC))))
		return -VRINGH_E_DIRTY;
	for (i = 0; i < vr->mem->nb_regions; i++) {
		const struct vringh_region *r = &vr->mem->table[i];

		if ((r->perm & VRINGH_PERM_WRITE) &&
			!fits(dirty, vr->mem->kind == VRINGH_MEM_IOTLB ? r->dirty : r->iova,
				r->len))
			return -VRINGH_E_DIRTY;
	}
	vr->dirty_log = *dirty;
	vr->dirty = true;
	return 0;
}
