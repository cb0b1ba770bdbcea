/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the files of a function behind a bridge share. As an endpoint it is an adaptor to any link,
 * and knows the function by its registers only. All on the server's thread.
 */

#ifndef VFN_LINK_NTB_H
#define VFN_LINK_NTB_H

#include <pthread.h>

#include <rte_log.h>

#include <ntb_mailbox.h>
#include <vfn_ntb.h>
#include <vringh_mem.h>

#include "../log.h"
#include "../vfn_ntb_server.h"

extern int vfn_ntb_logtype;
/* Most of what is worth telling a peer can bring about as often as it likes. */
#define NTB_LOG(level, s, fmt, ...) \
	(vfn_log_may(&(s)->log_pace, RTE_LOG_##level) ? \
			rte_log(RTE_LOG_##level, vfn_ntb_logtype, "%s: " fmt "\n", (s)->name, \
				##__VA_ARGS__) : \
			0)

/* What is not answered, or not taken, within this time never will be. */
#define NTB_ANSWER_MS 2000

struct vfn_ntb_server {
	struct vfn_link *link;
	struct vfn_function *fn;
	vfn_endpoint_offer offer;
	struct ntb *ntb;
	struct vringh_io io; /* of its windows */
	char name[64];
	struct vfn_log_pace log_pace;
	unsigned int nb_queues;
	pthread_t thread;
	int stop_fd, epoll_fd, irq_epoll_fd;

	struct ntb_mailbox box;
	bool linked; /* the bridge's link is up, as far as we have seen */
	bool ready;  /* and it is a driver */
	uint64_t deadline_ns;
	uint8_t msix; /* offset of the capability, 0: none */
	uint16_t max_size[VFN_MAX_QUEUES];
	bool vectors;			 /* the driver has its own; else events are virtio-msg's */
	bool has_vectors;		 /* those are set up */
	int irq_fd[VFN_MAX_VECTORS + 1]; /* the function signals it; -1: none */
	bool pending[VFN_MAX_VECTORS + 1];
	int doorbell_fd[VFN_MAX_QUEUES]; /* rings the queue in place of a register; -1: none */
	struct vfn_ntb_notify seen[VFN_MAX_QUEUES];

	/* Any thread, atomically. */
	struct vfn_ntb_info info;
};

/* ---- ntb.c ---- */

/* Registers of the function: 0 or a negative errno value; reads are 0 on failure. */
uint32_t ns_get(struct vfn_ntb_server *s, unsigned int region, uint64_t offset, size_t len);
int ns_set(struct vfn_ntb_server *s, unsigned int region, uint64_t offset, size_t len, uint32_t v);
#define NS_COMMON(field) \
	VFN_REGION_BAR0, VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, field), \
		sizeof(((struct vfn_common_cfg *)NULL)->field)

/* An eventfd for a vector, which becomes an event. */
int ns_irq(struct vfn_ntb_server *s, unsigned int vector, bool on);
int ns_doorbell(struct vfn_ntb_server *s, unsigned int queue, bool on);
/* Sizes are those of queues that were not set up. */
void ns_learn_sizes(struct vfn_ntb_server *s);
void ns_notify(struct vfn_ntb_server *s, unsigned int queue, uint32_t value, size_t len);

/* ---- ntb_msg.c ---- */

/* A message that is as it should be. True: there is an answer. */
bool ns_handle(struct vfn_ntb_server *s, const union vfn_message *msg, union vfn_message *answer);

/* ---- polled.c ---- */

/* What was written to notify the queues since the last look. */
void ns_poll_notify(struct vfn_ntb_server *s);

static inline void
ns_count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

#endif /* VFN_LINK_NTB_H */
