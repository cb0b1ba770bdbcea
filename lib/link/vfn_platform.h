/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A platform's say in what of its guest's memory a device reaches, and how. It is asked wherever
 * that memory comes in: by a function, of what its driver maps (vfn_manage_platform()), and by a
 * driver that reaches the memory itself. Nothing is reached that it has not let pass.
 *
 * Threads: any; one at a time for a platform.
 */

#ifndef VFN_PLATFORM_H
#define VFN_PLATFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "vfn_link.h"

struct vfn_platform {
	/**
	 * The first part of a map of VFN_DMA_GUEST that the device may reach, and how.
	 *
	 * @param map
	 *   What is to be mapped, or what is left of it. Changed to the part: a range within it
	 *   (vfn_dma_map_cut()), with other rights, other memory in host, or the hooks of a window
	 *   in io. host is NULL where it is not mapped yet.
	 * @return
	 *   1; 0 if nothing of it may be reached; or a negative errno value, and the map is
	 * refused.
	 */
	int (*map)(struct vfn_platform *platform, struct vfn_dma_map *map);
};

/**
 * The next part of a map.
 *
 * @param platform
 *   NULL lets all pass.
 * @param rest
 *   The map; becomes what is behind the part, which may be nothing.
 * @return
 *   1, with the part; 0: there is none; -EINVAL if what the platform says is not within the map; or
 *   the platform's refusal.
 */
int vfn_platform_next(
	struct vfn_platform *platform, struct vfn_dma_map *rest, struct vfn_dma_map *part);

/** Narrow a map to [iova, iova + len), which is within it. */
void vfn_dma_map_cut(struct vfn_dma_map *map, uint64_t iova, uint64_t len);

#define VFN_POOL_RANGES 8

/** A range of guest-physical addresses. */
struct vfn_pool_range {
	uint64_t iova;
	uint64_t len; /**< Bytes, at least 1; the last one is at most at 2^64 - 1. */
};

/**
 * The platform of a guest that bounces its buffers (swiotlb): its device reaches their pool, and
 * where its rings are, directly, and nothing else. Initialised by vfn_pool_parse(); may be copied.
 */
struct vfn_pool {
	struct vfn_platform platform;
	unsigned int nb_ranges; /**< 0: it was not initialised. */
	struct vfn_pool_range range[VFN_POOL_RANGES];
};

/**
 * A pool as people write it down: ADDR+LEN, or up to VFN_POOL_RANGES of them in brackets, such as
 * [0x7fff0000+64K,0x80000000+64M]. Numbers are as in C, with K, M, G or T behind them.
 *
 * @return
 *   False if it is none, or ranges are empty, wrap or overlap.
 */
bool vfn_pool_parse(const char *text, struct vfn_pool *pool);

#endif /* VFN_PLATFORM_H */
