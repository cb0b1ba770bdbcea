/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Wirings that end in the function: what the guest sends is consumed, and with a generator what it
 * receives is made here. Poller, unless it says otherwise.
 */

#include <stdlib.h>

#include <rte_branch_prediction.h>
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_prefetch.h>

#include "net.h"

/* For experiments (IEEE 802); behind the header the frame's number, as far as there is room. */
#define GEN_ETHERTYPE 0x88b5
#define GEN_NUMBER_AT ETH_HDR_LEN

/* The frame that all are, and who puts it into which queue. */
struct gen {
	uint64_t made[VFN_MAX_PAIRS]; /* frames for each queue */
	struct vfn_work work[VFN_MAX_PAIRS];
	uint8_t frame[];
};

/* Control. */
static int
gen_open(struct vfn_net *net)
{
	static const uint8_t head[ETH_HDR_LEN] = {0, 0, 0, 0, 0, 0, 0x02, 'v', 'f', 'n', 'g', 'n',
		GEN_ETHERTYPE >> 8, GEN_ETHERTYPE & 0xff};
	uint32_t len = net->params.wiring.gen, i;
	struct gen *gen = calloc(1, sizeof(*gen) + len);

	if (gen == NULL)
		return -ENOMEM;
	memcpy(gen->frame, head, sizeof(head));
	for (i = sizeof(head); i < len; i++)
		gen->frame[i] = i;
	net->end = gen;
	return 0;
}

/* Control. */
static void
gen_close(struct vfn_net *net)
{
	free(net->end);
	net->end = NULL;
}

static inline void
make_frame(struct vfn_queue *rx, uint8_t *dst)
{
	struct vfn_net *net = vfn_net(rx->fn);
	struct gen *gen = net->end;
	uint32_t len = net->params.wiring.gen;
	uint64_t number = rte_cpu_to_be_64(gen->made[rx->index / 2]++);

	vfn_net_copy(dst, gen->frame, len);
	if (likely(len >= GEN_NUMBER_AT + sizeof(number)))
		memcpy(dst + GEN_NUMBER_AT, &number, sizeof(number));
	else
		memcpy(dst + GEN_NUMBER_AT, &number, len - GEN_NUMBER_AT);
}

/* One piece that is large enough, as nearly all are. */
static inline bool
gen_one(struct burst *b, uint32_t len)
{
	struct vringh_chain *to = &b->to->chain[b->filled];
	uint8_t *dst;

	if (b->filled >= b->to->nb_chains || to->nb_write != 1 ||
		to->write_len < VFN_NET_HDR_SIZE + len)
		return false;
	dst = to->seg[to->nb_read].addr;
	vfn_net_plain_header(dst);
	make_frame(b->rx, dst + VFN_NET_HDR_SIZE);
	to->written = VFN_NET_HDR_SIZE + len;
	b->filled++;
	b->rx_packets++;
	b->rx_bytes += len;
	return true;
}

/* Whatever the buffers are. False: no more of them, or none that the frame fits. */
static __attribute__((noinline)) bool
gen_any(struct burst *b, uint32_t len)
{
	struct virtio_net_hdr_mrg_rxbuf hdr = {0};
	struct vringh_seg linear = {.addr = b->scratch, .len = len};
	struct vringh_iter frame = {.seg = &linear, .nb_segs = 1};
	int n = -1;

	if (len <= b->max_frame)
		n = vfn_net_gather(b, 0, vfn_net_hdr_len(b->rx->fn) + len);
	if (n < 0)
		b->rx->stats[VFN_STAT_DROPPED_SIZE]++;
	if (n <= 0)
		return false;
	vfn_net_charge(b, len, 0);
	make_frame(b->rx, b->scratch);
	vfn_net_fill(b, &hdr, &frame, len, n);
	return true;
}

/* Fill the receive buffers that are there, at most a burst of them. */
static unsigned int
gen_run(struct vfn_work *w)
{
	uint32_t len = vfn_net(w->fn)->params.wiring.gen, i;
	struct burst b = {
		.rx = w->queue,
		.to = vfn_poller_batch(w->poller, 1),
		.scratch = vfn_poller_scratch(w->poller),
		.mergeable = vfn_has(w->fn, VIRTIO_NET_F_MRG_RXBUF),
		.max_frame = vfn_net_largest_frame(w->fn),
		.budget = VFN_NET_TURN_BYTES,
	};
	bool plain = len <= RTE_MIN(b.max_frame, VFN_NET_PLAIN_FRAME) &&
		vfn_net_hdr_len(w->fn) == VFN_NET_HDR_SIZE && vringh_in_place(&b.rx->vr);

	if (vfn_fetch(b.rx, b.to, VFN_BURST) < 0)
		return 0;
	for (i = 0; i < b.to->nb_chains; i++)
		if (b.to->chain[i].nb_write > 0)
			vfn_prefetch_write(
				b.to->chain[i].seg[b.to->chain[i].nb_read].addr + VFN_NET_HDR_SIZE);
	for (i = 0; i < VFN_BURST && b.budget > 0; i++)
		if (!(plain && gen_one(&b, len)) && !gen_any(&b, len))
			break;
	b.rx->stats[VFN_STAT_PACKETS] += b.rx_packets;
	b.rx->stats[VFN_STAT_BYTES] += b.rx_bytes;
	vringh_complete(&b.rx->vr, b.to->chain, b.filled);
	vringh_discard(&b.rx->vr, b.to->chain + b.filled, b.to->nb_chains - b.filled);
	vfn_queue_call(b.rx);
	return b.filled;
}

static const struct vfn_work_ops gen_ops = {.run = gen_run};

/* Control. Frames are made by whoever has the pair. */
static void
gen_start(struct vfn_net *net, struct vfn_receivers *to)
{
	struct gen *gen = net->end;
	struct vfn_receivers own = {0};
	unsigned int i;

	RTE_SET_USED(to);
	/* A queue that is set up anew counts anew. */
	for (i = 0; i < net->params.max_pairs; i++)
		if (!net->fn.regs.queue[2 * i].enabled)
			gen->made[i] = 0;
	/* The driver may have changed its address. */
	memcpy(gen->frame, vfn_net_regs(&net->fn)->mac, RTE_ETHER_ADDR_LEN);
	if (vfn_filter_needed(net) && !vfn_filter_accepts(net, gen->frame, net->params.wiring.gen))
		return;
	vfn_net_receivers(net, &own);
	for (i = 0; i < own.nb; i++) {
		gen->work[i] = (struct vfn_work){.ops = &gen_ops,
			.fn = &net->fn,
			.poller = vfn_queue_poller(own.queue[i]),
			.queue = own.queue[i]};
		vfn_work_add(&net->fn, &gen->work[i]);
	}
}

/* ---- what is sent ---- */

/* In one piece and without offloads, as nearly all are. */
static inline bool
sink_one(const struct vringh_chain *chain, uint32_t max)
{
	struct virtio_net_hdr hdr;

	if (chain->nb_read != 1 || chain->read_len < VFN_NET_HDR_SIZE + ETH_HDR_LEN ||
		chain->read_len > max)
		return false;
	memcpy(&hdr, chain->seg->addr, sizeof(hdr));
	return !(hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) &&
		hdr.gso_type == VIRTIO_NET_HDR_GSO_NONE;
}

static unsigned int
sink_run(struct vfn_work *w)
{
	struct vringh_batch *from = vfn_poller_batch(w->poller, 0);
	struct vfn_queue *tx = w->queue;
	uint64_t packets = 0, bytes = 0;
	uint32_t max = VFN_NET_HDR_SIZE + MAX_FRAME, i;

	if (vfn_net_fetch(container_of(w, struct vfn_net_work, work), from) == 0)
		return 0;
	if (vfn_net_hdr_len(w->fn) != VFN_NET_HDR_SIZE || !vringh_in_place(&tx->vr))
		max = 0;
	for (i = 0; i < from->nb_chains; i++)
		if (from->chain[i].nb_read > 0)
			rte_prefetch0(from->chain[i].seg->addr);
	for (i = 0; i < from->nb_chains; i++) {
		struct vringh_chain *chain = &from->chain[i];
		struct virtio_net_hdr_mrg_rxbuf hdr;
		struct vringh_iter frame;
		unsigned int bad;
		uint32_t len;

		if (likely(sink_one(chain, max))) {
			packets++;
			bytes += chain->read_len - VFN_NET_HDR_SIZE;
			continue;
		}
		bad = vfn_net_judge(tx, chain, MAX_FRAME, &hdr, &frame, &len);
		if (bad == VFN_STAT_PACKETS || bad == VFN_STAT_DROPPED_SIZE) {
			packets++;
			bytes += len;
		}
		if (bad != VFN_STAT_PACKETS && bad != VFN_NET_STAT_MAX)
			tx->stats[bad]++;
	}
	tx->stats[VFN_STAT_PACKETS] += packets;
	tx->stats[VFN_STAT_BYTES] += bytes;
	vringh_complete(&tx->vr, from->chain, from->nb_chains);
	vfn_queue_call(tx);
	return from->nb_chains;
}

static const struct vfn_work_ops sink_ops = {.run = sink_run};

/* Control, as what follows. */
static void
end_send(struct vfn_net *net, unsigned int i, struct vfn_net_work *w)
{
	RTE_SET_USED(net);
	RTE_SET_USED(i);
	w->work.ops = &sink_ops;
}

static int
sink_open(struct vfn_net *net)
{
	RTE_SET_USED(net);
	return 0;
}

static void
sink_close(struct vfn_net *net)
{
	RTE_SET_USED(net);
}

const struct vfn_net_wiring vfn_wiring_sink = {
	.open = sink_open, .close = sink_close, .send = end_send};
const struct vfn_net_wiring vfn_wiring_gen = {
	.open = gen_open, .close = gen_close, .start = gen_start, .send = end_send};
