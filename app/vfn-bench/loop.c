/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The timed loop over lib/vring, compiled with a copy of the library for each variant. Runs on
 * the thread that measures.
 */

#include "bench.h"
#include "clock.h"

static int
device_open(struct bench_device *dev)
{
	int error = vringh_init(&dev->vr, &dev->cfg);

	return error == 0 ? vringh_set_dirty_log(&dev->vr, dev->dirty) : error;
}

static inline __attribute__((always_inline)) uint64_t
lap(struct bench_device *dev, uint32_t left, enum work work, bool each)
{
	struct vringh_batch *batch = &dev->batch;
	struct vringh *vr = &dev->vr;
	uint64_t start = clock_start();
	int i, n;

	do {
		batch->nb_chains = batch->nb_segs = 0;
		n = vringh_fetch(vr, batch, dev->burst);
		if (n <= 0)
			break;
		for (i = 0; i < n; i++) {
			struct vringh_chain *chain = &batch->chain[i];

			chain->written = 0;
			if (work == WORK_PULL) {
				struct vringh_iter it = vringh_iter_read(vr, chain);

				vringh_pull(&it, dev->scratch + i * BENCH_PULL, BENCH_PULL);
			} else if (work == WORK_PUSH) {
				struct vringh_iter it = vringh_iter_write(vr, chain);

				chain->written = vringh_push(&it, dev->scratch, dev->push_len);
			}
			if (each)
				vringh_complete(vr, chain, 1);
		}
		if (!each)
			vringh_complete(vr, batch->chain, n);
		left -= n;
	} while (left > 0);
	dev->missing = left;
	dev->answer = n;
	return clock_stop() - start;
}

static uint64_t
device_lap(struct bench_device *dev, uint32_t nb_chains)
{
	switch (dev->work) {
	case WORK_PULL:
		return dev->each ? lap(dev, nb_chains, WORK_PULL, true) :
				   lap(dev, nb_chains, WORK_PULL, false);
	case WORK_PUSH:
		return lap(dev, nb_chains, WORK_PUSH, false);
	default:
		return dev->each ? lap(dev, nb_chains, WORK_NONE, true) :
				   lap(dev, nb_chains, WORK_NONE, false);
	}
}

const struct bench_variant VARIANT_NAME(bench_variant) = {
	.name = VARIANT_TEXT,
	.flags = VARIANT_FLAGS,
	.open = device_open,
	.lap = device_lap,
};
