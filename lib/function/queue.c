/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * One virtqueue of the function: enabling, suspending, doorbell. Control, but for the functions
 * that say otherwise.
 */

#include <sys/epoll.h>
#include <unistd.h>

#include <rte_vect.h>

#include "fd.h"
#include "function.h"

/* Registers of a queue after reset (4.1.4.3); the ring itself is set up by enabling it. */
void
vfn_queue_clear(const struct vfn_function *fn, struct vfn_regs *regs, unsigned int index)
{
	regs->queue[index] = (struct vfn_queue_regs){
		.size = fn->class->queue_max(fn, index), .vector = NO_VECTOR};
}

/* Where the queue stands, or is going to start. */
struct vringh_state
vfn_queue_position(const struct vfn_queue *q)
{
	const struct vfn_queue_regs *r = vfn_queue_regs(q);

	return r->enabled ? vringh_get_state(&q->vr) : r->position;
}

/* May a poller have it? One that broke stays with its poller. */
bool
vfn_queue_polled(const struct vfn_queue *q)
{
	const struct vfn_queue_regs *r = vfn_queue_regs(q);

	return r->enabled && !r->suspended;
}

/* May the function touch the queue's memory now? */
bool
vfn_queue_active(const struct vfn_queue *q)
{
	return vfn_queue_polled(q) && !q->park.still && vfn_pci_master(q->fn) &&
		(q->fn->regs.status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) ==
		VIRTIO_CONFIG_S_DRIVER_OK &&
		vringh_broken(&q->vr) == VRINGH_OK;
}

/* For a ring that is to be set up anew: its counters start anew then, the queue's go on. */
static void
queue_keep_errors(struct vfn_queue *q)
{
	int e;

	for (e = VRINGH_E_AVAIL_IDX; e <= VRINGH_E_SEGS; e++)
		q->stats[VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX] +=
			vringh_error_count(&q->vr, e);
}

/* The ring that registers describe. */
struct vringh_config
vfn_queue_config(struct vfn_function *fn, const struct vfn_regs *regs, unsigned int index)
{
	const struct vfn_queue_regs *r = &regs->queue[index];

	return (struct vringh_config){
		.packed = vfn_regs_have(regs, VIRTIO_F_RING_PACKED),
		.event_idx = vfn_regs_have(regs, VIRTIO_RING_F_EVENT_IDX),
		.indirect = vfn_regs_have(regs, VIRTIO_RING_F_INDIRECT_DESC),
		.in_order = vfn_regs_have(regs, VIRTIO_F_IN_ORDER),
		.reads_only = fn->class->queue_reads_only(fn, index),
		.apart = fn->dma.kind == VRINGH_MEM_IOMEM,
		.scalar = rte_vect_get_max_simd_bitwidth() < RTE_VECT_SIMD_256,
		.size = r->size,
		.desc = r->area[0],
		.driver = r->area[1],
		.device = r->area[2],
		.mem = vfn_guest_mem(fn),
		.state = r->position,
	};
}

/* What there is in the registers beside the ring. VRINGH_OK, or why it cannot be. */
static enum vringh_error
queue_begin(struct vfn_queue *q)
{
	if (!vfn_dirty_queue(q)) {
		FN_LOG(ERR, q->fn, "queue %u refused: its rings are not within the dirty log",
			q->index);
		return VRINGH_E_AREA;
	}
	return q->begun || vfn_inflight_begin(q) ? VRINGH_OK : VRINGH_E_STATE;
}

static void
queue_runs(struct vfn_queue *q)
{
	if (!q->begun)
		vfn_poller_numa_check(vfn_queue_poller(q), q);
	q->begun = true;
	vfn_inflight_said(q);
}

void
vfn_queue_ring(struct vfn_queue *q)
{
	/* If it is refused it stands still for good. */
	if (queue_begin(q) == VRINGH_OK)
		queue_runs(q);
	else
		q->park.still = q->park.told = true;
}

void
vfn_queue_enable(struct vfn_queue *q)
{
	struct vfn_function *fn = q->fn;
	struct vfn_queue_regs *r = vfn_queue_regs(q);
	struct vringh_config cfg = vfn_queue_config(fn, &fn->regs, q->index);

	if (r->enabled)
		return;
	queue_keep_errors(q);
	q->park = (struct vfn_park){0};
	q->begun = false;
	vfn_dma_join_ring(q);
	r->error = -vringh_init(&q->vr, &cfg);
	if (r->error != VRINGH_OK && r->error != VRINGH_E_MISS) {
		FN_LOG(ERR, fn,
			"queue %u refused: %s (size %u, areas 0x%" PRIx64 " 0x%" PRIx64
			" 0x%" PRIx64 ", position 0x%x 0x%x)",
			q->index, vringh_strerror(r->error), r->size, r->area[0], r->area[1],
			r->area[2], r->position.avail, r->position.used);
		return;
	}
	if (r->error == VRINGH_OK)
		r->error = queue_begin(q);
	if (r->error != VRINGH_OK && r->error != VRINGH_E_MISS)
		return;
	if (fn->dma.kind == VRINGH_MEM_IOMEM)
		vringh_clear_device(&q->vr);
	vfn_quiesce(fn);
	r->enabled = true;
	r->suspended = false;
	r->moving = false;
	q->broken_told = false;
	vfn_queue_irq(q);
	if (r->error == VRINGH_E_MISS)
		vfn_queue_look(q);
	else
		queue_runs(q);
	r->error = VRINGH_OK;
	vfn_resume(fn);
	fn->class->activated(fn);
	FN_LOG(DEBUG, fn, "queue %u enabled, size %u, position 0x%x", q->index, r->size,
		r->position.avail);
}

void
vfn_queue_suspend(struct vfn_queue *q, bool suspend)
{
	struct vfn_queue_regs *r = vfn_queue_regs(q);

	if (!r->enabled || r->suspended == suspend)
		return;
	vfn_quiesce(q->fn);
	r->suspended = suspend && vfn_drain(q->fn, q);
	vfn_resume(q->fn);
	if (r->suspended != suspend)
		return;
	q->fn->class->activated(q->fn);
	FN_LOG(DEBUG, q->fn, "queue %u %s at 0x%x", q->index, suspend ? "suspended" : "resumed",
		vringh_get_state(&q->vr).avail);
}

/* All of them in one round of the pollers. */
void
vfn_queues_suspend(struct vfn_function *fn, bool suspend)
{
	unsigned int i;

	vfn_quiesce(fn);
	if (suspend && !vfn_drain(fn, NULL)) {
		vfn_resume(fn);
		return;
	}
	for (i = 0; i < fn->nb_queues; i++)
		fn->regs.queue[i].suspended = fn->regs.queue[i].enabled && suspend;
	vfn_resume(fn);
	fn->class->activated(fn);
	FN_LOG(DEBUG, fn, "every queue %s", suspend ? "suspended" : "resumed");
}

void
vfn_queue_set_vector(struct vfn_queue *q, uint16_t vector)
{
	bool polled = vfn_queue_polled(q);

	if (polled)
		vfn_quiesce(q->fn);
	/* A vector that cannot be had reads back as none (4.1.5.1.2). */
	vfn_queue_regs(q)->vector = vector < vfn_nb_vectors(q->fn) ? vector : NO_VECTOR;
	vfn_queue_irq(q);
	if (polled)
		vfn_resume(q->fn);
}

/*
 * Can a poller wait for it? Regular files, for example, can't be waited for. If that can't be found
 * out now the poller will.
 */
static bool
can_wait_for(int fd)
{
	struct epoll_event event = {.events = EPOLLIN};
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	bool ok = epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ||
		(errno != EPERM && errno != EBADF);

	if (epoll_fd >= 0)
		close(epoll_fd);
	return ok;
}

int
vfn_queue_set_doorbell(struct vfn_queue *q, int fd)
{
	int ret;

	if (fd >= 0 && !can_wait_for(fd)) {
		FN_LOG(WARNING, q->fn, "queue %u: doorbell is not an eventfd, the queue is polled",
			q->index);
		fd = -1;
	}
	if (!vfn_queue_polled(q))
		return vfn_fd_replace(&q->doorbell_fd, fd);
	vfn_quiesce(q->fn);
	ret = vfn_fd_replace(&q->doorbell_fd, fd);
	vfn_resume(q->fn);
	return ret;
}

void
vfn_queue_set_job(struct vfn_queue *q, struct vfn_job *job)
{
	bool polled = vfn_queue_polled(q);

	if (polled)
		vfn_quiesce(q->fn);
	q->job = job;
	if (polled)
		vfn_resume(q->fn);
}

/* Any thread: the counters only grow, a poller adds to them. */
uint64_t
vfn_queue_stat(const struct vfn_queue *q, unsigned int stat)
{
	uint64_t v = __atomic_load_n(&q->stats[stat], __ATOMIC_RELAXED);

	if (stat >= VFN_STAT_ERRORS_AVAIL_IDX && stat <= VFN_STAT_ERRORS_SEGS)
		v += vringh_error_count(
			&q->vr, stat - VFN_STAT_ERRORS_AVAIL_IDX + VRINGH_E_AVAIL_IDX);
	return v;
}

/*
 * Poller or control. Says so once; the queue works again after it was enabled anew. A driver that
 * cannot reset a queue alone is asked to reset the device (2.1.2).
 */
void
vfn_queue_broken(struct vfn_queue *q)
{
	if (q->broken_told)
		return;
	q->broken_told = true;
	FN_LOG(ERR, q->fn, "queue %u is broken and stopped: %s", q->index,
		vringh_strerror(vringh_broken(&q->vr)));
	if (!vfn_has(q->fn, VIRTIO_F_RING_RESET))
		vfn_lost_ring(q->fn);
}
