/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the kinds of ports share: checks of what a guest sends, and frames into receive buffers.
 * Poller.
 */

#ifndef VFN_NET_H
#define VFN_NET_H

#include <string.h>

#include <rte_branch_prediction.h>

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
	int64_t budget;	    /* what this turn may still cost, see vfn_net_charge() */
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
 * takes, behind skip ones that were gathered before. Returns how many, all of which are there, 0 if
 * they are not, -1 if they never will be. Needs rx, to, filled and mergeable, like vfn_net_fill().
 */
int vfn_net_gather(struct burst *b, uint32_t skip, uint32_t need);
/* Put a header and a frame of len bytes into the n chains that were gathered. */
void vfn_net_fill(struct burst *b, struct virtio_net_hdr_mrg_rxbuf *hdr, struct vringh_iter *frame,
	uint32_t len, unsigned int n);

/*
 * A turn ends behind the frame with which it has cost as much as copying so many bytes does; what
 * was fetched beyond that is handed back. Frames that are copied in a loop that looks at nothing
 * are not charged: VFN_NET_PLAIN_FRAME bounds them.
 */
#define VFN_NET_TURN_BYTES  (128 * 1024)
#define VFN_NET_PLAIN_FRAME 9216u
/* As much as looking at a chain or descriptor costs. */
#define VFN_NET_LOOK_BYTES 32

static inline void
vfn_net_charge(struct burst *b, uint32_t bytes, uint32_t looks)
{
	b->budget -= bytes + (int64_t)looks * VFN_NET_LOOK_BYTES;
}

/* A turn has taken done of n chains: how many are to be fetched in the next one. */
static inline void
vfn_net_turn_ends(struct vfn_work *w, const struct burst *b, uint32_t done, uint32_t n)
{
	if (likely(b->budget > VFN_NET_TURN_BYTES / 2 && w->fewer == 0))
		return;
	if (b->budget <= 0 && done < n)
		w->fewer = VFN_NET_BURST - done;
	else if (b->budget > VFN_NET_TURN_BYTES / 2)
		w->fewer /= 2;
}

/* Internet checksum over [start, len), where the pseudo header's sum is already in place. */
void vfn_net_checksum(uint8_t *frame, uint32_t len, uint32_t start, uint32_t offset);
/* Largest frame without segmentation that a function takes; NULL: that there is. */
uint32_t vfn_net_largest_frame(const struct vfn_function *to);

/* Nothing was taken since when? True once the receiver has been given enough time. */
bool vfn_net_stalled_too_long(struct vfn_work *w);
/* A burst of what w's guest sends, as far as its rate limit lets it pass. Returns how many. */
unsigned int vfn_net_fetch(struct vfn_work *w, struct vringh_batch *from);
/* What of a batch of w's the rate limit lets pass; the rest is handed back. Returns how many. */
unsigned int vfn_net_limit(struct vfn_work *w, struct vringh_batch *from);

/* Copies up to this length are done in line. */
#define VFN_NET_SMALL_COPY 256

static inline void
vfn_net_copy(uint8_t *dst, const uint8_t *src, size_t n)
{
	uint8_t tail[16];
	size_t i;

	/* Guests may let the two overlap. libc picks the widest vectors at run time. */
	if (n > VFN_NET_SMALL_COPY || n < sizeof(tail)) {
		memmove(dst, src, n);
		return;
	}
	memcpy(tail, src + n - sizeof(tail), sizeof(tail));
	for (i = 0; i + sizeof(tail) < n; i += sizeof(tail)) {
		uint8_t piece[16];

		memcpy(piece, src + i, sizeof(piece));
		memcpy(dst + i, piece, sizeof(piece));
	}
	memcpy(dst + n - sizeof(tail), tail, sizeof(tail));
}

/*
 * Write the header of a frame in one buffer without offloads. The one that is there from the
 * last lap mostly fits: that spares the line's transfer.
 *
 * By words in registers: a header put together on the stack would have to leave the store buffer,
 * behind all the frames that are in it, before it can be compared.
 */
static inline void
vfn_net_plain_header(uint8_t *hdr)
{
	const uint32_t tail = 1 << 16; /* csum_offset, num_buffers */
	uint64_t old_head;
	uint32_t old_tail;

	_Static_assert(VFN_NET_HDR_SIZE == sizeof(old_head) + sizeof(old_tail) &&
			offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers) == 10,
		"words of a header");
	memcpy(&old_head, hdr, sizeof(old_head));
	memcpy(&old_tail, hdr + sizeof(old_head), sizeof(old_tail));
	if (old_head == 0 && old_tail == tail)
		return;
	memset(hdr, 0, sizeof(old_head));
	memcpy(hdr + sizeof(old_head), &tail, sizeof(tail));
}

/* Own a line that is going to be written. Without a target option gcc emits one for reading. */
static inline void
vfn_prefetch_write(const void *p)
{
#ifdef RTE_ARCH_X86
	asm volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
	__builtin_prefetch(p, 1);
#endif
}

#endif /* VFN_NET_H */
