/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Segmentation in software: TCP segments of IPv4 and IPv6 packets, and fragments of UDP datagrams.
 * Works on a copy of the frame; knows no queues. Poller.
 */

#ifndef VFN_GSO_H
#define VFN_GSO_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_net.h>

/* All headers of a frame lie within so many bytes, or it is not cut up. */
#define VFN_GSO_HEADS 512u
/* Of one frame, at most: enough for segments of 256 bytes. */
#define VFN_GSO_MAX 256u

/* A frame that becomes several. */
struct vfn_gso {
	uint8_t *frame;
	uint32_t len;
	uint32_t ip; /* where its headers are */
	uint32_t l4;
	uint32_t body;	   /* what is behind is shared out */
	uint32_t size;	   /* bytes of that in each segment but the last */
	uint32_t nb;	   /* segments */
	uint32_t head_len; /* what stands before that in each segment */
	uint16_t sum;	   /* of the pseudo header without its length */
	uint8_t proto;
	bool ipv6;
	bool ecn;
	uint8_t head[VFN_GSO_HEADS + 8]; /* as it was, with room for a fragment header */
};

/*
 * Judge a frame that its driver wants to have segmented (virtio 1.3, 5.1.6.2), by a copy of its
 * first bytes: all, or VFN_GSO_HEADS of them. False if that can't be done. ident is for fragments,
 * new for each frame.
 */
bool vfn_gso_start(struct vfn_gso *g, const struct virtio_net_hdr *hdr, uint8_t *frame,
	uint32_t have, uint32_t len, uint32_t ident);
/* Bytes of segment i. None is longer than the first. */
uint32_t vfn_gso_len(const struct vfn_gso *g, uint32_t i);
/*
 * Make segment i, each once and in their order, once the rest of the frame is in the copy too. That
 * is overwritten, and so are VFN_GSO_ROOM bytes before it. partial: the receiver completes
 * checksums. Returns the segment, *hdr is what the receiver is told.
 */
uint8_t *vfn_gso_make(struct vfn_gso *g, uint32_t i, bool partial, struct virtio_net_hdr *hdr);

#endif /* VFN_GSO_H */
