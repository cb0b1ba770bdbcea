/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Inputs of the gate's fuzzer: a head, then messages of one size each. Every value of every byte
 * means something, so that no mutation is lost. Data only, used on any thread.
 */

#ifndef FUZZ_GATE_H
#define FUZZ_GATE_H

#include "fuzz_input.h"
#include "gate_judge.h"

#define GATE_FUZZ_MESSAGES 256
#define GATE_FUZZ_VALUES   12

/* Flags of a message. */
#define GATE_FUZZ_NO_ACK  0x01 /* no acknowledgement is asked for */
#define GATE_FUZZ_VERSION 0x02 /* of another version */
#define GATE_FUZZ_SIZE	  0x04 /* of a payload that is not the row's */

struct gate_fuzz_head {
	uint8_t version; /* FUZZ_VERSION */
	uint8_t rings;	 /* of the device, less one */
	uint8_t space;	 /* exponent of the address space that there is */
	uint8_t unused;
	uint8_t others[40]; /* as long as heads of other targets are, see standalone.c */
};

/* A number: one of a few that mean something, and a little more or less. */
struct gate_fuzz_value {
	uint8_t base;
	uint8_t shift; /* of what is added */
	int16_t add;
};

struct gate_fuzz_message {
	uint8_t request; /* modulo one more than there are */
	uint8_t flags;
	uint8_t nb_fds; /* modulo one more than there may be */
	uint8_t size;
	uint8_t kinds[GATE_MAX_FDS]; /* enum gate_fd_kind; above that memory */
	uint8_t file[4];	     /* exponents of the first files' sizes */
	struct gate_fuzz_value value[GATE_FUZZ_VALUES];
};

_Static_assert(sizeof(struct gate_fuzz_head) == sizeof(struct fuzz_head), "as standalone.c has it");
_Static_assert(sizeof(struct gate_fuzz_message) == 64, "no padding in inputs");

/* gate_fuzz_value.base, modulo their number. */
enum {
	GATE_V_0,
	GATE_V_PAGE,
	GATE_V_2M,
	GATE_V_4G,
	GATE_V_1T,
	GATE_V_2_63,
	GATE_V_TOP,
	GATE_V_UVA,
	GATE_V_UVA_2,
	GATE_V_UVA_END, /* of the first region of the seeds */
	GATE_V_FEATURES,
	GATE_V_PACKED,
	GATE_V_LOGGED,
	GATE_V_PROTOCOL,
	GATE_V_256,
	GATE_V_32768,
	GATE_V_PLATFORM,
	GATE_V_MAX,
};

uint64_t gate_fuzz_value(const struct gate_fuzz_value *v);

#endif /* FUZZ_GATE_H */
