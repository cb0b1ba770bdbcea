/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The guest's memory: the regions that librte_vhost has been told of, mapped by ourselves, as far
 * as the platform lets us. Between dev_conf and dev_close, with the device's lock held. Addresses
 * that librte_vhost gives are numbers, from which guest addresses are worked out; nothing is read
 * there.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <rte_vhost.h>

#include <vringh.h>

#include "vfn_drv.h"
#include "vfn_vu_msg.h"

/* Asked of all memory, by us here and by a function in this process of what we map for it. */
static struct vfn_platform *
platform(struct vfn_dev *dev)
{
	return dev->dma == VFN_DMA_BOUNCE ? &dev->pool.platform : NULL;
}

static struct vfn_dma_map
map_of(const struct rte_vhost_mem_region *r)
{
	return (struct vfn_dma_map){
		.iova = r->guest_phys_addr,
		.len = r->size,
		.fd = r->fd,
		.offset = r->host_user_addr - (uintptr_t)r->mmap_addr,
		.readable = true,
		.writable = true,
	};
}

static int
region_open(struct vfn_mem_region *region, const struct rte_vhost_mem_region *r,
	const struct vfn_dma_map *part)
{
	const uint64_t skip = part->iova - r->guest_phys_addr;
	struct stat st;

	*region = (struct vfn_mem_region){
		.gpa = part->iova,
		.size = part->len,
		.theirs = r->host_user_addr + skip,
		.uva = r->guest_user_addr + skip,
	};
	region->map = vfn_map_fd(r->fd, part->offset, part->len);
	if (region->map == NULL)
		return -errno;
	/* Whose memory it is, over connections and processes. */
	if (fstat(r->fd, &st) == 0) {
		region->dev = st.st_dev;
		region->ino = st.st_ino;
	}
	return 0;
}

/* All of a region that may be reached. */
static int
parts_open(struct vfn_dev *dev, const struct rte_vhost_mem_region *r)
{
	struct vfn_memory *memory = &dev->memory;
	struct vfn_dma_map rest = map_of(r), part;
	struct vfn_mem_region *more;
	int ret;

	while ((ret = vfn_platform_next(platform(dev), &rest, &part)) > 0) {
		more = realloc(memory->region, (memory->nb_regions + 1) * sizeof(*more));
		if (more == NULL)
			return -ENOMEM;
		memory->region = more;
		ret = region_open(&more[memory->nb_regions], r, &part);
		if (ret < 0)
			return ret;
		memory->nb_regions++;
	}
	return ret;
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
	for (i = 0; i < mem->nregions && ret == 0; i++) {
		const struct rte_vhost_mem_region *r = &mem->regions[i];

		memory->end = RTE_MAX(memory->end, r->guest_phys_addr + r->size);
		ret = parts_open(dev, r);
		if (ret < 0)
			DEV_LOG(ERR, dev,
				"memory region %u (0x%" PRIx64 ", %" PRIu64
				" bytes) is refused: %s",
				i, r->guest_phys_addr, r->size,
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

/* May librte_vhost read what it reads of a ring's area, at a front-end address? Sets the guest's.
 */
static bool
may_read(struct vfn_dev *dev, const struct rte_vhost_memory *mem, uint64_t uva, uint64_t *gpa)
{
	struct vfn_dma_map rest, part;
	uint32_t i;

	for (i = 0; i < mem->nregions; i++) {
		const struct rte_vhost_mem_region *r = &mem->regions[i];

		if (uva - r->guest_user_addr >= r->size)
			continue;
		*gpa = uva - r->guest_user_addr + r->guest_phys_addr;
		rest = map_of(r);
		while (vfn_platform_next(platform(dev), &rest, &part) > 0)
			if (*gpa - part.iova < part.len && part.len - (*gpa - part.iova) >= 4)
				return true;
	}
	return false;
}

/*
 * SET_VRING_ADDR: librte_vhost reads rings where it is told that they are, before anybody is asked.
 * Of one that the platform does not let us reach it hears nothing, and so never takes it for ready.
 */
void
vfn_memory_ring(struct vfn_dev *dev, const struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	const uint64_t uva[] = {msg->addr.desc, msg->addr.avail, msg->addr.used};
	struct rte_vhost_memory *mem = NULL;
	uint64_t gpa[RTE_DIM(uva)] = {0};
	unsigned int i;
	bool may;

	if (platform(dev) == NULL)
		return;
	may = guest->memory && rte_vhost_get_mem_table(guest->vid, &mem) == 0;
	for (i = 0; i < RTE_DIM(uva) && mem != NULL; i++)
		may &= may_read(dev, mem, uva[i], &gpa[i]);
	free(mem);
	if (may)
		return;
	DEV_LOG(ERR, dev,
		"queue %u refused: its areas are not in the pool (0x%" PRIx64 " 0x%" PRIx64
		" 0x%" PRIx64 ")",
		msg->addr.index, gpa[0], gpa[1], gpa[2]);
	/* No region reaches so far. */
	msg->addr.desc = msg->addr.avail = msg->addr.used = UINT64_MAX;
}
