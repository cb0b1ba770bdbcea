/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the unit tests share: a queue with a mock driver on one side and lib/vring on the other,
 * lists of tests that run once per kind of ring and memory, and expectations.
 *
 * The ring areas are regions of their own, of exactly their size and with no more rights than
 * the device needs, or lie in a window between pages that can't be touched, so that a sanitizer,
 * a fault or a refused translation shows any access beside them.
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
#include "mock_link.h"

#define DIM(a) (sizeof(a) / sizeof((a)[0]))

/* Bus addresses of every queue_open(), inside one window; buffers lie across 4 GiB. */
#define WINDOW_AT  0xff800000
#define DESC_AT	   0xff800000
#define DRIVER_AT  0xff900000
#define DEVICE_AT  0xffa00000
#define TABLES_AT  0xffb00000
#define BUFS_AT	   0xfff80000
#define NEXT_AT	   0x100400000 /* the neighbour's ring and buffers */
#define FREE_AT	   0x100800000 /* room for tests' own regions starts here */
#define WINDOW_END 0x101800000
/* Mapped in no memory, and far from any that is. */
#define NOWHERE 0x200000000

/* What the memories of a queue are: all of one kind, enum vringh_mem_kind, or */
enum mem_sort {
	MEM_NTB = VRINGH_MEM_MAX, /* the used ring on the other side of a link */
	MEM_MIX,		  /* descriptors there, and no two areas alike */
	MEM_FAR,		  /* buffers there, the ring here */
	MEM_APART,		  /* all there, and each area is only read or only written */
	MEM_SORTS,
};

struct variant {
	bool packed;
	bool in_order;
	bool event_idx;
	bool indirect;
	bool coherent; /* IO windows show the other side's writes at once */
	uint32_t size;
	unsigned int mem;	   /* enum vringh_mem_kind or enum mem_sort */
	struct vringh_state start; /* only .used counts */
};

/* Another queue in the same memory, which must not be harmed. */
struct neighbour {
	struct vringh vr;
	struct mock_driver drv;
};

struct queue {
	struct vringh vr;
	struct variant v;
	struct mock_link link;
	struct mock_mem mem;	  /* buffers, tables, and areas that have none of their own */
	struct mock_mem own[3];	  /* descriptor, driver and device area's own */
	struct mock_mem *area[3]; /* which of these it is */
	struct mock_driver drv;
	struct vringh_config cfg;
	struct vringh_batch batch; /* of size chains and four times as many segments */
	struct neighbour next;
};

/* What a variant has to be for a test to make sense on it. */
#define T_SPLIT	    0x1
#define T_PACKED    0x2
#define T_INDIRECT  0x4
#define T_EVENT	    0x8
#define T_FLAGS	    0x10 /* no event index */
#define T_DIRECT    0x20 /* indirect descriptors not negotiated */
#define T_ANY_ORDER 0x40
#define T_IN_ORDER  0x80
#define T_REGIONS   0x100   /* buffers lie in regions with rights of their own */
#define T_IN_PLACE  0x200   /* segments may be used in place */
#define T_IOTLB	    0x400   /* buffers and ring behind a translation table */
#define T_LINK	    0x800   /* something lies behind a link that is not coherent */
#define T_ONE_MEM   0x1000  /* ring and buffers in the same memory */
#define T_NO_MISS   0x2000  /* addresses that are not mapped are an error at once */
#define T_WINDOW    0x10000 /* buffers lie in one window */
#define T_COHERENT  0x4000  /* policy: see the other side's writes at once */
#define T_TOGETHER  0x20000 /* used descriptors are where the driver's are */
#define T_APART	    0x40000
/* Run on every kind of memory; else on one of them for each kind of ring, in turns. */
#define T_ALL 0x8000

struct ring_test {
	const char *name;
	void (*fn)(struct queue *q);
	unsigned int only; /* T_* */
	uint32_t min_size;
	uint32_t max_size; /* 0: any */
};

/* Run each test on the variants that it asks for, and the plain ones once. */
int run_group(const char *group, const struct ring_test *tests, unsigned int nb_tests,
	const struct CMUnitTest *plain, unsigned int nb_plain);

/* What all tests of the program ask for. */
extern unsigned int tests_only;

#define RUN(group, tests) run_group(group, tests, DIM(tests), NULL, 0)

struct queue *queue_open(const struct variant *v);
void queue_close(struct queue *q);

/* Kind of the memory that the buffers are in. */
static inline enum vringh_mem_kind
buffer_kind(const struct queue *q)
{
	return q->mem.view.kind;
}

/* What the name of a variant's memory is. */
const char *mem_name(unsigned int mem);

/* Memory of all kinds of rings: {split, packed} x {any order, in order}. */
struct variant format_variant(unsigned int format, unsigned int mem, uint32_t size);
#define NB_FORMATS 4
const char *format_name(unsigned int format);

/* Ring as configured, started where the mock driver stands. */
void queue_restart(struct queue *q);

/* Start over with an empty ring at a position. */
void queue_rewind(struct queue *q, struct vringh_state at);

/* The memory changed: show it to both sides anew. */
int queue_remap(struct queue *q);

/* A region for the test, shown to the queue. */
uint8_t *queue_map(struct queue *q, uint64_t iova, uint64_t len, uint32_t perm);

/* Where an empty ring of this variant may start so that the end comes after n entries. */
struct vringh_state near_end(const struct variant *v, uint32_t n);

/* Post and publish one chain; its id. */
int post(struct queue *q, const struct mock_buf *buf, unsigned int nb, uint32_t flags,
	uint64_t token);

/* Post and publish one chain of one buffer. */
int post_one(struct queue *q, uint32_t len, bool write, uint64_t token);

/* Fetch into an emptied batch, with a limit to the work where accesses are counted. */
int fetch(struct queue *q, unsigned int max);

/* The same, to the end: there is no map for what a translation table misses. */
int fetch_refusing(struct queue *q, unsigned int max);

/* vringh_pending(), and that vringh_watch() says the same. */
bool pending(struct queue *q);

/* Complete chains [first, first + n) of the batch. */
void complete(struct queue *q, unsigned int first, unsigned int n);

/* Fill a chain's writable bytes with a value, all of them or the first n. */
void fill(struct queue *q, struct vringh_chain *chain, uint32_t n, uint8_t value);

/* Collect exactly one chain with this token and length. */
void expect_used(struct queue *q, uint64_t token, uint32_t len);

/* The same of a chain that is bad or not used completely: it has an entry of its own. */
void expect_used_short(struct queue *q, uint64_t token, uint32_t len);

/* Nothing more is used, and nothing wrong was. */
void expect_none(struct queue *q);

/* The chain is made of these buffers, wherever they lie. */
void expect_chain(struct queue *q, const struct vringh_chain *chain, int id,
	const struct mock_buf *buf, unsigned int nb);

/* Make n single-buffer chains go round. */
void turn(struct queue *q, uint32_t n);

/* Errors of every reason. */
uint64_t errors_counted(const struct queue *q);

/* A fetch finds a bad chain: identity kept, no segments, returned with length 0. */
void expect_bad(struct queue *q, int id, enum vringh_error error);

/* Every later call leaves a broken queue's memory alone; vringh_init() recovers it. */
void expect_broken(struct queue *q, enum vringh_error error);

/* The neighbour works and counted no error. */
void expect_neighbour(struct queue *q);

/*
 * With HARNESS_CHECKED the library is built with VRINGH_ACCESS_POINTERS, and its accesses are
 * counted and judged. More of them than this before the next call fail the test.
 */
#ifdef HARNESS_CHECKED
void checked_limit(uint64_t accesses);
void checked_watch(struct mock_link *link);
/* Called after each load, so that memory can be rewritten while it is read; NULL: no more. */
typedef void checked_seen_fn(void *arg, const void *p, size_t len);
void checked_tell(checked_seen_fn *fn, void *arg);
/* A link whose memory is gone; what it never flushed fails the test. */
void checked_forget(struct mock_link *link);
#else
static inline void
checked_limit(uint64_t accesses)
{
	(void)accesses;
}
#endif

#endif /* HARNESS_H */
