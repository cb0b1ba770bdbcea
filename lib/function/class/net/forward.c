/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The net class's data path (virtio 1.3, 5.1.6): frames go from a transmit queue straight into
 * a receive queue, one copy, no buffer between. Poller.
 *
 * Frames and headers are in guest memory and change under our hands: a header is copied once
 * and judged in the copy.
 */

#include <string.h>

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_prefetch.h>

#include "gso.h"
#include "net.h"

/* A receiver without buffers makes senders wait this long; then it is taken for dead. */
#define STALL_SECONDS 1

/* What happens to one frame. */
enum verdict {
	DONE,  /* consumed: delivered, or dropped and counted */
	STALL, /* the receiver has no buffers now */
};

static inline void
drop(struct burst *b, unsigned int reason, uint32_t len)
{
	b->tx->stats[reason]++;
	b->tx_packets++;
	b->tx_bytes += len;
}

/* Feature bits by which the two sides agree on a kind of segmentation (5.1.6.2, 5.1.6.4). */
static bool
gso_bits(uint8_t gso_type, unsigned int *host, unsigned int *guest)
{
	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		*host = VIRTIO_NET_F_HOST_TSO4;
		*guest = VIRTIO_NET_F_GUEST_TSO4;
		return true;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		*host = VIRTIO_NET_F_HOST_TSO6;
		*guest = VIRTIO_NET_F_GUEST_TSO6;
		return true;
	case VIRTIO_NET_HDR_GSO_UDP:
		*host = VIRTIO_NET_F_HOST_UFO;
		*guest = VIRTIO_NET_F_GUEST_UFO;
		return true;
	}
	return false;
}

/* Are the offload fields ones that this driver may send (5.1.6.2.1)? */
static bool
header_ok(const struct vfn_function *from, const struct virtio_net_hdr *hdr, uint32_t len)
{
	unsigned int host, guest;

	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		if (!vfn_has(from, VIRTIO_NET_F_CSUM) ||
			(uint32_t)hdr->csum_start + hdr->csum_offset + sizeof(uint16_t) > len)
			return false;
	}
	if (hdr->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return true;
	return gso_bits(hdr->gso_type, &host, &guest) && vfn_has(from, host) &&
		(!(hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN) ||
			vfn_has(from, VIRTIO_NET_F_HOST_ECN)) &&
		(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && hdr->gso_size != 0;
}

/* Does the receiver take such a segmentation? */
static bool
gso_accepted(const struct vfn_function *to, const struct virtio_net_hdr *hdr)
{
	unsigned int host, guest;

	if (hdr->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return true;
	/* Checksums may have been switched off alone (5.1.6.5.6): no segmentation without them. */
	return gso_bits(hdr->gso_type, &host, &guest) && vfn_takes(to, guest) &&
		vfn_takes(to, VIRTIO_NET_F_GUEST_CSUM) &&
		(!(hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN) ||
			vfn_takes(to, VIRTIO_NET_F_GUEST_ECN));
}

void
vfn_net_checksum(uint8_t *frame, uint32_t len, uint32_t start, uint32_t offset)
{
	uint64_t sum = 0;
	uint16_t word;
	uint32_t i;

	for (i = start; i + sizeof(word) <= len; i += sizeof(word)) {
		memcpy(&word, frame + i, sizeof(word));
		sum += word;
	}
	if (i < len)
		sum += frame[i]; /* an odd last byte is padded with 0 behind it */
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	word = ~sum;
	/* 0 means "no checksum" in UDP; both stand for the same sum elsewhere. */
	if (word == 0)
		word = 0xffff;
	memcpy(frame + start + offset, &word, sizeof(word));
}

/*
 * Judged by a copy of the address. The frame itself is copied later: a sender that changes it in
 * between passes the filter with it, which is less than it could do by sending it from the start.
 */
static bool
filter_accepts(const struct vfn_function *to, struct vringh_iter frame, uint32_t len)
{
	uint8_t head[ETH_HDR_LEN + VLAN_LEN];

	len = vringh_pull(&frame, head, RTE_MIN(len, (uint32_t)sizeof(head)));
	return len >= ETH_HDR_LEN && vfn_filter_accepts(vfn_net(to), head, len);
}

static bool
rx_chain_ok(const struct burst *b, const struct vringh_chain *chain)
{
	return chain->error == VRINGH_OK && chain->write_len >= vfn_net_hdr_len(b->rx->fn);
}

/*
 * A receive chain that can't be used is completed empty, before those in use; which of these is
 * filled first does not matter.
 */
static void
rx_chain_reject(struct burst *b, uint32_t i)
{
	struct vringh_chain bad = b->to->chain[i];

	b->to->chain[i] = b->to->chain[b->filled];
	bad.written = 0;
	b->to->chain[b->filled++] = bad;
	if (bad.error == VRINGH_OK)
		b->rx->stats[bad.nb_write > 0 ? VFN_STAT_ERRORS_HEADER :
						VFN_STAT_ERRORS_DIRECTION]++;
}

/*
 * Has the driver no descriptors left for a further buffer, so that none comes before some of the
 * fetched ones are back? As far as its buffers are all of one shape.
 */
static bool
ring_is_out(const struct burst *b)
{
	uint32_t i, taken = 0, least = UINT32_MAX;

	for (i = 0; i < b->to->nb_chains; i++) {
		uint32_t n = vringh_nb_descs(&b->rx->vr, &b->to->chain[i]);

		taken += n;
		least = RTE_MIN(least, n);
	}
	return b->to->nb_chains > 0 && taken + least > vringh_size(&b->rx->vr);
}

/* More chains. False: there are none, or (*full) none that the batch has room for. */
static bool
rx_chains_fetch(struct burst *b, bool *full)
{
	*full = false;
	if (vfn_fetch(b->rx, b->to, VFN_BURST) > 0)
		return true;
	if (vfn_park_waits(&b->rx->park) || !vringh_pending(&b->rx->vr))
		return false;
	if (vfn_fetch(b->rx, b->to, VFN_BURST) > 0)
		return true;
	*full = !vfn_park_waits(&b->rx->park);
	return false;
}

/* Nothing is moved before all are there: what is handed back has to be as it was fetched. */
int
vfn_net_gather(struct burst *b, uint32_t skip, uint32_t need)
{
	uint32_t have = 0, i = b->filled + skip, end, j;
	bool full;

	while (have < need) {
		/* What is filled makes room in the ring and in the batch once it is completed. */
		if (i == b->to->nb_chains) {
			if (!rx_chains_fetch(b, &full))
				return b->filled == 0 && (full || ring_is_out(b)) ? -1 : 0;
			vfn_net_charge(b, 0, vringh_walked(&b->rx->vr));
		}
		vfn_net_charge(b, 0, 1);
		if (!rx_chain_ok(b, &b->to->chain[i])) {
			if (i == b->filled)
				rx_chain_reject(b, i);
		} else if (!b->mergeable && b->to->chain[i].write_len < need) {
			return -1;
		} else {
			have += b->to->chain[i].write_len;
		}
		i++;
	}
	for (end = i, j = b->filled + skip; j < end; j++)
		if (!rx_chain_ok(b, &b->to->chain[j]))
			rx_chain_reject(b, j);
	return end - b->filled - skip;
}

void
vfn_net_fill(struct burst *b, struct virtio_net_hdr_mrg_rxbuf *hdr, struct vringh_iter *frame,
	uint32_t len, unsigned int n)
{
	struct vringh_chain *chain = &b->to->chain[b->filled];
	struct vringh_iter it = vringh_iter_write(&b->rx->vr, chain);
	uint32_t hdr_len = vfn_net_hdr_len(b->rx->fn), left = len;
	unsigned int i;

	hdr->num_buffers = n;
	vringh_push(&it, hdr, hdr_len);
	chain->written = hdr_len;
	for (i = 0; i < n; i++, chain++) {
		uint32_t done;

		if (i > 0) {
			it = vringh_iter_write(&b->rx->vr, chain);
			chain->written = 0;
		}
		done = vringh_copy(&it, frame, left);
		chain->written += done;
		left -= done;
	}
	b->filled += n;
	b->rx_packets++;
	b->rx_bytes += len;
}

unsigned int
vfn_net_judge(const struct vfn_queue *tx, const struct vringh_chain *chain, uint32_t max_frame,
	struct virtio_net_hdr_mrg_rxbuf *hdr, struct vringh_iter *frame, uint32_t *len)
{
	uint32_t hdr_len = vfn_net_hdr_len(tx->fn);

	if (chain->error != VRINGH_OK)
		return VFN_NET_STAT_MAX;
	*frame = vringh_iter_read(&tx->vr, chain);
	if (vringh_pull(frame, hdr, hdr_len) < hdr_len)
		return chain->nb_read == 0 && chain->nb_write > 0 ? VFN_STAT_ERRORS_DIRECTION :
								    VFN_STAT_ERRORS_HEADER;
	*len = chain->read_len - hdr_len;
	/* What else may be set has no meaning on transmission (5.1.6.2). */
	hdr->hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (!header_ok(tx->fn, &hdr->hdr, *len))
		return VFN_STAT_ERRORS_HEADER;
	if (hdr->hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		max_frame = VFN_NET_MAX_FRAME;
	/* A hint, wrong as it may be (5.1.6.2.1); what is passed on at least exists. */
	hdr->hdr.hdr_len = RTE_MIN(hdr->hdr.hdr_len, *len);
	return *len < ETH_HDR_LEN || *len > max_frame ? VFN_STAT_DROPPED_SIZE : VFN_STAT_PACKETS;
}

/*
 * Cut a frame up for a receiver that does not do so itself: all of it or nothing. Returns what
 * keeps it from there, VFN_STAT_DROPPED_NO_BUFFER if that is for now, else VFN_STAT_PACKETS.
 */
static unsigned int
segment(struct burst *b, const struct virtio_net_hdr *hdr, struct vringh_iter frame, uint32_t len)
{
	bool partial = vfn_takes(b->to_fn, VIRTIO_NET_F_GUEST_CSUM);
	uint32_t hdr_len = vfn_net_hdr_len(b->to_fn), i, heads, all = 0;
	uint8_t *copy = b->scratch + VFN_GSO_ROOM;
	uint16_t nb_chains[VFN_GSO_MAX];
	struct vfn_gso g;

	heads = vringh_pull(&frame, copy, RTE_MIN(len, VFN_GSO_HEADS));
	if (!vfn_gso_start(&g, hdr, copy, heads, len, rte_rdtsc()))
		return VFN_STAT_DROPPED_OFFLOAD;
	if (vfn_gso_len(&g, 0) > b->max_frame)
		return VFN_STAT_DROPPED_SIZE;
	for (i = 0; i < g.nb; i++) {
		int n = vfn_net_gather(b, all, hdr_len + vfn_gso_len(&g, i));

		if (n <= 0)
			return n < 0 ? VFN_STAT_DROPPED_SIZE : VFN_STAT_DROPPED_NO_BUFFER;
		nb_chains[i] = n;
		all += n;
	}
	/* Every byte is copied twice and summed up. */
	vfn_net_charge(b, 3 * len, g.nb);
	vringh_pull(&frame, copy + heads, len - heads);
	for (i = 0; i < g.nb; i++) {
		struct virtio_net_hdr_mrg_rxbuf head = {0};
		struct vringh_seg linear = {.len = vfn_gso_len(&g, i)};
		struct vringh_iter it = {.seg = &linear, .nb_segs = 1};

		linear.addr = vfn_gso_make(&g, i, partial, &head.hdr);
		vfn_net_fill(b, &head, &it, linear.len, nb_chains[i]);
	}
	b->tx->stats[VFN_STAT_SEGMENTED]++;
	b->tx->stats[VFN_STAT_SEGMENTS] += g.nb;
	return VFN_STAT_PACKETS;
}

/* Any frame: every layout, offloads, several receive buffers. */
static __attribute__((noinline)) enum verdict
forward_any(struct burst *b, const struct vringh_chain *chain)
{
	struct virtio_net_hdr_mrg_rxbuf hdr;
	struct vringh_seg linear;
	struct vringh_iter frame;
	bool fill = false;
	unsigned int bad;
	uint32_t len;
	int n;

	bad = vfn_net_judge(b->tx, chain, b->max_frame, &hdr, &frame, &len);
	if (bad == VFN_STAT_DROPPED_SIZE)
		drop(b, bad, len);
	else if (bad != VFN_STAT_PACKETS && bad != VFN_NET_STAT_MAX)
		b->tx->stats[bad]++;
	vfn_net_charge(b, 0, chain->nb_read);
	if (bad != VFN_STAT_PACKETS)
		return DONE;
	if (b->rx == NULL) {
		drop(b, VFN_STAT_DROPPED_NO_PEER, len);
		return DONE;
	}
	if (b->filter && !filter_accepts(b->to_fn, frame, len)) {
		drop(b, VFN_STAT_DROPPED_FILTER, len);
		return DONE;
	}
	if (!gso_accepted(b->to_fn, &hdr.hdr)) {
		bad = segment(b, &hdr.hdr, frame, len);
		if (bad == VFN_STAT_DROPPED_NO_BUFFER)
			return STALL;
		if (bad != VFN_STAT_PACKETS) {
			drop(b, bad, len);
			return DONE;
		}
		goto sent;
	}
	n = vfn_net_gather(b, 0, vfn_net_hdr_len(b->to_fn) + len);
	if (n < 0)
		drop(b, VFN_STAT_DROPPED_SIZE, len);
	if (n == 0)
		return STALL;
	if (n < 0)
		return DONE;
	if (hdr.hdr.flags && !vfn_takes(b->to_fn, VIRTIO_NET_F_GUEST_CSUM))
		fill = true;
	if (hdr.hdr.gso_type == VIRTIO_NET_HDR_GSO_NONE && (fill || hdr.hdr.flags == 0)) {
		if (fill) {
			/* The receiver takes no partial checksums: complete it in a copy. */
			vfn_net_charge(b, 3 * len, 0);
			vringh_pull(&frame, b->scratch, len);
			vfn_net_checksum(b->scratch, len, hdr.hdr.csum_start, hdr.hdr.csum_offset);
			linear = (struct vringh_seg){.addr = b->scratch, .len = len};
			frame = (struct vringh_iter){.seg = &linear, .nb_segs = 1};
		}
		memset(&hdr, 0, sizeof(hdr));
	}
	vfn_net_charge(b, len, 0);
	vfn_net_fill(b, &hdr, &frame, len, n);
sent:
	b->tx_packets++;
	b->tx_bytes += len;
	return DONE;
}

/* Does the sender's header ask for anything? In a register, as in vfn_net_plain_header(). */
static inline bool
hdr_offloads(const uint8_t *hdr)
{
	uint16_t word; /* flags, gso_type */

	memcpy(&word, hdr, sizeof(word));
	return word & (VIRTIO_NET_HDR_F_NEEDS_CSUM | 0xff << 8);
}

/*
 * The frames that nearly all are: one piece, no offload, into one piece. Returns how many of n
 * there are before the first that is not. Everything is in registers: nothing here can change the
 * burst but this loop.
 */
static inline uint32_t
forward_plain(struct burst *b, struct vringh_chain *chain, uint32_t n)
{
	struct vringh_chain *to = &b->to->chain[b->filled];
	uint32_t max_plain = b->max_plain, i;
	uint64_t bytes = 0;

	n = RTE_MIN(n, b->to->nb_chains - b->filled);
	for (i = 0; i < n; i++, chain++, to++) {
		uint32_t len = chain->read_len - VFN_NET_HDR_SIZE;
		const uint8_t *src;
		uint8_t *dst;

		if (chain->nb_read != 1 || to->nb_write != 1 ||
			chain->read_len < VFN_NET_HDR_SIZE + ETH_HDR_LEN || len > max_plain ||
			to->write_len < chain->read_len)
			break;
		src = chain->seg->addr;
		if (hdr_offloads(src))
			break;
		dst = to->seg[to->nb_read].addr;
		vfn_net_plain_header(dst);
		vfn_net_copy(dst + VFN_NET_HDR_SIZE, src + VFN_NET_HDR_SIZE, len);
		to->written = chain->read_len;
		bytes += len;
	}
	b->filled += i;
	b->tx_packets += i;
	b->rx_packets += i;
	b->tx_bytes += bytes;
	b->rx_bytes += bytes;
	return i;
}

/* Lines of the headers and of what follows them. A burst's segments lie one behind the other. */
static inline void
prefetch(const struct vringh_batch *batch, bool write)
{
	uint32_t i, n = RTE_MIN(batch->nb_segs, 2u * VFN_BURST);

	for (i = 0; i < n; i++) {
		const uint8_t *addr = batch->seg[i].addr;

		rte_prefetch0(addr);
		if (write)
			vfn_prefetch_write(addr + VFN_NET_HDR_SIZE);
		else
			rte_prefetch0(addr + VFN_NET_HDR_SIZE);
	}
}

bool
vfn_net_stalled_too_long(struct vfn_work *w)
{
	uint64_t now = rte_rdtsc();

	if (w->stalled_since == 0)
		w->stalled_since = now;
	return now - w->stalled_since > STALL_SECONDS * rte_get_tsc_hz();
}

uint32_t
vfn_net_largest_frame(const struct vfn_function *to)
{
	/* 5.1.4.1: frames above the MTU that was negotiated are not passed on. */
	if (to != NULL && vfn_has(to, VIRTIO_NET_F_MTU))
		return RTE_MIN(
			vfn_net_regs(to)->mtu + (uint32_t)(ETH_HDR_LEN + VLAN_LEN), MAX_FRAME);
	return MAX_FRAME;
}

unsigned int
vfn_net_fetch(struct vfn_net_work *w, struct vringh_batch *from)
{
	int n = vfn_fetch(w->work.queue, from, VFN_BURST - w->fewer);

	if (n <= 0)
		return 0;
	return w->rate == NULL ? (unsigned int)n : vfn_net_limit(w, from);
}

static unsigned int
net_forward(struct vfn_work *work)
{
	struct vfn_net_work *w = container_of(work, struct vfn_net_work, work);
	struct vringh_batch *from = vfn_poller_batch(work->poller, 0);
	struct burst b = {
		.tx = work->queue,
		.rx = work->waits_for,
		.to = vfn_poller_batch(work->poller, 1),
		.scratch = vfn_poller_scratch(work->poller),
		.budget = VFN_NET_TURN_BYTES,
	};
	uint32_t done, n = vfn_net_fetch(w, from);

	if (n == 0)
		return 0;
	if (b.rx != NULL && vfn_fetch(b.rx, b.to, n) < 0)
		b.rx = NULL;
	if (b.rx != NULL) {
		b.to_fn = b.rx->fn;
		b.mergeable = vfn_has(b.to_fn, VIRTIO_NET_F_MRG_RXBUF);
	}
	b.max_frame = vfn_net_largest_frame(b.to_fn);
	b.filter = w->filter;
	b.max_plain = RTE_MIN(b.max_frame, VFN_NET_PLAIN_FRAME);
	if (b.filter || w->short_hdr || !vringh_in_place(&b.tx->vr) ||
		(b.rx != NULL && !vringh_in_place(&b.rx->vr)))
		b.max_plain = 0;
	prefetch(from, false);
	prefetch(b.to, true);

	for (done = 0; done < from->nb_chains && b.budget > 0; done++) {
		struct vringh_chain *chain;

		done += forward_plain(&b, &from->chain[done], from->nb_chains - done);
		if (done == from->nb_chains)
			break;
		chain = &from->chain[done];
		if (forward_any(&b, chain) == DONE)
			continue;
		if (!vfn_net_stalled_too_long(work))
			break;
		drop(&b, VFN_STAT_DROPPED_NO_BUFFER, chain->read_len - vfn_net_hdr_len(work->fn));
	}
	if (b.rx_packets > 0)
		work->stalled_since = 0;
	vfn_net_turn_ends(w, &b, done, from->nb_chains);

	/* Whoever has a frame finds it counted. */
	if (b.rx != NULL) {
		b.rx->stats[VFN_STAT_PACKETS] += b.rx_packets;
		b.rx->stats[VFN_STAT_BYTES] += b.rx_bytes;
		vringh_complete(&b.rx->vr, b.to->chain, b.filled);
		vringh_discard(&b.rx->vr, b.to->chain + b.filled, b.to->nb_chains - b.filled);
		vfn_queue_call(b.rx);
	}
	work->queue->stats[VFN_STAT_PACKETS] += b.tx_packets;
	work->queue->stats[VFN_STAT_BYTES] += b.tx_bytes;
	vringh_complete(&work->queue->vr, from->chain, done);
	vringh_discard(&work->queue->vr, from->chain + done, from->nb_chains - done);
	if (w->rate != NULL)
		vfn_rate_give_back(w->rate, from->chain + done, from->nb_chains - done);
	vfn_queue_call(work->queue);
	return done;
}

const struct vfn_work_ops vfn_net_forward_ops = {.run = net_forward};
