/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The operator's face of functions of the net class in this process.
 *
 * Threads: any but a poller. Calls for one function are serialised by it.
 */

#ifndef VFN_NET_FUNCTION_H
#define VFN_NET_FUNCTION_H

#include <vfn_endpoint.h>
#include <vfn_net.h>

#include "vfn_function.h"

/** The class, for vfn_function_params.class. */
extern const struct vfn_class vfn_net_class;

/** What is at a function's other end. */
enum vfn_wiring {
	VFN_WIRING_LOOPBACK, /**< What the guest sends comes back on the same queue pair. */
	VFN_WIRING_WIRE,     /**< What the guest sends the peer receives. */
	VFN_WIRING_SINK,     /**< What the guest sends is counted and gone. */
	VFN_WIRING_ETHDEV,   /**< What the guest sends goes to a DPDK port, and the other way. */
	VFN_WIRING_GEN,	     /**< As the sink, and the guest receives as much as it can. */
};

/** What a function offers to do for its driver, and to leave to it. */
enum vfn_offloads {
	VFN_OFFLOADS_ALL,  /**< Checksums and segmentation. */
	VFN_OFFLOADS_CSUM, /**< Checksums. */
	VFN_OFFLOADS_OFF,  /**< Nothing: every frame is whole. */
};

/** A kind of wiring, and what it needs. */
struct vfn_net_wiring_params {
	enum vfn_wiring kind;
	char peer[VFN_NAME_SIZE];   /**< Wire: name of the other end, or "" if that one names us. */
	char ethdev[VFN_NAME_SIZE]; /**< Ethdev: name of the DPDK port. */
	uint32_t gen;		    /**< Gen: bytes of each frame, 14 to VFN_MAX_PLAIN_FRAME. */
};

/** For vfn_function_params.class_params. */
struct vfn_net_params {
	uint16_t max_pairs; /**< 1 to VFN_MAX_PAIRS. */
	/**
	 * Largest size that drivers are told of receive and transmit queues, a power of two; 0:
	 * VRINGH_MAX_SIZE. A hypervisor decides on sizes itself, others take the largest.
	 */
	uint16_t queue_size;
	uint8_t mac[6];
	uint16_t mtu; /**< 68 to 65535, or 0: not offered. */
	struct vfn_net_wiring_params wiring;
	enum vfn_offloads offloads;
	uint32_t rate_mbps; /**< Of what the guest sends, at most; 0: no limit. */
};

/** The highest limit that can be set, in Mbit/s. */
#define VFN_NET_RATE_MAX 1000000u

/** Why nothing passes. */
enum vfn_link_down {
	VFN_LINK_UP,
	VFN_LINK_NO_PEER,	 /**< There is no function at the other end of the wire. */
	VFN_LINK_UNPLUGGED,	 /**< By the operator. */
	VFN_LINK_PEER_UNPLUGGED, /**< The function at the other end, by the operator. */
	VFN_LINK_NO_PORT,	 /**< The DPDK port is not there, or not opened. */
	VFN_LINK_PORT_DOWN,	 /**< The DPDK port's own link is. */
	VFN_LINK_DOWN_MAX,
};

enum vfn_link_down vfn_manage_link_down(struct vfn_function *fn);

/** Plug the cable in, or pull it: then nothing passes either way. The guest sees that. */
void vfn_manage_link(struct vfn_function *fn, bool up);

/**
 * Have the guest announce itself to the network (5.1.6.5.4), or take that back: it has.
 *
 * @return
 *   0, or -ENOTSUP: its driver did not negotiate VIRTIO_NET_F_GUEST_ANNOUNCE.
 */
int vfn_manage_announce(struct vfn_function *fn, bool on);

/**
 * Another MTU. A smaller one holds at once, a larger one from the next negotiation on.
 *
 * @return
 *   0; -EINVAL outside 68 to 65535; -ENOTSUP if none was offered.
 */
int vfn_manage_mtu(struct vfn_function *fn, uint32_t mtu);

/**
 * Another MAC address. The guest has it from its next negotiation on.
 *
 * @return
 *   0, or -EINVAL: not an address that one station may have.
 */
int vfn_manage_mac(struct vfn_function *fn, const uint8_t mac[6]);

/** Another limit of what the guest sends, in Mbit/s; 0: none. 0, or -ENOMEM. */
int vfn_manage_rate(struct vfn_function *fn, uint32_t mbps);

/**
 * Another other end. What the guest has sent and nobody has received waits, and goes there.
 *
 * @return
 *   0; -EBUSY if it is taken; -EINVAL for a wire to itself; -ENOTSUP where a DPDK port would get
 *   frames to be segmented, which its guest was offered; -ENOMEM. Nothing has changed then.
 */
int vfn_manage_wiring(struct vfn_function *fn, const struct vfn_net_wiring_params *wiring);

/**
 * Have a client decide what the function offers, within what it was made with: see
 * vfn_endpoint_offer. A mtu is offered also by a function that was made without.
 *
 * @param offer
 *   NULL: what it was made with, if now is NULL, too.
 * @param now
 *   Filled with what is in force then. NULL: nobody wants to know.
 * @return
 *   0; -EBUSY: a driver has the function; -EINVAL: it cannot be. Nothing has changed then.
 */
int vfn_manage_net_offer(struct vfn_function *fn, const struct vfn_endpoint_control *offer,
	struct vfn_endpoint_control *now);

#endif /* VFN_NET_FUNCTION_H */
