/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The block class (virtio 1.3, 5.2): its operations, and its queues' coming and going. Control. */

#include <stdlib.h>

#include <rte_cycles.h>

#include "blk.h"

static uint16_t
blk_nb_queues(const struct vfn_function_params *params)
{
	return ((const struct vfn_blk_params *)params->class_params)->queues;
}

static void
queue_close(struct vfn_blk_queue *bq)
{
	const struct vfn_blk_backend *be = bq->blk->params.backend;

	if (be->queue_close != NULL)
		be->queue_close(bq);
	free(bq->slot);
}

static int
queue_open(struct vfn_blk *blk, unsigned int index)
{
	struct vfn_blk_queue *bq = &blk->queue[index];
	unsigned int i;
	int ret = 0;

	bq->blk = blk;
	bq->q = &blk->fn.queue[index];
	bq->hz = rte_reciprocal_value_u64(rte_get_tsc_hz());
	bq->slot = calloc(VFN_BLK_SLOTS, sizeof(*bq->slot));
	if (bq->slot == NULL)
		return -ENOMEM;
	for (i = 0; i < VFN_BLK_SLOTS; i++)
		bq->free[bq->nb_free++] = VFN_BLK_SLOTS - 1 - i;
	if (blk->params.backend->queue_open != NULL)
		ret = blk->params.backend->queue_open(bq);
	if (ret < 0)
		free(bq->slot);
	return ret;
}

static int
queues_open(struct vfn_blk *blk)
{
	unsigned int i;
	int ret;

	blk->queue = calloc(blk->params.queues, sizeof(*blk->queue));
	if (blk->queue == NULL)
		return -ENOMEM;
	for (i = 0; i < blk->params.queues; i++) {
		ret = queue_open(blk, i);
		if (ret < 0) {
			while (i-- > 0)
				queue_close(&blk->queue[i]);
			free(blk->queue);
			return ret;
		}
	}
	return 0;
}

static int
size_check(struct vfn_blk *blk)
{
	if (blk->block_size < VFN_BLK_SECTOR || blk->block_size > 65536 ||
		(blk->block_size & (blk->block_size - 1)) != 0) {
		FN_LOG(ERR, &blk->fn, "block size %u is not a power of two from 512 to 65536",
			blk->block_size);
		return -EINVAL;
	}
	blk->params.size -= blk->params.size % blk->block_size;
	if (blk->params.size == 0 && blk->params.backend != &vfn_blk_file) {
		FN_LOG(ERR, &blk->fn, "less than a block of %u bytes", blk->block_size);
		return -EINVAL;
	}
	return 0;
}

static int
blk_open(struct vfn_function *fn)
{
	struct vfn_blk *blk = vfn_blk(fn);
	int ret;

	blk->params = *(const struct vfn_blk_params *)fn->params.class_params;
	blk->block_size = blk->params.block_size != 0 ? blk->params.block_size : VFN_BLK_SECTOR;
	ret = size_check(blk);
	if (ret == 0)
		ret = blk->params.backend->open(blk);
	if (ret < 0)
		return ret;
	ret = vfn_blk_bucket_get(blk, &blk->params.rate);
	if (ret == 0)
		ret = queues_open(blk);
	if (ret < 0) {
		vfn_blk_bucket_put(blk);
		blk->params.backend->close(blk);
		return ret;
	}
	fn->device_features = vfn_blk_features(blk) | vfn_core_features(fn);
	return 0;
}

static void
blk_close(struct vfn_function *fn)
{
	struct vfn_blk *blk = vfn_blk(fn);
	unsigned int i;

	vfn_quiesce(fn);
	for (i = 0; i < blk->params.queues; i++)
		queue_close(&blk->queue[i]);
	free(blk->queue);
	vfn_blk_bucket_put(blk);
	blk->params.backend->close(blk);
}

/* Nothing is scheduled. */
static void
blk_cancel(struct vfn_function *fn)
{
	RTE_SET_USED(fn);
}

static void
blk_reset(const struct vfn_function *fn, struct vfn_regs *regs)
{
	*vfn_blk_regs_in(regs) =
		(struct vfn_blk_regs){.writeback = !vfn_blk(fn)->params.writethrough};
}

static uint64_t
blk_features_missing(uint64_t features)
{
	RTE_SET_USED(features);
	return 0;
}

static uint16_t
blk_queue_max(const struct vfn_function *fn, unsigned int index)
{
	const struct vfn_blk *blk = vfn_blk(fn);

	RTE_SET_USED(index);
	return blk->params.queue_size != 0 ? blk->params.queue_size : VRINGH_MAX_SIZE;
}

static bool
blk_queue_reads_only(const struct vfn_function *fn, unsigned int index)
{
	RTE_SET_USED(fn);
	RTE_SET_USED(index);
	return false;
}

static void
blk_start(struct vfn_function *fn)
{
	struct vfn_blk *blk = vfn_blk(fn);
	unsigned int i;

	for (i = 0; i < blk->params.queues; i++) {
		struct vfn_blk_queue *bq = &blk->queue[i];

		if (!vfn_queue_active(bq->q))
			continue;
		bq->work = (struct vfn_work){.ops = &vfn_blk_ops,
			.fn = fn,
			.poller = vfn_queue_poller(bq->q),
			.queue = bq->q};
		/* Whatever the driver was told, the first burst tells it not to kick. */
		bq->armed = true;
		vfn_work_add(fn, &bq->work);
	}
}

static void
blk_activated(struct vfn_function *fn)
{
	RTE_SET_USED(fn);
}

static bool
blk_drain(struct vfn_function *fn, struct vfn_queue *q)
{
	uint64_t until = rte_rdtsc() + rte_get_tsc_hz() / 1000 * VFN_DRAIN_MS;
	struct vfn_blk *blk = vfn_blk(fn);
	bool all = true;
	unsigned int i;

	for (i = 0; i < blk->params.queues; i++)
		if (q == NULL || blk->queue[i].q == q)
			all = vfn_blk_queue_drain(&blk->queue[i], until) && all;
	if (!all)
		FN_LOG(ERR, fn, "requests do not end: the back-end hangs");
	return all;
}

static bool
blk_uses(const struct vfn_function *fn, uint64_t iova, uint64_t last)
{
	const struct vfn_blk *blk = vfn_blk(fn);
	unsigned int i;

	for (i = 0; i < blk->params.queues; i++)
		if (vfn_blk_queue_uses(&blk->queue[i], iova, last))
			return true;
	return false;
}

const struct vfn_class vfn_blk_class = {
	.device_id = VFN_BLK_DEVICE_ID,
	.pci_class = {0, 0x80, 0x01},
	.config_size = sizeof(struct virtio_blk_config),
	.stride = 1,
	.size = sizeof(struct vfn_blk),
	.nb_queues = blk_nb_queues,
	.open = blk_open,
	.close = blk_close,
	.cancel = blk_cancel,
	.reset = blk_reset,
	.features_missing = blk_features_missing,
	.config_read = vfn_blk_config_read,
	.config_write = vfn_blk_config_write,
	.queue_max = blk_queue_max,
	.queue_reads_only = blk_queue_reads_only,
	.start = blk_start,
	.drain = blk_drain,
	.uses = blk_uses,
	.activated = blk_activated,
	.parts_get = vfn_blk_parts_get,
	.parts_set = vfn_blk_parts_set,
};
