/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * port=ethdev: the function's frames come from and go to a DPDK port of the process.
 *
 * net_ethdev.c has the port, in control; net_ethdev_io.c moves frames, on pollers. A queue of the
 * port is used by one poller, see work_start().
 */

#ifndef VFN_NET_ETHDEV_H
#define VFN_NET_ETHDEV_H

#include <rte_ethdev.h>
#include <rte_mempool.h>

#include "net.h"

/* A receive queue of the port, and where its frames go. */
struct vfn_ethdev_rx {
	struct vfn_job job;
	const struct vfn_ethdev *dev;
	struct vfn_queue *to;
	struct vfn_poller *poller;
	uint16_t queue;
	bool filter; /* to's function does not want all frames */
};

/* Changed by control only while no poller has the function's work. */
struct vfn_ethdev {
	bool open;    /* the port is ours, configured and started */
	bool link;    /* as the port told last */
	bool leaving; /* the port is being removed */
	bool told;    /* the log says why it is not open */
	uint16_t port;
	uint16_t nb_rx;
	uint16_t nb_tx;
	uint32_t max_frame; /* that the port and a buffer take */
	uint64_t owner;
	struct rte_mempool *pool;
	struct vfn_ethdev_rx rx[VFN_MAX_PAIRS];
};

/* The job of a port's receive queue. */
bool vfn_ethdev_arm(struct vfn_job *job);
unsigned int vfn_ethdev_receive(struct vfn_job *job);

#endif /* VFN_NET_ETHDEV_H */
