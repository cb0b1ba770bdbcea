/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Shadow rings: a ring in the driver's memory that the function uses in place of the guest's, and
 * a relay between the two, which logs what the function has written. For guests that migrate on a
 * function that has no dirty log, and for functions that reach windows only: then the ring and
 * copies of all buffers are in those. Private to vfn_shadow.c, which switches over, and
 * vfn_shadow_ring.c, the relay.
 */

#ifndef VFN_SHADOW_H
#define VFN_SHADOW_H

#include <vringh.h>

#include "vfn_drv.h"

/* A chain of the guest's that is with the function, or came back and waits for its turn. */
struct vfn_shadow_slot {
	uint16_t entries; /* of the shadow ring, 0: the function does not get this one */
	bool done;
	/* Behind windows: where its bytes are, and how much that takes, see vfn_window.c. */
	uint32_t out_at, out_takes, in_at, in_takes;
};

/* Room for the bytes of chains in a window, taken and given back in their order. */
struct vfn_window_part {
	uint8_t *host;
	uint64_t iova;
	uint32_t len, next, taken;
};

/* One queue's relay. */
struct vfn_shadow {
	struct vfn_job job;
	const char *name; /* for the log */
	uint16_t queue;

	/* The guest's ring, device side. */
	struct vringh guest;
	struct vringh_mem mem;	    /* a table of our own, in which the shadow's memory is not */
	int guest_call, guest_kick; /* librte_vhost's */
	bool call_blocked;	    /* whoever signalled it: it is not any more */
	bool call_owed;		    /* once calls are not held back any more */
	uint64_t *calls_held;	    /* TSC until when no relay of the device calls, atomic */
	struct vfn_vpci_ring
		guest_ring; /* as it was started, and where it stands once it was left */
	struct vringh_inflight inflight;
	uint16_t *resubmit;

	/*
	 * Chains that were fetched and not yet completed, oldest at tail: a ring of as many as the
	 * guest's queue has. They are completed in the order in which they were fetched, whatever
	 * the function does, so that the guest's ring always has an exact position.
	 */
	struct vringh_chain *chain;
	struct vfn_shadow_slot *slot;
	uint32_t head, tail, count;
	/*
	 * Their segments, a ring too, but each chain's in one piece. Entry n of table, in the
	 * function's reach, belongs to segment n.
	 */
	struct vringh_seg *seg;
	uint32_t nb_segs, next_seg;

	/* The shadow ring, driver side. */
	bool packed, event_idx, indirect, in_order;
	bool reads_only; /* the guest's ring, see struct vringh_config */
	uint32_t size;
	uint32_t room; /* free entries */
	union {
		struct {
			struct vring_desc *desc;
			struct vring_avail *avail;
			struct vring_used *used;
		} split;
		struct {
			struct vring_packed_desc *desc;
			struct vring_packed_desc *used; /* the same, but behind windows */
			struct vring_packed_desc_event *driver;
			struct vring_packed_desc_event *device;
		} packed_ring;
	};
	const struct vringh_io *io;	/* of the windows, NULL: the function reaches memory */
	struct vfn_window_part out, in; /* behind the ring's areas */
	void *table;			/* of indirect descriptors */
	uint64_t table_iova;
	uint16_t *owner;    /* split: place in chain by first descriptor */
	uint16_t next_desc; /* split */
	uint16_t avail;	    /* split index, packed slot */
	uint16_t used;
	bool avail_wrap, used_wrap; /* packed */
	uint32_t unkicked;	    /* entries since the last decision to kick the function */

	int kick, call;	   /* our own, to and from the function; -1: it has our job */
	bool kick_blocked; /* signalling it: it is not any more */
	bool armed;
	bool full; /* nothing more goes to the function before something comes back */
	bool broken_told, wrong_told;
	/*
	 * By windows the function has no region to write what a control queue says to: the driver
	 * keeps it, a command at a time. unsaid: one was carried out, and waits for that.
	 */
	bool is_ctrl, unsaid;
	bool live;    /* of the two rings the guest's is served */
	bool has_job; /* the link has */
	uint64_t nb_kicks;
	uint64_t nb_too_long; /* chains that are in no table and no ring of this size */

	/* What the function reaches. */
	void *dma;
	int fd; /* of this memory */
	uint64_t dma_len, dma_iova;
	struct vfn_vpci_ring ring; /* how it sees the shadow ring */
};

/* vfn_shadow_ring.c */
/* Bytes of the three areas, and the table's. Offsets of all four from the first. */
uint64_t vfn_shadow_ring_layout(bool packed, uint32_t size, uint64_t offset[4]);
uint32_t vfn_shadow_ring_segs(uint32_t size);
void vfn_shadow_ring_disarm(struct vfn_shadow *s);
unsigned int vfn_shadow_ring_run(struct vfn_job *job);
bool vfn_shadow_ring_arm(struct vfn_job *job);
/* Armed, and still nothing to do? */
bool vfn_shadow_ring_pending(const struct vfn_shadow *s);
/* What was said is kept: the command gets its answer. */
void vfn_shadow_ring_answer(struct vfn_shadow *s);
/* Take back everything; what the function has not used is handed back to the guest's ring. */
void vfn_shadow_ring_finish(struct vfn_shadow *s);

/* vfn_window.c: control. 0, or -ENOSPC: the windows are too small for the queue. */
int vfn_window_to_ring(struct vfn_dev *dev, struct vfn_shadow *s);
/* Relay. Can it ever be put? Is it now: the bytes that are to be read are in the window then. */
bool vfn_window_fits(const struct vfn_shadow *s, const struct vringh_chain *chain);
bool vfn_window_put(struct vfn_shadow *s, uint32_t place);
/* What was written goes into the guest's chain. */
void vfn_window_get(struct vfn_shadow *s, uint32_t place);
void vfn_window_free(struct vfn_shadow *s, uint32_t place);

#endif /* VFN_SHADOW_H */
