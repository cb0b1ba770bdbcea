/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Translated addresses (VIRTIO_F_ACCESS_PLATFORM), see iommu.c: the table of a function, and the
 * one way of fetching from a queue, whatever its memory.
 */

#ifndef VFN_IOMMU_H
#define VFN_IOMMU_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_branch_prediction.h>

#include <vringh.h>

struct vfn_function;
struct vfn_miss_call;
struct vfn_queue;
struct vfn_translation;

/*
 * The table changes while no poller has a turn with the function, for far less than what stopping
 * pollers would cost: who begins a turn while it is closed has none.
 */
struct vfn_iommu {
	struct vfn_miss_call *call; /* NULL: addresses are not translated */
	struct vringh_mem mem;
	uint32_t maps;	  /* atomic: there is a new translation */
	uint32_t hand;	  /* what goes next when the table is full */
	bool closed;	  /* atomic */
	uint32_t inside;  /* atomic: turns */
	bool asking;	  /* for rings, by an alarm */
	uint64_t evicted; /* translations that went for want of room */
};

/* Pages that a queue has asked for and that nobody has answered yet. */
#define VFN_PARK_ASKED 32

/* A queue whose next chain, or whose ring, misses a translation. */
struct vfn_park {
	bool waits; /* atomic: by a poller, for its next chain */
	bool still; /* control: the ring is not mapped, and nothing of it is touched */
	bool told;  /* nobody has answered for long, and the log says so */
	bool wake;  /* control */
	struct vringh_miss miss;
	uint32_t maps;	    /* of the table when it was looked up last */
	uint32_t tries;	    /* how many times miss was asked for */
	uint64_t since;	    /* TSC */
	uint64_t ask_again; /* TSC */
	uint32_t nb_asked;
	struct vringh_miss asked[VFN_PARK_ASKED];
};

/* A turn of a poller. False: not now. NULL: there is no table. */
static inline bool
vfn_iommu_enter(struct vfn_iommu *mmu)
{
	if (likely(mmu == NULL))
		return true;
	/* Pairs with closing: one of the two sees the other. */
	__atomic_fetch_add(&mmu->inside, 1, __ATOMIC_SEQ_CST);
	if (likely(!__atomic_load_n(&mmu->closed, __ATOMIC_SEQ_CST)))
		return true;
	__atomic_fetch_sub(&mmu->inside, 1, __ATOMIC_RELEASE);
	return false;
}

static inline void
vfn_iommu_leave(struct vfn_iommu *mmu)
{
	if (unlikely(mmu != NULL))
		__atomic_fetch_sub(&mmu->inside, 1, __ATOMIC_RELEASE);
}

/* Does the poller wait for a translation, until control wakes it, or it asks again? */
static inline bool
vfn_park_waits(const struct vfn_park *park)
{
	return __atomic_load_n(&park->waits, __ATOMIC_RELAXED);
}

/* Control. 0 or a negative errno, as struct vfn_link_ops has it. */
int vfn_iommu_set(struct vfn_function *fn, struct vfn_miss_call *call);
int vfn_iommu_map(struct vfn_function *fn, const struct vfn_translation *t);
int vfn_iommu_unmap(struct vfn_function *fn, uint64_t iova, uint64_t len);
/* What translations lead to has changed: there are none any more. Quiesced. */
void vfn_iommu_flush(struct vfn_function *fn);
void vfn_iommu_free(struct vfn_function *fn);

/* park.c. Control, while no poller is inside: these are no longer missing. */
void vfn_park_answered(struct vfn_park *park, uint64_t iova, uint64_t len);
/* Not locked: rings are not asked for any more. */
void vfn_iommu_cancel(struct vfn_function *fn);

/*
 * Control, while no poller has the queue, which is enabled: is its ring where it was, or mapped
 * again? If not it stands still; if it is mapped in a way that cannot be it is broken.
 */
void vfn_queue_look(struct vfn_queue *q);

#endif /* VFN_IOMMU_H */
