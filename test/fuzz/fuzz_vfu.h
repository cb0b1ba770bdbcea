/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Inputs of the fuzzer of lib/vfio_user's server: a head, then messages of one size each, or the
 * bytes that a client sends. Every value of every byte means something, so that no mutation is
 * lost. Data only, used on any thread.
 */

#ifndef FUZZ_VFU_H
#define FUZZ_VFU_H

#include "fuzz_input.h"
#include "vfu_proto.h"

#define VFU_FUZZ_MESSAGES 128
#define VFU_FUZZ_VALUES	  8

/* vfu_fuzz_head.flags */
#define VFU_FUZZ_RAW	    0x01 /* bytes follow, not messages */
#define VFU_FUZZ_NO_VERSION 0x02 /* it is not agreed before */
#define VFU_FUZZ_ONE_FD	    0x04 /* what the client says that it takes */
#define VFU_FUZZ_ONE_BYTE   0x08

struct vfu_fuzz_head {
	uint8_t version; /* FUZZ_VERSION */
	uint8_t flags;
	uint8_t fail; /* every so many messages an operation of the device does; 0: none */
	uint8_t unused;
	uint8_t others[40]; /* as long as heads of other targets are, see standalone.c */
};

/* Flags of a message. */
#define VFU_FUZZ_NO_REPLY 0x01
#define VFU_FUZZ_TYPE	  0x02 /* the header's flags are value[7] */
#define VFU_FUZZ_SIZE	  0x04 /* the header's size is value[7] */
#define VFU_FUZZ_SHORT	  0x08 /* the payload is more bytes longer, or shorter */
#define VFU_FUZZ_ARGSZ	  0x10 /* is value[6], else as large as can be */
#define VFU_FUZZ_BURST	  0x20 /* the next one is sent before this one's reply is waited for */
#define VFU_FUZZ_PIECES	  0x40 /* bytes come one at a time */
#define VFU_FUZZ_COUNT	  0x80 /* of data, says value[5] */

/* A number: one of a few that mean something, and a little more or less. */
struct vfu_fuzz_value {
	uint8_t base;
	uint8_t shift; /* of what is added */
	int16_t add;
};

struct vfu_fuzz_message {
	uint8_t command; /* modulo some more than there are */
	uint8_t flags;
	uint8_t nb_fds;	 /* modulo some more than there may be */
	uint8_t fd_kind; /* enum */
	uint8_t answer;	 /* to commands of the server that come meanwhile; enum */
	int8_t more;
	uint16_t data_len;
	struct vfu_fuzz_value value[VFU_FUZZ_VALUES];
	uint8_t data[24]; /* again and again */
};

_Static_assert(sizeof(struct vfu_fuzz_head) == sizeof(struct fuzz_head), "as standalone.c has it");
_Static_assert(sizeof(struct vfu_fuzz_message) == 64, "no padding in inputs");

enum { /* vfu_fuzz_message.fd_kind, modulo */
	VFU_FD_MEMORY,
	VFU_FD_EVENT,
	VFU_FD_SOCKET,
	VFU_FD_MAX,
};

enum { /* vfu_fuzz_message.answer, modulo */
	VFU_ANSWER_RIGHT,
	VFU_ANSWER_ERROR,
	VFU_ANSWER_ID,
	VFU_ANSWER_SIZE,
	VFU_ANSWER_COUNT,
	VFU_ANSWER_LEAVE,
	VFU_ANSWER_MAX,
};

enum { /* vfu_fuzz_value.base, modulo */
	VFU_V_0,
	VFU_V_PAGE,
	VFU_V_MAP, /* where the seeds have their maps */
	VFU_V_MAP_2,
	VFU_V_XFER,
	VFU_V_2_32,
	VFU_V_2_63,
	VFU_V_TOP,
	VFU_V_GET,
	VFU_V_SET,
	VFU_V_PROBE,
	VFU_V_SPARSE, /* sizes of regions */
	VFU_V_REGS,
	VFU_V_DATA,
	VFU_V_MAX,
};

#endif /* FUZZ_VFU_H */
