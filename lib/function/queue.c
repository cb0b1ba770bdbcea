/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * One virtqueue of the function: enabling, suspending, interrupt and doorbell. Control, but for
 * the functions that say otherwise.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_alarm.h>
#include <rte_branch_prediction.h>
#include <rte_vect.h>

#include "function.h"
#include "vfn_signal.h"

/* While a guest's interrupts are held after one of them has blocked. */
#define IRQ_HOLD_MS 1000

/* Registers of a queue after reset (4.1.4.3); the ring itself is set up by enabling it. */
void
vfn_queue_init(struct vfn_queue *q)
{
	q->size = q->index < 2 * q->fn->params.max_pairs ? VRINGH_MAX_SIZE : 64;
	q->vector = NO_VECTOR;
	q->call_fd = -1;
	q->enabled = false;
	q->suspended = false;
	q->moving = false;
	q->error = VRINGH_OK;
	q->area[0] = q->area[1] = q->area[2] = 0;
	q->log = 0;
	q->inflight_addr = q->inflight_len = 0;
	q->state = (struct vringh_state){0};
	q->generated = 0;
}

/* May the function touch the queue's memory now? */
bool
vfn_queue_active(const struct vfn_queue *q)
{
	return q->enabled && !q->suspended &&
		(q->fn->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) ==
		VIRTIO_CONFIG_S_DRIVER_OK &&
		vringh_broken(&q->vr) == VRINGH_OK;
}

/* May a poller have it? One that broke stays with its poller. */
static bool
queue_polled(const struct vfn_queue *q)
{
	return q->enabled && !q->suspended;
}

/* The ring's counters start anew with the ring, the queue's go on. */
static void
queue_keep_errors(struct vfn_queue *q)
{
	int e;

	for (e = VRINGH_E_AVAIL_IDX; e <= VRINGH_E_SEGS; e++) {
		q->stats[VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX] += q->vr.nb_errors[e];
		q->vr.nb_errors[e] = 0;
	}
}

/* The ring that the registers describe. */
struct vringh_config
vfn_queue_config(struct vfn_queue *q)
{
	struct vfn_function *fn = q->fn;

	return (struct vringh_config){
		.packed = vfn_has(fn, VIRTIO_F_RING_PACKED),
		.event_idx = vfn_has(fn, VIRTIO_RING_F_EVENT_IDX),
		.indirect = vfn_has(fn, VIRTIO_RING_F_INDIRECT_DESC),
		.in_order = vfn_has(fn, VIRTIO_F_IN_ORDER),
		.reads_only = vfn_queue_is_tx(q),
		.scalar = rte_vect_get_max_simd_bitwidth() < RTE_VECT_SIMD_256,
		.size = q->size,
		.desc = q->area[0],
		.driver = q->area[1],
		.device = q->area[2],
		.mem = &fn->dma,
		.state = q->state,
	};
}

void
vfn_queue_enable(struct vfn_queue *q)
{
	struct vfn_function *fn = q->fn;
	struct vringh_config cfg = vfn_queue_config(q);

	if (q->enabled)
		return;
	queue_keep_errors(q);
	q->error = vringh_init(&q->vr, &cfg);
	if (q->error != VRINGH_OK) {
		FN_LOG(ERR, fn,
			"queue %u refused: %s (size %u, areas 0x%" PRIx64 " 0x%" PRIx64
			" 0x%" PRIx64 ", position 0x%x 0x%x)",
			q->index, vringh_strerror(q->error), q->size, q->area[0], q->area[1],
			q->area[2], q->state.avail, q->state.used);
		return;
	}
	if (!vfn_log_queue(q)) {
		q->error = VRINGH_E_AREA;
		FN_LOG(ERR, fn, "queue %u refused: its rings are not within the dirty log",
			q->index);
		return;
	}
	if (!vfn_inflight_begin(q)) {
		q->error = VRINGH_E_STATE;
		return;
	}
	vfn_port_stop(fn);
	q->enabled = true;
	q->suspended = false;
	q->moving = false;
	q->broken_told = false;
	vfn_poller_numa_check(fn->poller[q->index / 2 % fn->nb_pollers], q);
	vfn_port_start(fn);
	FN_LOG(DEBUG, fn, "queue %u enabled, size %u, position 0x%x", q->index, q->size,
		q->state.avail);
}

void
vfn_queue_suspend(struct vfn_queue *q, bool suspend)
{
	if (!q->enabled || q->suspended == suspend)
		return;
	vfn_port_stop(q->fn);
	q->suspended = suspend;
	vfn_port_start(q->fn);
	FN_LOG(DEBUG, q->fn, "queue %u %s at 0x%x", q->index, suspend ? "suspended" : "resumed",
		vringh_get_state(&q->vr).avail);
}

/* All of them in one round of the pollers. */
void
vfn_queues_suspend(struct vfn_function *fn, bool suspend)
{
	unsigned int i;

	vfn_port_stop(fn);
	for (i = 0; i < fn->nb_queues; i++)
		fn->queue[i].suspended = fn->queue[i].enabled && suspend;
	vfn_port_start(fn);
	FN_LOG(DEBUG, fn, "every queue %s", suspend ? "suspended" : "resumed");
}

static void
queue_use_irq(struct vfn_queue *q)
{
	struct vfn_function *fn = q->fn;

	q->call_fd =
		q->vector == NO_VECTOR || fn->irq_blocked[q->vector] ? -1 : fn->irq_fd[q->vector];
}

void
vfn_queue_set_vector(struct vfn_queue *q, uint16_t vector)
{
	bool polled = queue_polled(q);

	if (polled)
		vfn_port_stop(q->fn);
	/* A vector that cannot be had reads back as none (4.1.5.1.2). */
	q->vector = vector < vfn_nb_vectors(q->fn) ? vector : NO_VECTOR;
	queue_use_irq(q);
	if (polled)
		vfn_port_start(q->fn);
}

static int
fd_replace(int *fd, int with)
{
	int dup = -1;

	if (with >= 0) {
		dup = fcntl(with, F_DUPFD_CLOEXEC, 3);
		if (dup < 0)
			return -errno;
	}
	if (*fd >= 0)
		close(*fd);
	*fd = dup;
	return 0;
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
	if (!queue_polled(q))
		return fd_replace(&q->doorbell_fd, fd);
	vfn_port_stop(q->fn);
	ret = fd_replace(&q->doorbell_fd, fd);
	vfn_port_start(q->fn);
	return ret;
}

void
vfn_queue_set_job(struct vfn_queue *q, struct vfn_job *job)
{
	bool polled = queue_polled(q);

	if (polled)
		vfn_port_stop(q->fn);
	q->job = job;
	if (polled)
		vfn_port_start(q->fn);
}

int
vfn_irq_set(struct vfn_function *fn, unsigned int vector, int fd)
{
	bool used = false;
	unsigned int i;
	int ret;

	if (vector >= vfn_nb_vectors(fn))
		return -EINVAL;
	for (i = 0; i < fn->nb_queues; i++)
		if (fn->queue[i].vector == vector && queue_polled(&fn->queue[i]))
			used = true;
	if (used)
		vfn_port_stop(fn);
	ret = fd_replace(&fn->irq_fd[vector], fd);
	if (ret == 0)
		fn->irq_blocked[vector] = false;
	for (i = 0; i < fn->nb_queues; i++)
		if (fn->queue[i].vector == vector)
			queue_use_irq(&fn->queue[i]);
	if (used)
		vfn_port_start(fn);
	return ret;
}

/* Any thread: the counters only grow, a poller adds to them. */
uint64_t
vfn_queue_stat(const struct vfn_queue *q, enum vfn_stat stat)
{
	uint64_t v = __atomic_load_n(&q->stats[stat], __ATOMIC_RELAXED);

	if (stat >= VFN_STAT_ERRORS_AVAIL_IDX)
		v += __atomic_load_n(
			&q->vr.nb_errors[stat - VFN_STAT_ERRORS_AVAIL_IDX + VRINGH_E_AVAIL_IDX],
			__ATOMIC_RELAXED);
	return v;
}

/* Control, on EAL's interrupt thread. Who was not called meanwhile is now. */
static void
irqs_release(void *arg)
{
	struct vfn_function *fn = arg;
	unsigned int i;

	pthread_mutex_lock(&vfn_control_lock);
	__atomic_store_n(&fn->irqs_held, false, __ATOMIC_RELAXED);
	for (i = 0; i < fn->nb_queues; i++) {
		unsigned int vector = fn->queue[i].vector;

		if (vfn_queue_active(&fn->queue[i]) && vector != NO_VECTOR &&
			fn->irq_fd[vector] >= 0)
			vfn_irq_signal(fn, vector, fn->irq_fd[vector]);
	}
	if (fn->isr & VFN_ISR_CONFIG)
		vfn_config_changed(fn);
	pthread_mutex_unlock(&vfn_control_lock);
}

void
vfn_irq_cancel(struct vfn_function *fn)
{
	rte_eal_alarm_cancel(irqs_release, fn);
}

/*
 * A guest that has blocked us once can have as many eventfds as it likes, and replace them all
 * the time. So it blocks us once in IRQ_HOLD_MS.
 */
static __attribute__((noinline)) void
irq_blocked(struct vfn_function *fn, unsigned int vector)
{
	__atomic_store_n(&fn->irq_blocked[vector], true, __ATOMIC_RELAXED);
	if (!__atomic_exchange_n(&fn->irq_told, true, __ATOMIC_RELAXED))
		FN_LOG(ERR, fn, "vector %u is off until its eventfd is replaced: it blocks",
			vector);
	if (!__atomic_exchange_n(&fn->irqs_held, true, __ATOMIC_RELAXED) &&
		rte_eal_alarm_set(IRQ_HOLD_MS * 1000, irqs_release, fn) != 0)
		__atomic_store_n(&fn->irqs_held, false, __ATOMIC_RELAXED);
}

bool
vfn_irq_signal(struct vfn_function *fn, unsigned int vector, int fd)
{
	if (unlikely(__atomic_load_n(&fn->irq_blocked[vector], __ATOMIC_RELAXED)))
		return false;
	if (unlikely(__atomic_load_n(&fn->irqs_held, __ATOMIC_RELAXED)) || likely(vfn_signal(fd)))
		return true;
	irq_blocked(fn, vector);
	return false;
}

/* Poller. */
void
vfn_queue_call(struct vfn_queue *q)
{
	if (!vringh_need_notify(&q->vr) || q->call_fd < 0)
		return;
	if (likely(vfn_irq_signal(q->fn, q->vector, q->call_fd))) {
		q->stats[VFN_STAT_CALLS]++;
	} else {
		q->stats[VFN_STAT_CALLS_BLOCKED]++;
		q->call_fd = -1;
	}
}

/* Poller or control. Says so once; the queue works again after it was enabled anew. */
void
vfn_queue_broken(struct vfn_queue *q)
{
	if (q->broken_told)
		return;
	q->broken_told = true;
	FN_LOG(ERR, q->fn, "queue %u is broken and stopped: %s", q->index,
		vringh_strerror(vringh_broken(&q->vr)));
}
