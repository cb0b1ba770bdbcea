/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What virtio has no register for, and a driver needs: the vendor structure, counters and the
 * parts window. A guest that reaches it harms nobody but itself; why is argued in doc/design.md.
 * Control.
 */

#include <errno.h>
#include <string.h>

#include "function.h"

/* A register's place and width as one number, so that a wrong width is an unknown register. */
#define REG(offset, width)	((uint64_t)(offset) << 4 | (width))
#define VENDOR_REG(field, type) REG(offsetof(struct vfn_vendor_cfg, field), sizeof(type))

/* Registers of the selected queue; what describes a ring is fixed once it is enabled. */
static int
write_queue(struct vfn_queue *q, uint64_t reg, uint32_t v)
{
	struct vfn_queue_regs *r = q != NULL ? vfn_queue_regs(q) : NULL;
	bool settable = r != NULL && !r->enabled;

	switch (reg) {
	case VENDOR_REG(queue_suspend, uint16_t):
		if (q != NULL)
			vfn_queue_suspend(q, v != 0);
		return 0;
	case VENDOR_REG(queue_avail, uint16_t):
		if (settable)
			r->position.avail = v;
		return 0;
	case VENDOR_REG(queue_used, uint16_t):
		if (settable)
			r->position.used = v;
		return 0;
	case VENDOR_REG(queue_dirty_lo, uint32_t):
	case VENDOR_REG(queue_dirty_hi, uint32_t):
		if (settable)
			vfn_set_half(&r->dirty, reg == VENDOR_REG(queue_dirty_hi, uint32_t), v);
		return 0;
	case VENDOR_REG(queue_inflight_lo, uint32_t):
	case VENDOR_REG(queue_inflight_hi, uint32_t):
		if (settable)
			vfn_set_half(&r->inflight_addr,
				reg == VENDOR_REG(queue_inflight_hi, uint32_t), v);
		return 0;
	case VENDOR_REG(queue_inflight_len, uint32_t):
		if (settable)
			r->inflight_len = v;
		return 0;
	}
	return -EINVAL;
}

int
vfn_vendor_write(struct vfn_function *fn, uint64_t offset, uint32_t v, size_t len)
{
	struct vfn_regs *regs = &fn->regs;
	uint64_t reg = REG(offset, len);

	switch (reg) {
	case VENDOR_REG(suspend, uint16_t):
		if (!(fn->params.faults & VFN_FAULT_NO_SUSPEND))
			vfn_queues_suspend(fn, v != 0);
		return 0;
	case VENDOR_REG(dirty_lo, uint32_t):
	case VENDOR_REG(dirty_hi, uint32_t):
		if (!regs->dirty_on)
			vfn_set_half(&regs->dirty_addr, reg == VENDOR_REG(dirty_hi, uint32_t), v);
		return 0;
	case VENDOR_REG(dirty_len_lo, uint32_t):
	case VENDOR_REG(dirty_len_hi, uint32_t):
		if (!regs->dirty_on)
			vfn_set_half(
				&regs->dirty_len, reg == VENDOR_REG(dirty_len_hi, uint32_t), v);
		return 0;
	case VENDOR_REG(dirty_control, uint32_t):
		vfn_dirty_control(fn, v != 0);
		return 0;
	case VENDOR_REG(parts_len, uint32_t):
		if (v > VFN_PARTS_SIZE)
			return -EINVAL;
		fn->parts_len = v;
		return 0;
	case VENDOR_REG(parts_control, uint32_t):
		vfn_parts_control(fn, v);
		return 0;
	}
	return write_queue(vfn_selected(fn), reg, v);
}

int
vfn_vendor_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	const struct vfn_regs *regs = &fn->regs;
	const struct vfn_queue *q = vfn_selected(fn);
	struct vfn_vendor_cfg cfg = {
		.version = VFN_VENDOR_VERSION,
		.stats_offset = VFN_OFF_STATS,
		.stats_step = VFN_STATS_STEP,
		.suspend = !(fn->params.faults & VFN_FAULT_NO_SUSPEND),
		.capabilities = VFN_CAP_DIRTY_LOG,
		.dirty_lo = regs->dirty_addr,
		.dirty_hi = regs->dirty_addr >> 32,
		.dirty_len_lo = regs->dirty_len,
		.dirty_len_hi = regs->dirty_len >> 32,
		.dirty_control = regs->dirty_on,
		.parts_offset = VFN_OFF_PARTS,
		.parts_size = VFN_PARTS_SIZE,
		.parts_len = fn->parts_len,
		.parts_control = fn->parts_result,
	};
	unsigned int i;

	for (i = 0; i < fn->nb_queues; i++)
		if (vfn_queue_active(&fn->queue[i]))
			cfg.suspend = 0;

	if (q != NULL) {
		const struct vfn_queue_regs *r = vfn_queue_regs(q);
		/* Exact while suspended; before, a snapshot of a moving target. */
		struct vringh_state position = vfn_queue_position(q);

		cfg.queue_suspend = r->suspended;
		cfg.queue_error = r->enabled ? vringh_broken(&q->vr) : r->error;
		cfg.queue_avail = position.avail;
		cfg.queue_used = position.used;
		cfg.queue_dirty_lo = r->dirty;
		cfg.queue_dirty_hi = r->dirty >> 32;
		cfg.queue_inflight_lo = r->inflight_addr;
		cfg.queue_inflight_hi = r->inflight_addr >> 32;
		cfg.queue_inflight_len = r->inflight_len;
	}
	return vfn_read_struct(offset, buf, len, &cfg, sizeof(cfg));
}

int
vfn_stats_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	uint64_t index = offset / VFN_STATS_STEP, stats[VFN_STATS_MAX];
	unsigned int i;

	if (index >= fn->nb_queues)
		return -EINVAL;
	for (i = 0; i < VFN_STATS_MAX; i++)
		stats[i] = vfn_queue_stat(&fn->queue[index], i);
	return vfn_read_struct(offset % VFN_STATS_STEP, buf, len, stats, sizeof(stats));
}
