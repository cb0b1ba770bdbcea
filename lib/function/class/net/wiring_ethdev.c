/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A DPDK port as the function's network side: found by its name when the first queue runs, owned,
 * configured and started, and let go when the function goes or the port is removed. Control; the
 * port's events come on any thread.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_alarm.h>
#include <rte_common.h>
#include <rte_mbuf.h>

#include "ethdev.h"

/* Descriptors of each queue, as far as the port has that many. */
#define RING_SIZE 512

/* A port that is new has to be ready before it can be opened. */
#define EVENT_DELAY_US 10000

/* Once, until it works again: every queue that starts is a reason to try. */
#define TELL(e, fn, level, fmt, ...) \
	do { \
		if (!(e)->told) \
			FN_LOG(level, fn, "ethdev=%s: " fmt, vfn_net(fn)->params.wiring.ethdev, \
				##__VA_ARGS__); \
		(e)->told = true; \
	} while (0)

static int
pool_open(struct vfn_function *fn)
{
	struct vfn_ethdev *e = vfn_net(fn)->end;
	uint32_t room = RTE_PKTMBUF_HEADROOM + e->max_frame, count;
	char name[RTE_MEMPOOL_NAMESIZE];
	int node;

	room = RTE_MIN(RTE_MAX(room, (uint32_t)RTE_MBUF_DEFAULT_BUF_SIZE), (uint32_t)UINT16_MAX);
	e->max_frame = RTE_MIN(e->max_frame, room - RTE_PKTMBUF_HEADROOM);
	count = (e->nb_rx + e->nb_tx) * (RING_SIZE + 2 * VFN_BURST);
	/*
	 * It stays for as long as the process does: the port keeps buffers when it is stopped, and
	 * others may have some that came through it.
	 */
	snprintf(name, sizeof(name), "vfn_%u_%u_%u", e->port, room, e->nb_rx + e->nb_tx);
	e->pool = rte_mempool_lookup(name);
	if (e->pool != NULL)
		return 0;
	node = fn->params.pollers.nb_cpus > 0 ? vfn_cpu_node(fn->params.pollers.cpu[0]) :
						rte_eth_dev_socket_id(e->port);
	e->pool = rte_pktmbuf_pool_create(name, count, 0, 0, room, node);
	if (e->pool == NULL && node != SOCKET_ID_ANY)
		e->pool = rte_pktmbuf_pool_create(name, count, 0, 0, room, SOCKET_ID_ANY);
	if (e->pool != NULL)
		return 0;
	TELL(e, fn, ERR, "no memory for %u buffers of %u bytes (EAL option -m)", count, room);
	return -ENOMEM;
}

/* Of as many queues as the function and the port have. */
static int
port_configure(struct vfn_function *fn)
{
	struct vfn_ethdev *e = vfn_net(fn)->end;
	struct rte_eth_conf conf = {0};
	struct rte_eth_dev_info info;
	uint16_t mtu;
	int ret;

	ret = rte_eth_dev_info_get(e->port, &info);
	if (ret == 0)
		ret = rte_eth_dev_get_mtu(e->port, &mtu);
	if (ret < 0)
		return ret;
	if (vfn_net(fn)->params.mtu != 0)
		mtu = vfn_net(fn)->params.mtu;
	e->nb_rx = RTE_MIN(vfn_net(fn)->params.max_pairs, info.max_rx_queues);
	e->nb_tx = RTE_MIN(vfn_net(fn)->params.max_pairs, info.max_tx_queues);
	if (e->nb_rx == 0 || e->nb_tx == 0)
		return -ENODEV;
	conf.rxmode.mtu = mtu;
	conf.intr_conf.lsc = (*info.dev_flags & RTE_ETH_DEV_INTR_LSC) != 0;
	ret = rte_eth_dev_configure(e->port, e->nb_rx, e->nb_tx, &conf);
	if (ret == 0 && vfn_net(fn)->params.mtu != 0) {
		ret = rte_eth_dev_set_mtu(e->port, mtu);
		if (ret == -ENOTSUP)
			ret = 0; /* it has none of its own */
	}
	e->max_frame = RTE_MIN(mtu + (uint32_t)(ETH_HDR_LEN + VLAN_LEN), MAX_FRAME);
	return ret;
}

static int
port_start(struct vfn_function *fn)
{
	struct vfn_ethdev *e = vfn_net(fn)->end;
	uint16_t nb_rxd = RING_SIZE, nb_txd = RING_SIZE, i;
	int node = rte_eth_dev_socket_id(e->port), ret;

	ret = rte_eth_dev_adjust_nb_rx_tx_desc(e->port, &nb_rxd, &nb_txd);
	for (i = 0; ret == 0 && i < e->nb_rx; i++)
		ret = rte_eth_rx_queue_setup(e->port, i, nb_rxd, node, NULL, e->pool);
	for (i = 0; ret == 0 && i < e->nb_tx; i++)
		ret = rte_eth_tx_queue_setup(e->port, i, nb_txd, node, NULL);
	if (ret == 0)
		ret = rte_eth_dev_start(e->port);
	/* What the guest wants is not up to the port's address. */
	if (ret == 0 && rte_eth_promiscuous_enable(e->port) != 0)
		FN_LOG(INFO, fn, "ethdev=%s: has no promiscuous mode",
			vfn_net(fn)->params.wiring.ethdev);
	return ret;
}

static bool
port_link(uint16_t port)
{
	struct rte_eth_link link;

	/* A port that cannot say it is not down. */
	return rte_eth_link_get_nowait(port, &link) != 0 || link.link_status == RTE_ETH_LINK_UP;
}

/* Some queue of a guest runs: it needs the port. */
static bool
is_needed(const struct vfn_function *fn)
{
	unsigned int i;

	for (i = 0; i < 2u * vfn_net(fn)->params.max_pairs; i++)
		if (vfn_queue_active(&fn->queue[i]))
			return true;
	return false;
}

/* Take the port, if it is there. */
static bool
port_open(struct vfn_function *fn)
{
	struct rte_eth_dev_owner owner = {0};
	struct vfn_ethdev *e = vfn_net(fn)->end;
	int ret;

	if (rte_eth_dev_get_port_by_name(vfn_net(fn)->params.wiring.ethdev, &e->port) != 0) {
		TELL(e, fn, WARNING, "there is no such port");
		return false;
	}
	owner.id = e->owner;
	snprintf(owner.name, sizeof(owner.name), "%s", fn->params.name);
	if (rte_eth_dev_owner_set(e->port, &owner) != 0) {
		if (rte_eth_dev_owner_get(e->port, &owner) != 0)
			owner.name[0] = '\0';
		TELL(e, fn, ERR, "the port is in use by \"%s\"", owner.name);
		return false;
	}
	ret = port_configure(fn);
	if (ret == 0)
		ret = pool_open(fn);
	if (ret == 0)
		ret = port_start(fn);
	if (ret < 0) {
		TELL(e, fn, ERR, "%s",
			ret == -EBUSY ? "the port is in use, it was started by somebody else" :
					strerror(-ret));
		rte_eth_dev_owner_unset(e->port, e->owner);
		return false;
	}
	e->told = false;
	e->link = port_link(e->port);
	FN_LOG(INFO, fn,
		"ethdev=%s: port %u, %u receive and %u transmit queues, frames of %u bytes",
		vfn_net(fn)->params.wiring.ethdev, e->port, e->nb_rx, e->nb_tx, e->max_frame);
	return true;
}

/* ---- operations ---- */

static void
ethdev_close(struct vfn_net *net)
{
	struct vfn_ethdev *e = net->end;

	if (e->open) {
		rte_eth_dev_stop(e->port);
		rte_eth_dev_owner_unset(e->port, e->owner);
	}
	free(e);
	net->end = NULL;
}

static enum vfn_link_down
ethdev_down(const struct vfn_net *net)
{
	const struct vfn_ethdev *e = net->end;

	if (!e->open)
		return VFN_LINK_NO_PORT;
	return e->link ? VFN_LINK_UP : VFN_LINK_PORT_DOWN;
}

static void
ethdev_activated(struct vfn_net *net)
{
	struct vfn_ethdev *e = net->end;

	if (e->open || !is_needed(&net->fn) || !port_open(&net->fn))
		return;
	vfn_quiesce(&net->fn);
	e->open = true;
	vfn_resume(&net->fn);
	vfn_net_link_changed(net);
}

/* Each receive queue of the port is work for the poller that has the guest's queue. */
static void
ethdev_start(struct vfn_net *net, struct vfn_receivers *to)
{
	struct vfn_ethdev *e = net->end;
	struct vfn_receivers own = {0};
	unsigned int i;

	RTE_SET_USED(to);
	vfn_net_receivers(net, &own);
	for (i = 0; own.nb > 0 && i < e->nb_rx; i++) {
		struct vfn_queue *rx = own.queue[i % own.nb];

		e->rx[i] = (struct vfn_ethdev_rx){
			.work = {.ops = &vfn_ethdev_receive_ops,
				.fn = &net->fn,
				.poller = vfn_queue_poller(rx),
				.queue = rx},
			.queue = i,
			.filter = vfn_filter_needed(net),
		};
		vfn_work_add(&net->fn, &e->rx[i].work);
	}
}

/* Transmit queues of the port are given to pollers by their number, so that none has two. */
static void
ethdev_send(struct vfn_net *net, unsigned int i, struct vfn_net_work *w)
{
	const struct vfn_ethdev *e = net->end;

	w->work.ops = &vfn_ethdev_send_ops;
	w->work.poller = net->fn.poller[i % e->nb_tx % net->fn.nb_pollers];
}

/* ---- events ---- */

/* Of an ethdev wiring; NULL: another. */
static struct vfn_ethdev *
ethdev_of(struct vfn_function *fn)
{
	return fn->class == &vfn_net_class && vfn_net(fn)->wiring == &vfn_wiring_ethdev ?
		vfn_net(fn)->end :
		NULL;
}

static void
look_at(struct vfn_function *fn)
{
	struct vfn_ethdev *e = ethdev_of(fn);
	bool link;

	if (e == NULL)
		return;
	if (!e->open) {
		ethdev_activated(vfn_net(fn));
		return;
	}
	link = port_link(e->port);
	if (link == e->link)
		return;
	vfn_quiesce(fn);
	e->link = link;
	vfn_resume(fn);
	vfn_net_link_changed(vfn_net(fn));
}

/* On EAL's interrupt thread: links that changed, and ports that are there now. */
static void
look_again(void *arg)
{
	RTE_SET_USED(arg);
	vfn_foreach(look_at);
}

/* When the list is unlocked again the port's memory may be gone. */
static void
let_go(uint16_t port)
{
	struct vfn_function *fn;

	vfn_list_lock();
	for (fn = vfn_next(NULL); fn != NULL; fn = vfn_next(fn)) {
		struct vfn_ethdev *e;

		vfn_lock(fn);
		e = ethdev_of(fn);
		if (e != NULL && e->open && e->port == port) {
			vfn_quiesce(fn);
			e->open = false;
			vfn_resume(fn);
			vfn_net_link_changed(vfn_net(fn));
			FN_LOG(WARNING, fn, "ethdev=%s: the port is gone",
				vfn_net(fn)->params.wiring.ethdev);
		}
		vfn_unlock(fn);
	}
	vfn_list_unlock();
}

/* Any thread, with locks of the port's driver or of its bus: nothing of a port is touched here. */
static int
event(uint16_t port, enum rte_eth_event_type type, void *arg, void *ret_param)
{
	RTE_SET_USED(arg);
	RTE_SET_USED(ret_param);
	if (type == RTE_ETH_EVENT_DESTROY)
		let_go(port);
	else
		rte_eal_alarm_set(EVENT_DELAY_US, look_again, NULL);
	return 0;
}

/* For as long as the process lives: which port will be meant is not known yet. */
static int
events_register(void)
{
	static const enum rte_eth_event_type types[] = {
		RTE_ETH_EVENT_INTR_LSC, RTE_ETH_EVENT_NEW, RTE_ETH_EVENT_DESTROY};
	static bool registered;
	unsigned int i;

	for (i = 0; i < RTE_DIM(types) && !registered; i++)
		if (rte_eth_dev_callback_register(RTE_ETH_ALL, types[i], event, NULL) != 0)
			return -ENOMEM;
	registered = true;
	return 0;
}

static int
ethdev_open(struct vfn_net *net)
{
	struct vfn_function *other;
	struct vfn_ethdev *e;
	int ret;

	for (other = vfn_next(NULL); other != NULL; other = vfn_next(other)) {
		if (other != &net->fn && ethdev_of(other) != NULL &&
			strcmp(vfn_net(other)->params.wiring.ethdev, net->params.wiring.ethdev) ==
				0) {
			FN_LOG(ERR, &net->fn, "ethdev=%s: %s has that port already",
				net->params.wiring.ethdev, other->params.name);
			return -EBUSY;
		}
	}
	ret = events_register();
	if (ret < 0)
		return ret;
	e = calloc(1, sizeof(*e));
	if (e == NULL)
		return -ENOMEM;
	ret = rte_eth_dev_owner_new(&e->owner);
	if (ret < 0) {
		free(e);
		return ret;
	}
	net->end = e;
	return 0;
}

const struct vfn_net_wiring vfn_wiring_ethdev = {
	.open = ethdev_open,
	.close = ethdev_close,
	.down = ethdev_down,
	.activated = ethdev_activated,
	.start = ethdev_start,
	.send = ethdev_send,
	.whole_frames = true,
};
