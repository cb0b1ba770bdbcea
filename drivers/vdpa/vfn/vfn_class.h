/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the driver has to know of a device class: as little as librte_vhost and telemetry ask for.
 * Operations: dev->lock held, but for init().
 */

#ifndef VFN_DRV_CLASS_H
#define VFN_DRV_CLASS_H

#include <stdbool.h>
#include <stdint.h>

struct rte_tel_data;
struct vfn_dev;

struct vfn_drv_class {
	const char *name;
	uint16_t virtio_id;
	/* What librte_vhost counts queues in, as rings that a front-end may have. */
	uint16_t rings;
	/* Bits of VHOST_USER_PROTOCOL_F_* beside those of every device. */
	uint64_t protocol;
	/* librte_vhost calls dev_conf with SET_VRING_CALL alone, which may have come before. */
	bool conf_by_call;
	/* Features that the function needs, whatever the guest takes. */
	uint64_t own;
	const char *const *stats; /* the class's, which are behind those of every queue */
	unsigned int nb_stats;
	/* Set max_pairs, in units of rings. 0, or -ENODEV: the function is another one. */
	int (*init)(struct vfn_dev *dev);
	/* A front-end has read the configuration; NULL: no matter. */
	void (*config_was_read)(struct vfn_dev *dev, const uint8_t *config, uint32_t size);
	/* A front-end writes some of it. 0 or a negative errno; NULL: it can't. */
	int (*config_write)(struct vfn_dev *dev, const uint8_t *config, uint32_t offset,
		uint32_t size);
	/* The class's part of /vfn/info. */
	void (*tell)(struct vfn_dev *dev, struct rte_tel_data *d);
};

extern const struct vfn_drv_class vfn_drv_net, vfn_drv_blk;

#endif /* VFN_DRV_CLASS_H */
