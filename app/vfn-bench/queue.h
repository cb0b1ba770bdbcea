/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A ring in one kind of memory with a driver on its other side, which posts what a lap needs and
 * checks what came back. Runs on the thread that measures, between the timed parts.
 */

#ifndef BENCH_QUEUE_H
#define BENCH_QUEUE_H

#include "bench.h"
#include "mock_driver.h"

/** Chains as the driver posts them, and what the device does with them. */
struct shape {
	uint32_t nb_bufs;
	uint32_t len; /**< Of each buffer. */
	bool indirect;
	bool write; /**< The device writes. */
	enum work work;
};

struct queue {
	struct mock_mem mock_mem;
	struct mock_driver drv;
	struct vringh_mem mem;
	struct vringh_dirty_log dirty;
	struct shape shape;
	struct bench_device dev;
	uint32_t nb_chains; /**< Of a lap: what a full ring takes. */
	uint16_t *id;	    /**< Of each chain of the lap. */
	uint64_t token;	    /**< Of the lap's first chain. */
	char fault[192];    /**< What went wrong. */
};

/** False: no memory, see fault. queue_close() may follow in any case. */
bool queue_open(struct queue *q, enum format format, enum vringh_mem_kind memory,
	const struct shape *shape, uint32_t size, uint32_t burst);

void queue_close(struct queue *q);

/** Give the ring, empty at the moment, to a variant; logging starts with an empty log. */
bool queue_give(struct queue *q, const struct bench_variant *variant, bool each, bool dirty);

/**
 * One lap: the driver fills the ring, the device empties it. Everything that came back is
 * checked, and of the device's last burst every chain.
 * @return Clock ticks that the device took; 0: wrong, see fault.
 */
uint64_t queue_lap(struct queue *q, const struct bench_variant *variant);

/** After laps with a dirty log: it says exactly what was written. */
bool queue_check_dirty(struct queue *q);

#endif /* BENCH_QUEUE_H */
