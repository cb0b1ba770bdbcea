/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The block class (virtio 1.3, 5.2), as both sides of every link see it. Its device configuration
 * is struct virtio_blk_config.
 */

#ifndef VFN_BLK_H
#define VFN_BLK_H

#include "vfn_regs.h"

#define VFN_BLK_DEVICE_ID 2 /* 5.2.1 */

#define VFN_BLK_MAX_QUEUES 64

/** Unit of sectors, capacity and positions, whatever the block size (5.2.4). */
#define VFN_BLK_SECTOR 512u

/**
 * Counters of a queue, behind those of VFN_QUEUE_STATS. X(symbol, name). A request is counted when
 * it ends; what was refused or failed is in "errors_" besides.
 */
/* clang-format off */
#define VFN_BLK_STATS(X) \
	X(READS, "reads") \
	X(WRITES, "writes") \
	X(FLUSHES, "flushes") \
	X(DISCARDS, "discards") \
	X(ZEROES, "write_zeroes") \
	X(IDS, "get_ids") \
	X(OTHERS, "others") /* types that are not known */ \
	X(READ_BYTES, "read_bytes") \
	X(WRITE_BYTES, "write_bytes") \
	X(DISCARD_BYTES, "discard_bytes") \
	X(ZERO_BYTES, "write_zeroes_bytes") \
	X(AGAIN, "again") /* requests that a predecessor left in flight */ \
	X(BOUNCED, "bounced") /* requests whose data was not aligned for the back-end */ \
	X(ERRORS_STATUS, "errors_status") /* no room for the status: no request */ \
	X(ERRORS_BLK_HEADER, "errors_header") /* too short for the header */ \
	X(ERRORS_BLK_DIRECTION, "errors_direction") /* data to be read where it is to be written, or the other way */ \
	X(ERRORS_TYPE, "errors_type") /* not known, not offered, or with flags that are not */ \
	X(ERRORS_RANGE, "errors_range") /* past the disk's end */ \
	X(ERRORS_UNALIGNED, "errors_unaligned") /* not a multiple of the block size */ \
	X(ERRORS_READ_ONLY, "errors_read_only") \
	X(ERRORS_SEGMENTS, "errors_segments") /* none to discard or zero, too many, or too long */ \
	X(ERRORS_SPACE, "errors_space") /* the back-end is full */ \
	X(ERRORS_IO, "errors_io") /* the back-end failed */
/* clang-format on */

enum vfn_blk_stat {
	VFN_BLK_STAT_BEFORE = VFN_STAT_CLASS - 1,
#define X(symbol, name) VFN_STAT_##symbol,
	VFN_BLK_STATS(X)
#undef X
		VFN_BLK_STAT_MAX
};
_Static_assert(VFN_BLK_STAT_MAX <= VFN_STATS_MAX, "too many counters");

#endif /* VFN_BLK_H */
