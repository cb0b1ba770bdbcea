/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The way of a request: out of the ring, to the back-end, and back into the ring, in whichever
 * order they end. Poller, or control in its place while the function is quiet.
 */

#include <stdlib.h>
#include <time.h>

#include <rte_cycles.h>

#include "blk.h"
#include "trace.h"

/* Control looks so often at what it waits for. */
#define DRAIN_NAP_US 50

static inline const struct vfn_blk_backend *
backend(const struct vfn_blk_queue *bq)
{
	return bq->blk->params.backend;
}

static struct vfn_blk_req *
slot_get(struct vfn_blk_queue *bq, const struct vringh_chain *chain)
{
	struct vfn_blk_req *r = &bq->slot[bq->free[--bq->nb_free]];

	memset(r, 0, offsetof(struct vfn_blk_req, room));
	r->chain = *chain;
	r->data.seg = chain->seg;
	r->born = bq->now;
	return r;
}

static void
slot_put(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	if (unlikely(r->range != NULL || r->block != NULL)) {
		free(r->range);
		free(r->block);
	}
	bq->free[bq->nb_free++] = r - bq->slot;
}

/* It is answered; goes into the ring with others. */
static void
finish(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	vfn_blk_answer(bq, r);
	vfn_trace_blk_end(
		bq->blk->fn.params.name, bq->q->index, r->chain.id, r->status, bq->now - r->born);
	bq->done_slot[bq->nb_done] = r - bq->slot;
	bq->done[bq->nb_done++] = r->chain;
}

void
vfn_blk_done(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	bq->nb_out--;
	finish(bq, r);
}

uint8_t
vfn_blk_failed(struct vfn_blk_queue *bq, int error)
{
	bool full = error == -ENOSPC || error == -EDQUOT || error == -EFBIG;

	bq->q->stats[full ? VFN_STAT_ERRORS_SPACE : VFN_STAT_ERRORS_IO]++;
	if (!bq->told) {
		bq->told = true;
		FN_LOG(ERR, &bq->blk->fn, "queue %u: a request failed: %s", bq->q->index,
			strerror(-error));
	}
	return error == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* What was finished goes to the driver; its segments are of use no more. Returns how many. */
static unsigned int
flush(struct vfn_blk_queue *bq)
{
	unsigned int i, n = bq->nb_done;

	if (n == 0)
		return 0;
	vringh_complete(&bq->q->vr, bq->done, n);
	for (i = 0; i < n; i++)
		slot_put(bq, &bq->slot[bq->done_slot[i]]);
	bq->nb_done = 0;
	return n;
}

static inline bool
is_data(const struct vfn_blk_req *r)
{
	return r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_OUT;
}

/* The data where it lies, if it may be accessed there. */
static void
find_iov(struct vfn_blk_req *r)
{
	struct vringh_iter it = r->data;
	uint64_t left = r->len;

	if (it.mem != NULL || !is_data(r))
		return;
	for (; left > 0 && it.nb_segs > 0; it.nb_segs--, it.seg++, it.off = 0) {
		uint32_t len = RTE_MIN(it.seg->len - it.off, left);

		if (len == 0)
			continue;
		r->iov[r->nb_iov++] =
			(struct iovec){.iov_base = it.seg->addr + it.off, .iov_len = len};
		left -= len;
	}
}

/* Its segments have to outlive the turn. False: there is no memory. */
static bool
keep(struct vfn_blk_req *r)
{
	unsigned int n = r->chain.nb_read + r->chain.nb_write;
	struct vringh_seg *seg = r->room;

	r->iov = r->iov_room;
	if (n > VFN_BLK_SEGS) {
		seg = r->block = malloc(n * (sizeof(*seg) + sizeof(*r->iov)));
		if (seg == NULL)
			return false;
		r->iov = (struct iovec *)(seg + n);
	}
	memcpy(seg, r->chain.seg, n * sizeof(*seg));
	r->data.seg = seg + (r->data.seg - r->chain.seg);
	r->chain.seg = seg;
	find_iov(r);
	return true;
}

/* False: not now. */
static bool
submit(struct vfn_blk_queue *bq, struct vfn_blk_req *r)
{
	const struct vfn_blk_backend *be = backend(bq);

	if (be->keeps != NULL && be->keeps(bq, r) && !keep(r))
		return false;
	if (be->submit(bq, r) == VFN_BLK_OUT) {
		bq->nb_out++;
		return true;
	}
	if (be->poll != NULL)
		bq->now = rte_rdtsc();
	finish(bq, r);
	return true;
}

/* Chains that were fetched become requests. What costs too much for one turn is handed back. */
static unsigned int
take(struct vfn_blk_queue *bq, const struct vringh_chain *chain, unsigned int n)
{
	int64_t budget = VFN_BLK_TURN_BYTES;
	unsigned int i;
	bool good;

	for (i = 0; i < n && budget > 0; i++) {
		struct vfn_blk_req *r = slot_get(bq, &chain[i]);

		bq->q->stats[VFN_STAT_AGAIN] += r->chain.again;
		good = vfn_blk_check(bq, r);
		vfn_trace_blk_begin(bq->blk->fn.params.name, bq->q->index, r->chain.id, r->type,
			r->offset, r->len);
		if (good) {
			budget -= is_data(r) ? r->len : 0;
		} else if (bq->nb_out == 0 || !backend(bq)->keeps_order) {
			finish(bq, r);
			continue;
		}
		if (!submit(bq, r)) {
			bq->q->stats[VFN_STAT_AGAIN] -= r->chain.again;
			slot_put(bq, r);
			break;
		}
	}
	vringh_discard(&bq->q->vr, chain + i, n - i);
	if (backend(bq)->kick != NULL && bq->nb_out > 0)
		backend(bq)->kick(bq);
	return i;
}

static unsigned int
fetch(struct vfn_blk_queue *bq, struct vringh_batch *from)
{
	struct vfn_queue *q = bq->q;
	int n = RTE_MIN(bq->nb_free, VFN_BURST);

	n = vfn_fetch(q, from, n);
	if (unlikely(n < 0))
		return 0;
	if (bq->armed)
		vringh_notify_disable(&q->vr);
	bq->armed = false;
	if (bq->blk->bucket != NULL) {
		unsigned int may = vfn_blk_bucket_take(
			bq->blk->bucket, bq->blk->seat + q->index, bq->now, from->chain, n);

		bq->work.held = n > 0 && may == 0;
		vringh_discard(&q->vr, from->chain + may, n - may);
		n = may;
	}
	return take(bq, from->chain, n);
}

static unsigned int
blk_run(struct vfn_work *w)
{
	struct vfn_blk_queue *bq = container_of(w, struct vfn_blk_queue, work);
	unsigned int done = 0, taken = 0;

	if (bq->nb_out == 0 && !vringh_pending(&bq->q->vr))
		return 0;
	bq->now = rte_rdtsc();
	if (bq->nb_out > 0) {
		backend(bq)->poll(bq);
		done = flush(bq);
	}
	if (bq->nb_free > 0 && vringh_pending(&bq->q->vr)) {
		taken = fetch(bq, vfn_poller_batch(w->poller, 0));
		done += flush(bq);
	}
	if (done > 0)
		vfn_queue_call(bq->q);
	return done + taken;
}

static bool
blk_arm(struct vfn_work *w)
{
	struct vfn_blk_queue *bq = container_of(w, struct vfn_blk_queue, work);

	if (bq->nb_free > 0 && !vfn_park_waits(&bq->q->park)) {
		bq->q->stats[VFN_STAT_ARMED]++;
		bq->armed = true;
		if (vringh_notify_enable(&bq->q->vr))
			return true;
	}
	return bq->nb_out > 0 && (backend(bq)->arm == NULL || backend(bq)->arm(bq));
}

static int
blk_wake_fd(const struct vfn_work *w)
{
	const struct vfn_blk_queue *bq = container_of(w, struct vfn_blk_queue, work);

	return backend(bq)->wake_fd != NULL ? backend(bq)->wake_fd(bq) : -1;
}

const struct vfn_work_ops vfn_blk_ops = {.run = blk_run, .arm = blk_arm, .wake_fd = blk_wake_fd};

/* ---- control, in the poller's place ---- */

/* What a predecessor left is done first: the position is final then. */
static void
take_again(struct vfn_blk_queue *bq)
{
	struct vringh_chain chain;
	struct vringh_batch one = {.chain = &chain, .max_chains = 1};

	if (!vfn_queue_active(bq->q) || vringh_nb_again(&bq->q->vr) == 0)
		return;
	one.max_segs = VRINGH_MAX_SIZE + 1;
	one.seg = malloc(one.max_segs * sizeof(*one.seg));
	while (one.seg != NULL && bq->nb_free > 0 && vringh_nb_again(&bq->q->vr) > 0) {
		one.nb_chains = one.nb_segs = 0;
		if (vfn_fetch(bq->q, &one, 1) != 1 || take(bq, &chain, 1) != 1)
			break;
		flush(bq);
	}
	free(one.seg);
}

bool
vfn_blk_queue_drain(struct vfn_blk_queue *bq, uint64_t until)
{
	const struct timespec nap = {.tv_nsec = DRAIN_NAP_US * 1000};

	for (;;) {
		bq->now = rte_rdtsc();
		take_again(bq);
		if (bq->nb_out > 0)
			backend(bq)->poll(bq);
		if (flush(bq) > 0)
			vfn_queue_call(bq->q);
		if (bq->nb_out == 0)
			break;
		if (bq->now > until)
			return false;
		nanosleep(&nap, NULL);
	}
	return !vfn_queue_active(bq->q) || vringh_nb_again(&bq->q->vr) == 0 ||
		vringh_broken(&bq->q->vr) != VRINGH_OK;
}

bool
vfn_blk_queue_uses(const struct vfn_blk_queue *bq, uint64_t iova, uint64_t last)
{
	bool is_free[VFN_BLK_SLOTS] = {false};
	unsigned int i, k;

	if (bq->nb_out == 0)
		return false;
	for (i = 0; i < bq->nb_free; i++)
		is_free[bq->free[i]] = true;
	for (i = 0; i < VFN_BLK_SLOTS; i++) {
		const struct vringh_chain *chain = &bq->slot[i].chain;

		for (k = 0; !is_free[i] && k < chain->nb_read + (unsigned int)chain->nb_write;
			k++) {
			const struct vringh_seg *seg = &chain->seg[k];

			if (seg->iova <= last && iova <= seg->iova + (seg->len - 1))
				return true;
		}
	}
	return false;
}
