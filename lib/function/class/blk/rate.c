/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A limit in requests and in bytes per second, of one function or of a group. What was spent is
 * kept as the moment when it will be earned: whoever comes after it passes, at whatever cost, and
 * puts it off. So a request of any size passes, and the average is right.
 */

#include <stdio.h>
#include <stdlib.h>

#include <rte_cycles.h>

#include "blk.h"

/* What was not spent in the last so many ms is lost. */
#define SAVED_MS 2

static struct vfn_blk_bucket *groups; /* the list of functions is locked */

/* Control, like what follows. */
int
vfn_blk_bucket_get(struct vfn_blk *blk, const struct vfn_blk_rate *rate)
{
	struct vfn_blk_bucket *b = NULL;

	if (rate->group[0] != '\0')
		for (b = groups; b != NULL && strcmp(b->group, rate->group) != 0; b = b->next)
			;
	if (b == NULL) {
		b = calloc(1, sizeof(*b));
		if (b == NULL)
			return -ENOMEM;
		snprintf(b->group, sizeof(b->group), "%s", rate->group);
		b->next = groups;
		groups = b;
	}
	/* Who comes later may say what the limit is, or leave it. */
	if (rate->ops != 0 || b->users == 0)
		b->ops = rate->ops;
	if (rate->bytes != 0 || b->users == 0)
		b->bytes = rate->bytes;
	blk->seat = 16 * b->users++;
	blk->bucket = b;
	return 0;
}

void
vfn_blk_bucket_put(struct vfn_blk *blk)
{
	struct vfn_blk_bucket *b = blk->bucket, **p = &groups;

	if (b == NULL || --b->users > 0)
		return;
	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	free(b);
}

void
vfn_manage_blk_rate(struct vfn_function *fn, uint64_t ops, uint64_t bytes)
{
	struct vfn_blk_bucket *b = vfn_blk(fn)->bucket;

	__atomic_store_n(&b->ops, ops, __ATOMIC_RELAXED);
	__atomic_store_n(&b->bytes, bytes, __ATOMIC_RELAXED);
}

/* ---- poller ---- */

/* As much data as it can have, before anybody has looked at it. */
static uint64_t
chain_bytes(const struct vringh_chain *chain)
{
	return RTE_MAX(chain->read_len, chain->write_len);
}

/* Is it earned? */
static bool
is_earned(const uint64_t *empty_at, uint64_t now)
{
	return (int64_t)(now - __atomic_load_n(empty_at, __ATOMIC_RELAXED)) >= 0;
}

static void
spend(uint64_t *empty_at, uint64_t now, uint64_t saved, uint64_t cost)
{
	uint64_t at = __atomic_load_n(empty_at, __ATOMIC_RELAXED), from;

	do {
		from = (int64_t)(now - at) > (int64_t)saved ? now - saved : at;
	} while (!__atomic_compare_exchange_n(
		empty_at, &at, from + cost, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

/* Those who wait take turns; without that the first in a poller's list would always win. */
static bool
is_turn(uint64_t waiting, unsigned int seat, unsigned int last)
{
	unsigned int shift = (last + 1) % 64;
	uint64_t rest = waiting >> shift;

	if (shift > 0)
		rest |= waiting << (64 - shift);
	return (__builtin_ctzll(rest) + shift) % 64 == seat;
}

static bool
may_pass(struct vfn_blk_bucket *b, uint64_t now, uint64_t hz, const struct vringh_chain *chain)
{
	uint64_t ops = __atomic_load_n(&b->ops, __ATOMIC_RELAXED);
	uint64_t bytes = __atomic_load_n(&b->bytes, __ATOMIC_RELAXED);
	uint64_t saved = hz / 1000 * SAVED_MS;

	if ((ops != 0 && !is_earned(&b->empty_at[0], now)) ||
		(bytes != 0 && !is_earned(&b->empty_at[1], now)))
		return false;
	if (ops != 0)
		spend(&b->empty_at[0], now, saved, hz / ops);
	if (bytes != 0)
		spend(&b->empty_at[1], now, saved, (double)hz * chain_bytes(chain) / bytes);
	return true;
}

unsigned int
vfn_blk_bucket_take(struct vfn_blk_bucket *b, unsigned int seat, uint64_t now,
	const struct vringh_chain *chain, unsigned int n)
{
	uint64_t bit, waiting, others, hz = rte_get_tsc_hz();
	unsigned int may = 0;

	if (__atomic_load_n(&b->ops, __ATOMIC_RELAXED) == 0 &&
		__atomic_load_n(&b->bytes, __ATOMIC_RELAXED) == 0)
		return n;
	seat %= 64;
	bit = UINT64_C(1) << seat;
	waiting = __atomic_load_n(&b->waiting, __ATOMIC_RELAXED);
	others = waiting & ~bit;
	if (others != 0) {
		/* One that waits and is not there any more holds nobody up for long. */
		uint64_t last_at = __atomic_load_n(&b->last_at, __ATOMIC_RELAXED);

		if (is_turn(others | bit, seat, __atomic_load_n(&b->last, __ATOMIC_RELAXED)) ||
			now - last_at > hz / 1000 * SAVED_MS * 2)
			may = n > 0 && may_pass(b, now, hz, chain);
	} else {
		while (may < n && may_pass(b, now, hz, &chain[may]))
			may++;
	}
	if (may > 0) {
		__atomic_store_n(&b->last, seat, __ATOMIC_RELAXED);
		__atomic_store_n(&b->last_at, now, __ATOMIC_RELAXED);
	}
	if (may < n && !(waiting & bit))
		__atomic_fetch_or(&b->waiting, bit, __ATOMIC_RELAXED);
	if (may == n && (waiting & bit))
		__atomic_fetch_and(&b->waiting, ~bit, __ATOMIC_RELAXED);
	return may;
}
