/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Tables of regions: look-up, translation tables that change, and copies to and from IO windows.
 * Runs on the thread that owns the memory.
 */

#include <string.h>

#include "vringh_core.h"

/* The first region that ends behind an address: its index, nb_regions if there is none. */
static uint32_t
region_search(const struct vringh_mem *mem, uint64_t iova)
{
	uint32_t lo = 0, hi = mem->nb_regions;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const struct vringh_region *r = &mem->table[mid];

		if (iova > r->iova && iova - r->iova >= r->len)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Do two translations that follow each other lead where one of both would? */
static bool
adjoins(const struct vringh_region *a, const struct vringh_region *b)
{
	return b->iova - a->iova == a->len && b->host == a->host + a->len &&
		b->dirty - a->dirty == a->len && b->perm == a->perm;
}

/*
 * A translation, with so many behind it that a range ends in there if that can be: front-ends tell
 * of a page at a time, and buffers lie across two. Nothing is kept of a hit when anything is
 * unmapped.
 */
static struct vringh_region
region_run(const struct vringh_mem *mem, uint32_t i, uint64_t iova, uint32_t len)
{
	struct vringh_region run = mem->table[i];

	while (run.len - (iova - run.iova) < len && ++i < mem->nb_regions &&
		adjoins(&run, &mem->table[i]))
		run.len += mem->table[i].len;
	return run;
}

uint8_t *
vringh_mem_find(const struct vringh_mem *mem, struct vringh_region *hit, uint64_t iova,
	uint32_t *len, uint32_t perm, enum vringh_error *error)
{
	if (iova - hit->iova >= hit->len ||
		(mem->kind == VRINGH_MEM_IOTLB && *len > hit->len - (iova - hit->iova))) {
		uint32_t i = region_search(mem, iova);

		if (i == mem->nb_regions || iova - mem->table[i].iova >= mem->table[i].len) {
			*error = mem->kind == VRINGH_MEM_IOTLB ? VRINGH_E_MISS : VRINGH_E_ADDR;
			return NULL;
		}
		if ((mem->table[i].perm & perm) != perm) {
			*error = VRINGH_E_PERM;
			return NULL;
		}
		*hit = mem->kind == VRINGH_MEM_IOTLB ? region_run(mem, i, iova, *len) :
						       mem->table[i];
	}
	if (*len > hit->len - (iova - hit->iova))
		*len = hit->len - (iova - hit->iova);
	return hit->host + (iova - hit->iova);
}

int
vringh_iotlb_map(struct vringh_mem *mem, const struct vringh_region *region)
{
	uint32_t i;

	if (region->len == 0 || region->iova + (region->len - 1) < region->iova)
		return -VRINGH_E_RANGE;
	i = region_search(mem, region->iova);
	if (i < mem->nb_regions &&
		(mem->table[i].iova <= region->iova ||
			mem->table[i].iova - region->iova < region->len))
		return -VRINGH_E_OVERLAP;
	if (mem->nb_regions == mem->max_regions)
		return -VRINGH_E_FULL;
	memmove(&mem->table[i + 1], &mem->table[i], (mem->nb_regions - i) * sizeof(*mem->table));
	mem->table[i] = *region;
	mem->nb_regions++;
	return 0;
}

uint32_t
vringh_iotlb_unmap(struct vringh_mem *mem, uint64_t iova, uint64_t len)
{
	uint64_t last = len == 0 && iova == 0 ? UINT64_MAX : iova + (len - 1);
	uint32_t from = region_search(mem, iova), to = from;

	if (len == 0 && iova != 0)
		return 0;
	/* What wraps ends at the top. */
	if (last < iova)
		last = UINT64_MAX;
	while (to < mem->nb_regions && mem->table[to].iova <= last)
		to++;
	if (to == from)
		return 0;
	memmove(&mem->table[from], &mem->table[to], (mem->nb_regions - to) * sizeof(*mem->table));
	mem->nb_regions -= to - from;
	mem->gen++;
	return to - from;
}

/* The largest access, up to 8 bytes, that is aligned and not longer than what is left. */
static size_t
io_width(const uint8_t *p, size_t len)
{
	size_t width = sizeof(uint64_t);

	while ((uintptr_t)p % width != 0 || width > len)
		width /= 2;
	return width;
}

void
vringh_io_read(const struct vringh_mem *mem, void *dst, const uint8_t *src, size_t len)
{
	uint8_t *to = dst;

	io_invalidate(mem, src, len);
	while (len > 0) {
		size_t width = io_width(src, len);
		uint64_t v;

		switch (width) {
		case 8:
			/* As nearly all is. */
			for (; len > 2 * width; len -= width, src += width, to += width) {
				v = mem_load64(src);
				memcpy(to, &v, width);
			}
			v = mem_load64(src);
			break;
		case 4:
			v = mem_load32(src);
			break;
		case 2:
			v = mem_load16((const void *)src);
			break;
		default:
			v = mem_load8(src);
		}
		memcpy(to, &v, width);
		to += width;
		src += width;
		len -= width;
	}
}

void
vringh_io_write(const struct vringh_mem *mem, uint8_t *dst, const void *src, size_t len)
{
	const uint8_t *from = src;
	uint8_t *start = dst;
	size_t left;

	for (left = len; left > 0;) {
		size_t width = io_width(dst, left);
		uint64_t v = 0;

		memcpy(&v, from, width);
		switch (width) {
		case 8:
			for (; left > 2 * width; left -= width, dst += width) {
				mem_store64(dst, v);
				memcpy(&v, from += width, width);
			}
			mem_store64(dst, v);
			break;
		case 4:
			mem_store32(dst, v);
			break;
		case 2:
			mem_store16((void *)dst, v);
			break;
		default:
			mem_store8(dst, v);
		}
		from += width;
		dst += width;
		left -= width;
	}
	io_flush(mem, start, len);
}

#ifdef VRINGH_ACCESS_POINTERS

static uint8_t
plain_load8(const void *p)
{
	return __atomic_load_n((const uint8_t *)p, __ATOMIC_RELAXED);
}

static uint16_t
plain_load16(const void *p)
{
	return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}

static uint32_t
plain_load32(const void *p)
{
	return __atomic_load_n((const u32_alias *)p, __ATOMIC_RELAXED);
}

static uint64_t
plain_load64(const void *p)
{
	return __atomic_load_n((const u64_alias *)p, __ATOMIC_RELAXED);
}

static struct vringh_words
plain_load_words(const void *p)
{
	return (struct vringh_words){plain_load64(p), plain_load64((const uint8_t *)p + 8)};
}

static void
plain_store8(void *p, uint8_t v)
{
	__atomic_store_n((uint8_t *)p, v, __ATOMIC_RELAXED);
}

static void
plain_store16(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED);
}

static void
plain_store32(void *p, uint32_t v)
{
	__atomic_store_n((u32_alias *)p, v, __ATOMIC_RELAXED);
}

static void
plain_store64(void *p, uint64_t v)
{
	__atomic_store_n((u64_alias *)p, v, __ATOMIC_RELAXED);
}

static void
plain_copy(void *dst, const void *src, size_t len)
{
	memmove(dst, src, len);
}

const struct vringh_accessors vringh_plain_accessors = {
	.load8 = plain_load8,
	.load16 = plain_load16,
	.load32 = plain_load32,
	.load64 = plain_load64,
	.load_words = plain_load_words,
	.store8 = plain_store8,
	.store16 = plain_store16,
	.store32 = plain_store32,
	.store64 = plain_store64,
	.copy = plain_copy,
};
const struct vringh_accessors *vringh_accessors = &vringh_plain_accessors;

#endif /* VRINGH_ACCESS_POINTERS */
