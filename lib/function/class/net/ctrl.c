/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The net class's control queue (virtio 1.3, 5.1.6.5). Its commands change what pollers work
 * on, so the poller only notices them; they are carried out in control context, by an alarm on
 * EAL's interrupt thread.
 */

#include <string.h>

#include <rte_alarm.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_cycles.h>

#include "net.h"

/* The longest command that is understood: MAC tables of 2,700 addresses together. */
#define MAX_COMMAND (2 * sizeof(uint32_t) + 2700 * 6)

/*
 * A round holds the function's lock and stops the function's pollers, so a driver that never runs
 * out of commands gets a round of so many from time to time. Some rounds come at once: a driver
 * that sets up its device sends one command after the other.
 */
#define ROUND_COMMANDS 16
#define ROUND_US       1000
#define ROUNDS_AT_ONCE 64

static uint8_t
announce_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t cmd, const uint8_t *data,
	size_t len)
{
	(void)net;
	(void)data;
	/* 5.1.6.5.4 */
	if (!vfn_regs_have(regs, VIRTIO_NET_F_GUEST_ANNOUNCE) ||
		cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK || len != 0)
		return VIRTIO_NET_ERR;
	vfn_net_regs_in(regs)->announce = false;
	return VIRTIO_NET_OK;
}

static uint8_t
offloads_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t cmd, const uint8_t *data,
	size_t len)
{
	uint64_t on;

	(void)net;
	/* 5.1.6.5.6 */
	if (!vfn_regs_have(regs, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
		cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || len != sizeof(on))
		return VIRTIO_NET_ERR;
	memcpy(&on, data, sizeof(on));
	on = rte_le_to_cpu_64(on);
	if (on & ~(regs->driver_features & VFN_CTRL_GUEST_OFFLOADS))
		return VIRTIO_NET_ERR;
	vfn_net_regs_in(regs)->offloads_off = VFN_CTRL_GUEST_OFFLOADS & ~on;
	return VIRTIO_NET_OK;
}

static uint8_t
mq_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t cmd, const uint8_t *data,
	size_t len)
{
	uint16_t pairs;

	/* 5.1.6.5.5 */
	if (!vfn_regs_have(regs, VIRTIO_NET_F_MQ) || cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
		len != sizeof(pairs))
		return VIRTIO_NET_ERR;
	memcpy(&pairs, data, sizeof(pairs));
	pairs = rte_le_to_cpu_16(pairs);
	if (pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || pairs > net->params.max_pairs)
		return VIRTIO_NET_ERR;
	vfn_net_regs_in(regs)->curr_pairs = pairs;
	return VIRTIO_NET_OK;
}

uint8_t
vfn_net_ctrl_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t class, uint8_t cmd,
	const uint8_t *data, size_t len)
{
	static vfn_net_command *const commands[] = {
		[VIRTIO_NET_CTRL_RX] = vfn_filter_rx_command,
		[VIRTIO_NET_CTRL_MAC] = vfn_filter_mac_command,
		[VIRTIO_NET_CTRL_VLAN] = vfn_filter_vlan_command,
		[VIRTIO_NET_CTRL_ANNOUNCE] = announce_command,
		[VIRTIO_NET_CTRL_MQ] = mq_command,
		[VIRTIO_NET_CTRL_GUEST_OFFLOADS] = offloads_command,
	};

	return class < RTE_DIM(commands) ? commands[class](net, regs, cmd, data, len) :
					   VIRTIO_NET_ERR;
}

static void
command(struct vfn_queue *q, struct vringh_chain *chain, uint8_t *buf)
{
	struct vringh_iter in = vringh_iter_read(&q->vr, chain);
	struct vringh_iter out = vringh_iter_write(&q->vr, chain);
	uint8_t ack = VIRTIO_NET_ERR;
	struct virtio_net_ctrl_hdr hdr;
	size_t len;

	chain->written = 0;
	if (chain->error != VRINGH_OK)
		return; /* counted by the ring */
	if (chain->write_len < sizeof(ack)) {
		q->stats[VFN_STAT_ERRORS_DIRECTION]++;
		return;
	}
	if (vringh_pull(&in, &hdr, sizeof(hdr)) == sizeof(hdr)) {
		len = vringh_pull(&in, buf, MAX_COMMAND);
		if (chain->read_len <= sizeof(hdr) + MAX_COMMAND)
			ack = vfn_net_ctrl_command(
				vfn_net(q->fn), &q->fn->regs, hdr.class, hdr.cmd, buf, len);
	}
	chain->written = vringh_push(&out, &ack, sizeof(ack));
}

/* Control, on EAL's interrupt thread, which is one: so what it needs for a round is static. */
static void
carry_out(void *arg)
{
	static struct vringh_chain chain[ROUND_COMMANDS];
	static struct vringh_seg seg[VRINGH_MAX_SIZE];
	static uint8_t buf[MAX_COMMAND];
	struct vringh_batch batch = {.chain = chain,
		.max_chains = ROUND_COMMANDS,
		.seg = seg,
		.max_segs = VRINGH_MAX_SIZE,
		.max_descs = 16 * ROUND_COMMANDS};
	struct vfn_function *fn = arg;
	struct vfn_queue *q;
	int n = 0, i;

	vfn_lock(fn);
	vfn_quiesce(fn);
	q = &fn->queue[vfn_ctrl_index(fn, &fn->regs)];
	if (vfn_queue_active(q))
		n = vfn_fetch(q, &batch, ROUND_COMMANDS);
	for (i = 0; i < n; i++)
		command(q, &chain[i], buf);
	if (n > 0) {
		vfn_inflight_said(q);
		vringh_complete(&q->vr, chain, n);
		q->stats[VFN_STAT_PACKETS] += n;
		vfn_queue_call(q);
	}
	/* The poller finds what is left, like what comes. */
	__atomic_store_n(&vfn_net(fn)->ctrl_scheduled, false, __ATOMIC_RELEASE);
	vfn_resume(fn);
	vfn_unlock(fn);
}

/* Microseconds until the next round may be. */
static uint64_t
next_round(struct vfn_net *net)
{
	const uint64_t us = rte_get_tsc_hz() / 1000000;
	uint64_t now = rte_rdtsc(), begin = now - ROUNDS_AT_ONCE * ROUND_US * us;

	net->ctrl_next = RTE_MAX(net->ctrl_next, begin) + ROUND_US * us;
	return net->ctrl_next > now ? (net->ctrl_next - now) / us + 1 : 1;
}

/* Poller. */
static unsigned int
ctrl_run(struct vfn_work *w)
{
	struct vfn_net *net = vfn_net(w->fn);

	if (!__atomic_load_n(&net->ctrl_scheduled, __ATOMIC_RELAXED) &&
		!__atomic_exchange_n(&net->ctrl_scheduled, true, __ATOMIC_ACQ_REL) &&
		rte_eal_alarm_set(next_round(net), carry_out, w->fn) != 0)
		__atomic_store_n(&net->ctrl_scheduled, false, __ATOMIC_RELEASE);
	return 0;
}

const struct vfn_work_ops vfn_net_ctrl_ops = {.run = ctrl_run};

/*
 * Not locked, and no poller has the control queue. No command is being carried out when this
 * returns, nor will be.
 */
void
vfn_net_ctrl_cancel(struct vfn_function *fn)
{
	rte_eal_alarm_cancel(carry_out, fn);
}
