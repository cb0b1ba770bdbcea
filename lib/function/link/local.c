/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The link to a function in the same process: register accesses are calls, memory is reached
 * where it is mapped. Any thread; one at a time, as the function is locked.
 */

#include <errno.h>

#include <rte_common.h>

#include "../function.h"
#include "local.h"

static struct vfn_function *
lock(struct vfn_link *link)
{
	struct vfn_function *fn = container_of(link, struct vfn_function, link);

	vfn_lock(fn);
	return fn;
}

static int
unlock(struct vfn_function *fn, int ret)
{
	vfn_unlock(fn);
	return ret;
}

static int
local_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_regs_read(fn, region, offset, buf, len));
}

static int
local_write(
	struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	struct vfn_function *fn = lock(link);
	int ret = vfn_regs_write(fn, region, offset, buf, len);

	vfn_lost_check(fn);
	return unlock(fn, ret);
}

static int
local_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_dma_map(fn, map));
}

static int
local_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_dma_unmap(fn, space, iova, len));
}

static int
local_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_irq_set(fn, vector, fd));
}

static int
local_set_irq_call(struct vfn_link *link, unsigned int vector, struct vfn_irq_call *call)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_irq_set_call(fn, vector, call));
}

static int
local_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn,
		queue < fn->nb_queues ? vfn_queue_set_doorbell(&fn->queue[queue], fd) : -EINVAL);
}

static int
local_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	struct vfn_function *fn;

	if (region != VFN_REGION_BAR2)
		return -ENOTSUP;
	*size = VFN_BAR2_SIZE;
	fn = lock(link);
	*fd = vfn_doorbells_fd(fn);
	return unlock(fn, *fd < 0 ? *fd : 0);
}

static int
local_set_job(struct vfn_link *link, unsigned int queue, struct vfn_job *job)
{
	struct vfn_function *fn = lock(link);

	if (queue >= fn->nb_queues)
		return unlock(fn, -EINVAL);
	vfn_queue_set_job(&fn->queue[queue], job);
	return unlock(fn, 0);
}

static int
local_set_translated(struct vfn_link *link, struct vfn_miss_call *call)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_iommu_set(fn, call));
}

static int
local_translate(struct vfn_link *link, const struct vfn_translation *translation)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_iommu_map(fn, translation));
}

static int
local_untranslate(struct vfn_link *link, uint64_t iova, uint64_t len)
{
	struct vfn_function *fn = lock(link);

	return unlock(fn, vfn_iommu_unmap(fn, iova, len));
}

static void
local_close(struct vfn_link *link)
{
	vfn_function_close(container_of(link, struct vfn_function, link));
}

struct vfn_link *
vfn_link_local(struct vfn_function *fn)
{
	static const struct vfn_link_ops ops = {
		.read = local_read,
		.write = local_write,
		.dma_map = local_dma_map,
		.dma_unmap = local_dma_unmap,
		.set_irq = local_set_irq,
		.set_irq_call = local_set_irq_call,
		.set_doorbell = local_set_doorbell,
		.get_region_fd = local_get_region_fd,
		.set_job = local_set_job,
		.set_translated = local_set_translated,
		.translate = local_translate,
		.untranslate = local_untranslate,
		.close = local_close,
	};

	fn->link.ops = &ops;
	return &fn->link;
}
