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
struct vfn_guest;

struct vfn_drv_class {
	const char *name;
	uint16_t virtio_id;
	uint16_t config_size;
	/* What librte_vhost counts queues in: its name, and as rings that a front-end may have. */
	const char *unit;
	uint16_t rings;
	bool has_ctrl;	/* and one more may be the control queue, see vfn_ctrl.c */
	bool any_order; /* chains are used in any order */
	bool in_pairs;	/* of which the second queue is only read */
	/* Bits of VHOST_USER_PROTOCOL_F_* beside those of every device. */
	uint64_t protocol;
	/* librte_vhost calls dev_conf with SET_VRING_CALL alone, which may have come before. */
	bool conf_by_call;
	/* Features that a device of the kernel's cannot have. */
	uint64_t hidden;
	const char *const *stats; /* the class's, which are behind those of every queue */
	unsigned int nb_stats;
	/* Set max_pairs, in units of rings. 0, or -ENODEV: the function is another one. */
	int (*init)(struct vfn_dev *dev);
	/*
	 * A guest is about to have the function: 0; -EBUSY, what it works on is in use; or another
	 * errno, with the reason in the log. Another process takes the device over, and no guest
	 * has it. NULL: no matter.
	 */
	int (*begin)(struct vfn_dev *dev);
	void (*leave)(struct vfn_dev *dev);
	/* A front-end has read the configuration; NULL: no matter. */
	void (*config_was_read)(struct vfn_dev *dev, const uint8_t *config, uint32_t size);
	/*
	 * A front-end writes some of it: 0 or a negative errno. It does so at any time, and once:
	 * QEMU tells its guest from then on what it wrote, whatever is reset or started meanwhile.
	 * So config_start() writes it again, before queues run; and what is read in between is
	 * replaced by what will be. NULL: it can't.
	 */
	int (*config_write)(struct vfn_dev *dev, struct vfn_guest *guest, const uint8_t *config,
		uint32_t offset, uint32_t size);
	int (*config_start)(struct vfn_dev *dev, struct vfn_guest *guest, uint64_t features);
	void (*config_replace)(const struct vfn_guest *guest, uint8_t *config, uint32_t size);
	/* The class's part of /vfn/info; what a queue is for. */
	void (*tell)(struct vfn_dev *dev, struct rte_tel_data *d);
	const char *(*role)(const struct vfn_dev *dev, uint16_t queue);
};

extern const struct vfn_drv_class vfn_drv_net, vfn_drv_blk;

#endif /* VFN_DRV_CLASS_H */
