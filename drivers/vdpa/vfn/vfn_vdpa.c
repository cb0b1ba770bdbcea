/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The driver towards DPDK: probing vdpa_vfn devices, and the operations that librte_vhost calls.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include <rte_common.h>

#include "rte_vdpa_vfn.h"
#include "vfn_drv.h"

static int
vfn_get_queue_num(struct rte_vdpa_device *vdpa, uint32_t *queue_num)
{
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(vdpa);
	int ret;

	if (dev == NULL)
		return -ENODEV;
	/* 0: its endpoint has never been there for us. */
	*queue_num = dev->max_pairs;
	ret = dev->max_pairs == 0 ? -EAGAIN : 0;
	vfn_dev_put(dev);
	return ret;
}

static int
vfn_get_features(struct rte_vdpa_device *vdpa, uint64_t *features)
{
	/*
	 * vhost-user carries no queue resets and no data with a kick; of an IOMMU the driver takes
	 * care, see vfn_iommu.c.
	 */
	const uint64_t hidden = UINT64_C(1) << VIRTIO_F_RING_RESET |
		UINT64_C(1) << VIRTIO_F_NOTIFICATION_DATA |
		UINT64_C(1) << VIRTIO_F_NOTIF_CONFIG_DATA | UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM;
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(vdpa);

	if (dev == NULL)
		return -ENODEV;
	*features = (dev->pci.features & ~hidden) | UINT64_C(1) << VHOST_USER_F_PROTOCOL_FEATURES;
	if (dev->lm != VFN_LM_OFF)
		*features |= UINT64_C(1) << VHOST_F_LOG_ALL;
	vfn_dev_put(dev);
	return 0;
}

static int
vfn_get_protocol_features(struct rte_vdpa_device *vdpa, uint64_t *features)
{
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(vdpa);

	if (dev == NULL)
		return -ENODEV;
	*features = UINT64_C(1) << VHOST_USER_PROTOCOL_F_MQ |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_LOG_SHMFD |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_REPLY_ACK |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_CONFIG |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_BACKEND_REQ | dev->class->protocol;
	if (dev->doorbells.offer)
		*features |= UINT64_C(1) << VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD |
			UINT64_C(1) << VHOST_USER_PROTOCOL_F_HOST_NOTIFIER;
	vfn_dev_put(dev);
	return 0;
}

static int
vfn_dev_conf(int vid)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	int ret;

	if (dev == NULL)
		return -ENODEV;
	ret = vfn_life_start(dev, vid);
	vfn_dev_release(dev);
	return ret;
}

static int
vfn_dev_close(int vid)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);

	if (dev == NULL)
		return -ENODEV;
	vfn_life_stop(dev, vid);
	vfn_dev_release(dev);
	return 0;
}

static int
vfn_dev_cleanup(int vid)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);

	if (dev == NULL)
		return -ENODEV;
	vfn_life_forget(dev, vid);
	vfn_dev_release(dev);
	return 0;
}

static int
vfn_set_vring_state(int vid, int vring, int state)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	int ret;

	if (dev == NULL)
		return -ENODEV;
	ret = vfn_life_vring(dev, vid, vring, state != 0);
	vfn_dev_release(dev);
	return ret;
}

static int
vfn_set_features(int vid)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);

	if (dev == NULL)
		return -ENODEV;
	vfn_life_features(dev, vid);
	vfn_dev_release(dev);
	return 0;
}

/* SEND_RARP. */
static int
vfn_migration_done(int vid)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);

	if (dev == NULL)
		return -ENODEV;
	vfn_lm_announce(dev);
	vfn_dev_release(dev);
	return 0;
}

/* The size is the front-end's, unchecked; the buffer is the message's (vhost-user protocol). */
static int
vfn_get_config(int vid, uint8_t *config, uint32_t size)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	int ret;

	if (dev == NULL)
		return -ENODEV;
	size = RTE_MIN(size, 256u);
	memset(config, 0, size);
	ret = vfn_config_get(dev, vid, config, size);
	vfn_dev_release(dev);
	return ret;
}

int
rte_vdpa_vfn_new_connection(int vid)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	int ret;

	if (dev == NULL)
		return -ENODEV;
	ret = vfn_life_connection(dev, vid);
	vfn_dev_release(dev);
	return ret;
}

/* SET_CONFIG. */
static int
vfn_set_config(int vid, uint8_t *config, uint32_t offset, uint32_t size, uint32_t flags)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	struct vfn_guest *guest;
	int ret = -ENOTSUP;

	RTE_SET_USED(flags);
	if (dev == NULL)
		return -ENODEV;
	guest = vfn_life_guest(dev, vid);
	if (dev->class->config_write != NULL && guest != NULL)
		ret = dev->class->config_write(dev, guest, config, offset, size);
	if (ret < 0)
		DEV_LOG(WARNING, dev, "configuration at %u, %u bytes: not written: %s", offset,
			size, strerror(-ret));
	vfn_dev_release(dev);
	return ret;
}

/* Asked for while the device is being registered, and not in the list yet. */
static int
net_get_dev_type(struct rte_vdpa_device *vdpa, uint32_t *type)
{
	RTE_SET_USED(vdpa);
	*type = RTE_VHOST_VDPA_DEVICE_TYPE_NET;
	return 0;
}

static int
blk_get_dev_type(struct rte_vdpa_device *vdpa, uint32_t *type)
{
	RTE_SET_USED(vdpa);
	*type = RTE_VHOST_VDPA_DEVICE_TYPE_BLK;
	return 0;
}

#define OPS(type) \
	{ \
		.get_queue_num = vfn_get_queue_num, .get_features = vfn_get_features, \
		.get_protocol_features = vfn_get_protocol_features, .dev_conf = vfn_dev_conf, \
		.dev_close = vfn_dev_close, .dev_cleanup = vfn_dev_cleanup, \
		.set_vring_state = vfn_set_vring_state, .set_features = vfn_set_features, \
		.get_vfio_device_fd = vfn_notify_fd, .get_notify_area = vfn_notify_area, \
		.migration_done = vfn_migration_done, .get_stats_names = vfn_stats_names, \
		.get_stats = vfn_stats_get, .reset_stats = vfn_stats_reset, \
		.get_config = vfn_get_config, .set_config = vfn_set_config, \
		.get_dev_type = type##_get_dev_type, \
	}

static struct rte_vdpa_dev_ops net_ops = OPS(net), blk_ops = OPS(blk);

/* In this process. */
static int
function_open(struct vfn_dev *dev, struct vfn_args *args)
{
	int ret;

	args->blk.later = true;
	args->function.class_params = args->is_blk ? (void *)&args->blk : &args->net;
	ret = vfn_function_open(&args->function, &dev->function, &dev->pci.link);
	if (ret < 0) {
		DEV_LOG(ERR, dev, "cannot create the function: %s", strerror(-ret));
		return ret;
	}
	ret = vfn_vpci_init(&dev->pci);
	if (ret == 0)
		ret = dev->class->init(dev);
	if (ret < 0)
		dev->pci.link->ops->close(dev->pci.link);
	return ret;
}

static int
vfn_probe(struct rte_vdev_device *vdev)
{
	struct vfn_args args;
	struct vfn_dev *dev;
	int ret;

	ret = vfn_sdk_check(vdev);
	if (ret == 0)
		ret = vfn_args_parse(rte_vdev_device_name(vdev), rte_vdev_device_args(vdev), &args);
	if (ret < 0)
		return ret;
	dev = calloc(1, sizeof(*dev));
	if (dev == NULL)
		return -ENOMEM;
	memcpy(dev->name, args.function.name, sizeof(dev->name));
	dev->pci.name = dev->name;
	dev->device = &vdev->device;
	dev->class = args.is_blk ? &vfn_drv_blk : &vfn_drv_net;
	dev->lm = args.lm;
	dev->dma = args.function.dma;
	dev->pool = args.function.pool;
	dev->pci.drain_ms = args.drain_ms;
	dev->faults = args.function.faults;
	pthread_mutex_init(&dev->lock, NULL);
	TAILQ_INIT(&dev->guests);
	ret = args.endpoint ? vfn_remote_open(dev, &args) : function_open(dev, &args);
	if (ret < 0)
		goto free_dev;
	ret = vfn_inflight_open(dev, vfn_kernel_inflight(&args));
	if (ret < 0)
		goto close_link;
	ret = vfn_config_open(dev);
	if (ret < 0)
		goto close_inflight;
	ret = vfn_kernel_init(dev, &args);
	if (ret < 0)
		goto close_config;
	vfn_notify_init(dev, &args);
	/* In the list it is complete. */
	dev->vdpa = rte_vdpa_register_device(
		&vdev->device, dev->class == &vfn_drv_blk ? &blk_ops : &net_ops);
	if (dev->vdpa == NULL) {
		DEV_LOG(ERR, dev, "cannot register as vDPA device");
		ret = -EEXIST;
		goto free_kernel;
	}
	if (dev->remote != NULL && (ret = vfn_remote_watch(dev)) < 0)
		goto unregister;
	vfn_dev_add(dev);
	return 0;

unregister:
	rte_vdpa_unregister_device(dev->vdpa);
free_kernel:
	vfn_kernel_free(dev);
close_config:
	vfn_config_close(dev);
close_inflight:
	vfn_inflight_close(dev);
close_link:
	dev->pci.link->ops->close(dev->pci.link);
	vfn_remote_close(dev);
free_dev:
	pthread_mutex_destroy(&dev->lock);
	free(dev);
	return ret;
}

static int
vfn_remove(struct rte_vdev_device *vdev)
{
	struct rte_vdpa_device *vdpa = rte_vdpa_find_device_by_name(rte_vdev_device_name(vdev));
	struct vfn_dev *dev = vdpa != NULL ? vfn_dev_get_by_vdpa(vdpa) : NULL;
	bool busy;

	if (dev == NULL)
		return -ENODEV;
	/* From here on it takes no connection, or it has one. */
	vfn_dev_lock(dev);
	busy = !TAILQ_EMPTY(&dev->guests);
	dev->removed = !busy;
	if (busy)
		DEV_LOG(ERR, dev, "cannot be removed while a guest uses it");
	vfn_dev_release(dev);
	if (busy)
		return -EBUSY;
	/* Whoever has found it has done with it before what it consists of goes. */
	vfn_dev_del(dev);
	rte_vdpa_unregister_device(vdpa);
	vfn_remote_unwatch(dev);
	vfn_kernel_free(dev);
	vfn_config_close(dev);
	dev->pci.link->ops->close(dev->pci.link);
	vfn_remote_close(dev);
	vfn_life_close(dev);
	vfn_saved_free(dev);
	vfn_inflight_close(dev);
	pthread_mutex_destroy(&dev->lock);
	free(dev);
	return 0;
}

struct rte_vdev_driver vfn_driver = {
	.probe = vfn_probe,
	.remove = vfn_remove,
};

RTE_PMD_REGISTER_PARAM_STRING(vdpa_vfn,
	"class=<net|blk> "
	"queues=<1-" RTE_STR(
		VFN_MAX_PAIRS) "> "
			       "mac=<address> "
			       "mtu=<68-65535> "
			       "port=<loopback|wire|sink|ethdev|gen> "
			       "peer=<name> "
			       "ethdev=<name> "
			       "gen=<14-65534> "
			       "offloads=<all|csum|off> "
			       "rate-mbps=<1-1000000> "
			       "poll-cpu=<cpu|[cpu,cpu-cpu]> "
			       "idle=<busy|sleep> "
			       "link=<inproc|endpoint|ntb> "
			       "path=<socket> "
			       "ntb-size=<1-4096> "
			       "ntb-latency=<0-1000000> "
			       "control=<endpoint|host> "
			       "lm=<hw|shadow|off> "
			       "drain-ms=<1-60000> "
			       "doorbell=<on|off> "
			       "inflight=<directory> "
			       "socket=<path> "
			       "socket-mode=<octal> "
			       "socket-owner=<user:group> "
			       "vduse=<name> "
			       "vduse-packed=<on|off> "
			       "vduse-timeout=<1-3600> "
			       "file=<path> "
			       "mem=<bytes> "
			       "null=<bytes> "
			       "readonly=<on|off> "
			       "share=<on|off> "
			       "serial=<text> "
			       "block-size=<512-65536> "
			       "cache=<writeback|writethrough> "
			       "iops=<number> "
			       "bps=<number> "
			       "rate-group=<name> "
			       "dma=<direct|iommu|bounce> "
			       "pool=<addr+len|[addr+len,addr+len]> "
			       "fault=<no-log|no-used-log|no-suspend|no-retry|no-flush>");
