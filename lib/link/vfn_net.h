/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The net class (virtio 1.3, 5.1), as both sides of every link see it. Its device configuration
 * is struct virtio_net_config. While no control queue is enabled, as behind a front-end that keeps
 * it to itself, every receive queue that is enabled is used.
 */

#ifndef VFN_NET_H
#define VFN_NET_H

#include "vfn_regs.h"

#define VFN_NET_DEVICE_ID 1 /* 5.1.1 */

#define VFN_MAX_PAIRS 64
_Static_assert(2 * VFN_MAX_PAIRS + 1 == VFN_MAX_QUEUES, "pairs and the control queue");

/** Counters of a queue, behind those of VFN_QUEUE_STATS. X(symbol, name). */
/* clang-format off */
#define VFN_NET_STATS(X) \
	X(PACKETS, "packets") /* frames taken from, or put into, the queue */ \
	X(BYTES, "bytes") /* of those, without the virtio-net header */ \
	X(DROPPED_NO_BUFFER, "dropped_no_buffer") /* the receiver had no room for a second */ \
	X(DROPPED_NO_PEER, "dropped_no_peer") /* nobody receives on the other side */ \
	X(DROPPED_SIZE, "dropped_size") /* empty, runt or larger than the receiver takes */ \
	X(DROPPED_OFFLOAD, "dropped_offload") /* the receiver wants segments; cannot be made */ \
	X(DROPPED_FILTER, "dropped_filter") /* address or VLAN that the receiver does not want */ \
	X(ERRORS_HEADER, "errors_header") /* chain too short for it, or offload fields invalid */ \
	X(ERRORS_DIRECTION, "errors_direction") /* receive chain not writable, transmit not readable */ \
	X(SEGMENTED, "segmented") /* frames cut up for a receiver that does not do it itself */ \
	X(SEGMENTS, "segments") /* what they became */
/* clang-format on */

enum vfn_net_stat {
	VFN_NET_STAT_BEFORE = VFN_STAT_CLASS - 1,
#define X(symbol, name) VFN_STAT_##symbol,
	VFN_NET_STATS(X)
#undef X
		VFN_NET_STAT_MAX
};
_Static_assert(VFN_NET_STAT_MAX <= VFN_STATS_MAX, "too many counters");

/** Bytes of the largest frame, without FCS, that needs no segmentation offload. */
#define VFN_MAX_PLAIN_FRAME 65534u

#endif /* VFN_NET_H */
