/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The net class (virtio 1.3, 5.1): its registers and its function in control, and what the ways of
 * its frames share: checks of what a guest sends, and frames into receive buffers. Those are
 * poller.
 */

#ifndef VFN_CLASS_NET_H
#define VFN_CLASS_NET_H

#include <string.h>

#include <linux/virtio_net.h>

#include <rte_branch_prediction.h>
#include <rte_common.h>

#include "../../function.h"
#include "rate.h"
#include "vfn_net_function.h"
#include "wiring.h"

/* A driver's list of addresses to receive. */
#define VFN_MAC_TABLE 256
struct vfn_mac_table {
	bool all; /* there were more than fit: nothing of their kind is filtered */
	uint16_t n;
	uint8_t addr[VFN_MAC_TABLE][6];
};

/* What the driver wants to receive, by control queue commands. */
#define VFN_NB_VLANS 4096
struct vfn_filter {
	uint8_t mode[VIRTIO_NET_CTRL_RX_NOBCAST + 1]; /* by command */
	struct vfn_mac_table unicast;
	struct vfn_mac_table multicast;
	uint8_t vlan[VFN_NB_VLANS / 8];
};

/* The class's registers. */
struct vfn_net_regs {
	uint8_t mac[6];
	bool announce;
	uint16_t mtu; /* in force: at most the one that the driver knows */
	uint16_t curr_pairs;
	uint64_t offloads_off; /* GUEST_* features that are negotiated, but switched off now */
	struct vfn_filter filter;
};
_Static_assert(sizeof(struct vfn_net_regs) <= VFN_CLASS_REGS_SIZE, "room for registers");

/* A queue's frames, and where they go: waits_for is the receive queue, NULL: they are discarded. */
struct vfn_net_work {
	struct vfn_work work;
	bool filter;	       /* the receiver does not want all of them */
	bool short_hdr;	       /* in one of the two queues headers are not VFN_NET_HDR_SIZE long */
	struct vfn_rate *rate; /* NULL: none */
	uint32_t fewer;	       /* chains than a burst are fetched: it would cost too much */
};

struct vfn_net {
	struct vfn_function fn;
	struct vfn_net_params params; /* as they are now */
	struct vfn_net_params base;   /* as the operator has made it, see offer.c */
	uint64_t base_features;	      /* that it offered then */
	uint16_t offered_mtu;	      /* of the device configuration */
	bool unplugged;		      /* by the operator */
	bool link_up;		      /* as the device configuration says */
	const struct vfn_net_wiring *wiring;
	void *end;	       /* the wiring's own, from its open() to its close() */
	struct vfn_rate *rate; /* of what the guest sends, NULL: no limit */
	struct vfn_net_work tx[VFN_MAX_PAIRS];
	struct vfn_work ctrl;
	bool ctrl_scheduled; /* set by the poller, atomically; cleared by control */
	uint64_t ctrl_next;  /* TSC of the next round at the pace, whoever schedules it */
};

static inline struct vfn_net *
vfn_net(const struct vfn_function *fn)
{
	return container_of(fn, struct vfn_net, fn);
}

static inline struct vfn_net_regs *
vfn_net_regs_in(const struct vfn_regs *regs)
{
	return (struct vfn_net_regs *)(uintptr_t)regs->class;
}

static inline struct vfn_net_regs *
vfn_net_regs(const struct vfn_function *fn)
{
	return vfn_net_regs_in(&fn->regs);
}

/* An offload of the receiver's, negotiated and on (5.1.6.5.6)? */
static inline bool
vfn_takes(const struct vfn_function *fn, unsigned int bit)
{
	return fn->regs.driver_features & ~vfn_net_regs(fn)->offloads_off & FEATURE(bit);
}

/* As nearly all have it. */
#define VFN_NET_HDR_SIZE sizeof(struct virtio_net_hdr_mrg_rxbuf)

/* Shorter for a legacy driver without mergeable buffers (5.1.6.1). */
static inline uint32_t
vfn_net_hdr_len(const struct vfn_function *fn)
{
	return fn->regs.driver_features &
			(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_NET_F_MRG_RXBUF)) ?
		VFN_NET_HDR_SIZE :
		sizeof(struct virtio_net_hdr);
}

/* Queue numbers (5.1.2). The control queue follows the last pair; without MQ there is one pair. */
static inline unsigned int
vfn_ctrl_index(const struct vfn_function *fn, const struct vfn_regs *regs)
{
	return vfn_regs_have(regs, VIRTIO_NET_F_MQ) ? 2u * vfn_net(fn)->params.max_pairs : 2u;
}

/* net.c */
enum vfn_link_down vfn_net_link_down(const struct vfn_net *net);
/* Receive queues of those that frames may be put into, for a wiring's start(). */
struct vfn_receivers {
	struct vfn_queue *queue[VFN_MAX_PAIRS];
	unsigned int nb;
	bool hold; /* there is none now, but there will be */
};
void vfn_net_receivers(struct vfn_net *net, struct vfn_receivers *to);

/* config.c: the device configuration, and what changes it. */
void vfn_net_config_read(struct vfn_function *fn, uint32_t offset, void *buf, size_t len);
/* Something about the link is different: the guests at both ends are told if it goes up or down. */
void vfn_net_link_changed(struct vfn_net *net);
/* Another rate limit, while quiet. 0 or -ENOMEM. */
int vfn_net_rate(struct vfn_net *net, uint32_t mbps);

/* ctrl.c, filter.c: commands of the control queue, carried out on registers. VIRTIO_NET_OK or
 * _ERR; then nothing has changed. What was not negotiated is refused. */
typedef uint8_t vfn_net_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t cmd,
	const uint8_t *data, size_t len);
uint8_t vfn_net_ctrl_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t class,
	uint8_t cmd, const uint8_t *data, size_t len);
vfn_net_command vfn_filter_rx_command, vfn_filter_mac_command, vfn_filter_vlan_command;
extern const struct vfn_work_ops vfn_net_ctrl_ops;
void vfn_net_ctrl_cancel(struct vfn_function *fn);
/* What CTRL_GUEST_OFFLOADS is about, as bits of the feature word (5.1.6.5.6). */
#define VFN_CTRL_GUEST_OFFLOADS \
	(FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) | \
		FEATURE(VIRTIO_NET_F_GUEST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_ECN) | \
		FEATURE(VIRTIO_NET_F_GUEST_UFO))

/* filter.c: what a function receives. */
void vfn_filter_reset(struct vfn_filter *filter);
bool vfn_filter_needed(const struct vfn_net *net);
bool vfn_filter_accepts(const struct vfn_net *net, const uint8_t *head, uint32_t len);

/* parts.c: of what the driver has said through the control queue. */
void vfn_net_parts_get(struct vfn_function *fn, struct vfn_parts_writer *w);
int vfn_net_parts_set(const struct vfn_function *fn, struct vfn_regs *regs,
	const struct vfn_part *part, const uint8_t *value, const char **why);

/* features.c */
uint64_t vfn_net_features(const struct vfn_net_params *params);
uint64_t vfn_net_features_missing(uint64_t features);
#define VFN_NET_SEGMENTATION \
	(FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) | \
		FEATURE(VIRTIO_NET_F_HOST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_TSO6) | \
		FEATURE(VIRTIO_NET_F_HOST_ECN) | FEATURE(VIRTIO_NET_F_GUEST_ECN) | \
		FEATURE(VIRTIO_NET_F_HOST_UFO) | FEATURE(VIRTIO_NET_F_GUEST_UFO))

/* forward.c: from a transmit queue into a receive queue, or nowhere. */
extern const struct vfn_work_ops vfn_net_forward_ops;

/* An IP packet of the largest size with Ethernet and VLAN headers. */
#define VFN_NET_MAX_FRAME (65535u + 14 + 4)
/* What a frame in a poller's scratch may grow by at its front. */
#define VFN_GSO_ROOM 8
_Static_assert(VFN_GSO_ROOM + VFN_NET_MAX_FRAME <= VFN_SCRATCH_SIZE, "room for any frame");

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
 * VFN_STAT_PACKETS if nothing is, VFN_NET_STAT_MAX if the ring has counted it. *frame and *len are
 * the frame without its header; only flags that have a meaning on transmission are left in *hdr.
 * For VFN_STAT_DROPPED_SIZE these are set as well.
 */
unsigned int vfn_net_judge(const struct vfn_queue *tx, const struct vringh_chain *chain,
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
vfn_net_turn_ends(struct vfn_net_work *w, const struct burst *b, uint32_t done, uint32_t n)
{
	if (likely(b->budget > VFN_NET_TURN_BYTES / 2 && w->fewer == 0))
		return;
	if (b->budget <= 0 && done < n)
		w->fewer = VFN_BURST - done;
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
unsigned int vfn_net_fetch(struct vfn_net_work *w, struct vringh_batch *from);
/* What of a batch of w's the rate limit lets pass; the rest is handed back. Returns how many. */
unsigned int vfn_net_limit(struct vfn_net_work *w, struct vringh_batch *from);

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

#endif /* VFN_CLASS_NET_H */
