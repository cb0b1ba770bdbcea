/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Messages over a bridge: a ring of slots at the same offset of both windows. Write-only: the
 * sender writes slots, the receiver how many it has taken. The peer is not trusted, and the link
 * may lose what was written.
 *
 * Threads: one sends and one receives at a time.
 */

#ifndef NTB_MAILBOX_H
#define NTB_MAILBOX_H

#include <sys/types.h>

#include "ntb.h"

#define NTB_MAILBOX_SLOTS   16
#define NTB_MAILBOX_MESSAGE 304 /* bytes, at most */

struct ntb_mailbox_slot {
	uint32_t number; /**< 1 for the first message; written last. */
	uint32_t sum;	 /**< Of number, length and message. */
	uint32_t length;
	uint32_t reserved;
	uint8_t message[NTB_MAILBOX_MESSAGE];
};

/** What is in the window of whoever receives. */
struct ntb_mailbox_area {
	struct ntb_mailbox_slot slot[NTB_MAILBOX_SLOTS];
	uint32_t taken; /**< By the peer, of what is sent from here. */
};

struct ntb_mailbox {
	struct ntb *ntb;
	uint64_t at;	   /**< Of the area in both windows; a multiple of 8. */
	uint32_t doorbell; /**< Rung for each message; a bit. */
	uint32_t sent, received;
};

/** The link has come up. */
void ntb_mailbox_init(struct ntb_mailbox *m, struct ntb *ntb, uint64_t at, unsigned int doorbell);

/** 0; -EAGAIN: the peer has to take some first; -EMSGSIZE; -EPROTO: it takes what was not sent. */
int ntb_mailbox_send(struct ntb_mailbox *m, const void *message, size_t len);

/**
 * The next message, to NTB_MAILBOX_MESSAGE bytes.
 *
 * @return
 *   Its length; -EAGAIN: there is none; -EPROTO: one was lost, or is not what was sent. That stays
 *   so.
 */
ssize_t ntb_mailbox_receive(struct ntb_mailbox *m, void *message);

#endif /* NTB_MAILBOX_H */
