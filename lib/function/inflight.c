/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The in-flight regions: what a function that ends without notice leaves to its successor. Control;
 * pollers keep them up to date by what they do to the ring.
 *
 * Where a class completes its chains, or hands them back, in the order of fetching and within one
 * burst, what was in flight goes back into the ring. Where it completes them in any order they are
 * fetched again, before any other. An orderly stop waits until nothing is in flight, and leaves the
 * region alone.
 */

#include <stdlib.h>

#include <rte_common.h>

#include "function.h"
#include "vfn_parts.h"

/* False, and the reason in the log, if the queue cannot go on from its region. */
bool
vfn_inflight_begin(struct vfn_queue *q)
{
	struct vfn_queue_regs *r = vfn_queue_regs(q);
	void *region = vfn_dma_own(q->fn, r->inflight_addr, r->inflight_len);
	const char *why;
	int n;

	if (r->inflight_len == 0)
		return true;
	free(q->resubmit);
	q->resubmit = malloc(r->size * sizeof(*q->resubmit));
	if (region == NULL) {
		why = "is not mapped";
	} else if (q->resubmit == NULL) {
		why = "no memory to read it";
	} else if (r->inflight_len < vringh_inflight_size(vringh_is_packed(&q->vr), r->size)) {
		why = "is too small";
	} else {
		n = vringh_set_inflight(&q->vr, &q->inflight, region, r->inflight_len, q->resubmit);
		if (n >= 0 && (q->fn->class->drain != NULL || vringh_rewind(&q->vr) == 0)) {
			FN_LOG(DEBUG, q->fn, "queue %u: %d chains were in flight, position 0x%x",
				q->index, n, vringh_get_state(&q->vr).avail);
			return true;
		}
		why = n < 0 ? "contradicts itself or the ring" : "is that of another ring";
	}
	FN_LOG(ERR, q->fn, "queue %u refused: its in-flight region (0x%" PRIx64 ", %u bytes) %s",
		q->index, r->inflight_addr, r->inflight_len, why);
	return false;
}

/*
 * What a driver says by a control queue is nowhere but in the registers. Where the region has room
 * for it, it is written there before the driver gets its answer. A command that is not answered is
 * carried out again, which changes nothing.
 */
void
vfn_inflight_said(struct vfn_queue *q)
{
	struct vfn_queue_regs *r = vfn_queue_regs(q);
	size_t at = RTE_ALIGN_CEIL(vringh_inflight_size(vringh_is_packed(&q->vr), r->size), 64);
	struct vfn_parts_said *said;
	uint8_t *region;
	uint64_t turn;

	if (r->inflight_len < at + 2 * sizeof(*said))
		return;
	region = vfn_dma_own(q->fn, r->inflight_addr, r->inflight_len);
	if (region == NULL)
		return;
	said = (struct vfn_parts_said *)(region + at);
	turn = RTE_MAX(said[0].turn, said[1].turn) + 1;
	said += said[0].turn > said[1].turn;
	/* We may end between any two of these. */
	__atomic_store_n(&said->turn, 0, __ATOMIC_SEQ_CST);
	if (vfn_parts_write(q->fn, said->parts) > 0)
		__atomic_store_n(&said->turn, turn, __ATOMIC_RELEASE);
}

/* Of a queue that is enabled, while no poller has it. */
void
vfn_inflight_unmapped(struct vfn_queue *q)
{
	struct vfn_queue_regs *r = vfn_queue_regs(q);

	if (r->inflight_len == 0 || vfn_dma_own(q->fn, r->inflight_addr, r->inflight_len) != NULL)
		return;
	if (!r->suspended)
		FN_LOG(WARNING, q->fn, "queue %u: its in-flight region is gone", q->index);
	vringh_set_inflight(&q->vr, NULL, NULL, 0, NULL);
	r->inflight_len = 0;
}
