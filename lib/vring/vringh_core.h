/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the library's own files share: the table of instances and the look-up of addresses.
 * Everything runs on the thread that owns the queue.
 */

#ifndef VRINGH_CORE_H
#define VRINGH_CORE_H

#include <string.h>

#include "vringh.h"
#include "vringh_access.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio rings are little-endian");

#define vringh_likely(x)   __builtin_expect(!!(x), 1)
#define vringh_unlikely(x) __builtin_expect(!!(x), 0)

/* AVAIL and USED bits of a packed descriptor (2.8.1). */
#define PACKED_AVAIL (1 << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED  (1 << VRING_PACKED_DESC_F_USED)
#define PACKED_BOTH  (PACKED_AVAIL | PACKED_USED)

/* The flags that tell what a descriptor is. */
#define KIND_FLAGS (VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT)

/* Wrap counter in the high bit of a saved position (2.9). */
#define PACKED_WRAP 0x8000

/*
 * One instance of the core, chosen once per burst.
 *
 * again() fetches a chain that is in flight already: by its head (split), or from descriptors
 * that were kept aside (packed). 0, or as a walk ends that does not succeed.
 */
struct vringh_ops {
	int (*fetch)(struct vringh *vr, struct vringh_batch *batch, unsigned int max);
	void (*complete)(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);
	int (*again)(struct vringh *vr, struct vringh_batch *batch, uint16_t head);
};

/* Is any ring area an IO window? Those have instances of their own. */
#define NB_IO 2

extern const struct vringh_ops vringh_split_ops[2][VRINGH_MEM_MAX][NB_IO];  /* [in order] */
extern const struct vringh_ops vringh_packed_ops[2][VRINGH_MEM_MAX][NB_IO]; /* [in order] */

static vringh_inline void
io_invalidate(const struct vringh_mem *mem, const void *addr, size_t len)
{
	if (mem->io != NULL && mem->io->invalidate != NULL)
		mem->io->invalidate(mem->io->arg, addr, len);
}

static vringh_inline void
io_flush(const struct vringh_mem *mem, const void *addr, size_t len)
{
	if (mem->io != NULL && mem->io->flush != NULL)
		mem->io->flush(mem->io->arg, addr, len);
}

/* Copies between an IO window and memory of this process, in aligned accesses. */
void vringh_io_read(const struct vringh_mem *mem, void *dst, const uint8_t *src, size_t len);
void vringh_io_write(const struct vringh_mem *mem, uint8_t *dst, const void *src, size_t len);

/*
 * Find the region of an address, *hit first, and copy it there: a hit is for one kind of access,
 * perm. *len is cut to what the region holds from the address. NULL with *error set when refused.
 */
uint8_t *vringh_mem_find(const struct vringh_mem *mem, struct vringh_region *hit, uint64_t iova,
	uint32_t *len, uint32_t perm, enum vringh_error *error);

/*
 * Does a range of at least one byte lie wholly in the region that was hit last? Then it begins
 * at *off there.
 */
static vringh_inline bool
region_holds(const struct vringh_region *hit, uint64_t iova, uint32_t len, uint64_t *off)
{
	*off = iova - hit->iova;
	return *off < hit->len && (uint64_t)len - 1 < hit->len - *off;
}

/* Layout of the areas: 2.7, 2.7.10 (event index), 2.8.10. */
static inline uint32_t
area_size(const struct vringh *vr, unsigned int area)
{
	uint32_t event = vr->event_idx ? sizeof(uint16_t) : 0;

	if (area == VRINGH_AREA_DESC)
		return vr->size * sizeof(struct vring_desc);
	if (vr->apart && area == VRINGH_AREA_DEVICE)
		return VRINGH_APART_OFFSET + vr->size * sizeof(struct vring_packed_desc);
	if (vr->packed)
		return sizeof(struct vring_packed_desc_event);
	if (area == VRINGH_AREA_DRIVER)
		return sizeof(struct vring_avail) + vr->size * sizeof(uint16_t) + event;
	return sizeof(struct vring_used) + vr->size * sizeof(struct vring_used_elem) + event;
}

/*
 * Chains in order may share a used entry, the last one's: the others count as completely used
 * (2.7.9, 2.8.9). Only those without writable bytes are skipped: drivers look for the length of
 * every other one.
 */
static vringh_inline bool
in_order_skips(const struct vringh_chain *chain)
{
	return chain->write_len == 0 && chain->error == VRINGH_OK;
}

/* A queue for which not everything is as it mostly is. */
static vringh_inline bool
is_special(const struct vringh *vr)
{
	uint32_t word;

	_Static_assert(offsetof(struct vringh, dirty) - offsetof(struct vringh, tracked) == 3 &&
			offsetof(struct vringh, tracked) - offsetof(struct vringh, linked) == 1,
		"one word");
	memcpy(&word, (const uint8_t *)vr + offsetof(struct vringh, tracked), sizeof(word));
	return word != 0;
}

/* Count the error that made a queue broken, or a chain bad. */
static inline int
vringh_fail(struct vringh *vr, enum vringh_error error)
{
	vr->broken = error;
	vr->nb_errors[error]++;
	return -(int)error;
}

/* Count the errors of chains that are completed, some of which are bad. */
void vringh_count_bad(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);

/*
 * vringh_avx2.c: fill chains and their segments for the first of n descriptors (split: heads) on
 * that are all direct ones of one direction in the region that was hit last. Returns for how many,
 * a multiple of four. Only where the CPU has AVX2.
 */
uint32_t vringh_avx2_packed(const struct vringh_region *hit, const struct vring_packed_desc *desc,
	uint16_t want, uint32_t n, bool write, struct vringh_seg *seg, struct vringh_chain *chain);
uint32_t vringh_avx2_split(const struct vringh_region *hit, const struct vring_desc *desc,
	const uint16_t *heads, uint32_t size, uint32_t n, bool write, struct vringh_seg *seg,
	struct vringh_chain *chain);
/* The same of a translation, which a segment says more of. */
uint32_t vringh_avx2_packed_iotlb(const struct vringh_region *hit,
	const struct vring_packed_desc *desc, uint16_t want, uint32_t n, bool write,
	struct vringh_seg *seg, struct vringh_chain *chain, uint32_t gen);
uint32_t vringh_avx2_split_iotlb(const struct vringh_region *hit, const struct vring_desc *desc,
	const uint16_t *heads, uint32_t size, uint32_t n, bool write, struct vringh_seg *seg,
	struct vringh_chain *chain, uint32_t gen);
/*
 * The same for used descriptors: chains of one slot each, without errors. With in_order only such
 * as were written to: others may be skipped (in_order_skips()).
 */
uint32_t vringh_avx2_used(struct vring_packed_desc *desc, uint64_t flags,
	const struct vringh_chain *chain, uint32_t n, bool in_order);
#if defined(__x86_64__) && !defined(VRINGH_ACCESS_POINTERS)
#define VRINGH_AVX2
static inline bool
vringh_avx2_present(void)
{
	return __builtin_cpu_supports("avx2");
}
#else
#define vringh_avx2_present() false
#endif

/* vringh_dirty.c: what complete() wrote, before and after the ring is updated. */
void vringh_dirty_chains(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);
void vringh_dirty_used(
	struct vringh *vr, uint16_t from, const struct vringh_chain *chain, unsigned int n);
void vringh_dirty_area(struct vringh *vr, unsigned int area, const void *p, uint32_t len);

/* vringh_inflight.c: what the region has to know. */
/* Packed: a descriptor that was kept; the next one's number, -1 behind the last. */
int vringh_inflight_desc(struct vringh *vr, uint16_t number, struct vringh_words *words);
int vringh_inflight_fetch(struct vringh *vr, struct vringh_batch *batch, unsigned int max);
/* How many of the last chains were fetched again, and go back to where they came from. */
unsigned int vringh_inflight_discard(
	struct vringh *vr, const struct vringh_chain *chain, unsigned int n);
void vringh_inflight_before(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);
void vringh_inflight_after(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);

#endif /* VRINGH_CORE_H */
