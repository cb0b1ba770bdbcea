/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The common configuration structure (virtio 1.3, 4.1.4.3): status, features, queues. Each write
 * has had its effect when it returns. Control.
 */

#include <errno.h>
#include <string.h>

#include "function.h"

void
vfn_regs_clear(const struct vfn_function *fn, struct vfn_regs *regs)
{
	unsigned int i;

	memset(regs, 0, offsetof(struct vfn_regs, queue));
	regs->config_vector = NO_VECTOR;
	for (i = 0; i < fn->nb_queues; i++)
		vfn_queue_clear(fn, regs, i);
	fn->class->reset(fn, regs);
}

/* Device status 0 (2.1, 4.1.4.3.1): everything as after power-on, maps and fds excepted. */
bool
vfn_function_reset(struct vfn_function *fn)
{
	vfn_quiesce(fn);
	if (!vfn_drain(fn, NULL)) {
		vfn_resume(fn);
		return false;
	}
	vfn_dirty_control(fn, false);
	vfn_doorbells_close(fn);
	vfn_regs_clear(fn, &fn->regs);
	__atomic_store_n(&fn->ring_lost, false, __ATOMIC_RELAXED);
	__atomic_store_n(&fn->isr, 0, __ATOMIC_RELAXED);
	vfn_irqs_update(fn);
	vfn_resume(fn);
	return true;
}

/* Feature negotiation (2.2, 3.1.1): may FEATURES_OK be set? */
bool
vfn_regs_features_ok(const struct vfn_function *fn, const struct vfn_regs *regs)
{
	uint64_t unknown = regs->driver_features & ~fn->device_features;
	uint64_t missing = fn->class->features_missing(regs->driver_features);

	if (unknown != 0)
		FN_LOG(ERR, fn, "features 0x%" PRIx64 " were not offered", unknown);
	else if (missing != 0)
		FN_LOG(ERR, fn, "features 0x%" PRIx64 " need 0x%" PRIx64, regs->driver_features,
			missing);
	else
		return true;
	return false;
}

static void
write_status(struct vfn_function *fn, uint8_t status)
{
	struct vfn_regs *regs = &fn->regs;
	unsigned int i;

	if (status == 0) {
		vfn_function_reset(fn);
		return;
	}
	/* Bits are never cleared but by a reset (2.1.1). */
	status |= regs->status;
	if ((status & ~regs->status) & VIRTIO_CONFIG_S_FEATURES_OK) {
		if (!vfn_regs_features_ok(fn, regs)) {
			status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
		} else if (vfn_has(fn, VIRTIO_F_RING_PACKED)) {
			for (i = 0; i < fn->nb_queues; i++)
				regs->queue[i].position = VRINGH_PACKED_START;
		}
	}
	if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK)) {
		FN_LOG(ERR, fn, "DRIVER_OK before FEATURES_OK");
		status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	}
	if (status == regs->status)
		return;
	vfn_quiesce(fn);
	regs->status = status;
	vfn_resume(fn);
	fn->class->activated(fn);
	FN_LOG(DEBUG, fn, "status 0x%x", status);
}

static void
queue_reset(struct vfn_queue *q)
{
	struct vfn_queue_regs *r = vfn_queue_regs(q);
	bool moving = r->enabled && r->suspended;

	vfn_quiesce(q->fn);
	/* Then queue_enable stays 1, too. */
	if (!vfn_drain(q->fn, q)) {
		vfn_resume(q->fn);
		return;
	}
	vfn_queue_clear(q->fn, &q->fn->regs, q->index);
	r->moving = moving;
	if (vfn_has(q->fn, VIRTIO_F_RING_PACKED))
		r->position = VRINGH_PACKED_START;
	vfn_irqs_update(q->fn);
	vfn_resume(q->fn);
}

/* A register's place and width as one number, so that a wrong width is an unknown register. */
#define REG(offset, width)	((uint64_t)(offset) << 4 | (width))
#define FIELD(field)		offsetof(struct vfn_common_cfg, field)
#define COMMON_REG(field, type) REG(FIELD(field), sizeof(type))

/*
 * Registers of the selected queue. Where there is no such queue they read as 0 and writes are
 * lost (4.1.5.1.3); what describes a ring is fixed once it is enabled.
 */
static int
write_queue(struct vfn_function *fn, struct vfn_queue *q, uint64_t reg, uint32_t v)
{
	struct vfn_queue_regs *r = q != NULL ? vfn_queue_regs(q) : NULL;
	bool settable = r != NULL && !r->enabled;
	unsigned int area;

	switch (reg) {
	case COMMON_REG(queue_msix_vector, uint16_t):
		if (q != NULL)
			vfn_queue_set_vector(q, v);
		return 0;
	case COMMON_REG(queue_enable, uint16_t):
		/* The driver must not write 0 (4.1.4.3.2), nor enable before FEATURES_OK. */
		if (settable && v == 1 && (fn->regs.status & VIRTIO_CONFIG_S_FEATURES_OK))
			vfn_queue_enable(q);
		return 0;
	case COMMON_REG(queue_reset, uint16_t):
		if (q != NULL && v == 1 && vfn_has(fn, VIRTIO_F_RING_RESET))
			queue_reset(q);
		return 0;
	case COMMON_REG(queue_size, uint16_t):
		if (settable)
			r->size = v;
		return 0;
	case COMMON_REG(queue_desc_lo, uint32_t):
	case COMMON_REG(queue_desc_hi, uint32_t):
	case COMMON_REG(queue_driver_lo, uint32_t):
	case COMMON_REG(queue_driver_hi, uint32_t):
	case COMMON_REG(queue_device_lo, uint32_t):
	case COMMON_REG(queue_device_hi, uint32_t):
		area = ((reg >> 4) - FIELD(queue_desc_lo)) / sizeof(uint32_t);
		if (settable)
			vfn_set_half(&r->area[area / 2], area % 2, v);
		return 0;
	}
	return -EINVAL;
}

int
vfn_common_write(struct vfn_function *fn, uint64_t offset, uint32_t v, size_t len)
{
	struct vfn_regs *regs = &fn->regs;

	switch (REG(offset, len)) {
	case COMMON_REG(device_feature_select, uint32_t):
		regs->device_feature_select = v;
		return 0;
	case COMMON_REG(driver_feature_select, uint32_t):
		regs->driver_feature_select = v;
		return 0;
	case COMMON_REG(driver_feature, uint32_t):
		/* Frozen by FEATURES_OK (2.2.1). */
		if (regs->driver_feature_select < 2 &&
			!(regs->status & VIRTIO_CONFIG_S_FEATURES_OK))
			vfn_set_half(&regs->driver_features, regs->driver_feature_select, v);
		return 0;
	case COMMON_REG(config_msix_vector, uint16_t):
		/* A vector that cannot be had reads back as none (4.1.5.1.2). */
		regs->config_vector = v < vfn_nb_vectors(fn) ? v : NO_VECTOR;
		return 0;
	case COMMON_REG(device_status, uint8_t):
		write_status(fn, v);
		return 0;
	case COMMON_REG(queue_select, uint16_t):
		regs->queue_select = v;
		return 0;
	}
	return write_queue(fn, vfn_selected(fn), REG(offset, len), v);
}

/*
 * The generation of the device configuration is another one as soon as that differs from what was
 * last read (4.1.4.3.1), whoever changed it; once until it is read again, as 256 times is never.
 */
static uint8_t
config_generation(struct vfn_function *fn)
{
	uint8_t now[VFN_CLASS_CONFIG_SIZE];

	fn->class->config_read(fn, 0, now, fn->class->config_size);
	if (!fn->config_is_new && memcmp(now, fn->config_seen, fn->class->config_size) != 0) {
		fn->config_is_new = true;
		fn->config_generation++;
	}
	return fn->config_generation;
}

int
vfn_device_config_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	const size_t size = fn->class->config_size;

	if (offset > size || len > size - offset)
		return -EINVAL;
	config_generation(fn);
	fn->class->config_read(fn, 0, fn->config_seen, size);
	fn->config_is_new = false;
	memcpy(buf, fn->config_seen + offset, len);
	return 0;
}

/* Whatever was written, 0 or a power of 2 unless rings are packed (4.1.4.3.1); 0 is no queue. */
static uint16_t
size_shown(const struct vfn_function *fn, uint16_t size)
{
	return vfn_has(fn, VIRTIO_F_RING_PACKED) || (size & (size - 1)) == 0 ? size : 0;
}

int
vfn_common_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	const struct vfn_regs *regs = &fn->regs;
	const struct vfn_queue *q = vfn_selected(fn);
	struct vfn_common_cfg cfg = {
		.device_feature_select = regs->device_feature_select,
		.driver_feature_select = regs->driver_feature_select,
		.config_msix_vector = regs->config_vector,
		.num_queues = fn->nb_queues,
		.device_status = regs->status,
		.config_generation = config_generation(fn),
		.queue_select = regs->queue_select,
	};

	if (regs->device_feature_select < 2)
		cfg.device_feature = fn->device_features >> 32 * regs->device_feature_select;
	if (regs->driver_feature_select < 2)
		cfg.driver_feature = regs->driver_features >> 32 * regs->driver_feature_select;
	if (q != NULL) {
		const struct vfn_queue_regs *r = vfn_queue_regs(q);

		cfg.queue_size = size_shown(fn, r->size);
		cfg.queue_msix_vector = r->vector;
		cfg.queue_enable = r->enabled;
		cfg.queue_notify_off = q->index;
		cfg.queue_desc_lo = r->area[0];
		cfg.queue_desc_hi = r->area[0] >> 32;
		cfg.queue_driver_lo = r->area[1];
		cfg.queue_driver_hi = r->area[1] >> 32;
		cfg.queue_device_lo = r->area[2];
		cfg.queue_device_hi = r->area[2] >> 32;
		cfg.queue_notify_data = q->index;
	}
	return vfn_read_struct(offset, buf, len, &cfg, sizeof(cfg));
}
