/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A link behind an IOMMU around the one that vfn_function_open() makes: with VFN_POSTED=iommu in
 * the environment what the driver maps is at other addresses for the function, which has to ask for
 * each page, and is answered by a thread.
 */

#ifndef IOMMU_LINK_H
#define IOMMU_LINK_H

#include <stdbool.h>

#include <stdint.h>

#include <vfn_link.h>

/* Is it so? */
bool over_iommu(void);

struct vfn_link *iommu_link(struct vfn_link *real);

/* The one that it is around. */
struct vfn_link *iommu_real(struct vfn_link *link);

/* The driver unmaps; what is still there is asked for again. 0, 0: all. */
int iommu_invalidate(struct vfn_link *link, uint64_t iova, uint64_t len);

#endif /* IOMMU_LINK_H */
