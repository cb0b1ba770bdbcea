/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The function as device parts: got here, checked and set in parts_set.c. What they say is what the
 * registers say, and the positions of the rings. Control.
 */

#include "function.h"
#include "parts.h"

void
vfn_part_put(struct vfn_parts_writer *w, struct vfn_part part, const void *value, uint32_t length)
{
	if (w->full || w->left < sizeof(part) + length) {
		w->full = true;
		return;
	}
	part.length = length;
	memcpy(w->at, &part, sizeof(part));
	memcpy(w->at + sizeof(part), value, length);
	w->at += sizeof(part) + length;
	w->left -= sizeof(part) + length;
}

const struct vfn_common_field vfn_common_fields[] = {
#define FIELD(register, member) \
	{ \
		offsetof(struct vfn_common_cfg, register), \
			sizeof(((struct vfn_common_cfg *)NULL)->register), \
			offsetof(struct vfn_regs, member) \
	}
	FIELD(device_feature_select, device_feature_select),
	FIELD(driver_feature_select, driver_feature_select),
	FIELD(config_msix_vector, config_vector),
	FIELD(queue_select, queue_select),
#undef FIELD
};
const unsigned int vfn_nb_common_fields = sizeof(vfn_common_fields) / sizeof(vfn_common_fields[0]);

static void
put_queue(struct vfn_parts_writer *w, const struct vfn_queue *q)
{
	const struct vfn_queue_regs *r = vfn_queue_regs(q);
	struct vringh_state position = vfn_queue_position(q);
	struct vfn_part_vq_cfg cfg = {
		.size = r->size,
		.vector = r->vector,
		.enabled = r->enabled,
		.desc = r->area[0],
		.driver = r->area[1],
		.device = r->area[2],
	};
	struct vfn_part_vq_notify notify = {.notify_off = q->index, .notify_data = q->index};
	struct vfn_part_vq_position at = {
		.avail = position.avail, .used = position.used, .dirty = r->dirty};
	struct vfn_part part = {.selector.queue = q->index};

	part.type = VFN_PART_VQ_CFG;
	vfn_part_put(w, part, &cfg, sizeof(cfg));
	part.type = VFN_PART_VQ_NOTIFY;
	vfn_part_put(w, part, &notify, sizeof(notify));
	part.type = VFN_PART_VQ_POSITION;
	vfn_part_put(w, part, &at, sizeof(at));
}

static void
put_common(struct vfn_parts_writer *w, uint32_t offset, const void *value, uint32_t length)
{
	vfn_part_put(w, (struct vfn_part){.type = VFN_PART_COMMON_CFG, .selector.offset = offset},
		value, length);
}

/* In the order of virtio 1.4 ("Device parts order"). 0: VFN_PARTS_SIZE bytes are too few. */
uint32_t
vfn_parts_write(struct vfn_function *fn, uint8_t *to)
{
	struct vfn_parts_header header = {.magic = VFN_PARTS_MAGIC, .version = VFN_PARTS_VERSION};
	uint8_t *parts = to + sizeof(header);
	struct vfn_parts_writer w = {.at = parts, .left = VFN_PARTS_SIZE - sizeof(header)};
	const struct vfn_regs *regs = &fn->regs;
	unsigned int i;

	vfn_part_put(&w,
		(struct vfn_part){.type = VFN_PART_DEV_FEATURES, .flags = VFN_PART_OPTIONAL},
		&fn->device_features, sizeof(fn->device_features));
	vfn_part_put(&w, (struct vfn_part){.type = VFN_PART_DRV_FEATURES}, &regs->driver_features,
		sizeof(regs->driver_features));
	for (i = 0; i < vfn_nb_common_fields; i++)
		put_common(&w, vfn_common_fields[i].offset,
			(const uint8_t *)regs + vfn_common_fields[i].at, vfn_common_fields[i].len);
	put_common(&w, offsetof(struct vfn_common_cfg, num_queues), &fn->nb_queues,
		sizeof(fn->nb_queues));
	vfn_part_put(&w, (struct vfn_part){.type = VFN_PART_STATUS}, &regs->status,
		sizeof(regs->status));
	for (i = 0; i < fn->nb_queues; i++)
		put_queue(&w, &fn->queue[i]);
	fn->class->parts_get(fn, &w);
	if (w.full)
		return 0;
	header.length = w.at - parts;
	header.checksum = vfn_parts_checksum(parts, header.length);
	memcpy(to, &header, sizeof(header));
	return sizeof(header) + header.length;
}

/* 0; -ENOSPC if the window is too small; -EBUSY if what is worked on does not end. */
static int
parts_get(struct vfn_function *fn)
{
	uint32_t len;

	/* A cut through what the pollers do: between two bursts nothing is in flight. */
	vfn_quiesce(fn);
	if (!vfn_drain(fn, NULL)) {
		vfn_resume(fn);
		return -EBUSY;
	}
	len = vfn_parts_write(fn, fn->parts);
	vfn_resume(fn);
	if (len == 0)
		return -ENOSPC;
	fn->parts_len = len;
	return 0;
}

void
vfn_parts_control(struct vfn_function *fn, uint32_t command)
{
	int ret = -EINVAL;

	if (command == VFN_PARTS_GET)
		ret = parts_get(fn);
	else if (command == VFN_PARTS_SET || command == VFN_PARTS_CHECK)
		ret = vfn_parts_set(fn, command == VFN_PARTS_CHECK);
	fn->parts_result = -ret;
	FN_LOG(DEBUG, fn, "parts command %u: %s", command, ret == 0 ? "done" : strerror(-ret));
}
