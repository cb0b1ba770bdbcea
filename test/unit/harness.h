/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the unit tests share: a queue with a mock driver on one side and lib/vring on the other,
 * and lists of tests that run once per kind of ring.
 *
 * The ring areas are regions of their own, of exactly their size and with no more rights than
 * the device needs, so that a sanitizer or a refused translation sees any access beside them.
 */

#ifndef HARNESS_H
#define HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mock_driver.h"

#define DIM(a) (sizeof(a) / sizeof((a)[0]))

/* Bus addresses of every queue_open(). */
#define DESC_AT	  0x100000
#define DRIVER_AT 0x200000
#define DEVICE_AT 0x300000
#define BUFS_AT	  0x40000000
#define TABLES_AT 0x80000000
/* Room for tests' own regions starts here. */
#define FREE_AT 0x100000000

struct variant {
	bool packed;
	bool event_idx;
	bool indirect;
	uint32_t size;
	struct vringh_state start; /* only .used counts */
};

struct queue {
	struct vringh vr;
	struct variant v;
	struct mock_mem mem;
	struct mock_driver drv;
	struct vringh_config cfg;
	struct vringh_batch batch; /* of size chains and four times as many segments */
};

/* What a variant has to be for a test to make sense on it. */
#define T_SPLIT	   0x1
#define T_PACKED   0x2
#define T_INDIRECT 0x4
#define T_EVENT	   0x8
#define T_FLAGS	   0x10 /* no event index */
#define T_DIRECT   0x20 /* indirect descriptors not negotiated */

struct ring_test {
	const char *name;
	void (*fn)(struct queue *q);
	unsigned int only; /* T_* */
	uint32_t min_size;
	uint32_t max_size; /* 0: any */
};

/* Run each test on each variant of split and packed, and the plain ones once. */
int run_group(const char *group, const struct ring_test *tests, unsigned int nb_tests,
	const struct CMUnitTest *plain, unsigned int nb_plain);

#define RUN(group, tests) run_group(group, tests, DIM(tests), NULL, 0)

struct queue *queue_open(const struct variant *v);
void queue_close(struct queue *q);

/* Ring as configured, started where the mock driver stands. */
void queue_restart(struct queue *q);

/* Start over with an empty ring at a position. */
void queue_rewind(struct queue *q, struct vringh_state at);

/* Where an empty ring of this variant may start so that the end comes after n entries. */
struct vringh_state near_end(const struct variant *v, uint32_t n);

/* Post and publish one chain; its id. */
int post(struct queue *q, const struct mock_buf *buf, unsigned int nb, uint32_t flags,
	uint64_t token);

/* Post and publish one chain of one buffer. */
int post_one(struct queue *q, uint32_t len, bool write, uint64_t token);

/* Fetch into an emptied batch. */
int fetch(struct queue *q, unsigned int max);

/* Complete chains [first, first + n) of the batch. */
void complete(struct queue *q, unsigned int first, unsigned int n);

/* Collect exactly one chain with this token and length. */
void expect_used(struct queue *q, uint64_t token, uint32_t len);

/* Nothing more is used, and nothing wrong was. */
void expect_none(struct queue *q);

/* The chain is made of these buffers, wherever they lie. */
void expect_chain(struct queue *q, const struct vringh_chain *chain, int id,
	const struct mock_buf *buf, unsigned int nb);

/* Make n single-buffer chains go round. */
void turn(struct queue *q, uint32_t n);

/* A fetch finds a bad chain: identity kept, no segments, returned with length 0. */
void expect_bad(struct queue *q, int id, enum vringh_error error);

/* Every later call leaves a broken queue's memory alone; vringh_init() recovers it. */
void expect_broken(struct queue *q, enum vringh_error error);

#endif /* HARNESS_H */
