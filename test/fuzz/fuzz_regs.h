/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Inputs of the fuzzer of a function's registers: a head, then what a guest does, in records of one
 * size. Every value of every byte means something, so that no mutation is lost. Data only, used on
 * any thread.
 */

#ifndef FUZZ_REGS_H
#define FUZZ_REGS_H

#include "fuzz_input.h"

#define REGS_FUZZ_OPS 512

/* regs_fuzz_head.flags */
#define REGS_FUZZ_RACE 0x01 /* a second thread rewrites memory all the time */

struct regs_fuzz_head {
	uint8_t version; /* FUZZ_VERSION */
	uint8_t flags;
	uint8_t seed; /* of the second thread */
	uint8_t unused;
	uint8_t others[40]; /* as long as heads of other targets are, see standalone.c */
};

struct regs_fuzz_op {
	uint8_t op; /* modulo R_MAX */
	uint8_t a;
	uint16_t b;
	uint8_t base; /* of the value: R_V_* */
	uint8_t shift;
	int16_t add; /* shifted by that, and added */
	uint32_t c;
	uint32_t d;
};

_Static_assert(sizeof(struct regs_fuzz_head) == sizeof(struct fuzz_head), "as standalone.c has it");
_Static_assert(sizeof(struct regs_fuzz_op) == 16, "no padding in inputs");

enum {
	/* accesses */
	R_READ,	  /* b bytes at c of region a */
	R_WRITE,  /* the same; the value, again and again */
	R_COMMON, /* field a of the common structure */
	R_VENDOR, /* and of the vendor's */
	R_DEVICE, /* 1 << b % 4 bytes at c of the device's configuration */
	R_NOTIFY, /* queue a's doorbell, of b bytes */
	R_MSIX,	  /* word b of vector a's entry */
	R_PCI,	  /* 1 << b % 3 bytes at c of configuration space */
	R_PARTS,  /* the value at c of the window, b words */
	/* what a driver does with several of them */
	R_SETUP, /* negotiate, and set up queues of size b; features: see setup() */
	R_RESET,
	R_QUEUE, /* set up queue a, of size b */
	/* the memory */
	R_DESC,	 /* entry b of queue a: address the value, length c, flags and next d */
	R_AVAIL, /* head b of queue a, in d % 4 entries */
	R_POKE,	 /* 1 << b % 4 bytes at c of memory a */
	R_FILL,	 /* all of memory a, from a generator that starts with c */
	/* the link, and the poller */
	R_TURN, /* a % 8 of them */
	R_MAP,	/* memory a is there again, or is gone */
	R_IRQ,	/* of vector b: an eventfd, or none */
	R_DOORBELL,
	R_MAX,
};

enum { /* regs_fuzz_op.base, modulo */
	R_V_0,
	R_V_RINGS, /* addresses of memories, and their ends */
	R_V_RINGS_END,
	R_V_BUFFERS,
	R_V_BUFFERS_END,
	R_V_READ_ONLY,
	R_V_OWN,
	R_V_OWN_END,
	R_V_OFFERED, /* features */
	R_V_STATUS,  /* up to DRIVER_OK */
	R_V_2_16,
	R_V_2_31,
	R_V_2_32,
	R_V_TOP,
	R_V_MAX,
};

/* Memories, each REGS_MEM_SIZE between pages that are not there. */
enum {
	R_MEM_RINGS,
	R_MEM_BUFFERS,
	R_MEM_READ_ONLY,
	R_MEM_OWN, /* in VFN_DMA_OWN */
	R_MEM_MAX,
};
#define REGS_MEM_SIZE	   0x10000u
#define REGS_MEM_AT(i)	   (UINT64_C(0x40000000) + (i)*UINT64_C(0x1000000))
#define REGS_RING_STEP	   0x3000u /* from one queue's rings to the next's; a page an area */
#define REGS_NB_QUEUES	   5	   /* two pairs and the control queue */
#define REGS_RING(q, area) (REGS_MEM_AT(R_MEM_RINGS) + (q)*REGS_RING_STEP + (area)*0x1000u)

#endif /* FUZZ_REGS_H */
