/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The guest's memory: the regions that librte_vhost has been told of, mapped by ourselves. Between
 * dev_conf and dev_close, with the device's lock held. Addresses that librte_vhost gives are
 * numbers, from which guest addresses are worked out; nothing is read there.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <rte_vhost.h>

#include <vringh.h>

#include "vfn_drv.h"

static int
region_open(struct vfn_mem_region *region, const struct rte_vhost_mem_region *r)
{
	struct stat st;

	*region = (struct vfn_mem_region){
		.gpa = r->guest_phys_addr,
		.size = r->size,
		.theirs = r->host_user_addr,
		.uva = r->guest_user_addr,
	};
	region->map = vfn_map_fd(r->fd, r->host_user_addr - (uintptr_t)r->mmap_addr, r->size);
	if (region->map == NULL)
		return -errno;
	/* Whose memory it is, over connections and processes. */
	if (fstat(r->fd, &st) == 0) {
		region->dev = st.st_dev;
		region->ino = st.st_ino;
	}
	return 0;
}

/* librte_vhost has a table, see vfn_message_memory(). 0, or why a region is refused. */
int
vfn_memory_open(struct vfn_dev *dev)
{
	struct vfn_memory *memory = &dev->memory;
	struct rte_vhost_memory *mem = NULL;
	uint32_t i;
	int ret = 0;

	if (rte_vhost_get_mem_table(dev->guest->vid, &mem) < 0)
		return -EINVAL;
	memory->region = calloc(mem->nregions, sizeof(*memory->region));
	if (memory->region == NULL)
		ret = -ENOMEM;
	for (i = 0; i < mem->nregions && ret == 0; i++) {
		ret = region_open(&memory->region[i], &mem->regions[i]);
		if (ret == 0)
			memory->nb_regions++;
		else
			DEV_LOG(ERR, dev,
				"memory region %u (0x%" PRIx64 ", %" PRIu64
				" bytes) is refused: %s",
				i, mem->regions[i].guest_phys_addr, mem->regions[i].size,
				ret == -ENODATA	       ? "its file is shorter" :
					ret == -EACCES ? "its file is another process's" :
							 strerror(-ret));
	}
	free(mem);
	if (ret < 0)
		vfn_memory_close(dev);
	return ret;
}

void
vfn_memory_close(struct vfn_dev *dev)
{
	struct vfn_memory *memory = &dev->memory;
	uint32_t i;

	for (i = 0; i < memory->nb_regions; i++)
		vfn_map_put(memory->region[i].map);
	free(memory->region);
	*memory = (struct vfn_memory){0};
}

/* Guest-physical address of something that librte_vhost has an address of. */
bool
vfn_memory_gpa(const struct vfn_dev *dev, const void *theirs, uint64_t *gpa)
{
	const struct vfn_memory *memory = &dev->memory;
	uint32_t i;

	for (i = 0; i < memory->nb_regions; i++) {
		const struct vfn_mem_region *r = &memory->region[i];

		if ((uintptr_t)theirs - r->theirs < r->size) {
			*gpa = (uintptr_t)theirs - r->theirs + r->gpa;
			return true;
		}
	}
	return false;
}

/* The region that holds all of it, or NULL. */
const struct vfn_mem_region *
vfn_memory_find(const struct vfn_dev *dev, uint64_t gpa, uint64_t len)
{
	const struct vfn_memory *memory = &dev->memory;
	uint32_t i;

	for (i = 0; i < memory->nb_regions; i++) {
		const struct vfn_mem_region *r = &memory->region[i];

		if (gpa - r->gpa < r->size && len <= r->size - (gpa - r->gpa))
			return r;
	}
	return NULL;
}

/* Where it is mapped here; NULL if it is not within one region. */
void *
vfn_memory_at(const struct vfn_dev *dev, uint64_t gpa, uint64_t len)
{
	const struct vfn_mem_region *r = vfn_memory_find(dev, gpa, len);

	return r != NULL ? r->map->host + (gpa - r->gpa) : NULL;
}

static int
by_iova(const void *a, const void *b)
{
	const struct vringh_region *x = a, *y = b;

	return x->iova < y->iova ? -1 : x->iova > y->iova;
}

/* As lib/vring takes it; to->table has room for every region. */
void
vfn_memory_table(const struct vfn_memory *memory, struct vringh_mem *to)
{
	uint32_t i;

	to->kind = VRINGH_MEM_REGION;
	to->nb_regions = memory->nb_regions;
	for (i = 0; i < memory->nb_regions; i++)
		to->table[i] = (struct vringh_region){
			.iova = memory->region[i].gpa,
			.len = memory->region[i].size,
			.host = memory->region[i].map->host,
			.perm = VRINGH_PERM_RW,
		};
	qsort(to->table, to->nb_regions, sizeof(to->table[0]), by_iova);
}
