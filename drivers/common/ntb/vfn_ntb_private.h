/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the files of the link over a bridge share. */

#ifndef VFN_NTB_PRIVATE_H
#define VFN_NTB_PRIVATE_H

#include <pthread.h>

#include <ntb_mailbox.h>
#include <vringh_mem.h>

#include "vfn_ntb_link.h"

struct ntb_link {
	struct vfn_link link;
	struct ntb *ntb;
	struct vringh_io io; /* of its windows */
	unsigned int timeout_ms;
	int dead_fd;
	bool dead; /* atomic: nothing is sent any more */

	pthread_mutex_t call; /* one caller at a time, and of what follows */
	struct ntb_mailbox sender;
	uint16_t token;
	bool known; /* these registers, which say what others are of */
	uint16_t queue;
	uint32_t device_block, driver_block;
	uint32_t generation; /* of the device configuration that was last read */

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t answered;
	uint16_t wanted; /* the token of who waits, 0: nobody */
	union vfn_message *answer;
	int irq_fd[VFN_MAX_VECTORS + 1]; /* -1: none */
	int kick_fd[VFN_MAX_QUEUES];
	uint16_t kicks[VFN_MAX_QUEUES];

	/* The thread's. */
	pthread_t thread;
	struct ntb_mailbox receiver;
	int epoll_fd, stop_fd;
};

static inline struct ntb_link *
ntb_link_of(const struct vfn_link *link)
{
	return (struct ntb_link *)((uintptr_t)link - offsetof(struct ntb_link, link));
}

/* ---- vfn_ntb_calls.c ---- */

/* The link is down, for good. Any thread. */
void ntb_link_fail(struct ntb_link *e);
/* A message of ours, without an answer that anybody waits for. With e->call. */
int ntb_link_post(struct ntb_link *e, union vfn_message *msg);
/* And with: msg becomes it. */
int ntb_link_call(struct ntb_link *e, union vfn_message *msg);
/* A queue has something to do. Any thread. */
void ntb_link_notify(struct ntb_link *e, unsigned int queue, uint32_t value, size_t len);
void *ntb_link_thread(void *arg);
/* Numbers of queues' eventfds, for epoll. */
#define NTB_LINK_EV_STOP     VFN_MAX_QUEUES
#define NTB_LINK_EV_LINK     (VFN_MAX_QUEUES + 1)
#define NTB_LINK_EV_DOORBELL (VFN_MAX_QUEUES + 2)

/* ---- vfn_ntb_regs.c ---- */

int ntb_link_read(
	struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len);
int ntb_link_write(
	struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len);

#endif /* VFN_NTB_PRIVATE_H */
