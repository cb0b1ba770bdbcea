/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The block class's features and configuration (virtio 1.3, 5.2.3 to 5.2.5), what the operator and
 * the driver change in it, and its device part. Control.
 */

#include "../../parts.h"
#include "blk.h"

uint64_t
vfn_blk_features(const struct vfn_blk *blk)
{
	uint64_t features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_RING_PACKED) |
		FEATURE(VIRTIO_F_RING_RESET) | FEATURE(VIRTIO_F_ANY_LAYOUT) |
		FEATURE(VIRTIO_RING_F_INDIRECT_DESC) | FEATURE(VIRTIO_RING_F_EVENT_IDX) |
		FEATURE(VIRTIO_BLK_F_SIZE_MAX) | FEATURE(VIRTIO_BLK_F_SEG_MAX) |
		FEATURE(VIRTIO_BLK_F_BLK_SIZE) | FEATURE(VIRTIO_BLK_F_TOPOLOGY) |
		FEATURE(VIRTIO_BLK_F_FLUSH);

	if (blk->params.backend->keeps_order)
		features |= FEATURE(VIRTIO_F_IN_ORDER);
	if (blk->params.queues > 1)
		features |= FEATURE(VIRTIO_BLK_F_MQ);
	if (blk->params.read_only)
		return features | FEATURE(VIRTIO_BLK_F_RO);
	features |= FEATURE(VIRTIO_BLK_F_CONFIG_WCE) | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
	if (blk->params.backend->can_discard)
		features |= FEATURE(VIRTIO_BLK_F_DISCARD);
	return features;
}

void
vfn_blk_config_read(struct vfn_function *fn, uint32_t offset, void *buf, size_t len)
{
	const struct vfn_blk *blk = vfn_blk(fn);
	const uint32_t page = 4096;
	struct virtio_blk_config config = {
		.capacity = blk->capacity / VFN_BLK_SECTOR,
		.size_max = VFN_BLK_SIZE_MAX,
		.seg_max = VFN_BLK_SEG_MAX,
		.blk_size = blk->block_size,
		/* Less than a page costs more than it has to. */
		.physical_block_exp =
			blk->block_size < page ? __builtin_ctz(page / blk->block_size) : 0,
		.min_io_size = RTE_MAX(page / blk->block_size, 1u),
		.wce = vfn_blk_regs_in(&fn->regs)->writeback,
		.num_queues = blk->params.queues,
		.max_discard_sectors = VFN_BLK_MAX_RANGE / VFN_BLK_SECTOR,
		.max_discard_seg = VFN_BLK_MAX_RANGES,
		.discard_sector_alignment = blk->block_size / VFN_BLK_SECTOR,
		.max_write_zeroes_sectors = VFN_BLK_MAX_RANGE / VFN_BLK_SECTOR,
		.max_write_zeroes_seg = VFN_BLK_MAX_RANGES,
		.write_zeroes_may_unmap = 1,
	};

	memcpy(buf, (const uint8_t *)&config + offset, len);
}

/* Only writeback can be written (5.2.4). */
int
vfn_blk_config_write(struct vfn_function *fn, uint32_t offset, const void *buf, size_t len)
{
	struct vfn_blk_regs *r = vfn_blk_regs_in(&fn->regs);
	uint8_t v;

	if (offset != offsetof(struct virtio_blk_config, wce) || len != sizeof(v) ||
		!vfn_has(fn, VIRTIO_BLK_F_CONFIG_WCE))
		return -EINVAL;
	memcpy(&v, buf, sizeof(v));
	if (v > 1)
		return -EINVAL;
	vfn_quiesce(fn);
	r->writeback = v;
	vfn_resume(fn);
	return 0;
}

uint64_t
vfn_manage_blk_size(struct vfn_function *fn)
{
	uint64_t size;

	vfn_lock(fn);
	size = vfn_blk(fn)->capacity;
	vfn_unlock(fn);
	return size;
}

int
vfn_manage_blk_resize(struct vfn_function *fn, uint64_t size)
{
	struct vfn_blk *blk = vfn_blk(fn);
	uint64_t old;
	int ret;

	size -= size % blk->block_size;
	vfn_lock(fn);
	old = blk->capacity;
	vfn_quiesce(fn);
	ret = vfn_drain(fn, NULL) ? blk->params.backend->resize(blk, size) : -EBUSY;
	vfn_resume(fn);
	if (blk->capacity != old) {
		vfn_config_changed(fn);
		FN_LOG(DEBUG, fn, "%" PRIu64 " bytes", blk->capacity);
	}
	vfn_unlock(fn);
	return ret;
}

int
vfn_manage_blk_claim(struct vfn_function *fn)
{
	struct vfn_blk *blk = vfn_blk(fn);
	uint64_t old;
	int ret = 0;

	vfn_lock(fn);
	old = blk->capacity;
	if (blk->params.backend->claim != NULL)
		ret = blk->params.backend->claim(blk);
	/* Who had it may have changed its size. */
	if (blk->capacity != old)
		vfn_config_changed(fn);
	vfn_unlock(fn);
	return ret;
}

void
vfn_manage_blk_release(struct vfn_function *fn)
{
	struct vfn_blk *blk = vfn_blk(fn);

	vfn_lock(fn);
	if (blk->params.backend->release != NULL)
		blk->params.backend->release(blk);
	vfn_unlock(fn);
}

/* ---- parts ---- */

void
vfn_blk_parts_get(struct vfn_function *fn, struct vfn_parts_writer *w)
{
	const struct vfn_blk_regs *r = vfn_blk_regs_in(&fn->regs);

	if (vfn_has(fn, VIRTIO_BLK_F_CONFIG_WCE))
		vfn_part_put(w,
			(struct vfn_part){
				.type = VFN_PART_BLK_WRITEBACK, .flags = VFN_PART_OPTIONAL},
			&r->writeback, sizeof(r->writeback));
}

int
vfn_blk_parts_set(const struct vfn_function *fn, struct vfn_regs *regs, const struct vfn_part *part,
	const uint8_t *value, const char **why)
{
	RTE_SET_USED(fn);
	if (part->type != VFN_PART_BLK_WRITEBACK)
		return -ENOTSUP;
	*why = "it cannot be";
	if (part->length != 1 || *value > 1 || !vfn_regs_have(regs, VIRTIO_BLK_F_CONFIG_WCE))
		return -EINVAL;
	vfn_blk_regs_in(regs)->writeback = *value;
	return 0;
}
