/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The net class's configuration (virtio 1.3, 5.1.4), and what the operator changes in it. Control.
 */

#include <rte_ether.h>

#include "net.h"

#define MIN_MTU 68 /* 5.1.4.1 */

void
vfn_net_config_read(struct vfn_function *fn, uint32_t offset, void *buf, size_t len)
{
	const struct vfn_net_regs *r = vfn_net_regs(fn);
	const struct vfn_net *net = vfn_net(fn);
	struct virtio_net_config config = {
		.status = (net->link_up ? VIRTIO_NET_S_LINK_UP : 0) |
			(r->announce ? VIRTIO_NET_S_ANNOUNCE : 0),
		.max_virtqueue_pairs = net->params.max_pairs,
		.mtu = net->offered_mtu,
	};

	memcpy(config.mac, r->mac, sizeof(config.mac));
	memcpy(buf, (const uint8_t *)&config + offset, len);
}

static void
link_changed(struct vfn_net *net)
{
	bool up = vfn_net_link_down(net) == VFN_LINK_UP;

	if (up == net->link_up)
		return;
	net->link_up = up;
	vfn_config_changed(&net->fn);
	FN_LOG(DEBUG, &net->fn, "link %s", up ? "up" : "down");
}

void
vfn_net_link_changed(struct vfn_net *net)
{
	link_changed(net);
	if (net->fn.partner != NULL)
		link_changed(vfn_net(net->fn.partner));
}

void
vfn_manage_link(struct vfn_function *fn, bool up)
{
	struct vfn_net *net = vfn_net(fn);

	vfn_lock(fn);
	vfn_quiesce(fn);
	net->unplugged = !up;
	vfn_resume(fn);
	vfn_net_link_changed(net);
	vfn_unlock(fn);
}

enum vfn_link_down
vfn_manage_link_down(struct vfn_function *fn)
{
	enum vfn_link_down why;

	vfn_lock(fn);
	why = vfn_net_link_down(vfn_net(fn));
	vfn_unlock(fn);
	return why;
}

int
vfn_manage_announce(struct vfn_function *fn, bool on)
{
	struct vfn_net_regs *r = vfn_net_regs(fn);
	int ret = 0;

	vfn_lock(fn);
	if (!vfn_has(fn, VIRTIO_NET_F_GUEST_ANNOUNCE))
		ret = -ENOTSUP;
	else if (on || r->announce) {
		r->announce = on;
		if (on)
			vfn_config_changed(fn);
	}
	vfn_unlock(fn);
	return ret;
}

/*
 * The driver in charge read its MTU long ago, and most never look again. So a smaller one holds
 * at once, a larger one from the next negotiation on (5.1.4.1: nothing is passed that exceeds
 * what was negotiated).
 */
int
vfn_manage_mtu(struct vfn_function *fn, uint32_t mtu)
{
	struct vfn_net_regs *r = vfn_net_regs(fn);
	struct vfn_net *net = vfn_net(fn);

	if (net->params.mtu == 0)
		return -ENOTSUP;
	if (mtu < MIN_MTU || mtu > UINT16_MAX)
		return -EINVAL;
	vfn_lock(fn);
	if (mtu != net->offered_mtu) {
		vfn_quiesce(fn);
		net->offered_mtu = mtu;
		if (!(fn->regs.status & VIRTIO_CONFIG_S_FEATURES_OK) || mtu < r->mtu)
			r->mtu = mtu;
		vfn_resume(fn);
		vfn_config_changed(fn);
		FN_LOG(DEBUG, fn, "MTU %u", mtu);
	}
	vfn_unlock(fn);
	return 0;
}

int
vfn_manage_mac(struct vfn_function *fn, const uint8_t mac[6])
{
	struct rte_ether_addr addr;

	memcpy(&addr, mac, sizeof(addr));
	if (!rte_is_valid_assigned_ether_addr(&addr))
		return -EINVAL;
	vfn_lock(fn);
	memcpy(vfn_net(fn)->params.mac, mac, sizeof(addr));
	if (!(fn->regs.status & VIRTIO_CONFIG_S_FEATURES_OK)) {
		vfn_quiesce(fn);
		memcpy(vfn_net_regs(fn)->mac, mac, sizeof(addr));
		vfn_resume(fn);
	}
	vfn_unlock(fn);
	return 0;
}
