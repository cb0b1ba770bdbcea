/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A function behind a non-transparent bridge: what both sides agree on. When the link comes up each
 * sets the peer's scratchpads, and goes by its own once they are complete. The rest are messages
 * (vfn_msg.h) in a mailbox, and notifications in a page that is compared with a shadow copy.
 *
 * The control area is at the start of both windows; what is behind it is the data path's.
 */

#ifndef VFN_NTB_H
#define VFN_NTB_H

#include <stddef.h>
#include <stdint.h>

#include <ntb.h>

#include "vfn_msg.h"
#include "vfn_regs.h"

enum vfn_ntb_scratchpad {
	VFN_NTB_PAD_MAGIC,   /**< VFN_NTB_MAGIC */
	VFN_NTB_PAD_VERSION, /**< VFN_MSG_VERSION */
	VFN_NTB_PAD_ROLE,    /**< enum vfn_ntb_role, and VFN_NTB_CONTROL */
	VFN_NTB_PAD_MESSAGE, /**< VFN_MSG_MAX */
	VFN_NTB_PAD_AREA,    /**< VFN_NTB_AREA_SIZE */
	VFN_NTB_PAD_READY,   /**< VFN_NTB_MAGIC, set last */
	VFN_NTB_NB_PADS
};

#define VFN_NTB_MAGIC UINT32_C(0x564e5442)

enum vfn_ntb_role {
	VFN_NTB_DRIVER = 1,
	VFN_NTB_DEVICE = 2,
	/** Of the device: it leaves to its driver what struct vfn_msg_control has. */
	VFN_NTB_CONTROL = 0x100,
};

/** Doorbells. The rest is the data path's. */
#define VFN_NTB_BELL_MESSAGE 0
#define VFN_NTB_BELL_NOTIFY  1
#define VFN_NTB_BELL_DATA    2

/** In the device's window: a notification of a queue. 8 bytes that change at once. */
struct vfn_ntb_notify {
	uint16_t count; /**< Changes with each. */
	uint16_t len;	/**< Bytes that were written, 2 or 4. */
	uint32_t value; /**< What was (virtio 1.3, 4.1.5.2). */
};

#define VFN_NTB_MAILBOX_AT 0x0000u
#define VFN_NTB_NOTIFY_AT  0x2000u
#define VFN_NTB_AREA_SIZE  0x3000u
_Static_assert(
	VFN_NTB_NOTIFY_AT + VFN_MAX_QUEUES * sizeof(struct vfn_ntb_notify) <= VFN_NTB_AREA_SIZE,
	"room for all queues");

/** The link has come up: tell the peer. */
void vfn_ntb_say(struct ntb *ntb, uint32_t role);

enum vfn_ntb_heard {
	VFN_NTB_READY,
	VFN_NTB_SILENT, /**< It has said nothing yet. */
	VFN_NTB_WRONG,	/**< It is no such peer; why has the reason in words. */
};

/** What the peer has said, who has to be such a one. */
enum vfn_ntb_heard vfn_ntb_hear(
	struct ntb *ntb, enum vfn_ntb_role peer, uint32_t *role, char *why, size_t size);

/** What simulated windows are made with where nothing else is said. */
#define VFN_NTB_DRIVER_BUS  UINT64_C(0x1000000000)
#define VFN_NTB_DEVICE_BUS  UINT64_C(0x2000000000)
#define VFN_NTB_WINDOW_SIZE UINT64_C(0x4000000)

#endif /* VFN_NTB_H */
