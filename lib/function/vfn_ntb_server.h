/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The operator's face of a function of this process behind a non-transparent bridge. Its driver is
 * at the bridge's other side, see lib/link/vfn_ntb.h; what it sends is not trusted.
 *
 * Threads: any but a poller.
 */

#ifndef VFN_NTB_SERVER_H
#define VFN_NTB_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "vfn_endpoint_server.h"

struct ntb;
struct vfn_ntb_server;

/** How a function is served. */
struct vfn_ntb_server_params {
	const char *name; /**< For the log and the thread; copied. */
	/** Nobody else controls its link; stays the caller's, and is closed after. */
	struct ntb *ntb;
	/** Control is the driver's: vfn_manage_net_offer(). NULL: the operator's. */
	vfn_endpoint_offer offer;
};

/**
 * Serve a function, on a thread of its own, until vfn_ntb_server_close(): one driver after another.
 *
 * @param link
 *   To the function. Nobody else uses it meanwhile; it stays the caller's.
 * @param fn
 *   For params->offer. May be NULL without it.
 * @return
 *   0; -ENODEV: the link's end is no such function; or the error of starting a thread.
 */
int vfn_ntb_serve(struct vfn_link *link, struct vfn_function *fn,
	const struct vfn_ntb_server_params *params, struct vfn_ntb_server **server);

/** The function is reset, and the link is down, on return. NULL: nothing. */
void vfn_ntb_server_close(struct vfn_ntb_server *server);

/** How it is used. */
struct vfn_ntb_info {
	bool driver;	   /**< There is one. */
	uint64_t drivers;  /**< That there were. */
	uint64_t messages; /**< Of them. */
	uint64_t refused;  /**< Of those, that were no good. */
	uint64_t notified; /**< Notifications of queues. */
};

void vfn_ntb_server_info(struct vfn_ntb_server *server, struct vfn_ntb_info *info);

#endif /* VFN_NTB_SERVER_H */
