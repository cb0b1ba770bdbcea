/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The loop of a poller: one look at every queue, again and again, and sleep where that is allowed.
 * On the poller's thread, or a service core.
 */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <rte_common.h>
#include <rte_cycles.h>

#include "../function.h"
#include "poller.h"
#include "vfn_guard.h"

/*
 * A poller that may sleep looks for work this long before it does. To spin for about as long as it
 * takes to be woken never costs more than twice the best that can be done. Where it was of no use
 * lately, as the sleep was longer than any spinning, the next time is half as long; where a little
 * more would have spared the sleep, twice.
 */
#define SPIN_MIN_US 5
#define SPIN_MAX_US 50

/* So many iterations without anything to move make a queue quiet. */
#define SWEEP 1024

/* Quiet queues that are looked at in an iteration. */
#define LOOKS 16

/* A stalled receiver is looked at this often even if no doorbell rings. */
#define STALL_POLL_MS 100

/* What a rate limit holds back is looked at this often: half of what it can be late. */
#define RATE_POLL_MS 1

/* Who waits for a translation asks again this often at most. */
#define MISS_POLL_MS 50

/* A queue may be ahead of others by this much service, so that equals need not take turns. */
#define AHEAD_US 50

/* A turn that costs little is shorter. */
#define LONG_US 12

/* Who has moved something in one of so many iterations may only be fetching his breath. */
#define RECENT 512

/* Ahead by so much at most a queue comes to a poller. */
#define CARRY_MS 5

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

/* ---- a driver's job, as work ---- */

static unsigned int
job_run(struct vfn_work *w)
{
	return w->queue->job->run(w->queue->job);
}

static bool
job_arm(struct vfn_work *w)
{
	return w->queue->job->arm(w->queue->job);
}

const struct vfn_work_ops vfn_job_ops = {.run = job_run, .arm = job_arm};

/* ---- notifications ---- */

/* Is it the queue's chains that tell whether there is something to do? */
static inline bool
by_chains(const struct vfn_work *w)
{
	return w->ops->arm == NULL;
}

/* What would give us work: more chains, or, where one waits, a chain of the other queue. */
static struct vringh *
waits_for(struct vfn_work *w)
{
	return w->stalled_since != 0 && w->waits_for != NULL && vringh_pending(&w->queue->vr) ?
		&w->waits_for->vr :
		&w->queue->vr;
}

static void
disarm(struct vfn_work *w)
{
	if (!by_chains(w))
		return;
	vringh_notify_disable(&w->queue->vr);
	if (w->waits_for != NULL)
		vringh_notify_disable(&w->waits_for->vr);
}

/* Can nothing be moved before there is a translation, of which control tells? */
static bool
needs_translation(const struct vfn_work *w)
{
	return vfn_park_waits(&w->queue->park) ||
		(w->waits_for != NULL && vfn_park_waits(&w->waits_for->park) &&
			vringh_pending(&w->queue->vr));
}

/* True if there is something to do already. */
static bool
arm(struct vfn_work *w)
{
	if (!by_chains(w))
		return w->ops->arm(w);
	w->queue->stats[VFN_STAT_ARMED]++;
	return vringh_notify_enable(waits_for(w));
}

/* ---- fairness ---- */

/*
 * Turns take a bounded time each (the class sees to that, and vringh_batch.max_descs), but one
 * chain costs more than another, and a single chain may have as many descriptors as the ring. So
 * queues that share a poller take turns by time: each has an account of what it was served, and who
 * is ahead of the last one that wants service waits. Who wants nothing saves up nothing, and who
 * has something that can't be moved now makes only others of his kind wait.
 *
 * The last one may want nothing for a moment only, because its driver has not come round yet: so
 * after a turn that took long a queue rests for the same time, as long as others have moved
 * something just now.
 */

static uint64_t
microseconds(const struct vfn_poller *p, unsigned int us)
{
	return p->stats.hz / 1000000 * us;
}

/* Has the scheduler taken the CPU away since this was asked last? */
static __attribute__((noinline)) bool
was_preempted(struct vfn_poller *p)
{
	struct rusage usage;
	bool was;

	getrusage(RUSAGE_THREAD, &usage);
	was = usage.ru_nivcsw != p->preempted;
	p->preempted = usage.ru_nivcsw;
	return was;
}

/* Who has this account wants service. */
static inline void
wants(struct vfn_poller *p, const struct vfn_account *a)
{
	p->next_floor[a->in_vain] = RTE_MIN(p->next_floor[a->in_vain], a->served);
}

/* A turn is over. */
static inline void
charge(struct vfn_poller *p, struct vfn_account *a, bool in_vain)
{
	uint64_t now = rte_rdtsc(), took = now - p->turn_at;

	p->turn_at = now;
	if (unlikely(took > microseconds(p, LONG_US))) {
		if (was_preempted(p))
			took = RTE_MIN(took, microseconds(p, AHEAD_US / 2));
		else
			a->rests_until = now + took;
	}
	if (in_vain) {
		/* What it has driven from the caches was of use to somebody. */
		took *= 2;
	} else {
		if (p->mover[0] != a) {
			p->mover[1] = p->mover[0];
			p->mover_at[1] = p->mover_at[0];
			p->mover[0] = a;
		}
		p->mover_at[0] = p->stats.iterations;
	}
	a->in_vain = in_vain;
	a->served = RTE_MAX(a->served, p->floor) + took;
	wants(p, a);
}

/* There are others, and it is their turn? */
static inline bool
has_to_wait(struct vfn_poller *p, struct vfn_account *a)
{
	bool rests = false;

	if (unlikely(a->rests_until != 0)) {
		rests = p->stats.iterations - p->mover_at[p->mover[0] == a] < RECENT &&
			rte_rdtsc() < a->rests_until;
		if (!rests)
			a->rests_until = 0;
	}
	if (likely(!rests && a->served <= p->floor + microseconds(p, AHEAD_US)))
		return false;
	/* Nobody waits for one that rests. */
	if (!rests)
		wants(p, a);
	p->kept_waiting = true;
	return true;
}

static void
floor_rises(struct vfn_poller *p)
{
	bool in_vain = p->next_floor[false] == UINT64_MAX;

	if (p->next_floor[in_vain] != UINT64_MAX)
		p->floor = RTE_MAX(p->floor, p->next_floor[in_vain]);
}

/* ---- which queues there are, active and quiet ones ---- */

static void
make_quiet(struct vfn_poller *p, unsigned int i)
{
	p->quiet[i] = (struct vfn_quiet){.watch = vringh_watch(&p->work[i]->queue->vr)};
}

/* The quiet queue i is looked at in every iteration from now on. */
static void
make_active(struct vfn_poller *p, unsigned int i)
{
	struct vfn_work *w = p->work[i];

	if (p->quiet[i].armed)
		disarm(w);
	p->work[i] = p->work[p->nb_active];
	p->quiet[i] = p->quiet[p->nb_active];
	p->work[p->nb_active++] = w;
}

static void
sweep(struct vfn_poller *p)
{
	unsigned int i;

	p->next_sweep = p->stats.iterations + SWEEP;
	if (p->nb_work > 1)
		was_preempted(p);
	for (i = p->nb_active; i-- > 0;) {
		struct vfn_work *w = p->work[i];

		if (!by_chains(w) || p->stats.iterations - w->moved_at < SWEEP)
			continue;
		p->work[i] = p->work[--p->nb_active];
		p->work[p->nb_active] = w;
		make_quiet(p, p->nb_active);
	}
}

/* One more queue. 0 or -ENOMEM. */
int
vfn_poller_take(struct vfn_poller *p, struct vfn_work *w)
{
	if (p->nb_work == p->max_work) {
		unsigned int max = RTE_MAX(2 * p->max_work, 16u);
		struct vfn_work **work = realloc(p->work, max * sizeof(*work));
		struct vfn_quiet *quiet = realloc(p->quiet, max * sizeof(*quiet));

		p->work = work != NULL ? work : p->work;
		p->quiet = quiet != NULL ? quiet : p->quiet;
		if (work == NULL || quiet == NULL)
			return -ENOMEM;
		p->max_work = max;
	}
	disarm(w);
	/* Of another poller's account only so much counts. */
	w->queue->account.served =
		RTE_MIN(w->queue->account.served, p->floor + microseconds(p, 1000 * CARRY_MS));
	w->moved_at = p->stats.iterations;
	p->work[p->nb_work] = w;
	p->quiet[p->nb_work] = (struct vfn_quiet){0};
	make_active(p, p->nb_work++);
	return 0;
}

/* None of the function's queues any more. */
void
vfn_poller_drop(struct vfn_poller *p, const struct vfn_function *fn)
{
	unsigned int i, kept = 0, active = 0;

	for (i = 0; i < p->nb_work; i++) {
		if (p->work[i]->fn == fn)
			continue;
		active += i < p->nb_active;
		p->work[kept] = p->work[i];
		p->quiet[kept++] = p->quiet[i];
	}
	p->nb_work = kept;
	p->nb_active = active;
}

/* ---- an iteration ---- */

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

static unsigned int
run_inside(struct vfn_work *w)
{
	unsigned int n = 0;

	if (!vfn_iommu_enter(w->iommu[0]))
		return 0;
	if (vfn_iommu_enter(w->iommu[1])) {
		n = w->ops->run(w);
		vfn_iommu_leave(w->iommu[1]);
	}
	vfn_iommu_leave(w->iommu[0]);
	return n;
}

static unsigned int
run(struct vfn_poller *p, struct vfn_work *w, uint64_t *start, struct vfn_account *a)
{
	unsigned int n;

	/* What was done since the last iteration is none of ours. */
	if (p->turn_at == 0 && (*start == 0 || p->nb_work > 1))
		p->turn_at = rte_rdtsc();
	if (*start == 0)
		*start = p->turn_at;
	n = run_inside(w);
	if (by_chains(w)) {
		if (n > 0)
			w->moved_at = p->stats.iterations;
		p->stats.chains += n;
	} else if (n == 0) {
		return 0; /* it wants nothing */
	} else if (w->ops != &vfn_job_ops) {
		p->stats.chains += n;
	}
	if (p->nb_work > 1)
		charge(p, a, n == 0);
	return n;
}

/*
 * Some of the quiet queues in turn. What is found to have chains and moves none, for want of a
 * receiver's buffers for example, ends the turn: however many of these there are, an iteration
 * deals with one, and together they are served like one.
 */
static unsigned int
look_at_quiet(struct vfn_poller *p, uint64_t *start)
{
	unsigned int quiet = p->nb_work - p->nb_active;
	unsigned int looks = p->look_at_all ? quiet : RTE_MIN(quiet, (unsigned int)LOOKS);
	unsigned int moved = 0;

	p->look_at_all = false;
	while (looks-- > 0) {
		unsigned int i = p->turn, n;

		if (i < p->nb_active || i >= p->nb_work)
			i = p->nb_active;
		p->turn = i + 1;
		if (!vringh_watch_pending(&p->quiet[i].watch))
			continue;
		if (has_to_wait(p, &p->work[i]->queue->account) ||
			has_to_wait(p, &p->quiet_account))
			break;
		n = run(p, p->work[i], start, &p->quiet_account);
		moved += n;
		if (p->quiet_account.rests_until != 0) {
			p->work[i]->queue->account.rests_until = p->quiet_account.rests_until;
			p->quiet_account.rests_until = 0;
		}
		if (n > 0) {
			p->work[i]->queue->account.served = p->quiet_account.served;
			p->mover[0] = &p->work[i]->queue->account;
			make_active(p, i);
			continue;
		}
		if (p->quiet[i].armed)
			disarm(p->work[i]);
		make_quiet(p, i);
		charge(p, &p->quiet_account, true);
		break;
	}
	return moved;
}

/*
 * One look at every active queue, and at some of the others. Returns what was moved, or -1 when
 * another thread is at it, which happens only where a service was mapped to two cores or control
 * stands in for a stopped one.
 */
int
vfn_poller_iterate(struct vfn_poller *p)
{
	struct vfn_poller_request *request;
	unsigned int i;
	uint64_t start; /* of work in this iteration, 0: none so far */
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
	p->turn_at = 0;
	p->next_floor[false] = p->next_floor[true] = UINT64_MAX;
	p->kept_waiting = false;
	for (i = 0; i < p->nb_active; i++) {
		struct vfn_work *w = p->work[i];

		if ((!by_chains(w) || vringh_pending(&w->queue->vr)) &&
			(p->nb_work == 1 || !has_to_wait(p, &w->queue->account)))
			moved += run(p, w, &start, &w->queue->account);
	}
	if (p->nb_active < p->nb_work)
		moved += look_at_quiet(p, &start);
	floor_rises(p);
	p->stats.iterations++;
	p->busy = moved > 0;
	if (moved > 0) {
		count_cycles(p, &p->stats.idle_cycles, start);
		count_cycles(p, &p->stats.busy_cycles, rte_rdtsc());
		p->stats.busy_iterations++;
	}
	if (p->stats.iterations >= p->next_sweep)
		sweep(p);
	if (unlikely(__atomic_load_n(&vfn_guard_hit, __ATOMIC_RELAXED)))
		vfn_lost_tell();
	__atomic_store_n(&p->running, false, __ATOMIC_RELEASE);
	return moved;
}

uint64_t
vfn_poller_next_spin(const struct vfn_poller *p, uint64_t slept, bool pending)
{
	uint64_t us = p->stats.hz / 1000000;

	if (slept > SPIN_MAX_US * us)
		return RTE_MAX(p->spin / 2, SPIN_MIN_US * us);
	return pending ? p->spin : RTE_MIN(2 * p->spin, SPIN_MAX_US * us);
}

/* Block until a doorbell rings. Doorbells that ring while they are being armed are seen. */
static void
poller_sleep(struct vfn_poller *p)
{
	uint64_t asleep;
	struct epoll_event event[64];
	bool pending = false, held = false;
	unsigned int i;
	int timeout = -1;

	if (__atomic_exchange_n(&p->running, true, __ATOMIC_ACQUIRE))
		return;
	for (i = 0; i < p->nb_work; i++) {
		struct vfn_work *w = p->work[i];
		bool quiet = i >= p->nb_active;

		if (unlikely(needs_translation(w))) {
			if (timeout < 0)
				timeout = MISS_POLL_MS;
			if (by_chains(w))
				continue;
		}
		/* Quiet queues stay armed while others come and go. */
		if (quiet && p->quiet[i].settled) {
			pending |= vringh_watch_pending(&p->quiet[i].watch);
			continue;
		}
		if (w->held && vringh_pending(&w->queue->vr)) {
			held = true;
			continue;
		}
		pending |= arm(w);
		if (w->stalled_since != 0)
			timeout = STALL_POLL_MS;
		if (quiet) {
			p->quiet[i].armed = true;
			p->quiet[i].settled = w->stalled_since == 0;
		}
	}
	if (held)
		timeout = RATE_POLL_MS;
	p->stats.sleeps++;
	__atomic_store_n(&p->running, false, __ATOMIC_RELEASE);
	/*
	 * Doorbells and the wake-up are edge-triggered: nothing has to be read, and an edge that
	 * came before this call is still reported by it.
	 */
	asleep = rte_rdtsc();
	epoll_wait(p->epoll_fd, event, RTE_DIM(event), pending ? 0 : timeout);
	p->spin = vfn_poller_next_spin(p, rte_rdtsc() - asleep, pending);
	if (__atomic_exchange_n(&p->running, true, __ATOMIC_ACQUIRE))
		return;
	for (i = 0; i < p->nb_active; i++)
		disarm(p->work[i]);
	p->look_at_all = true;
	__atomic_store_n(&p->running, false, __ATOMIC_RELEASE);
	p->last_progress = rte_rdtsc();
}

void *
vfn_poller_thread(void *poller)
{
	struct vfn_poller *p = poller;

	p->spin = p->stats.hz / 1000000 * SPIN_MAX_US;
	while (!__atomic_load_n(&p->quit, __ATOMIC_ACQUIRE)) {
		if (vfn_poller_iterate(p) > 0) {
			p->last_progress = p->stamp;
		} else if (p->kept_waiting) {
			p->last_progress = rte_rdtsc();
		} else if (p->nb_work == 0 ||
			(p->may_sleep && rte_rdtsc() - p->last_progress > p->spin)) {
			if (__atomic_load_n(&p->request, __ATOMIC_RELAXED) == NULL)
				poller_sleep(p);
		}
	}
	return NULL;
}

int32_t
vfn_poller_service(void *poller)
{
	return vfn_poller_iterate(poller) > 0 ? 0 : -EAGAIN;
}
