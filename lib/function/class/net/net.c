/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The net class: its operations, and which of its queues' frames go where. Control. */

#include <rte_malloc.h>

#include "net.h"

static const struct vfn_net_wiring *const wirings[] = {
	[VFN_WIRING_LOOPBACK] = &vfn_wiring_loopback,
	[VFN_WIRING_WIRE] = &vfn_wiring_wire,
	[VFN_WIRING_SINK] = &vfn_wiring_sink,
	[VFN_WIRING_ETHDEV] = &vfn_wiring_ethdev,
	[VFN_WIRING_GEN] = &vfn_wiring_gen,
};

/* Frames pass while there is another end and no operator has unplugged one of the two. */
enum vfn_link_down
vfn_net_link_down(const struct vfn_net *net)
{
	if (net->unplugged)
		return VFN_LINK_UNPLUGGED;
	return net->wiring->down != NULL ? net->wiring->down(net) : VFN_LINK_UP;
}

/* ---- work ---- */

/*
 * Receive queues that frames may be put into (5.1.6.5.6): active ones of the pairs in use. None is
 * while one is being moved, and who sends is held back for that time, or they would go to others;
 * like where there is only one that is suspended, or whose ring is not mapped.
 */
void
vfn_net_receivers(struct vfn_net *net, struct vfn_receivers *to)
{
	struct vfn_function *fn = &net->fn;
	unsigned int i, pairs = vfn_net_regs(fn)->curr_pairs;
	bool moving = false;

	/* A driver that keeps the control queue to itself tells nobody how many it uses. */
	if (!vfn_has(fn, VIRTIO_NET_F_CTRL_VQ) ||
		!fn->regs.queue[vfn_ctrl_index(fn, &fn->regs)].enabled)
		pairs = net->params.max_pairs;
	for (i = 0; i < pairs; i++) {
		struct vfn_queue *q = &fn->queue[2 * i];
		const struct vfn_queue_regs *r = vfn_queue_regs(q);

		if (vfn_queue_active(q))
			to->queue[to->nb++] = q;
		else if (r->enabled && (r->suspended || q->park.still))
			to->hold = true;
		moving = moving || r->moving;
	}
	if (moving) {
		to->hold = true;
		to->nb = 0;
	}
}

static void
net_start(struct vfn_function *fn)
{
	struct vfn_net *net = vfn_net(fn);
	bool up = vfn_net_link_down(net) == VFN_LINK_UP;
	struct vfn_queue *ctrl = &fn->queue[vfn_ctrl_index(fn, &fn->regs)];
	struct vfn_receivers to = {0};
	unsigned int i;

	if (net->rate != NULL)
		vfn_rate_reset(net->rate);
	if (up && net->wiring->start != NULL)
		net->wiring->start(net, &to);
	for (i = 0; i < net->params.max_pairs; i++) {
		struct vfn_net_work *w = &net->tx[i];
		struct vfn_queue *tx = &fn->queue[2 * i + 1];

		/* While the receiver is only suspended frames wait: nothing is lost. */
		if (!vfn_queue_active(tx) || (to.nb == 0 && to.hold))
			continue;
		*w = (struct vfn_net_work){
			.work = {.ops = &vfn_net_forward_ops,
				.fn = fn,
				.poller = vfn_queue_poller(tx),
				.queue = tx},
			.rate = net->rate,
		};
		if (to.nb > 0) {
			/* A receive queue has one poller, whoever sends to it. */
			struct vfn_queue *rx = to.queue[i % to.nb];

			w->work.waits_for = rx;
			w->work.poller = vfn_queue_poller(rx);
			w->filter = vfn_filter_needed(vfn_net(rx->fn));
			w->short_hdr = vfn_net_hdr_len(fn) != VFN_NET_HDR_SIZE ||
				vfn_net_hdr_len(rx->fn) != VFN_NET_HDR_SIZE;
		} else if (up && net->wiring->send != NULL) {
			net->wiring->send(net, i, w);
		}
		vfn_work_add(fn, &w->work);
	}
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_VQ) && vfn_queue_active(ctrl)) {
		net->ctrl = (struct vfn_work){
			.ops = &vfn_net_ctrl_ops, .fn = fn, .poller = fn->poller[0], .queue = ctrl};
		vfn_work_add(fn, &net->ctrl);
	}
}

static void
net_activated(struct vfn_function *fn)
{
	struct vfn_net *net = vfn_net(fn);

	if (net->wiring->activated != NULL)
		net->wiring->activated(net);
}

/* ---- wiring ---- */

static int
wire(struct vfn_net *net, const struct vfn_net_wiring_params *params)
{
	net->params.wiring = *params;
	net->wiring = wirings[params->kind];
	return net->wiring->open(net);
}

int
vfn_manage_wiring(struct vfn_function *fn, const struct vfn_net_wiring_params *params)
{
	static const struct vfn_net_wiring_params nobody = {.kind = VFN_WIRING_WIRE};
	struct vfn_net *net = vfn_net(fn);
	struct vfn_net_wiring_params old;
	int ret;

	if (strcmp(params->peer, fn->params.name) == 0)
		return -EINVAL;
	vfn_list_lock();
	vfn_lock(fn);
	if (wirings[params->kind]->whole_frames && (fn->device_features & VFN_NET_SEGMENTATION)) {
		vfn_unlock(fn);
		vfn_list_unlock();
		return -ENOTSUP;
	}
	vfn_quiesce(fn);
	net->wiring->close(net);
	old = net->params.wiring;
	ret = wire(net, params);
	if (ret < 0 && wire(net, &old) < 0) {
		FN_LOG(ERR, fn, "no memory for its wiring, there is nobody at its other end");
		wire(net, &nobody);
	}
	vfn_resume(fn);
	vfn_net_link_changed(net);
	net_activated(fn);
	vfn_unlock(fn);
	vfn_list_unlock();
	return ret;
}

/* ---- life ---- */

static uint16_t
net_nb_queues(const struct vfn_function_params *params)
{
	return 2 * ((const struct vfn_net_params *)params->class_params)->max_pairs + 1;
}

static int
net_open(struct vfn_function *fn)
{
	struct vfn_net *net = vfn_net(fn);
	int ret;

	net->params = *(const struct vfn_net_params *)fn->params.class_params;
	net->offered_mtu = net->params.mtu;
	fn->device_features = vfn_net_features(&net->params) | vfn_core_features(fn);
	if (wirings[net->params.wiring.kind]->whole_frames)
		fn->device_features &= ~VFN_NET_SEGMENTATION;
	net->base = net->params;
	net->base_features = fn->device_features;
	ret = vfn_net_rate(net, net->params.rate_mbps);
	if (ret == 0)
		ret = wire(net, &net->params.wiring);
	if (ret < 0) {
		rte_free(net->rate);
		return ret;
	}
	vfn_net_link_changed(net);
	return 0;
}

static void
net_close(struct vfn_function *fn)
{
	struct vfn_net *net = vfn_net(fn);

	vfn_quiesce(fn);
	net->wiring->close(net);
	rte_free(net->rate);
}

static void
net_reset(const struct vfn_function *fn, struct vfn_regs *regs)
{
	const struct vfn_net *net = vfn_net(fn);
	struct vfn_net_regs *r = vfn_net_regs_in(regs);

	memset(r, 0, sizeof(*r));
	memcpy(r->mac, net->params.mac, sizeof(r->mac));
	r->mtu = net->offered_mtu;
	r->curr_pairs = 1;
	vfn_filter_reset(&r->filter);
}

static uint16_t
net_queue_max(const struct vfn_function *fn, unsigned int index)
{
	const struct vfn_net_params *params = &vfn_net(fn)->params;

	if (index >= 2u * params->max_pairs)
		return 64;
	return params->queue_size != 0 ? params->queue_size : VRINGH_MAX_SIZE;
}

/* Transmit queues. */
static bool
net_queue_reads_only(const struct vfn_function *fn, unsigned int index)
{
	RTE_SET_USED(fn);
	return index % 2 == 1;
}

const struct vfn_class vfn_net_class = {
	.device_id = VFN_NET_DEVICE_ID,
	.pci_class = {0, 0, 0x02},
	.config_size = sizeof(struct virtio_net_config),
	.stride = 2,
	.size = sizeof(struct vfn_net),
	.nb_queues = net_nb_queues,
	.open = net_open,
	.close = net_close,
	.cancel = vfn_net_ctrl_cancel,
	.reset = net_reset,
	.features_missing = vfn_net_features_missing,
	.config_read = vfn_net_config_read,
	.queue_max = net_queue_max,
	.queue_reads_only = net_queue_reads_only,
	.start = net_start,
	.activated = net_activated,
	.parts_get = vfn_net_parts_get,
	.parts_set = vfn_net_parts_set,
};
