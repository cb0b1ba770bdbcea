/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The memory that a device reaches: kinds, tables of regions, and translation tables that change.
 *
 * A struct vringh_mem has one owner at a time, that of the virtqueues which use it.
 */

#ifndef VRINGH_MEM_H
#define VRINGH_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "vringh_error.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** What a region may be used for, seen from the device. */
enum vringh_perm {
	VRINGH_PERM_READ = 1,  /**< The device may read. */
	VRINGH_PERM_WRITE = 2, /**< The device may write. */
	VRINGH_PERM_RW = 3,
};

/** A range of bus addresses and the memory behind it. */
struct vringh_region {
	uint64_t iova;	/**< First bus address. */
	uint64_t len;	/**< Bytes; the last one is at most at 2^64 - 1. */
	uint8_t *host;	/**< Where the range is mapped in this process. */
	uint64_t dirty; /**< What the dirty log calls the first byte; VRINGH_MEM_IOTLB only. */
	uint32_t perm;	/**< enum vringh_perm. */
};

/** How memory is reached. */
enum vringh_mem_kind {
	VRINGH_MEM_DIRECT, /**< One contiguous mapping, the table's only entry. */
	/**
	 * A table of guest-physical regions; the last hit is tried first. What is in no region is
	 * refused: the windows that a protected guest shares, and bounces its buffers through, are
	 * such a table and need no more.
	 */
	VRINGH_MEM_REGION,
	/**
	 * A table of IOVA ranges that changes at any time, see vringh_iotlb_map(). An address
	 * that is not in it is a miss.
	 */
	VRINGH_MEM_IOTLB,
	/**
	 * IO windows: reached by naturally aligned accesses of 1, 2, 4 or 8 bytes only; bytes in
	 * buffers only by vringh_pull(), vringh_push() and vringh_copy().
	 */
	VRINGH_MEM_IOMEM,
	VRINGH_MEM_MAX,
};

/** What a link needs whose two sides do not see each other's writes by themselves. */
struct vringh_io {
	/** Before a range is read that the other side may have written. May be NULL. */
	void (*invalidate)(void *arg, const void *addr, size_t len);
	/**
	 * After a range was written, before anything is written that announces it. With length 0:
	 * what was written elsewhere is ordered before what follows. May be NULL.
	 */
	void (*flush)(void *arg, const void *addr, size_t len);
	void *arg;
};

/**
 * The memory that a device can reach. Several virtqueues may share it.
 *
 * Regions are sorted by iova and do not overlap; no two host ranges need to be adjacent. A
 * buffer or an indirect table may cross from one region into the next.
 */
struct vringh_mem {
	enum vringh_mem_kind kind;
	uint32_t nb_regions;
	struct vringh_region *table; /**< The owner's. Copied from, not kept pointers into. */
	const struct vringh_io *io;  /**< VRINGH_MEM_IOMEM: NULL for a coherent link. */
	uint32_t max_regions;	     /**< VRINGH_MEM_IOTLB: room in table. */
	uint32_t gen;		     /**< VRINGH_MEM_IOTLB: changes with every unmap. Private. */
};

/**
 * Add a range to a translation table.
 *
 * @return
 *   0; -VRINGH_E_RANGE if it is empty or wraps; -VRINGH_E_OVERLAP if it overlaps another;
 *   -VRINGH_E_FULL if the table is full.
 */
int vringh_iotlb_map(struct vringh_mem *mem, const struct vringh_region *region);

/**
 * Remove every range that has a byte in [iova, iova + len) from a translation table; 0, 0 removes
 * all.
 *
 * Chains in flight stay: vringh_pull(), vringh_push() and vringh_copy() translate what is left of
 * them anew, and end where that fails. Segments must not be used in place any more. Each
 * virtqueue that uses the table must be told by vringh_set_mem() before its next use.
 *
 * @return Number of ranges removed.
 */
uint32_t vringh_iotlb_unmap(struct vringh_mem *mem, uint64_t iova, uint64_t len);

/** An address that was not found, and what it was wanted for. */
struct vringh_miss {
	uint64_t iova;
	uint32_t perm; /**< enum vringh_perm. */
};

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* VRINGH_MEM_H */
