/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The link to a function in the same process: register accesses are calls, memory is reached
 * where it is mapped. Any thread; one at a time under the control lock.
 */

#include <errno.h>

#include <rte_common.h>

#include "function.h"

static struct vfn_function *
function(struct vfn_link *link)
{
	return container_of(link, struct vfn_function, link);
}

static int
local_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	int ret;

	pthread_mutex_lock(&vfn_control_lock);
	ret = vfn_regs_read(function(link), region, offset, buf, len);
	pthread_mutex_unlock(&vfn_control_lock);
	return ret;
}

static int
local_write(
	struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	int ret;

	pthread_mutex_lock(&vfn_control_lock);
	ret = vfn_regs_write(function(link), region, offset, buf, len);
	vfn_lost_check(function(link));
	pthread_mutex_unlock(&vfn_control_lock);
	return ret;
}

static int
local_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	int ret;

	pthread_mutex_lock(&vfn_control_lock);
	ret = vfn_dma_map(function(link), map);
	pthread_mutex_unlock(&vfn_control_lock);
	return ret;
}

static int
local_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	int ret;

	pthread_mutex_lock(&vfn_control_lock);
	ret = vfn_dma_unmap(function(link), space, iova, len);
	pthread_mutex_unlock(&vfn_control_lock);
	return ret;
}

static int
local_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	int ret;

	pthread_mutex_lock(&vfn_control_lock);
	ret = vfn_irq_set(function(link), vector, fd);
	pthread_mutex_unlock(&vfn_control_lock);
	return ret;
}

static int
local_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	struct vfn_function *fn = function(link);
	int ret = -EINVAL;

	pthread_mutex_lock(&vfn_control_lock);
	if (queue < fn->nb_queues)
		ret = vfn_queue_set_doorbell(&fn->queue[queue], fd);
	pthread_mutex_unlock(&vfn_control_lock);
	return ret;
}

static int
local_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	if (region != VFN_REGION_BAR2)
		return -ENOTSUP;
	pthread_mutex_lock(&vfn_control_lock);
	*fd = vfn_bar2_fd(function(link));
	pthread_mutex_unlock(&vfn_control_lock);
	*size = VFN_BAR2_SIZE;
	return *fd < 0 ? *fd : 0;
}

static int
local_set_job(struct vfn_link *link, unsigned int queue, struct vfn_job *job)
{
	struct vfn_function *fn = function(link);

	if (queue >= fn->nb_queues)
		return -EINVAL;
	pthread_mutex_lock(&vfn_control_lock);
	vfn_queue_set_job(&fn->queue[queue], job);
	pthread_mutex_unlock(&vfn_control_lock);
	return 0;
}

static void
local_close(struct vfn_link *link)
{
	struct vfn_function *fn = function(link);

	/* No poller has the control queue after a reset: what it scheduled can be cancelled. */
	pthread_mutex_lock(&vfn_control_lock);
	vfn_function_reset(fn);
	pthread_mutex_unlock(&vfn_control_lock);
	vfn_ctrl_cancel(fn);
	vfn_irq_cancel(fn);
	pthread_mutex_lock(&vfn_control_lock);
	vfn_function_destroy(fn);
	pthread_mutex_unlock(&vfn_control_lock);
}

static const struct vfn_link_ops local_ops = {
	.read = local_read,
	.write = local_write,
	.dma_map = local_dma_map,
	.dma_unmap = local_dma_unmap,
	.set_irq = local_set_irq,
	.set_doorbell = local_set_doorbell,
	.get_region_fd = local_get_region_fd,
	.set_job = local_set_job,
	.close = local_close,
};

int
vfn_link_local_open(const struct vfn_function_params *params, struct vfn_link **link)
{
	struct vfn_function *fn;
	int ret;

	pthread_mutex_lock(&vfn_control_lock);
	ret = vfn_function_create(params, &fn);
	if (ret == 0) {
		fn->link.ops = &local_ops;
		*link = &fn->link;
	}
	pthread_mutex_unlock(&vfn_control_lock);
	return ret;
}
