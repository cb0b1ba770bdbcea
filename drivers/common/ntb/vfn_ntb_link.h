/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The link to a function at the other side of a non-transparent bridge (vfn_ntb.h). Registers that
 * virtio-msg has a message for go by that, the rest by messages of the bus; a read waits for its
 * answer, a write does not. Only memory of the windows can be mapped, each the way that it goes:
 * what the function reads is in the window out, what it writes in the window in.
 *
 * The other side is not trusted: an answer that is none, or none in time, takes the link down, and
 * every operation fails from then on. Nothing of ours is touched any more then.
 *
 * Threads: as vfn_link.h. A thread of the link's receives, and rings doorbells for eventfds.
 */

#ifndef VFN_NTB_LINK_H
#define VFN_NTB_LINK_H

#include <stddef.h>

#include <vfn_endpoint.h>
#include <vfn_link.h>
#include <vfn_ntb.h>

/**
 * Connect to a device.
 *
 * @param ntb
 *   Not enabled yet. Taken over: closed with the link, and on failure.
 * @param control
 *   What is decided here, or NULL: the device's operator decides.
 * @param meet_ms
 *   How long the device may take to come.
 * @param timeout_ms
 *   Bound of every operation.
 * @param why
 *   Gets the reason, in words, of what has failed.
 * @param link
 *   Set on success; vfn_link_ops.close() disconnects.
 * @return
 *   0; -ETIMEDOUT: nobody is there; -ENODEV: who is there is no such device, or does not leave to
 *   its driver what is to be decided here; or another negative errno value.
 */
int vfn_ntb_connect(struct ntb *ntb, const struct vfn_endpoint_control *control,
	unsigned int meet_ms, unsigned int timeout_ms, char *why, size_t size,
	struct vfn_link **link);

/** Its bridge, for what is behind the control area. */
struct ntb *vfn_ntb_bridge(const struct vfn_link *link);

/** To be polled for POLLIN only: the link is down, for good. Stays the link's. */
int vfn_ntb_fd(const struct vfn_link *link);

/** Disconnect; every operation but close() fails from then on. */
void vfn_ntb_hang_up(struct vfn_link *link);

#endif /* VFN_NTB_LINK_H */
