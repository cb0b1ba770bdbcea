/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Queues that wait: for the translation of their next chain, on the poller's thread, or standing
 * still, for their ring to be mapped, which is control.
 *
 * A translation that is missing is asked for, and asked for again if nobody answers; nothing is
 * fetched meanwhile.
 */

#include <rte_alarm.h>
#include <rte_common.h>
#include <rte_cycles.h>

#include "function.h"

/* What is asked for; an answer may be of more. */
#define PAGE 4096u

/* Who is asked for a translation has this long, twice as long the next time, and so on. */
#define ASK_AGAIN_MS 100
#define GIVE_UP_MS   6000

/* Who could not be asked can be after this. */
#define TRY_AGAIN_MS 1

static uint64_t
milliseconds(uint64_t ms)
{
	return rte_get_tsc_hz() / 1000 * ms;
}

static bool
was_asked(const struct vfn_park *park, const struct vringh_miss *miss)
{
	uint32_t i;

	for (i = 0; i < park->nb_asked; i++)
		if ((park->asked[i].iova ^ miss->iova) < PAGE &&
			(park->asked[i].perm & miss->perm) == miss->perm)
			return true;
	return false;
}

void
vfn_park_answered(struct vfn_park *park, uint64_t iova, uint64_t len)
{
	uint32_t i = 0;

	while (i < park->nb_asked) {
		if (park->asked[i].iova - iova < len)
			park->asked[i] = park->asked[--park->nb_asked];
		else
			i++;
	}
}

/* ---- asking ---- */

/* False: not now. */
static bool
ask(struct vfn_queue *q, const struct vringh_miss *m, unsigned int stat)
{
	const struct vfn_miss miss = {
		.queue = q->index,
		.iova = m->iova,
		.read = m->perm & VRINGH_PERM_READ,
		.write = m->perm & VRINGH_PERM_WRITE,
	};

	if (!q->fn->iommu.call->run(q->fn->iommu.call, &miss))
		return false;
	q->stats[stat]++;
	return true;
}

/* Of what the queue waits for. */
static void
ask_for_next(struct vfn_queue *q, uint64_t now)
{
	struct vfn_park *park = &q->park;
	uint64_t patience = TRY_AGAIN_MS;

	if (ask(q, &park->miss, park->tries == 0 ? VFN_STAT_MISSES : VFN_STAT_MISSES_AGAIN))
		patience = (uint64_t)ASK_AGAIN_MS << park->tries++;
	park->ask_again = now + milliseconds(patience);
}

/* Nobody answers, for one more time or for good. */
static bool
gives_up(const struct vfn_park *park, uint64_t now)
{
	/* Clocks of two CPUs may differ. */
	return now > park->since + milliseconds(GIVE_UP_MS);
}

static void
begin_to_wait(struct vfn_park *park, const struct vringh_miss *miss, uint64_t now)
{
	park->miss = *miss;
	park->since = now;
	park->tries = 0;
	park->told = false;
}

/*
 * The chains behind the one that waits will miss theirs: ask now. What is looked at is a copy of
 * the ring's state, in which chains that miss something are passed over.
 */
static void
ask_ahead(struct vfn_queue *q)
{
	struct vfn_park *park = &q->park;
	struct vringh_chain chain[VFN_PARK_ASKED];
	struct vringh_seg seg[2 * VFN_PARK_ASKED];
	struct vringh_batch batch = {.chain = chain,
		.seg = seg,
		.max_chains = RTE_DIM(chain),
		.max_segs = RTE_DIM(seg),
		.max_descs = RTE_DIM(seg)};
	struct vringh look = q->vr;
	struct vringh_miss miss;
	unsigned int looks;
	int n;

	/* What is tracked cannot be fetched only to be looked at. */
	if (vfn_queue_regs(q)->inflight_len > 0)
		return;
	vringh_refuse_miss(&look);
	for (looks = 0; looks < 2 * VFN_PARK_ASKED && park->nb_asked < VFN_PARK_ASKED; looks++) {
		batch.nb_chains = batch.nb_segs = 0;
		n = vringh_fetch(&look, &batch, VFN_PARK_ASKED);
		if (n > 0)
			continue;
		if (n != -VRINGH_E_MISS)
			break;
		miss = vringh_get_miss(&look);
		if (!was_asked(park, &miss)) {
			if (!ask(q, &miss, VFN_STAT_MISSES))
				break;
			park->asked[park->nb_asked++] = miss;
		}
		vringh_refuse_miss(&look);
	}
}

/* Poller, or control in its place: the next chain names an address that is not known. */
static void
missed(struct vfn_queue *q, const struct vringh_miss *miss)
{
	struct vfn_park *park = &q->park;
	uint64_t now = rte_rdtsc();

	if (!park->waits || park->miss.iova != miss->iova || park->miss.perm != miss->perm) {
		begin_to_wait(park, miss, now);
		/* It is seen to wait before anybody can answer. */
		__atomic_store_n(&park->waits, true, __ATOMIC_RELEASE);
		if (was_asked(park, miss)) {
			park->tries = 1;
			park->ask_again = now + milliseconds(ASK_AGAIN_MS);
			return;
		}
		ask_for_next(q, now);
		if (q->fn->params.faults & VFN_FAULT_NO_RETRY) {
			vringh_refuse_miss(&q->vr);
			__atomic_store_n(&park->waits, false, __ATOMIC_RELAXED);
			return;
		}
		if (park->nb_asked < VFN_PARK_ASKED && park->tries > 0)
			park->asked[park->nb_asked++] = *miss;
		ask_ahead(q);
	} else if (now < park->ask_again) {
		return;
	} else if (gives_up(park, now)) {
		vfn_park_answered(park, miss->iova, 1);
		q->stats[VFN_STAT_MISSES_REFUSED]++;
		FN_LOG(ERR, q->fn,
			"queue %u: nobody translates 0x%" PRIx64 ": the chain is refused", q->index,
			miss->iova);
		vringh_refuse_miss(&q->vr);
		__atomic_store_n(&park->waits, false, __ATOMIC_RELAXED);
	} else {
		ask_for_next(q, now);
	}
}

/* Poller. What vringh_fetch() said, or 0 if the queue has to wait. */
int
vfn_fetch_slow(struct vfn_queue *q, struct vringh_batch *batch, unsigned int max)
{
	struct vfn_park *park = &q->park;
	uint32_t maps = __atomic_load_n(&q->fn->iommu.maps, __ATOMIC_RELAXED);
	struct vringh_miss miss;
	int n;

	if (park->waits && park->maps == maps && rte_rdtsc() < park->ask_again)
		return 0;
	park->maps = maps;
	vringh_forget(&q->vr);
	n = vringh_fetch(&q->vr, batch, max);
	if (n == -VRINGH_E_MISS && vringh_broken(&q->vr) == VRINGH_OK) {
		miss = vringh_get_miss(&q->vr);
		missed(q, &miss);
		if (park->waits)
			return 0;
		/* It has waited long enough: it is handed out as a bad one. */
		n = vringh_fetch(&q->vr, batch, max);
	}
	__atomic_store_n(&park->waits, false, __ATOMIC_RELAXED);
	return n;
}

/* ---- rings ---- */

static void ask_for_rings(void *arg);

static void
ask_later(struct vfn_function *fn)
{
	if (!fn->iommu.asking)
		fn->iommu.asking =
			rte_eal_alarm_set(ASK_AGAIN_MS * 1000 / 2, ask_for_rings, fn) == 0;
}

/* On EAL's interrupt thread. */
static void
ask_for_rings(void *arg)
{
	struct vfn_function *fn = arg;
	bool more = false;
	unsigned int i;
	uint64_t now;

	vfn_lock(fn);
	now = rte_rdtsc();
	fn->iommu.asking = false;
	for (i = 0; i < fn->nb_queues && fn->iommu.call != NULL; i++) {
		struct vfn_queue *q = &fn->queue[i];

		if (!vfn_queue_regs(q)->enabled || !q->park.still || q->park.told)
			continue;
		if (gives_up(&q->park, now)) {
			q->park.told = true;
			FN_LOG(ERR, fn,
				"queue %u stands still: nobody translates its ring at 0x%" PRIx64
				", asked %u times",
				q->index, q->park.miss.iova, q->park.tries);
			continue;
		}
		more = true;
		if (now >= q->park.ask_again)
			ask_for_next(q, now);
	}
	if (more)
		ask_later(fn);
	vfn_unlock(fn);
}

void
vfn_iommu_cancel(struct vfn_function *fn)
{
	rte_eal_alarm_cancel(ask_for_rings, fn);
}

static void
stand_still(struct vfn_queue *q, const struct vringh_miss *miss, enum vringh_error why)
{
	struct vfn_park *park = &q->park;
	bool did = park->still;

	park->still = true;
	__atomic_store_n(&park->waits, false, __ATOMIC_RELAXED);
	/* Behind an IOMMU that is nothing special. */
	if (!did && q->fn->iommu.call != NULL)
		FN_LOG(DEBUG, q->fn, "queue %u stands still: %s", q->index, vringh_strerror(why));
	else if (!did)
		FN_LOG(NOTICE, q->fn, "queue %u stands still: %s", q->index, vringh_strerror(why));
	if (why != VRINGH_E_MISS)
		return;
	if (did && park->miss.iova == miss->iova && park->miss.perm == miss->perm)
		return;
	begin_to_wait(park, miss, rte_rdtsc());
	ask_for_next(q, park->since);
	ask_later(q->fn);
}

void
vfn_queue_look(struct vfn_queue *q)
{
	/* Until it is known that there is a ring the queue is as it was. */
	struct vringh look = q->vr;
	int ret = vringh_set_mem(&look, NULL);
	struct vringh_miss miss = vringh_get_miss(&look);

	if (ret == -VRINGH_E_MISS || ret == -VRINGH_E_AREA) {
		stand_still(q, &miss, -ret);
		return;
	}
	q->vr = look;
	if (ret < 0) {
		vfn_queue_broken(q);
		return;
	}
	if (!q->park.still)
		return;
	q->park.still = false;
	FN_LOG(DEBUG, q->fn, "queue %u goes on: its ring is mapped", q->index);
	vfn_queue_ring(q);
}
