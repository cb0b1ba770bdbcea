/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Memory of a pretended guest: regions at chosen bus addresses, each in an allocation of its
 * own, or in one window whose gaps cannot be touched, so that any access beside them is seen.
 * It shows itself to the device as any kind of memory. Not thread-safe while regions are added,
 * moved or removed.
 */

#ifndef MOCK_MEM_H
#define MOCK_MEM_H

#include "vringh.h"

#define MOCK_MAX_REGIONS 64

struct mock_link;

/** All zeros is an empty one that is shown as separate regions. */
struct mock_mem {
	/** Sorted by iova; host is where the driver has it. */
	struct vringh_region region[MOCK_MAX_REGIONS];
	uint32_t nb_regions;
	uint64_t dirty_shift; /**< What the device's dirty log adds to bus addresses; IOTLB only. */

	bool files; /**< Separate regions are files, for links to other processes. */
	uint8_t *block[MOCK_MAX_REGIONS];  /* what to free; NULL in a window */
	int fd[MOCK_MAX_REGIONS];	   /* of a file, -1: none */
	uint8_t *device[MOCK_MAX_REGIONS]; /* where the device has it */
	struct vringh_region window;	   /* len 0: none */
	struct mock_link *link;		   /* NULL: each side sees the other's writes */
	struct vringh_region table[MOCK_MAX_REGIONS];
	struct vringh_mem view;
};

/**
 * Choose the kind in which the device sees the memory, which is empty.
 *
 * @param iova, len
 *   Of the window of VRINGH_MEM_DIRECT, in whole pages.
 * @param link
 *   VRINGH_MEM_IOMEM: what is between the two sides; NULL: nothing. Has to stay.
 * @return
 *   False if there is no room for a window.
 */
bool mock_mem_init(struct mock_mem *mem, enum vringh_mem_kind kind, uint64_t iova, uint64_t len,
	struct mock_link *link);

/**
 * Add a region, filled with zeros. Its offset in a page is that of the bus address; the bus
 * address is never the host address. In a window the device has every right everywhere.
 *
 * @return
 *   Where it is mapped; NULL if there is no room or it overlaps another region.
 */
uint8_t *mock_mem_add(struct mock_mem *mem, uint64_t iova, uint64_t len, uint32_t perm);

/** Remove the region that starts at @p iova. */
void mock_mem_remove(struct mock_mem *mem, uint64_t iova);

/** Change the rights of the region that starts at @p iova. */
void mock_mem_permit(struct mock_mem *mem, uint64_t iova, uint32_t perm);

/** Move every region to another host address; the old memory is scribbled over and freed. */
void mock_mem_move(struct mock_mem *mem);

/** The file of the region that starts at @p iova, -1: none, and its offset there. */
int mock_mem_fd(const struct mock_mem *mem, uint64_t iova, uint64_t *offset);

/** Host address of a range that lies in one region, else NULL. */
uint8_t *mock_mem_at(const struct mock_mem *mem, uint64_t iova, uint64_t len);

/** The same where the device has it. */
uint8_t *mock_mem_device_at(const struct mock_mem *mem, uint64_t iova, uint64_t len);

/** Copy into guest memory, across regions. False if a part is not mapped. */
bool mock_mem_write(struct mock_mem *mem, uint64_t iova, const void *src, uint64_t len);

/** Copy out of guest memory, across regions. False if a part is not mapped. */
bool mock_mem_read(const struct mock_mem *mem, uint64_t iova, void *dst, uint64_t len);

/**
 * What the device gets to see: all regions as they are now. It stays where it is; call this
 * again after every change, and tell the queues.
 */
struct vringh_mem *mock_mem_view(struct mock_mem *mem);

/** The region that starts at @p iova, as it goes into a translation table. */
struct vringh_region mock_mem_region(const struct mock_mem *mem, uint64_t iova);

void mock_mem_free(struct mock_mem *mem);

#endif /* MOCK_MEM_H */
