/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Log-linear histograms. */

#include "blk.h"

#define BITS	VFN_BLK_LATENCY_BITS
#define BUCKETS VFN_BLK_LATENCY_BUCKETS

/* The bucket of a value: below 2^BITS one each, then 2^BITS for each power of two. */
static unsigned int
bucket(uint64_t ns)
{
	unsigned int log, i;

	if (ns < 1u << BITS)
		return ns;
	log = 63 - __builtin_clzll(ns);
	i = ((log - BITS + 1) << BITS) + (ns >> (log - BITS)) - (1u << BITS);
	return RTE_MIN(i, BUCKETS - 1u);
}

/* The largest value in a bucket. */
static uint64_t
bucket_end(unsigned int i)
{
	unsigned int log = (i >> BITS) + BITS - 1;
	uint64_t first = (1u << BITS) + (i & ((1u << BITS) - 1));

	if (i < 1u << BITS)
		return i;
	return ((first + 1) << (log - BITS)) - 1;
}

void
vfn_blk_latency_add(
	struct vfn_blk_latency *latency, uint64_t cycles, const struct rte_reciprocal_u64 *hz)
{
	/* Longer than a quarter of an hour is longest. */
	uint64_t most = UINT64_MAX / 1000000000;

	cycles = RTE_MIN(cycles, most);
	latency->count[bucket(rte_reciprocal_divide_u64(cycles * 1000000000, hz))]++;
}

uint64_t
vfn_blk_percentile(const struct vfn_blk_latency *latency, uint32_t ppm)
{
	uint64_t all = 0, below = 0, want;
	unsigned int i;

	for (i = 0; i < BUCKETS; i++)
		all += latency->count[i];
	if (all == 0)
		return 0;
	/* At least one, and rounded up: p100 is the largest. */
	want = (all * RTE_MIN(ppm, 1000000u) + 999999) / 1000000;
	want = RTE_MAX(want, UINT64_C(1));
	for (i = 0; below < want; i++)
		below += latency->count[i];
	return bucket_end(i - 1);
}

/* Control. */
int
vfn_manage_blk_latency(
	struct vfn_function *fn, int queue, enum vfn_blk_kind kind, struct vfn_blk_latency *latency)
{
	const struct vfn_blk *blk = vfn_blk(fn);
	unsigned int i, b;

	if (queue >= blk->params.queues || queue < -1 || kind >= VFN_BLK_KINDS)
		return -ENOENT;
	memset(latency, 0, sizeof(*latency));
	vfn_lock(fn);
	for (i = 0; i < blk->params.queues; i++)
		for (b = 0; b < BUCKETS && (queue == -1 || queue == (int)i); b++)
			latency->count[b] += __atomic_load_n(
				&blk->queue[i].latency[kind].count[b], __ATOMIC_RELAXED);
	vfn_unlock(fn);
	return 0;
}
