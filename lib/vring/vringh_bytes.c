/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The bytes of chains: out, in, and from one chain into another. Runs on the thread that owns
 * the queues.
 */

#include "vringh_core.h"

/* Bytes that go from one IO window to another pass through here. */
#define IO_PIECE 256

/* The current piece of a chain, *len cut to it; NULL at its end. */
static uint8_t *
iter_piece(struct vringh_iter *it, size_t *len, uint32_t perm)
{
	const struct vringh_seg *seg;

	while (it->nb_segs > 0 && it->off == it->seg->len) {
		it->seg++;
		it->nb_segs--;
		it->off = 0;
	}
	if (it->nb_segs == 0)
		return NULL;
	seg = it->seg;
	if (*len > seg->len - it->off)
		*len = seg->len - it->off;
	if (it->mem != NULL && it->mem->kind == VRINGH_MEM_IOTLB && seg->gen != it->mem->gen) {
		/* Something was unmapped since the fetch. */
		struct vringh_region hit = {0};
		enum vringh_error error;
		uint32_t n = *len;
		uint8_t *host;

		host = vringh_mem_find(it->mem, &hit, seg->iova + it->off, &n, perm, &error);
		*len = n;
		return host;
	}
	return seg->addr + it->off;
}

static bool
is_io(const struct vringh_iter *it)
{
	return it->mem != NULL && it->mem->kind == VRINGH_MEM_IOMEM;
}

size_t
vringh_copy(struct vringh_iter *dst, struct vringh_iter *src, size_t len)
{
	uint8_t piece[IO_PIECE];
	size_t done = 0;

	while (done < len) {
		size_t n = len - done;
		uint8_t *from = iter_piece(src, &n, VRINGH_PERM_READ);
		uint8_t *to = from != NULL ? iter_piece(dst, &n, VRINGH_PERM_WRITE) : NULL;

		if (to == NULL)
			break;
		if (is_io(src) && is_io(dst)) {
			if (n > sizeof(piece))
				n = sizeof(piece);
			vringh_io_read(src->mem, piece, from, n);
			vringh_io_write(dst->mem, to, piece, n);
		} else if (is_io(src)) {
			vringh_io_read(src->mem, to, from, n);
		} else if (is_io(dst)) {
			vringh_io_write(dst->mem, to, from, n);
		} else {
			mem_copy(to, from, n);
		}
		src->off += n;
		dst->off += n;
		done += n;
	}
	return done;
}

size_t
vringh_pull_pieces(struct vringh_iter *it, void *dst, uint32_t len)
{
	struct vringh_seg seg = {.addr = dst, .len = len};
	struct vringh_iter to = {.seg = &seg, .nb_segs = 1};

	return vringh_copy(&to, it, len);
}

size_t
vringh_push_pieces(struct vringh_iter *it, const void *src, uint32_t len)
{
	struct vringh_seg seg = {.addr = (uint8_t *)(uintptr_t)src, .len = len};
	struct vringh_iter from = {.seg = &seg, .nb_segs = 1};

	return vringh_copy(it, &from, len);
}
