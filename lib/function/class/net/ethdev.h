/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The function's frames come from and go to a DPDK port of the process.
 *
 * wiring_ethdev.c has the port, in control; ethdev_io.c moves frames, on pollers. A queue of the
 * port is used by one poller.
 */

#ifndef VFN_ETHDEV_H
#define VFN_ETHDEV_H

#include <rte_ethdev.h>
#include <rte_mempool.h>

#include "net.h"

/* A receive queue of the port, and where its frames go. */
struct vfn_ethdev_rx {
	struct vfn_work work; /* for the guest's queue */
	uint16_t queue;
	bool filter; /* the guest does not want all frames */
};

/* Changed by control only while no poller has the function's work. */
struct vfn_ethdev {
	bool open; /* the port is ours, configured and started */
	bool link; /* as the port told last */
	bool told; /* the log says why it is not open */
	uint16_t port;
	uint16_t nb_rx;
	uint16_t nb_tx;
	uint32_t max_frame; /* that the port and a buffer take */
	uint64_t owner;
	struct rte_mempool *pool;
	struct vfn_ethdev_rx rx[VFN_MAX_PAIRS];
};

extern const struct vfn_work_ops vfn_ethdev_send_ops, vfn_ethdev_receive_ops;

#endif /* VFN_ETHDEV_H */
