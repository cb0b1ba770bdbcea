/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Addresses that a driver has translated: the table, a cache of what the driver knows. What
 * descriptors name is looked up by pollers when they fetch, within a turn; what is missing park.c
 * asks for. Control.
 */

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_pause.h>

#include "function.h"

/* Translations of a function: 16 MiB of single pages. */
#define MAX_TRANSLATIONS 4096

/*
 * Of a guest that has large pages mapped they stay, and those that adjoin are one: a burst's
 * buffers are found by one look then. Single pages come and go, and their neighbours are not to go
 * with them.
 */
#define LARGE_PAGE (UINT64_C(2) << 20)

/* So many go when there are more. */
#define EVICT (MAX_TRANSLATIONS / 8)

static void
table_close(struct vfn_iommu *mmu)
{
	unsigned int waits = 0;

	__atomic_store_n(&mmu->closed, true, __ATOMIC_SEQ_CST);
	/* A turn is short, but its thread may not be running now. */
	while (__atomic_load_n(&mmu->inside, __ATOMIC_SEQ_CST) > 0) {
		if (++waits < 1000)
			rte_pause();
		else
			sched_yield();
	}
}

static void
table_open(struct vfn_iommu *mmu)
{
	__atomic_store_n(&mmu->closed, false, __ATOMIC_RELEASE);
}

/* The first translation that ends behind an address, nb_regions: none. */
static uint32_t
search(const struct vringh_mem *mem, uint64_t iova)
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

static bool
overlap(uint64_t a, uint64_t a_last, uint64_t b, uint64_t b_len)
{
	return b_len > 0 && a <= b + (b_len - 1) && b <= a_last;
}

/* Does a queue that runs have its ring in there? */
static bool
holds_ring(const struct vfn_function *fn, uint64_t iova, uint64_t last)
{
	unsigned int i;

	for (i = 0; i < fn->nb_queues; i++) {
		const struct vfn_queue_regs *r = &fn->regs.queue[i];
		uint64_t size = r->size;

		/* Those of a split ring are larger. */
		if (r->enabled &&
			(overlap(iova, last, r->area[0], 16 * size) ||
				overlap(iova, last, r->area[1], 6 + 2 * size) ||
				overlap(iova, last, r->area[2], 6 + 8 * size)))
			return true;
	}
	return false;
}

/* Of all that has a byte in there: from the first one's first byte to the last one's last one. */
static bool
extent(const struct vringh_mem *mem, uint64_t *iova, uint64_t *last)
{
	uint32_t from = search(mem, *iova), to = from;

	while (to < mem->nb_regions && mem->table[to].iova <= *last)
		to++;
	if (to == from)
		return false;
	*iova = mem->table[from].iova;
	*last = mem->table[to - 1].iova + (mem->table[to - 1].len - 1);
	return true;
}

static void
look_at_queues(struct vfn_function *fn)
{
	unsigned int i;

	for (i = 0; i < fn->nb_queues; i++)
		if (vfn_queue_regs(&fn->queue[i])->enabled)
			vfn_queue_look(&fn->queue[i]);
}

static uint64_t
last_of(uint64_t iova, uint64_t len)
{
	return len == 0 || iova + (len - 1) < iova ? UINT64_MAX : iova + (len - 1);
}

int
vfn_iommu_unmap(struct vfn_function *fn, uint64_t iova, uint64_t len)
{
	uint64_t from = iova, last = last_of(iova, len);
	struct vfn_iommu *mmu = &fn->iommu;

	if (mmu->call == NULL || (len == 0 && iova != 0))
		return -EINVAL;
	if (!extent(&mmu->mem, &from, &last))
		return 0;
	if (!holds_ring(fn, from, last)) {
		bool used;

		table_close(mmu);
		used = fn->class->uses != NULL && fn->class->uses(fn, from, last);
		if (!used)
			vringh_iotlb_unmap(&mmu->mem, iova, len);
		table_open(mmu);
		if (!used)
			return 0;
	}
	vfn_quiesce(fn);
	if (!vfn_drain(fn, NULL)) {
		vfn_resume(fn);
		return -EBUSY;
	}
	vringh_iotlb_unmap(&mmu->mem, iova, len);
	look_at_queues(fn);
	vfn_resume(fn);
	return 0;
}

/*
 * Any translations but those of rings go: they can be asked for again. What a class has out must be
 * able to end first.
 */
static int
evict(struct vfn_function *fn)
{
	struct vfn_iommu *mmu = &fn->iommu;
	struct vringh_mem *mem = &mmu->mem;
	uint32_t tries, gone = 0;

	vfn_quiesce(fn);
	if (!vfn_drain(fn, NULL)) {
		vfn_resume(fn);
		return -EBUSY;
	}
	for (tries = mem->nb_regions; tries > 0 && gone < EVICT; tries--) {
		const struct vringh_region *r = &mem->table[mmu->hand %= mem->nb_regions];

		if (holds_ring(fn, r->iova, last_of(r->iova, r->len)))
			mmu->hand++;
		else
			gone += vringh_iotlb_unmap(mem, r->iova, r->len);
	}
	vfn_resume(fn);
	if (mmu->evicted == 0)
		FN_LOG(NOTICE, fn, "%u translations are not enough: some are asked for again",
			mem->max_regions);
	mmu->evicted += gone;
	return gone > 0 ? 0 : -ENOSPC;
}

/* Where a translation leads; NULL: not into one map. */
static uint8_t *
target(const struct vfn_function *fn, uint64_t addr, uint64_t len, uint32_t perm)
{
	uint32_t i;

	for (i = 0; i < fn->dma.nb_regions; i++) {
		const struct vringh_region *r = &fn->dma.table[i];

		if (addr - r->iova < r->len && len <= r->len - (addr - r->iova))
			return (r->perm & perm) == perm ? r->host + (addr - r->iova) : NULL;
	}
	return NULL;
}

/* Queues that have waited for it, or for anything, if their rings did. */
static void
wake_queues(struct vfn_function *fn, const struct vringh_region *r)
{
	bool rings = false;
	unsigned int i;

	for (i = 0; i < fn->nb_queues; i++)
		rings |= fn->queue[i].park.still && vfn_queue_regs(&fn->queue[i])->enabled;
	if (rings && holds_ring(fn, r->iova, last_of(r->iova, r->len))) {
		vfn_quiesce(fn);
		look_at_queues(fn);
		vfn_resume(fn);
	}
	for (i = 0; i < fn->nb_queues; i++) {
		if (fn->queue[i].park.wake)
			vfn_work_wake(&fn->queue[i]);
		fn->queue[i].park.wake = false;
	}
}

static bool
adjoins(const struct vringh_region *a, const struct vringh_region *b)
{
	return a->len >= LARGE_PAGE && b->len >= LARGE_PAGE && a->iova + a->len == b->iova &&
		a->host + a->len == b->host && a->dirty + a->len == b->dirty && a->perm == b->perm;
}

/* Add a translation, alone or to its neighbours. What a queue has looked up stays right. */
static void
table_add(struct vringh_mem *mem, const struct vringh_region *new)
{
	uint32_t i = search(mem, new->iova);
	struct vringh_region *next = &mem->table[i], *before = i > 0 ? next - 1 : NULL;

	if (before != NULL && adjoins(before, new)) {
		before->len += new->len;
		if (i < mem->nb_regions && adjoins(before, next)) {
			before->len += next->len;
			memmove(next, next + 1, (--mem->nb_regions - i) * sizeof(*next));
		}
	} else if (i < mem->nb_regions && adjoins(new, next)) {
		next->iova = new->iova;
		next->host = new->host;
		next->dirty = new->dirty;
		next->len += new->len;
	} else {
		vringh_iotlb_map(mem, new);
	}
}

int
vfn_iommu_map(struct vfn_function *fn, const struct vfn_translation *t)
{
	struct vfn_iommu *mmu = &fn->iommu;
	struct vringh_region new = {
		.iova = t->iova,
		.len = t->len,
		.dirty = t->addr,
		.perm = (t->readable ? VRINGH_PERM_READ : 0) |
			(t->writable ? VRINGH_PERM_WRITE : 0),
	};
	const struct vringh_region *old;
	unsigned int i;
	int ret = 0;

	if (mmu->call == NULL || t->len == 0 || t->iova + (t->len - 1) < t->iova)
		return -EINVAL;
	if (new.perm != 0) {
		new.host = target(fn, t->addr, t->len, new.perm);
		if (new.host == NULL)
			return -EFAULT;
	}
	i = search(&mmu->mem, t->iova);
	old = &mmu->mem.table[i];
	if (i < mmu->mem.nb_regions &&
		overlap(new.iova, last_of(new.iova, new.len), old->iova, old->len)) {
		uint64_t off = new.iova - old->iova;

		if (off < old->len && new.len <= old->len - off && old->host + off == new.host &&
			old->dirty + off == new.dirty && old->perm == new.perm)
			new.len = 0; /* it is known; whoever asked waits all the same */
		else
			ret = vfn_iommu_unmap(fn, new.iova, new.len);
	}
	if (ret == 0 && new.len > 0 && mmu->mem.nb_regions == mmu->mem.max_regions)
		ret = evict(fn);
	if (ret < 0)
		return ret;
	table_close(mmu);
	if (new.len > 0)
		table_add(&mmu->mem, &new);
	__atomic_fetch_add(&mmu->maps, 1, __ATOMIC_RELAXED);
	for (i = 0; i < fn->nb_queues; i++) {
		struct vfn_park *park = &fn->queue[i].park;

		park->wake = park->waits && park->miss.iova - t->iova < t->len;
		vfn_park_answered(park, t->iova, t->len);
	}
	table_open(mmu);
	new.len = t->len;
	wake_queues(fn, &new);
	return 0;
}

void
vfn_iommu_flush(struct vfn_function *fn)
{
	if (fn->iommu.call != NULL)
		vringh_iotlb_unmap(&fn->iommu.mem, 0, 0);
}

int
vfn_iommu_set(struct vfn_function *fn, struct vfn_miss_call *call)
{
	struct vringh_region *table = NULL;
	unsigned int i;

	for (i = 0; i < fn->nb_queues; i++)
		if (vfn_queue_regs(&fn->queue[i])->enabled)
			return -EBUSY;
	if (call != NULL) {
		table = calloc(MAX_TRANSLATIONS, sizeof(*table));
		if (table == NULL)
			return -ENOMEM;
	}
	free(fn->iommu.mem.table);
	fn->iommu = (struct vfn_iommu){
		.call = call,
		.mem = {.kind = VRINGH_MEM_IOTLB, .table = table, .max_regions = MAX_TRANSLATIONS},
		.asking = fn->iommu.asking,
	};
	return 0;
}

void
vfn_iommu_free(struct vfn_function *fn)
{
	free(fn->iommu.mem.table);
}
