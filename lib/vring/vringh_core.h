/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the library's own files share: the table of instances and the look-up of addresses.
 * Everything runs on the thread that owns the queue.
 */

#ifndef VRINGH_CORE_H
#define VRINGH_CORE_H

#include "vringh.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio rings are little-endian");

#define vringh_likely(x)   __builtin_expect(!!(x), 1)
#define vringh_unlikely(x) __builtin_expect(!!(x), 0)
#define vringh_inline	   inline __attribute__((always_inline))

/* AVAIL and USED bits of a packed descriptor (2.8.1). */
#define PACKED_AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED  (1 << VRING_PACKED_DESC_F_USED)
#define PACKED_BOTH  (PACKED_AVAIL | PACKED_USED)

/* Wrap counter in the high bit of a saved position (2.9). */
#define PACKED_WRAP 0x8000

/* One instance of the core: a format, chosen once per burst. */
struct vringh_ops {
	int (*fetch)(struct vringh *vr, struct vringh_batch *batch, unsigned int max);
	void (*complete)(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);
};

extern const struct vringh_ops vringh_instances[2]; /* [packed] */

/*
 * Find the region of an address and make it the last hit.
 * *len is cut to what the region holds from there. NULL with *error set when refused.
 */
uint8_t *vringh_mem_find(
	struct vringh *vr, uint64_t iova, uint32_t *len, uint32_t perm, enum vringh_error *error);

/* Address of a range that lies wholly in the region that was hit last, else NULL. */
static vringh_inline uint8_t *
vringh_mem_hit(const struct vringh *vr, uint64_t iova, uint32_t len, uint32_t perm)
{
	const struct vringh_region *r = vr->hit;
	uint64_t off = iova - r->iova;

	if (vringh_likely(off < r->len && len <= r->len - off && (r->perm & perm) == perm))
		return r->host + off;
	return NULL;
}

#endif /* VRINGH_CORE_H */
