/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What a function offers, where that is left to its client: control=host of an endpoint. Control. */

#include <rte_ether.h>

#include "net.h"

#define MIN_MTU 68 /* 5.1.4.1 */

/* What the operator has given it is the most that it can do. */
static bool
can(const struct vfn_net *net, const struct vfn_endpoint_control *c)
{
	struct rte_ether_addr mac;
	unsigned int i;

	for (i = 0; i < sizeof(c->reserved) / sizeof(c->reserved[0]); i++)
		if (c->reserved[i] != 0)
			return false;
	memcpy(&mac, c->mac, sizeof(mac));
	return rte_is_valid_assigned_ether_addr(&mac) && c->max_pairs <= net->base.max_pairs &&
		(c->mtu == 0 || c->mtu >= MIN_MTU);
}

static void
set(struct vfn_net *net, const struct vfn_endpoint_control *c)
{
	struct vfn_function *fn = &net->fn;

	net->params.max_pairs = c->max_pairs != 0 ? c->max_pairs : net->base.max_pairs;
	memcpy(net->params.mac, c->mac, sizeof(c->mac));
	net->params.mtu = net->offered_mtu = c->mtu;
	fn->device_features = net->base_features & ~(FEATURE(VIRTIO_NET_F_MTU) | FEATURE(VIRTIO_NET_F_MQ));
	if (c->mtu != 0)
		fn->device_features |= FEATURE(VIRTIO_NET_F_MTU);
	if (net->params.max_pairs > 1)
		fn->device_features |= FEATURE(VIRTIO_NET_F_MQ);
	fn->device_features &= c->features;
}

int
vfn_manage_net_offer(struct vfn_function *fn, const struct vfn_endpoint_control *offer,
	struct vfn_endpoint_control *now)
{
	struct vfn_net *net = vfn_net(fn);
	int ret = 0;

	vfn_lock(fn);
	if (now == NULL || offer != NULL) {
		struct vfn_endpoint_control c = {
			.features = UINT64_MAX, .mtu = net->base.mtu};

		memcpy(c.mac, net->base.mac, sizeof(c.mac));
		if (offer != NULL)
			c = *offer;
		if (fn->regs.status != 0)
			ret = -EBUSY;
		else if (!can(net, &c))
			ret = -EINVAL;
		if (ret == 0) {
			set(net, &c);
			/* Registers that are the class's have it from a reset on. */
			vfn_function_reset(fn);
			fn->regs.config_generation++;
		}
	}
	if (now != NULL) {
		*now = (struct vfn_endpoint_control){.features = fn->device_features,
			.mtu = net->params.mtu,
			.max_pairs = net->params.max_pairs};
		memcpy(now->mac, net->params.mac, sizeof(now->mac));
	}
	vfn_unlock(fn);
	return ret;
}
