/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The link to a function in another process, which serves it by vfio-user (vfn_endpoint.h): every
 * operation is a message and its answer. Memory has to be a file, which the endpoint maps; kicks
 * and calls are eventfds of the endpoint's. The interrupt pin is as VFIO has it: it is masked each
 * time that it is signalled, until it is set again.
 *
 * The endpoint is not trusted: an answer that is none, or none in time, ends the connection, and
 * every operation fails from then on. That alone does not tell that the endpoint touches nothing
 * any more: it does when it hangs up, see vfn_endpoint_fd().
 *
 * Threads: as vfn_link.h; nobody uses a link that is hung up or closed.
 */

#ifndef VFN_ENDPOINT_LINK_H
#define VFN_ENDPOINT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vfn_endpoint.h>
#include <vfn_link.h>
#include <vfu_client.h>

/**
 * Connect to an endpoint.
 *
 * @param path
 *   Of its socket.
 * @param control
 *   What is decided here, or NULL: the endpoint's operator decides.
 * @param timeout_ms
 *   Bound of every operation.
 * @param patience
 *   Of the endpoint, for all links to it; used for as long as the link. NULL: it is trusted.
 * @param why
 *   Gets the reason, in words, of what has failed.
 * @param link
 *   Set on success; vfn_link_ops.close() disconnects.
 * @return
 *   0; -EBUSY: it has a client; -ENODEV: it is no function that this driver knows, or does not
 *   leave to its client what is to be decided here; or another negative errno value.
 */
int vfn_endpoint_connect(const char *path, const struct vfn_endpoint_control *control,
	unsigned int timeout_ms, struct vfu_patience *patience, char *why, size_t size,
	struct vfn_link **link);

/** A link on which every operation but close() fails. NULL: no memory. */
struct vfn_link *vfn_endpoint_none(void);

/**
 * To be polled for POLLRDHUP only: the endpoint has ended, or hung up, and touches nothing any
 * more. Stays the link's.
 */
int vfn_endpoint_fd(const struct vfn_link *link);

/**
 * Disconnect; every operation but close() fails from then on. An endpoint that answers lets go of
 * everything soon, and then takes another client.
 */
void vfn_endpoint_hang_up(struct vfn_link *link);

#endif /* VFN_ENDPOINT_LINK_H */
