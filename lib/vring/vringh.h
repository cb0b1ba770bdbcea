/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The device side of a virtqueue, for every ring format and kind of memory.
 *
 * A struct vringh walks one virtqueue: it fetches available chains in batches into a form that
 * does not depend on the ring's format, takes them back completed in batches, decides about
 * notifications, marks what it has written in a dirty log, tracks what is in flight, and tells and
 * takes the ring's state. It allocates nothing, starts nothing and needs neither EAL nor hugepages.
 *
 * Threads: a vringh, and the struct vringh_mem that it uses, have one owner at a time; no
 * function may run concurrently with another on the same ones. Only those that say "any thread",
 * and vringh_pending(), may be called by others. The driver on the other side runs concurrently,
 * and none of what it writes is trusted.
 *
 * Errors: vringh_error.h says how every function tells them, and which reason leads to which of
 * the three answers to bad input.
 * A queue that can no longer be trusted is *broken*: every later call leaves its memory alone
 * until vringh_init(). A chain that is bad, but whose identity is known, is returned like any
 * other with vringh_chain.error set and no segments, and has to be completed like any other.
 * An address that a translation table does not know yet is a *miss*, and can be mended.
 *
 * Section numbers are those of virtio 1.3.
 */

#ifndef VRINGH_H
#define VRINGH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The functions in it, which nobody here needs, are no C++. */
#if defined(__cplusplus) && !defined(VIRTIO_RING_NO_LEGACY)
#define VIRTIO_RING_NO_LEGACY
#endif
#include <linux/virtio_ring.h>

#include "vringh_error.h"
#include "vringh_mem.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** Largest queue size of both formats (2.7, 2.8.10.1). */
#define VRINGH_MAX_SIZE 32768

/**
 * Ring position, as it is saved and restored.
 *
 * Split: free-running 16-bit indices. Packed: slot in bits 0-14, wrap counter in bit 15, as in
 * vhost-user and in queue notifications (2.9). Available is what is fetched next, used what is
 * completed next.
 */
struct vringh_state {
	uint16_t avail;
	uint16_t used;
};

/** State of a packed ring that was never used; a split one starts at 0, 0. */
#ifdef __cplusplus
#define VRINGH_PACKED_START (vringh_state{0x8000, 0x8000})
#else
#define VRINGH_PACKED_START ((struct vringh_state){.avail = 0x8000, .used = 0x8000})
#endif

/** The three areas of a virtqueue (2.6). */
enum vringh_area {
	VRINGH_AREA_DESC,
	VRINGH_AREA_DRIVER,
	VRINGH_AREA_DEVICE,
	VRINGH_AREA_MAX,
};

/** vringh_config.apart: where the used descriptors are in the device area. */
#define VRINGH_APART_OFFSET 16

/** What a virtqueue looks like. */
struct vringh_config {
	bool packed;	/**< Ring format (VIRTIO_F_RING_PACKED). */
	bool event_idx; /**< VIRTIO_F_EVENT_IDX negotiated. */
	bool indirect;	/**< VIRTIO_F_INDIRECT_DESC negotiated. */
	/**
	 * VIRTIO_F_IN_ORDER negotiated: chains have to be completed in the order in which they were
	 * fetched, and a run of them takes one used entry where it may (2.7.9, 2.8.9).
	 */
	bool in_order;
	/**
	 * The device only reads on this queue (net transmit). In indirect tables of a packed ring
	 * WRITE is ignored then: DPDK's virtio driver leaves it set on the header's entry, and on
	 * the one whose number is that of the slot.
	 */
	bool reads_only;
	/**
	 * Packed: the descriptor area is only read. Used descriptors are written into as many slots
	 * VRINGH_APART_OFFSET behind the start of the device area, which is aligned to 16 then: for
	 * links across which nothing is read. Each slot that a chain took gets one, so that in
	 * every lap all of them are written; chains in order do not share any.
	 */
	bool apart;
	bool scalar;		       /**< Do without vector instructions that the CPU has. */
	uint32_t size;		       /**< Entries, 1 to VRINGH_MAX_SIZE. */
	uint64_t desc;		       /**< Bus address of the descriptor area. */
	uint64_t driver;	       /**< Of the driver area: available ring, driver events. */
	uint64_t device;	       /**< Of the device area: used ring, device events. */
	struct vringh_mem *mem;	       /**< Of the buffers and indirect tables. */
	struct vringh_mem *desc_mem;   /**< Of the descriptor area; NULL: mem. */
	struct vringh_mem *driver_mem; /**< Of the driver area; NULL: mem. */
	struct vringh_mem *device_mem; /**< Of the device area; NULL: mem. */
	struct vringh_state state;     /**< Where to start. */
};

/**
 * A piece of a buffer, contiguous in this process. Of memory that is VRINGH_MEM_IOMEM, addr must
 * not be used but by vringh_pull(), vringh_push() and vringh_copy(); of VRINGH_MEM_IOTLB not after
 * an unmap.
 */
struct vringh_seg {
	uint8_t *addr;
	uint64_t iova;
	uint64_t dirty; /* VRINGH_MEM_IOTLB: what the dirty log calls the first byte */
	uint32_t len;	/**< Bytes, at least 1. */
	uint32_t gen;	/* VRINGH_MEM_IOTLB: that addr belongs to */
};

/** A chain of descriptors, independent of the ring's format. */
struct vringh_chain {
	struct vringh_seg *seg; /**< nb_read segments to read, then nb_write to write. */
	uint32_t read_len;	/**< Bytes in the readable segments. */
	uint32_t write_len;	/**< Bytes in the writable segments. */
	uint16_t nb_read;
	uint16_t nb_write;
	uint16_t id;	  /**< Split: head. Packed: buffer id. */
	uint16_t slots;	  /**< Ring entries that the chain takes; 1 for split. */
	uint32_t written; /**< 0 when fetched; the caller sets it to the bytes written. */
	uint8_t error;	  /**< enum vringh_error: VRINGH_OK, or why there are no segments. */
	bool again;	  /**< Was in flight when a predecessor ended, see vringh_set_inflight(). */
	/* split: descriptors beside the first; packed: its place in the in-flight region */
	uint16_t mark;
};

/**
 * Room for fetched chains and their segments, owned by the caller and reused.
 *
 * Chains stay valid until the caller sets nb_chains and nb_segs back to 0.
 */
struct vringh_batch {
	struct vringh_chain *chain;
	struct vringh_seg *seg;
	uint32_t max_chains;
	uint32_t max_segs; /**< At least the queue size, or long chains are refused. */
	uint32_t nb_chains;
	uint32_t nb_segs;
	/**
	 * A fetch ends behind the chain with which it has looked at about so many descriptors: at
	 * least 2, or 0 for no end. So what it costs is bounded, but for one chain, which may be as
	 * long as the queue.
	 */
	uint32_t max_descs;
};

/**
 * Where to log what the device writes: one bit per page of 4 KiB, as vhost-user has it.
 *
 * Buffers are logged at the addresses of their regions (vringh_region.iova, or .dirty behind an
 * IOTLB), the ring at those given here.
 */
struct vringh_dirty_log {
	uint8_t *bitmap;
	uint64_t len;	 /**< Bytes of bitmap. What lies behind its end is not logged. */
	uint64_t desc;	 /**< Of the descriptor area, or VRINGH_DIRTY_NOWHERE; packed only. */
	uint64_t device; /**< Of the device area, or VRINGH_DIRTY_NOWHERE. */
};

/** As an area's address in the dirty log: what is written there is not logged. */
#define VRINGH_DIRTY_NOWHERE (UINT64_C(1) << 63)

/** Tracking of one virtqueue in flight. All fields are private. */
struct vringh_inflight {
	void *region;
	uint16_t *resubmit; /* heads to be fetched again, in their order */
	uint32_t nb_resubmit;
	uint32_t next_resubmit;
	uint32_t slots;	    /* packed: of chains that are still to be fetched again */
	uint32_t free_head; /* packed */
	uint64_t counter;
};

struct vringh_ops;

/* Private: where the areas are mapped. */
struct vringh_split_areas {
	const struct vring_desc *desc;
	const struct vring_avail *avail;
	struct vring_used *used;
};
struct vringh_packed_areas {
	struct vring_packed_desc *desc;
	const struct vring_packed_desc_event *driver;
	struct vring_packed_desc_event *device;
};

/**
 * Device side of one virtqueue. All fields are private; the struct is public so that it can be
 * embedded and vringh_pending() inlined.
 */
struct vringh {
	union {
		struct vringh_split_areas split;
		struct vringh_packed_areas packed_ring;
		void *area_host[VRINGH_AREA_MAX];
	};
	const struct vringh_ops *ops;
	uint32_t size;
	uint16_t avail;	      /* next to fetch: split index, packed slot */
	uint16_t avail_seen;  /* split: the driver's index as last read */
	uint16_t avail_flags; /* packed: AVAIL and USED bits that mean available in this lap */
	uint16_t used;	      /* next to complete: split index, packed slot */
	uint16_t used_flags;  /* packed: AVAIL and USED bits that mean used in this lap */
	bool packed;
	bool event_idx;
	bool indirect;
	bool in_order;
	bool reads_only;
	bool vector; /* chains may be filled by vringh_avx2.c */
	bool fenced; /* since something was completed */
	bool apart;
	uint8_t unused; /* keeps the next two together */
	bool linked;	/* before the ring is looked at a hook is to be called */
	/* Looked at as one word: is any of them set? */
	__attribute__((aligned(4))) bool tracked; /* inflight is in use */
	uint8_t broken;				  /* enum vringh_error, sticky */
	bool refuse_miss;			  /* the next miss is an error */
	bool dirty;				  /* dirty_log is in use */
	uint32_t in_flight;			  /* packed: slots fetched and not yet completed */
	uint32_t unnotified; /* entries completed since the last notification decision */

	uint32_t walked;	     /* descriptors that the last fetch took the long way for */
	struct vringh_region hit[2]; /* of the last buffer read, and written; len 0: none */
	struct vringh_region other;  /* that one of these was before */
	struct vringh_region table;  /* of the last indirect table */
	struct vringh_mem *mem;
	const struct vringh_mem *seg_mem; /* what is needed to reach segments' bytes, or NULL */
	struct vringh_mem *area_mem[VRINGH_AREA_MAX];
	uint64_t area[VRINGH_AREA_MAX]; /* bus addresses */
	struct vringh_miss miss;
	uint32_t gen; /* VRINGH_MEM_IOTLB: of the translations in hit and table */
	struct vringh_dirty_log dirty_log;
	struct vringh_inflight *inflight;
	uint64_t nb_errors[VRINGH_E_MAX];
} __attribute__((aligned(64)));

/**
 * Prepare a virtqueue. Nothing is written to the ring.
 *
 * @param vr
 *   Any memory of the right size and alignment; its error counters start at 0.
 * @param cfg
 *   Copied, but for the memories, which have to stay until they are replaced.
 * @return
 *   0, or why the ring is refused (2.7 and 2.8 for sizes and alignment); then vr is broken and may
 *   still be passed to every function. -VRINGH_E_MISS: see vringh_set_mem().
 */
int vringh_init(struct vringh *vr, const struct vringh_config *cfg);

/**
 * Replace the memories, or look at the same ones anew after they changed.
 *
 * @param mem
 *   Of buffers and of those areas that had no memory of their own; NULL: it stays the same.
 * @return
 *   0, or -VRINGH_E_AREA or -VRINGH_E_ALIGN and a broken queue when the ring is no longer mapped,
 *   or not where it can be used. -VRINGH_E_MISS when a translation table does not know an area, see
 *   vringh_get_miss(): the queue is broken until a map is followed by another call. What made it
 *   broken before, if it was.
 *
 *   Segments that were fetched before are stale, but for those of VRINGH_MEM_IOTLB.
 */
int vringh_set_mem(struct vringh *vr, struct vringh_mem *mem);

/**
 * Write the device area as it is where nothing was used, at the position where the ring stands: for
 * a driver that cannot do it, as it only reads that memory. Before the first fetch.
 */
void vringh_clear_device(struct vringh *vr);

/**
 * In place of vringh_set_mem() after vringh_iotlb_unmap(), if no byte of the ring was unmapped.
 */
static inline void
vringh_forget(struct vringh *vr)
{
	if (vr->gen == vr->mem->gen)
		return;
	vr->gen = vr->mem->gen;
	vr->hit[0].len = vr->hit[1].len = vr->other.len = vr->table.len = 0;
}

/**
 * Append available chains to a batch (2.7.13, 2.8.21).
 *
 * A partial batch is returned when fewer are available, when the batch's room ends, when enough
 * descriptors were looked at, and when a fault that breaks the queue follows: that one is reported
 * by the next call.
 *
 * @param max
 *   Most chains to fetch; never more than the room left in the batch.
 * @return
 *   Number of chains appended; 0 if there is nothing (or no room); why the queue is broken; or, if
 *   the next chain has an address that the translation table does not know, -VRINGH_E_MISS: see
 *   vringh_get_miss(), map it and fetch again, or vringh_refuse_miss().
 */
int vringh_fetch(struct vringh *vr, struct vringh_batch *batch, unsigned int max);

/** What the last call that answered -VRINGH_E_MISS looked for. */
static inline struct vringh_miss
vringh_get_miss(const struct vringh *vr)
{
	return vr->miss;
}

/**
 * There will be no map for the last miss: the next fetch hands out the chain as a bad one, with
 * VRINGH_E_ADDR.
 */
void vringh_refuse_miss(struct vringh *vr);

/**
 * Hand back the chains that were fetched last, so that they are fetched again.
 *
 * @param chain
 *   The last @p n chains fetched from this queue, in the order in which they were fetched, none
 *   completed.
 */
void vringh_discard(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);

/**
 * Return chains to the driver with what was written to each (vringh_chain.written), in one
 * update of the ring (2.7.8.2, 2.8.22): the driver sees all of them or none. What was written is
 * in the dirty log before that.
 *
 * On packed rings chains have to be completed in an order in which their slots can be given
 * back; the order of fetching always is one.
 */
void vringh_complete(struct vringh *vr, const struct vringh_chain *chain, unsigned int n);

/**
 * Whether the driver wants a notification for what was completed since the last call
 * (2.7.7.2, 2.8.14). Has a full memory barrier: call it once per burst.
 */
bool vringh_need_notify(struct vringh *vr);

/**
 * Ask the driver for a notification of the next chain it makes available (2.7.10.1, 2.8.14).
 *
 * @return
 *   True if chains are available already: then no notification may come for them, and the
 *   caller has to look again instead of waiting.
 */
bool vringh_notify_enable(struct vringh *vr);

/** Tell the driver that no notifications are needed. They may come all the same. */
void vringh_notify_disable(struct vringh *vr);

/**
 * Where the ring stands. With every fetched chain completed or handed back avail equals used.
 * Works on a broken queue too. A state is set by vringh_init().
 */
struct vringh_state vringh_get_state(const struct vringh *vr);

/**
 * Log what the device writes from now on, also to chains that were fetched before (vhost-user,
 * "Migration"). Writes are visible before their bits; bits are set by atomic operations.
 *
 * @param dirty
 *   Copied, but for the bitmap; NULL: no more logging.
 * @return
 *   0; -VRINGH_E_DIRTY, and no more logging, if the bitmap does not reach to the end of the ring's
 *   areas or of a region that can be written, or of a ring whose used descriptors are apart.
 */
int vringh_set_dirty_log(struct vringh *vr, const struct vringh_dirty_log *log);

/** Bytes of a virtqueue's in-flight region (vhost-user, "Inflight I/O tracking"). */
size_t vringh_inflight_size(bool packed, uint32_t size);

/**
 * Track the chains in flight in memory that outlives this process, and take up those that a
 * predecessor left there: they are fetched before any other, in the order of then, and are in
 * flight as far as vringh_get_state() is concerned.
 *
 * Call it before the first fetch, on a ring that vringh_init() accepted, with the state
 *
 * - split: avail and used are the index in the used ring, even if a predecessor left chains;
 * - packed: where the ring stands if the region is new. Else any, such as VRINGH_PACKED_START or
 *   what the other side remembers: the region tells the position.
 *
 * A region is new unless a vringh of the same format and size has used it; then its first 8 bytes
 * are not 0, and become it if somebody wants it to be new again. One of a packed ring that was
 * cleared since, and on which nothing was used yet, is new too, at the state given.
 *
 * What the region holds is not trusted. If what a packed ring needs of it is altered while it is
 * in use, the queue is broken (VRINGH_E_STATE). What librte_vhost does to a region before it tells
 * a device of it does no harm.
 *
 * @param inflight
 *   Has to stay; NULL: no more tracking, the region stays as it is.
 * @param region
 *   As the other side handed it out, aligned to 8.
 * @param len
 *   Bytes of region, at least vringh_inflight_size().
 * @param resubmit
 *   Room for as many entries as the queue has; has to stay.
 * @return
 *   Number of chains to be fetched again; why the queue is broken; or -VRINGH_E_INFLIGHT if the
 *   region is not aligned, too small, or contradicts the ring or itself, or the ring's used
 *   descriptors are apart: then the queue is as it was, without tracking.
 */
int vringh_set_inflight(struct vringh *vr, struct vringh_inflight *inflight, void *region,
	size_t len, uint16_t *resubmit);

/**
 * Put what is to come again back into the ring, where it is fetched like all the rest. That is for
 * a device that completes in the order of fetching, in groups that it completes at once or not at
 * all: then all of it still lies in the ring in its old order, or did so before used entries were
 * written over it that the driver has not seen.
 *
 * Call it between vringh_set_inflight() and the first fetch.
 *
 * @return
 *   0, and avail equals used; why the queue is broken; or -VRINGH_E_INFLIGHT, and nothing has
 *   changed, if the driver does not offer these chains there: the region is that of another ring;
 *   or if the ring is a packed one in an IO window.
 */
int vringh_rewind(struct vringh *vr);

/** Chains that were in flight when a predecessor ended, and are still to be fetched. */
static inline uint32_t
vringh_nb_again(const struct vringh *vr)
{
	return vr->tracked ? vr->inflight->nb_resubmit - vr->inflight->next_resubmit : 0;
}

/** Why the queue is broken, or VRINGH_OK. */
static inline enum vringh_error
vringh_broken(const struct vringh *vr)
{
#ifdef __cplusplus
	return static_cast<enum vringh_error>(vr->broken);
#else
	return (enum vringh_error)vr->broken;
#endif
}

/**
 * How many times a reason made the queue broken or a chain bad since vringh_init(). Any thread:
 * it only grows until the next vringh_init().
 */
static inline uint64_t
vringh_error_count(const struct vringh *vr, enum vringh_error error)
{
	return __atomic_load_n(&vr->nb_errors[error], __ATOMIC_RELAXED);
}

/** Entries of the queue. */
static inline uint32_t
vringh_size(const struct vringh *vr)
{
	return vr->size;
}

/** May segments' bytes be accessed where they are? Else only by vringh_pull() and the like. */
static inline bool
vringh_in_place(const struct vringh *vr)
{
	return vr->mem->kind != VRINGH_MEM_IOMEM;
}

/** Is it a packed ring? Else it is a split one. */
static inline bool
vringh_is_packed(const struct vringh *vr)
{
	return vr->packed;
}

/** Descriptors for which the last fetch took the long way: what it cost beside its chains. */
static inline uint32_t
vringh_walked(const struct vringh *vr)
{
	return vr->walked;
}

/** Where an area is mapped in this process; of a broken queue where it was, or NULL. */
static inline void *
vringh_area(const struct vringh *vr, enum vringh_area area)
{
	return vr->area_host[area];
}

/** Descriptors of the ring that a chain takes until it is completed; 1 if they are in a table. */
static inline uint32_t
vringh_nb_descs(const struct vringh *vr, const struct vringh_chain *chain)
{
	return vr->packed ? chain->slots : 1u + chain->mark;
}

/* Private: what vringh_pending() is not quick about. */
bool vringh_pending_special(const struct vringh *vr);

/**
 * Whether a fetch would find something. Reads one cache line of guest memory, after a call of the
 * invalidate hook of a link that is not coherent. Orders nothing: vringh_fetch() looks again with
 * the barrier that it needs; a thread that only waits may get an answer that is old, and must not
 * call it during vringh_init() or vringh_set_mem().
 */
static inline bool
vringh_pending(const struct vringh *vr)
{
	uint16_t special;

	if (vr->broken != VRINGH_OK)
		return false;
	__builtin_memcpy(&special, &vr->linked, sizeof(special));
	if (special != 0)
		return vringh_pending_special(vr);
	if (vr->packed) {
		uint16_t flags =
			__atomic_load_n(&vr->packed_ring.desc[vr->avail].flags, __ATOMIC_RELAXED);

		return (flags & (1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED)) ==
			vr->avail_flags;
	}
	return vr->avail != __atomic_load_n(&vr->split.avail->idx, __ATOMIC_RELAXED);
}

/**
 * What tells whether a queue has chains to fetch, for one who looks at many queues: struct vringh
 * need not be touched. Good until the queue is fetched from, handed back to, set up or broken, or
 * its memory replaced.
 */
struct vringh_watch {
	const uint16_t *word; /**< Of the ring. */
	uint16_t mask;
	uint16_t value;
	bool differs; /**< There are chains if the masked word is not value, else if it is. */
	const struct vringh_io *io; /**< Ask its invalidate hook before; NULL: there is none. */
};

/**
 * What to look at instead of vringh_pending(), of which all that is said there holds here.
 *
 * Runs on the thread that owns the queue.
 */
struct vringh_watch vringh_watch(const struct vringh *vr);

/** The same answer as that of vringh_pending(). Any thread. */
static inline bool
vringh_watch_pending(const struct vringh_watch *watch)
{
	uint16_t word;

	if (watch->io != NULL)
		watch->io->invalidate(watch->io->arg, watch->word, sizeof(word));
	word = __atomic_load_n(watch->word, __ATOMIC_RELAXED);
	return ((word & watch->mask) == watch->value) != watch->differs;
}

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#include "vringh_bytes.h"

#endif /* VRINGH_H */
