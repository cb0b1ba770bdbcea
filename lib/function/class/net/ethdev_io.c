/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Frames between a guest and a DPDK port: one copy into or out of an mbuf. Poller.
 */

#include <string.h>

#include <rte_common.h>
#include <rte_mbuf.h>

#include "ethdev.h"

/* A port has no doorbell: who looks after one does not sleep. */
static bool
ethdev_arm(struct vfn_work *work)
{
	RTE_SET_USED(work);
	return true;
}

static inline void
frame_copy(struct rte_mbuf *m, struct vringh_iter *frame, uint32_t len,
	const struct virtio_net_hdr *hdr)
{
	uint8_t *dst = rte_pktmbuf_mtod(m, uint8_t *);

	vringh_pull(frame, dst, len);
	m->pkt_len = m->data_len = len;
	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		vfn_net_checksum(dst, len, hdr->csum_start, hdr->csum_offset);
}

/*
 * What the port does not take waits in the guest's ring, as it does for a receiver without buffers;
 * the copy is thrown away.
 */
static unsigned int
ethdev_send(struct vfn_work *work)
{
	struct vfn_net_work *w = container_of(work, struct vfn_net_work, work);
	struct vringh_batch *from = vfn_poller_batch(work->poller, 0);
	const struct vfn_ethdev *e = vfn_net(work->fn)->end;
	struct rte_mbuf *mbuf[VFN_BURST];
	unsigned int verdict[VFN_BURST];
	uint32_t len[VFN_BURST];
	struct vfn_queue *tx = work->queue;
	struct burst b = {.budget = VFN_NET_TURN_BYTES};
	uint32_t i, done, nb_good = 0, nb_sent = 0, nb_mbufs;
	bool give_up = false;

	if (vfn_net_fetch(w, from) == 0)
		return 0;
	nb_mbufs = from->nb_chains;
	if (rte_pktmbuf_alloc_bulk(e->pool, mbuf, nb_mbufs) != 0)
		nb_mbufs = 0;
	for (i = 0; i < from->nb_chains && b.budget > 0; i++) {
		struct virtio_net_hdr_mrg_rxbuf hdr;
		struct vringh_iter frame;

		verdict[i] =
			vfn_net_judge(tx, &from->chain[i], e->max_frame, &hdr, &frame, &len[i]);
		vfn_net_charge(&b, 0, from->chain[i].nb_read);
		if (verdict[i] == VFN_STAT_PACKETS && nb_good < nb_mbufs) {
			vfn_net_charge(&b, hdr.hdr.flags ? 4 * len[i] : len[i], 0);
			frame_copy(mbuf[nb_good++], &frame, len[i], &hdr.hdr);
		}
	}
	if (nb_good > 0)
		nb_sent = rte_eth_tx_burst(e->port, tx->index / 2 % e->nb_tx, mbuf, nb_good);
	if (nb_mbufs > nb_sent)
		rte_pktmbuf_free_bulk(mbuf + nb_sent, nb_mbufs - nb_sent);
	if (nb_sent > 0)
		work->stalled_since = 0;

	/* In the order of the ring: up to the first frame that was not sent. */
	for (done = 0; done < i; done++) {
		unsigned int bad = verdict[done];

		if (bad == VFN_STAT_PACKETS && nb_sent > 0) {
			nb_sent--;
		} else if (bad == VFN_STAT_PACKETS) {
			give_up = give_up || vfn_net_stalled_too_long(work);
			if (!give_up)
				break;
			tx->stats[VFN_STAT_DROPPED_NO_BUFFER]++;
		} else if (bad != VFN_NET_STAT_MAX) {
			tx->stats[bad]++;
		}
		if (bad == VFN_STAT_PACKETS || bad == VFN_STAT_DROPPED_SIZE) {
			tx->stats[VFN_STAT_PACKETS]++;
			tx->stats[VFN_STAT_BYTES] += len[done];
		}
	}
	vfn_net_turn_ends(w, &b, done, from->nb_chains);
	vringh_complete(&tx->vr, from->chain, done);
	vringh_discard(&tx->vr, from->chain + done, from->nb_chains - done);
	if (w->rate != NULL)
		vfn_rate_give_back(w->rate, from->chain + done, from->nb_chains - done);
	vfn_queue_call(tx);
	return done;
}

/* One frame into the guest's buffers, or what keeps it from there. */
static unsigned int
deliver(struct burst *b, const struct rte_mbuf *m)
{
	struct virtio_net_hdr_mrg_rxbuf hdr = {0};
	struct vringh_seg linear;
	struct vringh_iter frame = {.seg = &linear, .nb_segs = 1};
	uint32_t len = m->pkt_len;
	int n;

	if (len < ETH_HDR_LEN || len > b->max_frame)
		return VFN_STAT_DROPPED_SIZE;
	/* Read only; in place but where it is in several pieces. */
	linear.addr = (void *)(uintptr_t)rte_pktmbuf_read(m, 0, len, b->scratch);
	linear.len = len;
	if (b->filter && !vfn_filter_accepts(vfn_net(b->rx->fn), linear.addr, len))
		return VFN_STAT_DROPPED_FILTER;
	n = vfn_net_gather(b, 0, vfn_net_hdr_len(b->rx->fn) + len);
	if (n <= 0)
		return n < 0 ? VFN_STAT_DROPPED_SIZE : VFN_STAT_DROPPED_NO_BUFFER;
	vfn_net_fill(b, &hdr, &frame, len, n);
	return VFN_STAT_PACKETS;
}

/* Are all buffers of a burst translated, as far as there are so many? */
static bool
has_buffers(struct vfn_queue *rx, struct vringh_batch *to)
{
	while (to->nb_chains < VFN_BURST && vfn_fetch(rx, to, VFN_BURST - to->nb_chains) > 0)
		;
	vringh_discard(&rx->vr, to->chain, to->nb_chains);
	return to->nb_chains == VFN_BURST || !vfn_park_waits(&rx->park);
}

/* As a network card does: what the guest has no buffers for is dropped. */
static unsigned int
ethdev_receive(struct vfn_work *work)
{
	struct vfn_ethdev_rx *r = container_of(work, struct vfn_ethdev_rx, work);
	const struct vfn_ethdev *e = vfn_net(work->fn)->end;
	struct vfn_queue *rx = work->queue;
	struct rte_mbuf *mbuf[VFN_BURST];
	struct burst b;
	uint16_t i, n;

	/* What has come waits in the port while a translation is asked for. */
	if (unlikely(work->iommu[0] != NULL) && !has_buffers(rx, vfn_poller_batch(work->poller, 1)))
		return 0;
	n = rte_eth_rx_burst(e->port, r->queue, mbuf, VFN_BURST);
	if (n == 0)
		return 0;
	b = (struct burst){
		.rx = rx,
		.to = vfn_poller_batch(work->poller, 1),
		.scratch = vfn_poller_scratch(work->poller),
		.mergeable = vfn_has(rx->fn, VIRTIO_NET_F_MRG_RXBUF),
		.filter = r->filter,
		.max_frame = vfn_net_largest_frame(rx->fn),
		.budget = VFN_NET_TURN_BYTES,
	};
	vfn_fetch(rx, b.to, n);
	for (i = 0; i < n; i++) {
		/* What is charged is the look for buffers. */
		unsigned int bad = b.budget > 0 ? deliver(&b, mbuf[i]) : VFN_STAT_DROPPED_NO_BUFFER;

		if (bad != VFN_STAT_PACKETS)
			rx->stats[bad]++;
	}
	rte_pktmbuf_free_bulk(mbuf, n);
	rx->stats[VFN_STAT_PACKETS] += b.rx_packets;
	rx->stats[VFN_STAT_BYTES] += b.rx_bytes;
	vringh_complete(&rx->vr, b.to->chain, b.filled);
	vringh_discard(&rx->vr, b.to->chain + b.filled, b.to->nb_chains - b.filled);
	vfn_queue_call(rx);
	return n;
}

const struct vfn_work_ops vfn_ethdev_send_ops = {.run = ethdev_send};
const struct vfn_work_ops vfn_ethdev_receive_ops = {.run = ethdev_receive, .arm = ethdev_arm};
