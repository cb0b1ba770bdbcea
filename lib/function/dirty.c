/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The dirty log of the function: which pages it has written, for live migration. The rings log;
 * here they are told where, and when. Control.
 */

#include "function.h"

/* Of a ring area that is translated; one that is not mapped is not written. */
static uint64_t
area_dirty(struct vfn_function *fn, uint64_t iova)
{
	const struct vringh_mem *mem = &fn->iommu.mem;
	uint32_t i;

	for (i = 0; i < mem->nb_regions; i++)
		if (iova - mem->table[i].iova < mem->table[i].len)
			return iova - mem->table[i].iova + mem->table[i].dirty;
	return VRINGH_DIRTY_NOWHERE;
}

/* Does it reach to the end of what translations can lead to? */
static bool
covers(const struct vfn_function *fn)
{
	uint32_t i;

	for (i = 0; i < fn->dma.nb_regions; i++) {
		const struct vringh_region *r = &fn->dma.table[i];

		if ((r->perm & VRINGH_PERM_WRITE) &&
			(r->iova + (r->len - 1)) / 4096 / 8 >= fn->regs.dirty_len)
			return false;
	}
	return true;
}

/* While no poller has the queue. False if the log is too short. */
static bool
queue_log(struct vfn_queue *q)
{
	const struct vfn_queue_regs *r = vfn_queue_regs(q);
	struct vfn_function *fn = q->fn;
	struct vringh_dirty_log dirty = {
		.bitmap = vfn_dma_own(fn, fn->regs.dirty_addr, fn->regs.dirty_len),
		.len = fn->regs.dirty_len,
		.desc = r->area[0],
		/* Who has not said where calls it as it calls the ring. */
		.device = vringh_is_packed(&q->vr) || r->dirty == 0 ? r->area[2] : r->dirty,
	};

	if (fn->params.faults & VFN_FAULT_NO_DIRTY)
		return true;
	if (fn->iommu.call != NULL) {
		if (!covers(fn))
			return false;
		dirty.desc = area_dirty(fn, r->area[0]);
		dirty.device = area_dirty(fn, r->area[2]);
	}
	if (fn->params.faults & VFN_FAULT_NO_USED_DIRTY)
		dirty.desc = dirty.device = VRINGH_DIRTY_NOWHERE;
	return vringh_set_dirty_log(&q->vr, &dirty) == 0;
}

/* A queue that was just enabled; false if it can't be logged though it has to be. */
bool
vfn_dirty_queue(struct vfn_queue *q)
{
	return !q->fn->regs.dirty_on || queue_log(q);
}

void
vfn_dirty_control(struct vfn_function *fn, bool on)
{
	unsigned int i;

	if (on == fn->regs.dirty_on)
		return;
	if (on &&
		(fn->regs.dirty_len == 0 ||
			vfn_dma_own(fn, fn->regs.dirty_addr, fn->regs.dirty_len) == NULL)) {
		FN_LOG(ERR, fn, "dirty log refused: its memory is not mapped");
		return;
	}
	vfn_quiesce(fn);
	fn->regs.dirty_on = on;
	for (i = 0; i < fn->nb_queues && fn->regs.dirty_on; i++) {
		struct vfn_queue *q = &fn->queue[i];

		if (vfn_queue_regs(q)->enabled && !queue_log(q)) {
			FN_LOG(ERR, fn,
				"dirty log refused: %" PRIu64 " bytes do not cover the guest's "
				"memory, or the rings of queue %u",
				fn->regs.dirty_len, q->index);
			fn->regs.dirty_on = false;
		}
	}
	for (i = 0; i < fn->nb_queues && !fn->regs.dirty_on; i++)
		vringh_set_dirty_log(&fn->queue[i].vr, NULL);
	vfn_resume(fn);
	if (on == fn->regs.dirty_on)
		FN_LOG(DEBUG, fn, "dirty log %s", on ? "on" : "off");
}
