/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The target that understands its input: a queue, the guest's memory, and records that are
 * carried out one by one and checked. fuzz_ring.c runs the records, fuzz_calls.c the calls on
 * chains, fuzz_model.c tells what a fetch has to find. One thread.
 */

#ifndef FUZZ_RING_H
#define FUZZ_RING_H

#include "fuzz_guest.h"

#define MAX_HELD (GUEST_MAX_SIZE + 256)

/* A chain that was fetched, or one that a saved state says was: those have no segments. */
struct held {
	struct vringh_chain chain;
	struct vringh_state at; /* before it was fetched */
	uint32_t segs_at;	/* batch.nb_segs before it was fetched */
	uint32_t seq;		/* order of fetching; 0: not fetched by us */
	uint32_t gen;		/* memory at the time */
	bool again;		/* from the in-flight region */
};

struct fuzz {
	struct guest g;
	struct vringh_config cfg;
	struct vringh vr;
	struct vringh_batch batch;
	struct held held[MAX_HELD];
	uint32_t nb_held;
	uint32_t next_seq, done_seq;
	uint32_t gen;	/* segments of other ones are stale */
	uint16_t seen;	/* split: furthest available index that can have been read */
	uint32_t again; /* chains to come from the in-flight region */
	bool ready;	/* vringh_init() accepted the ring */
	bool refused;	/* the next miss is an error */
	bool dirty_on;
	struct vringh_dirty_log dirty;
	struct vringh_inflight inflight;
	uint8_t *region;     /* in flight */
	uint8_t *region_old; /* as it was before the last call on chains */
	size_t region_len;
	uint16_t *resubmit;
	uint64_t nb_completed;
};

void fuzz_open(struct fuzz *f, const struct fuzz_head *head, bool packed);
void fuzz_run(struct fuzz *f, const struct fuzz_op *op);
void fuzz_close(struct fuzz *f);

/* Entries between two positions, after the state's own rules. */
uint32_t fuzz_distance(const struct fuzz *f, struct vringh_state state);

/* Packed: AVAIL and USED bits with which the device will look at a slot next. */
uint16_t fuzz_bits(const struct fuzz *f, uint32_t slot);

/* Something is held that was fetched. */
bool fuzz_holds(const struct fuzz *f);

/* The chains of a state that nobody has fetched. */
void fuzz_phantoms(struct fuzz *f, uint32_t slots);

/* The bytes of a ring area. */
struct guest_range fuzz_area(struct fuzz *f, int area);

void fuzz_fetch(struct fuzz *f, const struct fuzz_op *op);
void fuzz_discard(struct fuzz *f, uint32_t n);
void fuzz_complete(struct fuzz *f, const struct fuzz_op *op);
void fuzz_pull(struct fuzz *f, const struct fuzz_op *op);
void fuzz_push(struct fuzz *f, const struct fuzz_op *op);
void fuzz_copy(struct fuzz *f, const struct fuzz_op *op);

/* What a walk over guest memory finds, from the specification alone. */
struct model_piece {
	uint64_t iova;
	uint32_t len;
	bool write;
};

struct model_chain {
	bool there;   /* a whole chain is available */
	bool partial; /* packed: its head is, the rest is not */
	enum vringh_error broken;
	uint16_t id, slots;
	bool bad;     /* must be refused */
	bool may_bad; /* may be: longer than the queue with its table */
	bool miss;    /* has an address that is not in the translation table */
	uint32_t nb_segs;
	uint32_t nb_pieces;
	struct model_piece piece[2 * GUEST_MAX_SIZE];
};

void model_split(struct fuzz *f, uint16_t head, struct model_chain *mc);
void model_next(struct fuzz *f, struct vringh_state at, uint32_t in_flight, struct model_chain *mc);
uint16_t model_avail_idx(struct fuzz *f);

#endif /* FUZZ_RING_H */
