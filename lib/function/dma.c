/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The function's IOMMU: a table of bus address ranges and the memory behind them, sorted and
 * without overlaps, that the rings translate with. Control.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "function.h"

/* Swap in a new table while nobody translates, and let every queue find its ring again. */
static void
dma_replace(struct vfn_function *fn, struct vringh_region *table, uint32_t n)
{
	struct vringh_region *old = fn->dma.table;
	unsigned int i;

	vfn_port_stop(fn);
	fn->dma = (struct vringh_mem){.kind = VRINGH_MEM_REGION, .table = table, .nb_regions = n};
	for (i = 0; i < fn->nb_queues; i++) {
		struct vfn_queue *q = &fn->queue[i];

		if (q->enabled && vringh_set_mem(&q->vr, NULL) != VRINGH_OK)
			vfn_queue_broken(q);
	}
	vfn_port_start(fn);
	free(old);
}

int
vfn_dma_map(struct vfn_function *fn, const struct vfn_dma_map *map)
{
	struct vringh_region *table;
	uint32_t at;

	if (map->len == 0 || map->iova + (map->len - 1) < map->iova || map->host == NULL)
		return -EINVAL;
	for (at = 0; at < fn->dma.nb_regions; at++) {
		const struct vringh_region *r = &fn->dma.table[at];

		if (map->iova - r->iova < r->len || r->iova - map->iova < map->len)
			return -EEXIST;
		if (map->iova < r->iova)
			break;
	}
	table = calloc(fn->dma.nb_regions + 1, sizeof(*table));
	if (table == NULL)
		return -ENOMEM;
	if (fn->dma.nb_regions > 0) {
		memcpy(table, fn->dma.table, at * sizeof(*table));
		memcpy(table + at + 1, fn->dma.table + at,
			(fn->dma.nb_regions - at) * sizeof(*table));
	}
	table[at] = (struct vringh_region){
		.iova = map->iova,
		.len = map->len,
		.host = map->host,
		.perm = (map->readable ? VRINGH_PERM_READ : 0) |
			(map->writable ? VRINGH_PERM_WRITE : 0),
	};
	dma_replace(fn, table, fn->dma.nb_regions + 1);
	return 0;
}

int
vfn_dma_unmap(struct vfn_function *fn, uint64_t iova, uint64_t len)
{
	struct vringh_region *table;
	uint32_t i, n = 0;

	if (len == 0 && iova == 0) {
		dma_replace(fn, NULL, 0);
		return 0;
	}
	if (len == 0 || iova + (len - 1) < iova)
		return -EINVAL;
	table = calloc(fn->dma.nb_regions + 1, sizeof(*table));
	if (table == NULL)
		return -ENOMEM;
	for (i = 0; i < fn->dma.nb_regions; i++) {
		const struct vringh_region *r = &fn->dma.table[i];

		if (r->iova - iova < len && r->len <= len - (r->iova - iova))
			continue;
		if (r->iova - iova < len || iova - r->iova < r->len) {
			free(table);
			return -EINVAL;
		}
		table[n++] = *r;
	}
	dma_replace(fn, table, n);
	return 0;
}

void
vfn_dma_free(struct vfn_function *fn)
{
	free(fn->dma.table);
	fn->dma.table = NULL;
	fn->dma.nb_regions = 0;
}
