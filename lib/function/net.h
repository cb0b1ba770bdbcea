/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the kinds of ports share: checks of what a guest sends, and frames into receive buffers.
 * Poller.
 */

#ifndef VFN_NET_H
#define VFN_NET_H

#include "function.h"
#include "rate.h"

#define ETH_HDR_LEN 14
#define VLAN_LEN    4

/* Larger frames need segmentation offload: then the IP packet may have 65,535 bytes. */
#define MAX_FRAME VFN_MAX_PLAIN_FRAME

/* Everything about the burst in work. */
struct burst {
	struct vfn_queue *tx;
	struct vfn_queue *rx;
	struct vringh_batch *to; /* chains of rx */
	const struct vfn_function *to_fn;
	uint8_t *scratch;
	uint32_t filled;    /* chains of rx that are filled, or bad */
	bool mergeable;	    /* rx takes frames in several buffers */
	bool filter;	    /* of to_fn */
	uint32_t max_frame; /* largest frame without segmentation that rx takes */
	uint32_t max_plain; /* the same for forward_plain(): 0 if frames have to be filtered */
	uint64_t tx_packets, tx_bytes;
	uint64_t rx_packets, rx_bytes;
};

/*
 * Is the chain a frame that its driver may send? Returns the counter for what is wrong with it,
 * VFN_STAT_PACKETS if nothing is, VFN_STAT_MAX if the ring has counted it. *frame and *len are the
 * frame without its header; only flags that have a meaning on transmission are left in *hdr. For
 * VFN_STAT_DROPPED_SIZE these are set as well.
 */
enum vfn_stat vfn_net_judge(const struct vfn_queue *tx, const struct vringh_chain *chain,
	uint32_t max_frame, struct virtio_net_hdr_mrg_rxbuf *hdr, struct vringh_iter *frame,
	uint32_t *len);

/*
 * Chains for need bytes, header included (5.1.6.4): one, or with mergeable buffers as many as it
 * takes. Returns how many, all of which are there, 0 if they are not, -1 if they never will be.
 * Needs rx, to, filled and mergeable, like vfn_net_fill().
 */
int vfn_net_gather(struct burst *b, uint32_t need);
/* Put a header and a frame of len bytes into the n chains that were gathered. */
void vfn_net_fill(struct burst *b, struct virtio_net_hdr_mrg_rxbuf *hdr, struct vringh_iter *frame,
	uint32_t len, unsigned int n);

/* Internet checksum over [start, len), where the pseudo header's sum is already in place. */
void vfn_net_checksum(uint8_t *frame, uint32_t len, uint32_t start, uint32_t offset);
/* Largest frame without segmentation that a function takes; NULL: that there is. */
uint32_t vfn_net_largest_frame(const struct vfn_function *to);

/* Nothing was taken since when? True once the receiver has been given enough time. */
bool vfn_net_stalled_too_long(struct vfn_work *w);
/* What of a batch of w's the rate limit lets pass; the rest is handed back. Returns how many. */
unsigned int vfn_net_limit(struct vfn_work *w, struct vringh_batch *from);

#endif /* VFN_NET_H */
