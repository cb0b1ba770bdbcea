/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The format of inputs: a head, then records of one size (fuzz_ring.c) or bytes for guest memory
 * (fuzz_raw.c). Every value of every field means something, so that no mutation is lost. Data
 * only, used on any thread.
 */

#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "vringh.h"

/* Changes with the meaning of inputs: regressions of another version are refused, not skipped. */
#define FUZZ_VERSION 1

#define FUZZ_MAX_CUTS 8
#define FUZZ_MAX_OPS  192

/* fuzz_head.flags */
#define FUZZ_EVENT_IDX	0x01
#define FUZZ_INDIRECT	0x02
#define FUZZ_IN_ORDER	0x04
#define FUZZ_READS_ONLY 0x08
#define FUZZ_HUGE	0x10 /* 3 GiB of buffers: sums of lengths overflow */
#define FUZZ_LINK	0x20 /* IO windows with invalidate and flush */
#define FUZZ_PACKED	0x40 /* fuzz_raw.c only: the others are built for one format */
#define FUZZ_INFLIGHT	0x80 /* track in flight from the start */

struct fuzz_head {
	uint8_t version;
	uint8_t flags;
	uint8_t kind;	      /* enum vringh_mem_kind */
	uint8_t area_kind[3]; /* 0: in the main memory; else one more than the kind of its own */
	uint8_t max_chains;   /* less one */
	uint8_t shift;	      /* of host addresses against bus addresses, modulo 16 */
	uint16_t size;
	uint16_t max_segs;
	struct vringh_state state;
	int8_t area_delta[3];	       /* bytes away from where the area would lie */
	uint8_t base;		       /* of the address space, see guest_open() */
	uint16_t cut[FUZZ_MAX_CUTS];   /* borders of regions; 0: none */
	uint8_t region[FUZZ_MAX_CUTS]; /* FUZZ_REGION_*; the one behind the last cut is plain */
};

/* fuzz_head.region: rights that are taken away, and regions that are not there. */
#define FUZZ_REGION_NO_READ  0x1
#define FUZZ_REGION_NO_WRITE 0x2
#define FUZZ_REGION_HOLE     0x4

enum fuzz_opcode {
	/* what the guest does */
	OP_DESC,  /* ring entry b: address d, length c, next or id e, flags f; a: OP_DESC_NEW */
	OP_TABLE, /* the same for entry b of the place for indirect tables */
	OP_AVAIL, /* split: head e into the ring, b % 8 ahead; index + a % 4, or - with a & 0x80.
		   * packed: entry b is available; a & 1: is not */
	OP_POKE,  /* 1 << a % 4 bytes of c, e, f at address d; AT_TRACK with OP_POKE_OLD */
	/* what the device does */
	OP_FETCH,    /* a chains at most */
	OP_DISCARD,  /* b chains */
	OP_COMPLETE, /* b chains, a: OP_COMPLETE_*, bytes written by c */
	OP_PULL,     /* chain b; e bytes, then c */
	OP_PUSH,     /* chain b; e bytes, then c */
	OP_COPY,     /* c bytes from chain b to chain e */
	OP_NEED_NOTIFY,
	OP_ENABLE,
	OP_DISABLE,
	OP_SET_MEM, /* a: what changes before; b: region */
	OP_MAP,	    /* translation table a: address d, length c, rights e */
	OP_UNMAP,   /* translation table a: address d, length c; b & 1: all */
	OP_REFUSE,
	OP_LOG,	   /* a & 1: on; b: bytes missing; c, d: addresses of the areas */
	OP_RELOAD, /* a: how; e, f: state */
	OP_MAX,
};

#define OP_DESC_NEW	 0x1  /* packed: make it available */
#define OP_POKE_OLD	 0x4  /* c bytes as they were before the last call: a process has died */
#define OP_COMPLETE_BACK 0x1  /* reversed */
#define OP_COMPLETE_TAIL 0x2  /* the youngest ones */
#define OP_COMPLETE_FULL 0x10 /* everything was written */

enum { /* OP_SET_MEM, a % 6 */
	SET_MEM_SAME,
	SET_MEM_NULL,
	SET_MEM_MOVE,
	SET_MEM_PERMIT,
	SET_MEM_REMOVE,
	SET_MEM_RESTORE,
	SET_MEM_MAX,
};

enum {			/* OP_RELOAD, a % 4 */
	RELOAD_KEEP,	/* chains in flight stay so */
	RELOAD_DISCARD, /* they are handed back first */
	RELOAD_FORGET,	/* as a new process would: from where the used ring stands */
	RELOAD_STATE,	/* anything */
};

struct fuzz_op {
	uint8_t op; /* modulo OP_MAX */
	uint8_t a;
	uint16_t b;
	uint16_t e;
	uint16_t f;
	uint32_t c;
	uint32_t d; /* addresses: see guest_addr() */
};

_Static_assert(sizeof(struct fuzz_head) == 44, "no padding in inputs");
_Static_assert(sizeof(struct fuzz_op) == 16, "no padding in inputs");

/* Addresses in records: what the highest four bits say about the others. Others: AT_BASE. */
enum {
	AT_BASE,   /* bytes from the start of the address space */
	AT_REGION, /* bits 16-27: region; 0-15: bytes from its start */
	AT_END,	   /* the same, backwards from its end */
	AT_HUGE,   /* 16 bytes each from the start of the huge region */
	AT_TOP,	   /* backwards from 2^64 - 1 */
	AT_AREA,   /* bits 24-27: area of the ring; 0-23: bytes from its start */
	AT_MISS,   /* bytes from the last miss */
	AT_TRACK,  /* OP_POKE: bytes from the start of the in-flight region; bit 27: of its head */
};
#define AT_SHIFT       28
#define AT(where, off) ((uint32_t)(where) << AT_SHIFT | (uint32_t)(off))

/* Every target defines these; libFuzzer or standalone.c calls them. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2,
	size_t size2, uint8_t *out, size_t max_size, unsigned int seed);

#define DIM(a) (sizeof(a) / sizeof((a)[0]))

/* abort() and not exit(): libFuzzer keeps the input then. */
#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); \
			abort(); \
		} \
	} while (0)

static inline uint64_t
fuzz_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

#endif /* FUZZ_INPUT_H */
