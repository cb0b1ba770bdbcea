/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the guest sends a guest receives: the same one, or that of the function at the other end of
 * a wire. A wire's ends are partners. Control.
 */

#include "net.h"

static int
loopback_open(struct vfn_net *net)
{
	RTE_SET_USED(net);
	return 0;
}

static void
loopback_close(struct vfn_net *net)
{
	RTE_SET_USED(net);
}

static void
loopback_start(struct vfn_net *net, struct vfn_receivers *to)
{
	vfn_net_receivers(net, to);
}

const struct vfn_net_wiring vfn_wiring_loopback = {
	.open = loopback_open, .close = loopback_close, .start = loopback_start};

/* ---- wire ---- */

/* One of the two names the other. */
static bool
belong_together(const struct vfn_net *a, const struct vfn_net *b)
{
	return strcmp(a->params.wiring.peer, b->fn.params.name) == 0 ||
		strcmp(b->params.wiring.peer, a->fn.params.name) == 0;
}

static int
wire_open(struct vfn_net *net)
{
	struct vfn_function *other, *partner = NULL;

	for (other = vfn_next(NULL); other != NULL; other = vfn_next(other)) {
		if (other == &net->fn || other->class != &vfn_net_class ||
			vfn_net(other)->wiring != &vfn_wiring_wire ||
			!belong_together(net, vfn_net(other)))
			continue;
		if (other->partner != NULL || partner != NULL) {
			FN_LOG(ERR, &net->fn, "peer=%s: that end is wired to %s already",
				other->params.name,
				other->partner != NULL ? other->partner->params.name :
							 partner->params.name);
			return -EBUSY;
		}
		partner = other;
	}
	if (partner != NULL)
		vfn_join(&net->fn, partner);
	return 0;
}

static void
wire_close(struct vfn_net *net)
{
	struct vfn_function *partner = net->fn.partner;

	if (partner == NULL)
		return;
	vfn_part(&net->fn);
	vfn_resume(partner);
	vfn_net_link_changed(vfn_net(partner));
	vfn_unlock(partner);
}

static enum vfn_link_down
wire_down(const struct vfn_net *net)
{
	if (net->fn.partner == NULL)
		return VFN_LINK_NO_PEER;
	return vfn_net(net->fn.partner)->unplugged ? VFN_LINK_PEER_UNPLUGGED : VFN_LINK_UP;
}

static void
wire_start(struct vfn_net *net, struct vfn_receivers *to)
{
	vfn_net_receivers(vfn_net(net->fn.partner), to);
}

const struct vfn_net_wiring vfn_wiring_wire = {
	.open = wire_open, .close = wire_close, .down = wire_down, .start = wire_start};
