/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The net class's configuration (virtio 1.3, 5.1.4), and what changes it: the operator through
 * the vendor structure, the wire's other end, the driver by its control queue. Control.
 */

#include <errno.h>
#include <string.h>

#include <rte_common.h>

#include "function.h"

#define MIN_MTU 68 /* 5.1.4.1 */

/* With a device reset. What the operator has set stays. */
void
vfn_config_reset(struct vfn_function *fn)
{
	memcpy(fn->config.mac, fn->params.mac, sizeof(fn->config.mac));
	fn->config.status &= ~VIRTIO_NET_S_ANNOUNCE;
	fn->mtu = fn->config.mtu;
}

/* ISR and interrupt of a change of configuration or status (4.1.5.4). */
void
vfn_config_changed(struct vfn_function *fn)
{
	if (!(fn->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	fn->isr |= VFN_ISR_CONFIG;
	if (fn->config_vector != NO_VECTOR && fn->irq_fd[fn->config_vector] >= 0)
		vfn_irq_signal(fn, fn->config_vector, fn->irq_fd[fn->config_vector]);
}

/* The device configuration changed, and its generation with it (4.1.4.3.1). */
static void
changed(struct vfn_function *fn)
{
	fn->config_generation++;
	vfn_config_changed(fn);
}

/* Does the link's status still say what vfn_link_up() does? */
void
vfn_config_link(struct vfn_function *fn)
{
	uint16_t status = fn->config.status & ~VIRTIO_NET_S_LINK_UP;

	if (vfn_link_up(fn))
		status |= VIRTIO_NET_S_LINK_UP;
	if (status == fn->config.status)
		return;
	fn->config.status = status;
	changed(fn);
	FN_LOG(DEBUG, fn, "link %s", vfn_link_up(fn) ? "up" : "down");
}

/* The operator pulls the cable, or plugs it in: what is at its other end sees that too. */
int
vfn_config_set_link(struct vfn_function *fn, uint32_t up)
{
	if (up > 1)
		return -EINVAL;
	vfn_port_stop(fn);
	fn->unplugged = !up;
	vfn_port_start(fn);
	vfn_config_link(fn);
	if (fn->peer != NULL && fn->peer != fn)
		vfn_config_link(fn->peer);
	return 0;
}

/* 1: the guest shall tell the network where it is. 0: it has. */
int
vfn_config_set_announce(struct vfn_function *fn, uint32_t announce)
{
	if (announce > 1)
		return -EINVAL;
	if (!vfn_has(fn, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return -ENOTSUP;
	if (announce) {
		fn->config.status |= VIRTIO_NET_S_ANNOUNCE;
		changed(fn);
	} else if (fn->config.status & VIRTIO_NET_S_ANNOUNCE) {
		/* News to nobody: the driver itself has said so. */
		fn->config.status &= ~VIRTIO_NET_S_ANNOUNCE;
		fn->config_generation++;
	}
	return 0;
}

/*
 * The driver in charge read its MTU long ago, and most never look again. So a smaller one holds
 * at once, a larger one from the next negotiation on (5.1.4.1: nothing is passed that exceeds
 * what was negotiated).
 */
int
vfn_config_set_mtu(struct vfn_function *fn, uint32_t mtu)
{
	if (fn->params.mtu == 0)
		return -ENOTSUP;
	if (mtu < MIN_MTU || mtu > UINT16_MAX)
		return -EINVAL;
	if (mtu == fn->config.mtu)
		return 0;
	vfn_port_stop(fn);
	fn->config.mtu = mtu;
	if (!(fn->status & VIRTIO_CONFIG_S_FEATURES_OK) || mtu < fn->mtu)
		fn->mtu = mtu;
	vfn_port_start(fn);
	changed(fn);
	FN_LOG(DEBUG, fn, "MTU %u", mtu);
	return 0;
}

/* By the driver, which needs no interrupt to know. The port is stopped. */
void
vfn_config_set_mac(struct vfn_function *fn, const uint8_t mac[6])
{
	memcpy(fn->config.mac, mac, sizeof(fn->config.mac));
	fn->config_generation++;
}
