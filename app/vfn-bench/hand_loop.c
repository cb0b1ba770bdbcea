/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The timed loop over the ring by hand: what loop.c is for lib/vring. Runs on the thread that
 * measures.
 */

#include <stdlib.h>

#include "bench.h"
#include "clock.h"
#include "hand.h"

static struct hand_ring ring;
static struct hand_chain chains[VRINGH_MAX_SIZE];
static struct hand_seg segs[4 * VRINGH_MAX_SIZE];

static uint8_t *
area(const struct vringh_region *r, uint64_t iova)
{
	return r->host + (iova - r->iova);
}

static int
device_open(struct bench_device *dev)
{
	const struct vringh_region *r = dev->cfg.mem->table;

	ring = (struct hand_ring){
		.desc = (const struct vring_desc *)area(r, dev->cfg.desc),
		.avail_ring = (const struct vring_avail *)area(r, dev->cfg.driver),
		.used_ring = (struct vring_used *)area(r, dev->cfg.device),
		.host = r->host,
		.iova = r->iova,
		.len = r->len,
		.size = dev->cfg.size,
		.avail = dev->cfg.state.avail,
		.avail_seen = dev->cfg.state.avail,
		.used = dev->cfg.state.used,
	};
	return VRINGH_OK;
}

static inline __attribute__((always_inline)) uint64_t
lap(struct bench_device *dev, uint32_t left, bool pull, bool each)
{
	uint32_t burst = dev->burst, max_segs = dev->batch.max_segs;
	uint64_t start = clock_start();
	int i, n;

	do {
		n = hand_fetch(&ring, chains, burst, segs, max_segs);
		if (n <= 0)
			break;
		for (i = 0; i < n; i++) {
			chains[i].written = 0;
			if (pull)
				hand_pull(&chains[i], dev->scratch + i * BENCH_PULL, BENCH_PULL);
			if (each)
				hand_complete(&ring, &chains[i], 1);
		}
		if (!each)
			hand_complete(&ring, chains, n);
		left -= n;
	} while (left > 0);
	dev->missing = left;
	dev->answer = n;
	dev->batch.nb_chains = n < 0 ? 0 : n;
	return clock_stop() - start;
}

static uint64_t
device_lap(struct bench_device *dev, uint32_t nb_chains)
{
	if (dev->work == WORK_PULL)
		return dev->each ? lap(dev, nb_chains, true, true) :
				   lap(dev, nb_chains, true, false);
	return dev->each ? lap(dev, nb_chains, false, true) : lap(dev, nb_chains, false, false);
}

static void
device_show(struct bench_device *dev)
{
	struct vringh_batch *batch = &dev->batch;
	uint32_t i, k;

	batch->nb_segs = 0;
	for (i = 0; i < batch->nb_chains; i++) {
		const struct hand_chain *c = &chains[i];

		batch->chain[i] = (struct vringh_chain){
			.seg = &batch->seg[batch->nb_segs],
			.read_len = c->read_len,
			.write_len = c->write_len,
			.nb_read = c->nb_read,
			.nb_write = c->nb_write,
			.id = c->id,
			.slots = 1,
			.written = c->written,
			.error = c->bad ? VRINGH_E_ADDR : VRINGH_OK,
		};
		for (k = 0; k < (uint32_t)c->nb_read + c->nb_write; k++)
			batch->seg[batch->nb_segs++] =
				(struct vringh_seg){.addr = c->seg[k].addr, .len = c->seg[k].len};
	}
	memset(chains, 0, batch->nb_chains * sizeof(chains[0]));
}

const struct bench_variant VARIANT_NAME(bench_variant) = {
	.name = VARIANT_TEXT,
	.flags = VARIANT_FLAGS,
	.open = device_open,
	.lap = device_lap,
	.show = device_show,
};
