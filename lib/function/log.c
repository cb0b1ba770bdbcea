/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The dirty log of the function: which pages it has written, for live migration. The rings log;
 * here they are told where, and when. Control.
 */

#include "function.h"

/* While no poller has the queue. False if the log is too short. */
static bool
queue_log(struct vfn_queue *q)
{
	struct vfn_function *fn = q->fn;
	struct vringh_log log = {
		.bitmap = vfn_dma_own(fn, fn->log_addr, fn->log_len),
		.len = fn->log_len,
		.desc = q->area[0],
		.device = q->vr.packed ? q->area[2] : q->log,
	};

	if (fn->params.faults & VFN_FAULT_NO_LOG)
		return true;
	if (vringh_set_log(&q->vr, &log) < 0)
		return false;
	/* No log reaches that far. */
	if (fn->params.faults & VFN_FAULT_NO_USED_LOG)
		q->vr.log.desc = q->vr.log.device = UINT64_C(1) << 63;
	return true;
}

/* A queue that was just enabled; false if it can't be logged though it has to be. */
bool
vfn_log_queue(struct vfn_queue *q)
{
	return !q->fn->log_on || queue_log(q);
}

void
vfn_log_control(struct vfn_function *fn, bool on)
{
	unsigned int i;

	if (on == fn->log_on)
		return;
	if (on && (fn->log_len == 0 || vfn_dma_own(fn, fn->log_addr, fn->log_len) == NULL)) {
		FN_LOG(ERR, fn, "dirty log refused: its memory is not mapped");
		return;
	}
	vfn_port_stop(fn);
	fn->log_on = on;
	for (i = 0; i < fn->nb_queues && fn->log_on; i++) {
		struct vfn_queue *q = &fn->queue[i];

		if (q->enabled && !queue_log(q)) {
			FN_LOG(ERR, fn,
				"dirty log refused: %" PRIu64 " bytes do not cover the guest's "
				"memory, or the rings of queue %u",
				fn->log_len, q->index);
			fn->log_on = false;
		}
	}
	for (i = 0; i < fn->nb_queues && !fn->log_on; i++)
		vringh_set_log(&fn->queue[i].vr, NULL);
	vfn_port_start(fn);
	if (on == fn->log_on)
		FN_LOG(DEBUG, fn, "dirty log %s", on ? "on" : "off");
}
