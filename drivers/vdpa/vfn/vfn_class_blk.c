/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The driver's part of the block class, and its operator's commands by telemetry. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include <rte_common.h>

#include "vfn_blk_function.h"
#include "vfn_drv.h"
#include "vfn_telemetry.h"
#include "vfn_vpci_regs.h"

static int
config_read(struct vfn_dev *dev, struct virtio_blk_config *config)
{
	uint8_t generation;

	return vfn_vpci_config(&dev->pci, 0, config, sizeof(*config), &generation);
}

static int
blk_init(struct vfn_dev *dev)
{
	struct virtio_blk_config config;

	if (dev->pci.type != VIRTIO_ID_BLOCK || config_read(dev, &config) < 0 ||
		config.num_queues == 0 || config.num_queues > dev->pci.nb_queues) {
		DEV_LOG(ERR, dev, "the function is none of the block class");
		return -ENODEV;
	}
	dev->max_pairs = config.num_queues;
	return 0;
}

static int
blk_begin(struct vfn_dev *dev)
{
	return dev->function != NULL ? vfn_manage_blk_claim(dev->function) : 0;
}

static void
blk_leave(struct vfn_dev *dev)
{
	if (dev->function != NULL)
		vfn_manage_blk_release(dev->function);
}

#define WCE_AT offsetof(struct virtio_blk_config, wce)

static int
writeback_set(struct vfn_dev *dev, uint8_t v)
{
	return vfn_vpci_place_write(&dev->pci, &dev->pci.device, WCE_AT, &v, sizeof(v));
}

/* A guest writes its write cache's mode, and nothing else (virtio 1.3, 5.2.4). */
static int
blk_config_write(struct vfn_dev *dev, struct vfn_guest *guest, const uint8_t *config,
	uint32_t offset, uint32_t size)
{
	uint8_t v;
	int ret = 0;

	if (offset > WCE_AT || WCE_AT - offset >= size)
		return -EINVAL;
	v = config[WCE_AT - offset];
	if (v > 1 || !(dev->pci.features & UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE))
		return -EINVAL;
	if (dev->guest == guest && dev->state == VFN_RUNNING && !vfn_remote_gone(dev))
		ret = writeback_set(dev, v);
	if (ret == 0)
		guest->writeback = v;
	return ret;
}

/* A mode that came with restored parts is the guest's as well. */
static int
blk_config_start(struct vfn_dev *dev, struct vfn_guest *guest, uint64_t features)
{
	struct virtio_blk_config config;
	int ret;

	if (!(features & UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE))
		return 0;
	if (guest->writeback >= 0)
		return writeback_set(dev, guest->writeback);
	ret = config_read(dev, &config);
	if (ret == 0)
		guest->writeback = config.wce;
	return ret;
}

static void
blk_config_replace(const struct vfn_guest *guest, uint8_t *config, uint32_t size)
{
	if (guest->writeback >= 0 && size > WCE_AT)
		config[WCE_AT] = guest->writeback;
}

static void
blk_tell(struct vfn_dev *dev, struct rte_tel_data *d)
{
	struct virtio_blk_config config = {0};

	config_read(dev, &config);
	vfn_tell_int(d, "queues", dev->max_pairs);
	vfn_tell_uint(d, "capacity_bytes", config.capacity * VFN_BLK_SECTOR);
	vfn_tell_int(d, "block_size", config.blk_size);
	vfn_tell_string(d, "cache", config.wce ? "writeback" : "writethrough");
}

static const char *
blk_role(const struct vfn_dev *dev, uint16_t queue)
{
	RTE_SET_USED(dev);
	RTE_SET_USED(queue);
	return "request";
}

static const char *const stat_names[] = {
#define X(symbol, name) name,
	VFN_BLK_STATS(X)
#undef X
};

/*
 * Without VHOST_USER_PROTOCOL_F_STATUS: librte_vhost configures a block device with SET_VRING_CALL
 * alone, and where it has to see DRIVER_OK first that comes too early.
 */
const struct vfn_drv_class vfn_drv_blk = {
	.name = "blk",
	.virtio_id = VIRTIO_ID_BLOCK,
	.config_size = sizeof(struct virtio_blk_config),
	/* Linux takes no such device. */
	.hidden = UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE,
	.unit = "queues",
	.rings = 1,
	.any_order = true,
	.conf_by_call = true,
	.stats = stat_names,
	.nb_stats = RTE_DIM(stat_names),
	.init = blk_init,
	.begin = blk_begin,
	.leave = blk_leave,
	.config_write = blk_config_write,
	.config_start = blk_config_start,
	.config_replace = blk_config_replace,
	.tell = blk_tell,
	.role = blk_role,
};

/* ---- telemetry ---- */

/* A block device in this process, locked; or NULL with *ret set. */
static struct vfn_dev *
get(const char *params, const char **rest, int *ret)
{
	struct vfn_dev *dev = vfn_telemetry_dev(params, rest);

	*ret = -ENODEV;
	if (dev == NULL || (dev->class == &vfn_drv_blk && dev->function != NULL))
		return dev;
	*ret = vfn_telemetry_refuse(dev, -ENOTSUP, "it is no block function in this process");
	vfn_dev_release(dev);
	return NULL;
}

static bool
number(const char **text, uint64_t *v)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	*v = strtoull(*text, &end, 10);
	*text = end;
	return errno == 0;
}

static int
set_size(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	struct vfn_dev *dev;
	uint64_t size;
	int ret;

	RTE_SET_USED(cmd);
	dev = get(params, &rest, &ret);
	if (dev == NULL)
		return ret;
	if (!number(&rest, &size) || *rest != '\0')
		ret = vfn_telemetry_refuse(dev, -EINVAL, "\"%s\" is no number of bytes", rest);
	else if ((ret = vfn_manage_blk_resize(dev->function, size)) < 0)
		vfn_telemetry_refuse(dev, ret, "cannot be resized: %s", strerror(-ret));
	if (ret == 0) {
		rte_tel_data_start_dict(d);
		vfn_tell_uint(d, "capacity_bytes", vfn_manage_blk_size(dev->function));
	}
	vfn_dev_release(dev);
	return ret;
}

static int
set_rate(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	struct vfn_dev *dev;
	uint64_t ops, bytes;
	int ret;

	RTE_SET_USED(cmd);
	dev = get(params, &rest, &ret);
	if (dev == NULL)
		return ret;
	ret = 0;
	if (!number(&rest, &ops) || *rest++ != ',' || !number(&rest, &bytes) || *rest != '\0') {
		ret = vfn_telemetry_refuse(dev, -EINVAL,
			"a limit is two numbers, requests and bytes per second, 0 for none");
	} else {
		vfn_manage_blk_rate(dev->function, ops, bytes);
		rte_tel_data_start_dict(d);
		vfn_tell_uint(d, "iops", ops);
		vfn_tell_uint(d, "bps", bytes);
	}
	vfn_dev_release(dev);
	return ret;
}

static int
tell_latency(const char *cmd, const char *params, struct rte_tel_data *d)
{
	static const struct {
		const char *name;
		uint32_t ppm;
	} points[] = {{"p50", 500000}, {"p90", 900000}, {"p99", 990000}, {"p99_9", 999000},
		{"p99_99", 999900}, {"max", 1000000}};
	static const char *const kinds[VFN_BLK_KINDS] = {"read", "write", "flush", "discard"};
	struct vfn_blk_latency latency;
	unsigned int kind, p;
	struct vfn_dev *dev;
	uint64_t queue = 0;
	const char *rest;
	char name[32];
	bool all;
	int ret;

	RTE_SET_USED(cmd);
	dev = get(params, &rest, &ret);
	if (dev == NULL)
		return ret;
	all = *rest == '\0';
	if (!all && (!number(&rest, &queue) || *rest != '\0' || queue >= dev->max_pairs)) {
		ret = vfn_telemetry_refuse(
			dev, -EINVAL, "there are queues 0 to %u", dev->max_pairs - 1);
		vfn_dev_release(dev);
		return ret;
	}
	rte_tel_data_start_dict(d);
	for (kind = 0; kind < VFN_BLK_KINDS; kind++) {
		vfn_manage_blk_latency(dev->function, all ? -1 : (int)queue, kind, &latency);
		for (p = 0; p < RTE_DIM(points); p++) {
			snprintf(name, sizeof(name), "%s_%s_ns", kinds[kind], points[p].name);
			vfn_tell_uint(d, name, vfn_blk_percentile(&latency, points[p].ppm));
		}
	}
	vfn_dev_release(dev);
	return 0;
}

void
vfn_blk_register(void)
{
	vfn_telemetry_command("/vfn/blk/size", set_size,
		"Resize a disk. Parameters: device name, bytes or 0 for what its file has now");
	vfn_telemetry_command("/vfn/blk/rate", set_rate,
		"Limit a disk. Parameters: device name, requests and bytes per second, 0 for none");
	vfn_telemetry_command("/vfn/blk/latency", tell_latency,
		"Percentiles of latency of a disk's requests, by kind. Parameters: device name, "
		"and "
		"a queue's number, else of all");
}
