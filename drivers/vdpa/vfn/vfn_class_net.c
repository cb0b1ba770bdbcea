/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The driver's part of the net class. */

#include <errno.h>
#include <string.h>

#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#include <rte_common.h>

#include "vfn_drv.h"
#include "vfn_telemetry.h"

/* Without a control queue none of them can be had. */
#define HIDDEN \
	(UINT64_C(1) << VIRTIO_NET_F_CTRL_VQ | UINT64_C(1) << VIRTIO_NET_F_CTRL_RX | \
		UINT64_C(1) << VIRTIO_NET_F_CTRL_RX_EXTRA | \
		UINT64_C(1) << VIRTIO_NET_F_CTRL_VLAN | \
		UINT64_C(1) << VIRTIO_NET_F_CTRL_MAC_ADDR | \
		UINT64_C(1) << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | \
		UINT64_C(1) << VIRTIO_NET_F_GUEST_ANNOUNCE | UINT64_C(1) << VIRTIO_NET_F_MQ)

static int
net_init(struct vfn_dev *dev)
{
	struct virtio_net_config config;

	if (dev->pci.type != VIRTIO_ID_NET || vfn_config_read(dev, &config) < 0 ||
		config.max_virtqueue_pairs == 0 ||
		2 * config.max_virtqueue_pairs >= dev->pci.nb_queues) {
		DEV_LOG(ERR, dev, "the function is none of the net class");
		return -ENODEV;
	}
	dev->max_pairs = config.max_virtqueue_pairs;
	return 0;
}

/* The guest acknowledges an announcement to the front-end, which keeps that to itself. */
static void
net_config_was_read(struct vfn_dev *dev, const uint8_t *config, uint32_t size)
{
	uint16_t status;

	if (dev->function == NULL ||
		size < offsetof(struct virtio_net_config, status) + sizeof(status))
		return;
	memcpy(&status, config + offsetof(struct virtio_net_config, status), sizeof(status));
	if (status & VIRTIO_NET_S_ANNOUNCE)
		vfn_manage_announce(dev->function, false);
}

static const char *
down_reason(struct vfn_dev *dev)
{
	static const char *const reasons[VFN_LINK_DOWN_MAX] = {
		[VFN_LINK_UP] = "just going up",
		[VFN_LINK_NO_PEER] =
			"no device at the other end of the wire, see the argument peer",
		[VFN_LINK_UNPLUGGED] = "unplugged, see /vfn/link",
		[VFN_LINK_PEER_UNPLUGGED] =
			"the device at the other end is unplugged, see /vfn/link",
		[VFN_LINK_NO_PORT] = "the port of ethdev is not there or not opened, see the log",
		[VFN_LINK_PORT_DOWN] = "the port of ethdev has no link",
	};
	unsigned int reason;

	if (dev->function == NULL)
		return vfn_remote_gone(dev) ? "there is no endpoint" : "ask the endpoint";
	reason = vfn_manage_link_down(dev->function);
	return reason < RTE_DIM(reasons) ? reasons[reason] : "unknown";
}

static void
net_tell(struct vfn_dev *dev, struct rte_tel_data *d)
{
	struct virtio_net_config config = {0};

	if (vfn_config_read(dev, &config) < 0)
		vfn_remote_check(dev);
	vfn_tell_int(d, "queue_pairs", dev->max_pairs);
	vfn_tell_int(
		d, "control_queue", vfn_ctrl_queue(dev) == UINT16_MAX ? -1 : vfn_ctrl_queue(dev));
	vfn_tell_mac(d, config.mac);
	vfn_tell_int(d, "mtu", config.mtu);
	vfn_tell_string(d, "link", config.status & VIRTIO_NET_S_LINK_UP ? "up" : "down");
	if (!(config.status & VIRTIO_NET_S_LINK_UP))
		vfn_tell_string(d, "link_down", down_reason(dev));
}

static const char *
net_role(const struct vfn_dev *dev, uint16_t queue)
{
	return queue == vfn_ctrl_queue(dev) ? "control" :
		queue >= vfn_nb_data(dev)   ? "none" :
		queue % 2 == 0		    ? "receive" :
					      "transmit";
}

static const char *const stat_names[] = {
#define X(symbol, name) name,
	VFN_NET_STATS(X)
#undef X
};

const struct vfn_drv_class vfn_drv_net = {
	.name = "net",
	.virtio_id = VIRTIO_ID_NET,
	.config_size = sizeof(struct virtio_net_config),
	.unit = "queue pairs",
	.rings = 2,
	.has_ctrl = true,
	.in_pairs = true,
	.protocol = UINT64_C(1) << VHOST_USER_PROTOCOL_F_RARP |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_NET_MTU |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_STATUS,
	.hidden = HIDDEN,
	.stats = stat_names,
	.nb_stats = RTE_DIM(stat_names),
	.init = net_init,
	.config_was_read = net_config_was_read,
	.tell = net_tell,
	.role = net_role,
};
