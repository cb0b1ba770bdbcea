/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Stop, change, start: the one way of changing what pollers own. Control.
 *
 * Between vfn_quiesce() and vfn_resume() no poller touches a queue of the function, or of its
 * partner; then it is worked out anew which work there is. Pollers of other functions are not
 * concerned.
 */

#include "function.h"

/* Tell every poller that has some of fn's work, once each. */
static void
tell_pollers(struct vfn_function *fn, void (*tell)(struct vfn_poller *, struct vfn_function *))
{
	unsigned int i, j;

	for (i = 0; i < fn->nb_work; i++) {
		for (j = 0; j < i && fn->work[j]->poller != fn->work[i]->poller; j++)
			;
		if (j == i)
			tell(fn->work[i]->poller, fn);
	}
}

static void
stop(struct vfn_function *fn)
{
	tell_pollers(fn, vfn_poller_remove);
	fn->nb_work = 0;
}

void
vfn_work_add(struct vfn_function *fn, struct vfn_work *work)
{
	struct vfn_function *other = work->waits_for != NULL ? work->waits_for->fn : fn;

	work->iommu[0] = fn->iommu.call != NULL ? &fn->iommu : NULL;
	work->iommu[1] = other != fn && other->iommu.call != NULL ? &other->iommu : NULL;
	fn->work[fn->nb_work++] = work;
}

/* A driver's job is done by the poller that has the queue. */
static void
add_job(struct vfn_queue *q)
{
	struct vfn_function *fn = q->fn;
	unsigned int i;

	q->job_work = (struct vfn_work){
		.ops = &vfn_job_ops, .fn = fn, .poller = vfn_queue_poller(q), .queue = q};
	for (i = 0; i < fn->nb_work; i++)
		if (fn->work[i]->queue == q)
			q->job_work.poller = fn->work[i]->poller;
	vfn_work_add(fn, &q->job_work);
}

static void
start(struct vfn_function *fn)
{
	unsigned int i;

	fn->class->start(fn);
	for (i = 0; i < fn->nb_queues; i++)
		if (fn->queue[i].job != NULL && vfn_queue_active(&fn->queue[i]))
			add_job(&fn->queue[i]);
	tell_pollers(fn, vfn_poller_add);
}

void
vfn_quiesce(struct vfn_function *fn)
{
	stop(fn);
	if (fn->partner != NULL)
		stop(fn->partner);
}

bool
vfn_drain(struct vfn_function *fn, struct vfn_queue *q)
{
	return fn->class->drain == NULL || fn->class->drain(fn, q);
}

void
vfn_resume(struct vfn_function *fn)
{
	start(fn);
	if (fn->partner != NULL)
		start(fn->partner);
}

static void
wake(const struct vfn_function *fn, const struct vfn_queue *q)
{
	unsigned int i;

	for (i = 0; i < fn->nb_work; i++)
		if (fn->work[i]->queue == q || fn->work[i]->waits_for == q)
			vfn_poller_wake(fn->work[i]->poller);
}

/* The queue's doorbell rang: whoever has it looks. */
void
vfn_work_wake(const struct vfn_queue *q)
{
	wake(q->fn, q);
	if (q->fn->partner != NULL)
		wake(q->fn->partner, q);
}
