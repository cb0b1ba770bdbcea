/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The bytes of chains: out, in, and from one chain into another, whatever the memory. Runs on the
 * thread that owns the virtqueues.
 */

#ifndef VRINGH_BYTES_H
#define VRINGH_BYTES_H

#include "vringh.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** A place in a chain's readable or writable bytes. */
struct vringh_iter {
	const struct vringh_seg *seg;
	const struct vringh_mem *mem; /**< NULL: bytes are where the segments say. */
	uint32_t nb_segs;	      /**< Segments left, the current one included. */
	uint32_t off;		      /**< Bytes of the current segment already passed. */
};

/** Iterator over the bytes that the device may read. */
static inline struct vringh_iter
vringh_iter_read(const struct vringh *vr, const struct vringh_chain *chain)
{
	struct vringh_iter it = {chain->seg, vr->seg_mem, chain->nb_read, 0};

	return it;
}

/** Iterator over the bytes that the device may write. */
static inline struct vringh_iter
vringh_iter_write(const struct vringh *vr, const struct vringh_chain *chain)
{
	struct vringh_iter it = {chain->seg + chain->nb_read, vr->seg_mem, chain->nb_write, 0};

	return it;
}

/* Are the next bytes in one piece that may be accessed in place? */
static inline bool
vringh_iter_flat(const struct vringh_iter *it, uint32_t len)
{
#ifdef VRINGH_ACCESS_POINTERS
	return false; /* every access is to be seen */
#endif
	return it->nb_segs > 0 && it->seg->len - it->off >= len &&
		(it->mem == NULL ||
			(it->mem->kind == VRINGH_MEM_IOTLB && it->seg->gen == it->mem->gen));
}

/* Private: what is not in one piece. */
size_t vringh_pull_pieces(struct vringh_iter *it, void *dst, uint32_t len);
size_t vringh_push_pieces(struct vringh_iter *it, const void *src, uint32_t len);

/**
 * Copy bytes out of a chain.
 * @return Bytes copied, less than @p len at the end of the chain, or of what is still mapped.
 */
static inline size_t
vringh_pull(struct vringh_iter *it, void *dst, uint32_t len)
{
	if (!vringh_iter_flat(it, len))
		return vringh_pull_pieces(it, dst, len);
	__builtin_memcpy(dst, it->seg->addr + it->off, len);
	it->off += len;
	return len;
}

/**
 * Copy bytes into a chain.
 * @return Bytes copied, less than @p len at the end of the chain, or of what is still mapped.
 */
static inline size_t
vringh_push(struct vringh_iter *it, const void *src, uint32_t len)
{
	if (!vringh_iter_flat(it, len))
		return vringh_push_pieces(it, src, len);
	__builtin_memcpy(it->seg->addr + it->off, src, len);
	it->off += len;
	return len;
}

/**
 * Copy bytes from one chain into another: the one copy between two queues, whatever their
 * formats and memories.
 * @return Bytes copied, less than @p len where either ends.
 */
size_t vringh_copy(struct vringh_iter *dst, struct vringh_iter *src, size_t len);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* VRINGH_BYTES_H */
