/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Memory of a pretended guest: regions at chosen bus addresses, each in an allocation of its
 * own, so that an address sanitizer sees every access beside them. Not thread-safe while
 * regions are added, moved or removed.
 */

#ifndef MOCK_MEM_H
#define MOCK_MEM_H

#include "vringh.h"

#define MOCK_MAX_REGIONS 64

struct mock_mem {
	struct vringh_region region[MOCK_MAX_REGIONS]; /**< Sorted by iova. */
	uint8_t *block[MOCK_MAX_REGIONS];	       /**< What to free. */
	uint32_t nb_regions;
};

/**
 * Add a region, filled with zeros. Its offset in a page is that of the bus address; the bus
 * address is never the host address.
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

/** Host address of a range that lies in one region, else NULL. */
uint8_t *mock_mem_at(const struct mock_mem *mem, uint64_t iova, uint64_t len);

/** Copy into guest memory, across regions. False if a part is not mapped. */
bool mock_mem_write(struct mock_mem *mem, uint64_t iova, const void *src, uint64_t len);

/** Copy out of guest memory, across regions. False if a part is not mapped. */
bool mock_mem_read(const struct mock_mem *mem, uint64_t iova, void *dst, uint64_t len);

/** What the device gets to see. */
static inline struct vringh_mem
mock_mem_view(const struct mock_mem *mem)
{
	return (struct vringh_mem){.table = mem->region, .nb_regions = mem->nb_regions};
}

void mock_mem_free(struct mock_mem *mem);

#endif /* MOCK_MEM_H */
