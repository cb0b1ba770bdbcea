/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The loop of a poller: one look at every queue, again and again, and sleep where that is allowed.
 * On the poller's thread, or a service core.
 */

#include <errno.h>
#include <sys/epoll.h>

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_pause.h>

#include "poller.h"

/* A poller that may sleep does so after this long without work. */
#define QUIET_US 50

/* A stalled receiver is looked at this often even if no doorbell rings. */
#define STALL_POLL_MS 100

/* Frames that the rate limit holds back are looked at this often: half of what the bucket holds. */
#define RATE_POLL_MS 1

struct vringh_batch *
vfn_poller_batch(struct vfn_poller *p, unsigned int direction)
{
	p->batch[direction].nb_chains = 0;
	p->batch[direction].nb_segs = 0;
	return &p->batch[direction];
}

uint8_t *
vfn_poller_scratch(struct vfn_poller *p)
{
	return p->scratch;
}

/* Time passes for whom? The clock is read where busy and idle meet, and after a busy iteration. */
static void
count_cycles(struct vfn_poller *p, uint64_t *cycles, uint64_t now)
{
	*cycles += now - p->stamp;
	p->stamp = now;
}

/* What has passed without work so far; for one who wants to read the counters. Poller. */
void
vfn_poller_count_idle(struct vfn_poller *p)
{
	count_cycles(p, &p->stats.idle_cycles, rte_rdtsc());
	p->busy = false;
}

/*
 * One look at every queue. Returns what was moved, or -1 when another thread is at it, which
 * happens only where a service was mapped to two cores or control stands in for a stopped one.
 */
int
vfn_poller_iterate(struct vfn_poller *p)
{
	struct vfn_poller_request *request;
	unsigned int i;
	uint64_t start;
	int moved = 0;

	if (__atomic_exchange_n(&p->running, true, __ATOMIC_ACQUIRE))
		return -1;
	/* Pairs with the release in poller_call(). */
	request = __atomic_load_n(&p->request, __ATOMIC_ACQUIRE);
	if (request != NULL) {
		request->fn(p, request->arg);
		/* The acknowledgement: everything done so far is visible to control. */
		__atomic_store_n(&p->request, NULL, __ATOMIC_RELEASE);
	}
	start = p->busy ? p->stamp : 0;
	for (i = 0; i < p->nb_work; i++) {
		struct vfn_work *w = p->work[i];
		unsigned int n;

		if (w->job == NULL && !vringh_pending(&w->tx->vr))
			continue;
		if (start == 0)
			start = rte_rdtsc();
		if (w->job != NULL) {
			moved += w->job->run(w->job);
			continue;
		}
		n = w->run(w);
		p->stats.packets += n;
		moved += n;
	}
	p->stats.iterations++;
	p->busy = moved > 0;
	if (moved > 0) {
		count_cycles(p, &p->stats.idle_cycles, start);
		count_cycles(p, &p->stats.busy_cycles, rte_rdtsc());
		p->stats.busy_iterations++;
	}
	if (unlikely(__atomic_load_n(&vfn_fault_untold, __ATOMIC_RELAXED)))
		vfn_fault_tell();
	__atomic_store_n(&p->running, false, __ATOMIC_RELEASE);
	return moved;
}

/* What would give us work: more to send, or, where a frame waits, a buffer to receive it. */
static struct vringh *
waits_for(struct vfn_work *w)
{
	return w->stalled_since != 0 && w->rx != NULL && vringh_pending(&w->tx->vr) ? &w->rx->vr :
										      &w->tx->vr;
}

void
vfn_poller_disarm(struct vfn_work *w)
{
	if (w->job != NULL)
		return;
	vringh_notify_disable(&w->tx->vr);
	if (w->rx != NULL)
		vringh_notify_disable(&w->rx->vr);
}

/* Block until a doorbell rings. Doorbells that ring while they are being armed are seen. */
static void
poller_sleep(struct vfn_poller *p)
{
	struct epoll_event event[8];
	bool pending = false, held = false;
	unsigned int i;
	int timeout = -1;

	if (__atomic_exchange_n(&p->running, true, __ATOMIC_ACQUIRE))
		return;
	for (i = 0; i < p->nb_work; i++) {
		struct vfn_work *w = p->work[i];

		if (w->job != NULL) {
			pending |= w->job->arm(w->job);
			continue;
		}
		if (w->held && vringh_pending(&w->tx->vr)) {
			held = true;
			continue;
		}
		w->tx->stats[VFN_STAT_ARMED]++;
		if (vringh_notify_enable(waits_for(w)))
			pending = true;
		if (w->stalled_since != 0)
			timeout = STALL_POLL_MS;
	}
	if (held)
		timeout = RATE_POLL_MS;
	p->stats.sleeps++;
	__atomic_store_n(&p->running, false, __ATOMIC_RELEASE);
	/*
	 * Doorbells and the wake-up are edge-triggered: nothing has to be read, and an edge that
	 * came before this call is still reported by it.
	 */
	epoll_wait(p->epoll_fd, event, RTE_DIM(event), pending ? 0 : timeout);
	if (__atomic_exchange_n(&p->running, true, __ATOMIC_ACQUIRE))
		return;
	for (i = 0; i < p->nb_work; i++)
		vfn_poller_disarm(p->work[i]);
	__atomic_store_n(&p->running, false, __ATOMIC_RELEASE);
	p->last_progress = rte_rdtsc();
}

void *
vfn_poller_thread(void *poller)
{
	uint64_t quiet = rte_get_tsc_hz() / 1000000 * QUIET_US;
	struct vfn_poller *p = poller;

	while (!__atomic_load_n(&p->quit, __ATOMIC_ACQUIRE)) {
		if (vfn_poller_iterate(p) > 0) {
			p->last_progress = p->stamp;
		} else if (p->nb_work == 0 ||
			(p->may_sleep && rte_rdtsc() - p->last_progress > quiet)) {
			if (__atomic_load_n(&p->request, __ATOMIC_RELAXED) == NULL)
				poller_sleep(p);
		} else {
			rte_pause();
		}
	}
	return NULL;
}

int32_t
vfn_poller_service(void *poller)
{
	return vfn_poller_iterate(poller) > 0 ? 0 : -EAGAIN;
}
