/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The block class (virtio 1.3, 5.2): what its files share. */

#ifndef VFN_CLASS_BLK_H
#define VFN_CLASS_BLK_H

#include <rte_branch_prediction.h>
#include <rte_common.h>
#include <rte_reciprocal.h>

#include "../../function.h"
#include "backend.h"

/* Requests of a queue that are out at a time; what is more stays in the ring. */
#define VFN_BLK_SLOTS 256

/* What drivers are told: pieces of a request, and ranges to discard or zero. */
#define VFN_BLK_SEG_MAX	  126
#define VFN_BLK_SIZE_MAX  (1u << 20)
#define VFN_BLK_MAX_RANGE (1u << 31) /* bytes */

/* Reads and writes in a turn cost about as much as copying so many bytes. */
#define VFN_BLK_TURN_BYTES (128 * 1024)

/* The class's registers. */
struct vfn_blk_regs {
	uint8_t writeback; /* 5.2.5 */
};
_Static_assert(sizeof(struct vfn_blk_regs) <= VFN_CLASS_REGS_SIZE, "room for registers");

/* A limit that pollers share, see rate.c. */
struct vfn_blk_bucket {
	uint64_t ops, bytes;  /* per second, 0: no limit */
	uint64_t empty_at[2]; /* atomic: TSC when what was spent is earned */
	uint64_t waiting;     /* atomic: a bit per queue that was refused */
	uint64_t last_at;     /* atomic: TSC when somebody spent last */
	uint32_t last;	      /* atomic: who did */
	unsigned int users;
	char group[VFN_NAME_SIZE];
	struct vfn_blk_bucket *next;
};

struct vfn_blk_queue {
	struct vfn_work work;
	struct vfn_blk *blk;
	struct vfn_queue *q;
	void *end; /* the back-end's */

	/* Poller, or control in its place. */
	struct vfn_blk_req *slot;
	uint16_t free[VFN_BLK_SLOTS];
	uint16_t nb_free;
	uint16_t nb_out; /* at the back-end */
	uint16_t nb_done;
	bool armed;
	bool told;    /* that the back-end fails */
	uint64_t now; /* TSC of this turn */
	struct rte_reciprocal_u64 hz;
	struct vringh_chain done[VFN_BLK_SLOTS];
	uint16_t done_slot[VFN_BLK_SLOTS];
	struct vfn_blk_latency latency[VFN_BLK_KINDS];
};

struct vfn_blk {
	struct vfn_function fn;
	struct vfn_blk_params params;
	uint64_t capacity; /* bytes */
	uint32_t block_size;
	void *end; /* the back-end's, from its open() to its close() */
	struct vfn_blk_bucket *bucket;
	uint32_t seat; /* of its first queue at the bucket */
	struct vfn_blk_queue *queue;
};

static inline struct vfn_blk *
vfn_blk(const struct vfn_function *fn)
{
	return container_of(fn, struct vfn_blk, fn);
}

static inline struct vfn_blk_regs *
vfn_blk_regs_in(const struct vfn_regs *regs)
{
	return (struct vfn_blk_regs *)(uintptr_t)regs->class;
}

/* Are writes durable when they end (5.2.6.2)? Without FLUSH there is no other way. */
static inline bool
vfn_blk_is_sync(const struct vfn_blk *blk)
{
	return !vfn_has(&blk->fn, VIRTIO_BLK_F_FLUSH) || !vfn_blk_regs_in(&blk->fn.regs)->writeback;
}

/* config.c */
uint64_t vfn_blk_features(const struct vfn_blk *blk);
void vfn_blk_config_read(struct vfn_function *fn, uint32_t offset, void *buf, size_t len);
int vfn_blk_config_write(struct vfn_function *fn, uint32_t offset, const void *buf, size_t len);
void vfn_blk_parts_get(struct vfn_function *fn, struct vfn_parts_writer *w);
int vfn_blk_parts_set(const struct vfn_function *fn, struct vfn_regs *regs,
	const struct vfn_part *part, const uint8_t *value, const char **why);

/* request.c. Poller. */
extern const struct vfn_work_ops vfn_blk_ops;
/* Control, in the poller's place: wait for what is out, for so many ms. False: some still is. */
bool vfn_blk_queue_drain(struct vfn_blk_queue *bq, uint64_t until);
/* Control, between two turns: has what is out a byte there? */
bool vfn_blk_queue_uses(const struct vfn_blk_queue *bq, uint64_t iova, uint64_t last);

/* check.c: what a guest asks for. Poller. */
/*
 * Is the chain a request that can be submitted? Then its fields are set, and it is true. Else the
 * answer is in chain.written and, where it has one, status; a counter says why.
 */
bool vfn_blk_check(struct vfn_blk_queue *bq, struct vfn_blk_req *r);
/* Write the status (5.2.6), and say how many bytes were. */
void vfn_blk_answer(struct vfn_blk_queue *bq, struct vfn_blk_req *r);

/* rate.c. Control, the list locked: */
int vfn_blk_bucket_get(struct vfn_blk *blk, const struct vfn_blk_rate *rate);
void vfn_blk_bucket_put(struct vfn_blk *blk);
/* Poller: how many of n chains may pass now. */
unsigned int vfn_blk_bucket_take(struct vfn_blk_bucket *b, unsigned int seat, uint64_t now,
	const struct vringh_chain *chain, unsigned int n);

/* latency.c. Poller. */
void vfn_blk_latency_add(
	struct vfn_blk_latency *latency, uint64_t cycles, const struct rte_reciprocal_u64 *hz);

#endif /* VFN_CLASS_BLK_H */
