/* SPDX-License-Identifier: BSD-3-Clause */

/**
 * @file
 * Declarations of the driver's half of DPDK's vDPA interface for a libdpdk without SDK headers.
 *
 * Include vfn_sdk.h, not this file. Unless said otherwise an op returns 0, or a negative value on
 * failure. Ops that take a vid run on librte_vhost's threads; vid names the vhost connection, vring
 * and qid a virtqueue of it.
 */

#ifndef VFN_SDK_VDPA_H
#define VFN_SDK_VDPA_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_compat.h>
#include <rte_vdpa.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rte_device;

/** Every virtqueue of a device, where a queue number is asked for. */
#define RTE_VHOST_QUEUE_ALL UINT16_MAX

/** What a vDPA driver implements; an op marked (required) must not be NULL. */
struct rte_vdpa_dev_ops {
	/** Number of queue pairs (net) or queues. (required) */
	int (*get_queue_num)(struct rte_vdpa_device *dev, uint32_t *queue_num);

	/** Virtio feature bits on offer. (required) */
	int (*get_features)(struct rte_vdpa_device *dev, uint64_t *features);

	/** vhost-user protocol feature bits on offer. (required) */
	int (*get_protocol_features)(struct rte_vdpa_device *dev, uint64_t *protocol_features);

	/** The connection is ready: set the device up and start it. (required) */
	int (*dev_conf)(int vid);

	/** Stop the device. (required) */
	int (*dev_close)(int vid);

	/** The connection is gone: drop what dev_close kept. */
	int (*dev_cleanup)(int vid);

	/** Enable (1) or disable (0) one virtqueue. (required) */
	int (*set_vring_state)(int vid, int vring, int state);

	/** The driver of the guest has changed its features. (required) */
	int (*set_features)(int vid);

	/** The guest has arrived at this host. */
	int (*migration_done)(int vid);

	/** File descriptor of the VFIO group, for the notify area. */
	int (*get_vfio_group_fd)(int vid);

	/** File descriptor of the VFIO device, for the notify area. */
	int (*get_vfio_device_fd)(int vid);

	/** Where in the VFIO device the doorbell of a queue lies, in bytes. */
	int (*get_notify_area)(int vid, int qid, uint64_t *offset, uint64_t *size);

	/** Names of the statistics: how many were written, or exist if stats_names is NULL. */
	int (*get_stats_names)(struct rte_vdpa_device *dev, struct rte_vdpa_stat_name *stats_names,
		unsigned int size);

	/** Statistics of one queue: how many were written. */
	int (*get_stats)(
		struct rte_vdpa_device *dev, int qid, struct rte_vdpa_stat *stats, unsigned int n);

	/** Clear the statistics of one queue. */
	int (*reset_stats)(struct rte_vdpa_device *dev, int qid);

	/** Read size bytes of the device configuration, from its start. */
	int (*get_config)(int vid, uint8_t *config, uint32_t size);

	/** Write size bytes of the device configuration at offset; flags are vhost-user's. */
	int (*set_config)(int vid, uint8_t *config, uint32_t offset, uint32_t size, uint32_t flags);

	/**
	 * RTE_VHOST_VDPA_DEVICE_TYPE_*; net if NULL. Called by rte_vdpa_register_device() with the
	 * lock of the device list held.
	 */
	int (*get_dev_type)(struct rte_vdpa_device *dev, uint32_t *type);
};

/**
 * Offer a device to vhost under its name. ops must outlive the device.
 *
 * @return
 *   The vDPA device; NULL if a required op is missing, the name is taken or memory is short.
 */
__rte_internal struct rte_vdpa_device *rte_vdpa_register_device(
	struct rte_device *rte_dev, struct rte_vdpa_dev_ops *ops);

/** Withdraw and free a vDPA device: 0, or -1 if there is no such device. */
__rte_internal int rte_vdpa_unregister_device(struct rte_vdpa_device *dev);

/**
 * Hand the doorbell page of a queue (or RTE_VHOST_QUEUE_ALL) to the client, or take it back: 0, or
 * a negative value if the client can't or won't.
 */
__rte_internal int rte_vhost_host_notifier_ctrl(int vid, uint16_t qid, bool enable);

/**
 * Copy new used entries from a split ring of the driver's own (a struct vring) to the guest's and
 * log the pages of their buffers as dirty. The used ring itself is for the caller to log.
 *
 * @return
 *   How many entries, or -1.
 */
__rte_internal int rte_vdpa_relay_vring_used(int vid, uint16_t qid, void *vring_m);

#ifdef __cplusplus
}
#endif

#endif /* VFN_SDK_VDPA_H */
