/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the function can reach: for each address space a table of bus address ranges and the memory
 * behind them, sorted and without overlaps. Rings and descriptors are in the guest's, or in what is
 * translated to it, see iommu.c. A ring that is not mapped stands still until it is. Control.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "function.h"
#include "vfn_guard.h"

/* Where a map was before it was joined to others; what is in flight may still work on it there. */
struct vfn_dma_former {
	struct vringh_region region;
	bool ours;
	struct vfn_dma_former *next;
};

/* Nobody reaches the region any more. */
static void
former_free(struct vfn_function *fn, const struct vringh_region *region)
{
	struct vfn_dma_former **p = &fn->dma_former, *f;
	bool ours = false;

	while ((f = *p) != NULL) {
		if (f->region.iova != region->iova) {
			p = &f->next;
			continue;
		}
		ours = true;
		vfn_guard_remove(f->region.host, &fn->memory_lost);
		if (f->ours)
			munmap(f->region.host, f->region.len);
		*p = f->next;
		free(f);
	}
	if (ours)
		munmap(region->host, region->len);
}

/* Old regions that are not in the new table are nobody's concern any more. */
static void
dma_unguard(struct vfn_function *fn, const struct vringh_mem *old, const struct vringh_mem *new)
{
	uint32_t i, j = 0;

	/* Both are sorted. */
	for (i = 0; i < old->nb_regions; i++) {
		while (j < new->nb_regions &&new->table[j].iova < old->table[i].iova)
			j++;
		if (j < new->nb_regions &&new->table[j].iova == old->table[i].iova)
			continue;
		vfn_guard_remove(old->table[i].host, &fn->memory_lost);
		if (old == &fn->dma || new == &fn->dma)
			former_free(fn, &old->table[i]);
	}
}

/*
 * Swap in a new table while nobody translates, and let every queue find its ring again. -EBUSY, and
 * all is as it was, if it would take memory away that is being worked on.
 */
static int
dma_replace(
	struct vfn_function *fn, struct vringh_mem *mem, struct vringh_region *table, uint32_t n)
{
	struct vringh_mem old = *mem;
	unsigned int i;

	vfn_quiesce(fn);
	if (n < old.nb_regions && !vfn_drain(fn, NULL)) {
		vfn_resume(fn);
		free(table);
		return -EBUSY;
	}
	/* Hooks are the maps', and may go with the last of them. */
	if (n == 0)
		mem->io = NULL;
	*mem = (struct vringh_mem){.kind = mem->io != NULL ? VRINGH_MEM_IOMEM : VRINGH_MEM_REGION,
		.io = mem->io,
		.table = table,
		.nb_regions = n};
	dma_unguard(fn, &old, mem);
	if (n < old.nb_regions && mem == &fn->dma)
		vfn_iommu_flush(fn);
	if (fn->dma.nb_regions == 0 && fn->own.nb_regions == 0)
		fn->memory_lost = false;
	for (i = 0; i < fn->nb_queues; i++) {
		struct vfn_queue *q = &fn->queue[i];

		if (!vfn_queue_regs(q)->enabled)
			continue;
		vfn_inflight_unmapped(q);
		vfn_queue_look(q);
	}
	vfn_resume(fn);
	free(old.table);
	return 0;
}

/* ---- rings over several maps ---- */

static bool
is_alias(const struct vfn_function *fn, const struct vringh_region *r)
{
	const struct vfn_dma_former *f = fn->dma_former;

	while (f != NULL && f->region.iova != r->iova)
		f = f->next;
	return f != NULL;
}

/* Have a region at another place in this process, too. False with nothing done. */
static bool
alias(struct vfn_function *fn, struct vringh_region *r, uint8_t *at)
{
	struct vfn_dma_former *f = malloc(sizeof(*f));

	/* A shared mapping is doubled by that (mremap(2), "old_size"), another one refused. */
	if (f == NULL || mremap(r->host, 0, r->len, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at ||
		vfn_guard_add(at, r->len, &fn->memory_lost) < 0) {
		free(f);
		return false;
	}
	*f = (struct vfn_dma_former){.region = *r, .ours = is_alias(fn, r), .next = fn->dma_former};
	fn->dma_former = f;
	r->host = at;
	return true;
}

/*
 * A guest's IOMMU may map memory page by page, and whoever tells of that has each page a map of its
 * own, anywhere in this process. A ring that lies in several has to be in one piece: so maps that
 * follow each other from iova on are made to do so here as well.
 */
static void
dma_join(struct vfn_function *fn, uint64_t iova, uint64_t len)
{
	const struct vringh_mem *mem = &fn->dma;
	uint32_t first = 0, n = 1, i;
	struct vringh_region *table, *r;
	bool apart = false;
	uint64_t total;
	uint8_t *base;

	while (first < mem->nb_regions && iova - mem->table[first].iova >= mem->table[first].len)
		first++;
	if (first == mem->nb_regions)
		return;
	r = &mem->table[first];
	for (total = r->len; first + n < mem->nb_regions && r->iova + total - iova < len; n++) {
		if (r[n].iova != r->iova + total)
			break;
		apart |= r[n].host != r->host + total;
		total += r[n].len;
	}
	if (!apart)
		return;
	table = malloc(mem->nb_regions * sizeof(*table));
	base = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (table == NULL || base == MAP_FAILED)
		goto fail;
	memcpy(table, mem->table, mem->nb_regions * sizeof(*table));
	r = table + first;
	for (i = 0; i < n; i++)
		if (!alias(fn, &r[i], base + (r[i].iova - r->iova)))
			goto undo;
	dma_replace(fn, &fn->dma, table, mem->nb_regions);
	return;
undo:
	while (i-- > 0) {
		struct vfn_dma_former *f = fn->dma_former;

		vfn_guard_remove(r[i].host, &fn->memory_lost);
		fn->dma_former = f->next;
		free(f);
	}
fail:
	if (base != MAP_FAILED)
		munmap(base, total);
	free(table);
}

void
vfn_dma_join_ring(const struct vfn_queue *q)
{
	const struct vfn_queue_regs *r = vfn_queue_regs(q);
	bool packed = vfn_has(q->fn, VIRTIO_F_RING_PACKED);
	uint32_t n = r->size;

	/* What an IOMMU of our own translates to is in one piece if the guest's memory is. */
	if (q->fn->iommu.call != NULL || q->fn->dma.kind == VRINGH_MEM_IOMEM)
		return;
	/* 2.7, 2.8.10 */
	dma_join(q->fn, r->area[0], n * sizeof(struct vring_desc));
	dma_join(q->fn, r->area[1], packed ? 4 : 6 + n * sizeof(uint16_t));
	dma_join(q->fn, r->area[2], packed ? 4 : 6 + n * sizeof(struct vring_used_elem));
}

static struct vringh_mem *
dma_space(struct vfn_function *fn, enum vfn_dma_space space)
{
	return space == VFN_DMA_OWN ? &fn->own : &fn->dma;
}

struct vfn_platform *
vfn_dma_platform(struct vfn_function *fn)
{
	return fn->params.dma == VFN_DMA_BOUNCE ? &fn->params.pool.platform : NULL;
}

/* The hooks of a map, as the function calls them. */
static const struct vringh_io *
hooks(struct vfn_function *fn, const struct vringh_io *io)
{
	if (io == NULL || !(fn->params.faults & VFN_FAULT_NO_FLUSH))
		return io;
	fn->forgetful = (struct vringh_io){.invalidate = io->invalidate, .arg = io->arg};
	return &fn->forgetful;
}

/* Where a range belongs in a table, -EEXIST if some of it is in there. */
static int
place_of(const struct vringh_mem *mem, uint64_t iova, uint64_t len)
{
	uint32_t at;

	for (at = 0; at < mem->nb_regions; at++) {
		const struct vringh_region *r = &mem->table[at];

		if (iova - r->iova < r->len || r->iova - iova < len)
			return -EEXIST;
		if (iova < r->iova)
			break;
	}
	return at;
}

/* A part of a map, in its place in a table that grows by it. */
static int
part_add(struct vfn_function *fn, struct vringh_region **table, uint32_t n, uint32_t at,
	const struct vfn_dma_map *part)
{
	struct vringh_region *new;
	int ret;

	if (part->host == NULL)
		return -EINVAL;
	new = realloc(*table, (n + 1) * sizeof(*new));
	if (new == NULL)
		return -ENOMEM;
	*table = new;
	ret = vfn_guard_add(part->host, part->len, &fn->memory_lost);
	if (ret < 0)
		return ret;
	memmove(&new[at + 1], &new[at], (n - at) * sizeof(*new));
	new[at] = (struct vringh_region){
		.iova = part->iova,
		.len = part->len,
		.host = part->host,
		.perm = (part->readable ? VRINGH_PERM_READ : 0) |
			(part->writable ? VRINGH_PERM_WRITE : 0),
	};
	return 0;
}

int
vfn_dma_map(struct vfn_function *fn, const struct vfn_dma_map *map)
{
	struct vfn_platform *platform =
		map->space == VFN_DMA_GUEST && !map->relay ? fn->platform : NULL;
	struct vringh_mem *mem = dma_space(fn, map->space);
	const struct vringh_io *io = mem->io;
	struct vfn_dma_map rest = *map, part;
	struct vringh_region *table = NULL;
	uint32_t n = mem->nb_regions, i;
	int ret, first, at;

	if (map->len == 0 || map->iova + (map->len - 1) < map->iova)
		return -EINVAL;
	first = at = place_of(mem, map->iova, map->len);
	if (first < 0)
		return first;
	if (n > 0) {
		table = malloc(n * sizeof(*table));
		if (table == NULL)
			return -ENOMEM;
		memcpy(table, mem->table, n * sizeof(*table));
	}
	while ((ret = vfn_platform_next(platform, &rest, &part)) > 0) {
		if (n == 0)
			io = hooks(fn, part.io);
		ret = hooks(fn, part.io) == io ? part_add(fn, &table, n, at, &part) : -EINVAL;
		if (ret < 0)
			break;
		n++;
		at++;
	}
	if (ret == 0 && at > first) {
		mem->io = io;
		ret = dma_replace(fn, mem, table, n);
		for (i = 0; i < fn->nb_queues && ret == 0; i++)
			if (vfn_queue_regs(&fn->queue[i])->enabled && fn->queue[i].park.still)
				vfn_dma_join_ring(&fn->queue[i]);
		return ret;
	}
	while (ret < 0 && at-- > first)
		vfn_guard_remove(table[at].host, &fn->memory_lost);
	free(table);
	return ret;
}

int
vfn_dma_unmap(struct vfn_function *fn, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	struct vringh_mem *mem = dma_space(fn, space);
	struct vringh_region *table;
	uint32_t i, n = 0;

	if (len == 0 && iova == 0) {
		if (space == VFN_DMA_OWN)
			vfn_dirty_control(fn, false);
		return dma_replace(fn, mem, NULL, 0);
	}
	if (len == 0 || iova + (len - 1) < iova)
		return -EINVAL;
	table = calloc(mem->nb_regions + 1, sizeof(*table));
	if (table == NULL)
		return -ENOMEM;
	for (i = 0; i < mem->nb_regions; i++) {
		const struct vringh_region *r = &mem->table[i];

		if (r->iova - iova < len && r->len <= len - (r->iova - iova))
			continue;
		if (r->iova - iova < len || iova - r->iova < r->len) {
			free(table);
			return -EINVAL;
		}
		table[n++] = *r;
	}
	/* The log may be in what goes. */
	if (space == VFN_DMA_OWN && fn->regs.dirty_on && fn->regs.dirty_addr - iova < len)
		vfn_dirty_control(fn, false);
	return dma_replace(fn, mem, table, n);
}

void *
vfn_dma_own(const struct vfn_function *fn, uint64_t iova, uint64_t len)
{
	uint32_t i;

	for (i = 0; i < fn->own.nb_regions; i++) {
		const struct vringh_region *r = &fn->own.table[i];

		if (iova - r->iova < r->len && len <= r->len - (iova - r->iova))
			return r->host + (iova - r->iova);
	}
	return NULL;
}

void
vfn_dma_free(struct vfn_function *fn)
{
	const struct vringh_mem none = {0};

	dma_unguard(fn, &fn->dma, &none);
	dma_unguard(fn, &fn->own, &none);
	free(fn->dma.table);
	free(fn->own.table);
	vfn_iommu_free(fn);
	fn->dma = fn->own = none;
}
