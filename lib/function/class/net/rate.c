/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The token bucket of rate.h. Poller, but for the two functions that say otherwise. */

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_malloc.h>

#include "net.h"

/*
 * The bucket holds what is sent in this time, and one frame of the largest size besides: who looks
 * this late after there was enough for a frame loses nothing.
 */
#define BUCKET_MS 2

static uint64_t
cost(const struct vfn_rate *r, uint64_t len)
{
	return len * r->cost >> 12;
}

static uint64_t
chain_cost(const struct vfn_rate *r, const struct vringh_chain *chain)
{
	/* What is longer than a frame can be is going to be dropped, and has to get that far. */
	uint32_t len = RTE_MIN(chain->read_len, VFN_NET_HDR_SIZE + VFN_NET_MAX_FRAME);

	return len > VFN_NET_HDR_SIZE ? cost(r, len - VFN_NET_HDR_SIZE) : 0;
}

/* Control. */
void
vfn_rate_init(struct vfn_rate *r, uint32_t mbps, uint64_t hz)
{
	*r = (struct vfn_rate){.second = hz << 8, .cost = (hz << 20) / (mbps * UINT64_C(125000))};
	r->full = r->second / 1000 * BUCKET_MS + cost(r, VFN_NET_MAX_FRAME);
	/* long ago */
	r->empty_at = 0;
}

/* Control, while no poller has one of the queues. */
void
vfn_rate_reset(struct vfn_rate *r)
{
	r->waiting = 0;
}

/* Those who wait take turns; without that the first in a poller's list would always win. */
static bool
is_turn(uint64_t waiting, unsigned int pair, unsigned int last)
{
	unsigned int shift = (last + 1) % 64;
	uint64_t rest = waiting >> shift;

	if (shift > 0)
		rest |= waiting << (64 - shift);
	return (__builtin_ctzll(rest) + shift) % 64 == pair;
}

unsigned int
vfn_rate_take(struct vfn_rate *r, unsigned int pair, uint64_t now, const struct vringh_chain *chain,
	unsigned int n)
{
	uint64_t bit = UINT64_C(1) << pair, waiting, others, empty_at, age, share, spent;
	unsigned int may;

	_Static_assert(VFN_MAX_PAIRS <= 64, "a bit each");
	now <<= 8;
	waiting = __atomic_load_n(&r->waiting, __ATOMIC_RELAXED);
	others = waiting & ~bit;
	empty_at = __atomic_load_n(&r->empty_at, __ATOMIC_RELAXED);
	do {
		/* Of two pollers the one that looked at the clock later may be through first. */
		age = empty_at - now < r->second ? 0 : RTE_MIN(now - empty_at, r->full);
		share = age;
		may = 0;
		spent = 0;
		/* A full bucket is for everybody, or what flows into it would be lost. */
		if (others != 0 && age < r->full &&
			!is_turn(others | bit, pair, __atomic_load_n(&r->last, __ATOMIC_RELAXED)))
			break;
		if (others != 0)
			share /= 1 + __builtin_popcountll(others);
		for (; may < n; may++) {
			uint64_t c = chain_cost(r, &chain[may]);

			if (spent + c > (may == 0 ? age : share))
				break;
			spent += c;
		}
	} while (may > 0 &&
		!__atomic_compare_exchange_n(&r->empty_at, &empty_at, now - age + spent, false,
			__ATOMIC_RELAXED, __ATOMIC_RELAXED));
	if (may > 0)
		__atomic_store_n(&r->last, pair, __ATOMIC_RELAXED);
	if (may < n && !(waiting & bit))
		__atomic_fetch_or(&r->waiting, bit, __ATOMIC_RELAXED);
	if (may == n && (waiting & bit))
		__atomic_fetch_and(&r->waiting, ~bit, __ATOMIC_RELAXED);
	return may;
}

void
vfn_rate_give_back(struct vfn_rate *r, const struct vringh_chain *chain, unsigned int n)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < n; i++)
		sum += chain_cost(r, &chain[i]);
	if (sum > 0)
		__atomic_fetch_sub(&r->empty_at, sum, __ATOMIC_RELAXED);
}

unsigned int
vfn_net_limit(struct vfn_net_work *w, struct vringh_batch *from)
{
	struct vfn_queue *q = w->work.queue;
	unsigned int n =
		vfn_rate_take(w->rate, q->index / 2, rte_rdtsc(), from->chain, from->nb_chains);

	w->work.held = n == 0;
	vringh_discard(&q->vr, from->chain + n, from->nb_chains - n);
	from->nb_chains = n;
	return n;
}

/* ---- control ---- */

int
vfn_net_rate(struct vfn_net *net, uint32_t mbps)
{
	struct vfn_rate *rate = NULL;

	if (mbps != 0) {
		rate = rte_malloc("vfn_rate", sizeof(*rate), RTE_CACHE_LINE_SIZE);
		if (rate == NULL)
			return -ENOMEM;
		vfn_rate_init(rate, mbps, rte_get_tsc_hz());
	}
	rte_free(net->rate);
	net->rate = rate;
	net->params.rate_mbps = mbps;
	return 0;
}

int
vfn_manage_rate(struct vfn_function *fn, uint32_t mbps)
{
	int ret;

	vfn_lock(fn);
	vfn_quiesce(fn);
	ret = vfn_net_rate(vfn_net(fn), mbps);
	vfn_resume(fn);
	vfn_unlock(fn);
	return ret;
}
