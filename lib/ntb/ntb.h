/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * One side of a non-transparent bridge: a window into memory of the peer, memory of our own that
 * the peer has such a window into, scratchpads and doorbells. Nothing else of the peer is reached,
 * and nothing is read across: what a side reads is its own memory, what it writes is the peer's.
 *
 * The link is not coherent. What is written to the window out stays here until it is flushed; a
 * flush is posted, and arrives later, in the order of flushes, scratchpads and doorbells of one
 * thread, and of threads of which one waits for the other. What has arrived is seen in the window
 * in once that is invalidated. Each side may have its own alignment of what it flushes: just those
 * bytes arrive, and they must have been written since they were flushed last.
 *
 * A bridge is a table of operations; ntb_sim_open() makes the simulated one, between two processes.
 * Addresses that both sides know are bus addresses: a window has the same ones on both sides.
 *
 * Threads: any, at once, unless a call says otherwise. Link and windows are controlled by one.
 */

#ifndef NTB_H
#define NTB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NTB_SCRATCHPADS 16 /* of 32 bits */
#define NTB_DOORBELLS	32

/** A window: bus addresses [bus, bus + size) are bytes at host. */
struct ntb_window {
	uint8_t *host; /**< Stays where it is for as long as the bridge is open. */
	uint64_t bus;
	uint64_t size; /**< The window out has 0 while the link is down. */
};

/** What a bridge has done; any of it may be read at any time. */
struct ntb_stats {
	uint64_t flushes;	/**< Writes that were posted. */
	uint64_t flushed_bytes; /**< In them. */
	uint64_t doorbells;	/**< Rung at the peer. */
	/**
	 * Reads across the link: whoever invalidated, or read by ntb_peer_scratchpad(), what the
	 * peer has. 0 on a data path.
	 */
	uint64_t reads_across;
	uint64_t links; /**< Times that the link came up. */
};

struct ntb;

/** What a bridge implements. */
struct ntb_ops {
	/** See the calls of these names below. */
	int (*link_enable)(struct ntb *ntb);
	void (*link_disable)(struct ntb *ntb);
	bool (*link_up)(struct ntb *ntb);
	void (*flush)(struct ntb *ntb, const void *addr, size_t len);
	void (*invalidate)(struct ntb *ntb, const void *addr, size_t len);
	uint32_t (*scratchpad)(struct ntb *ntb, unsigned int i);
	uint32_t (*peer_scratchpad)(struct ntb *ntb, unsigned int i);
	void (*set_peer_scratchpad)(struct ntb *ntb, unsigned int i, uint32_t v);
	void (*ring)(struct ntb *ntb, uint32_t doorbells);
	uint32_t (*doorbells)(struct ntb *ntb);
	void (*clear)(struct ntb *ntb, uint32_t doorbells);
	void (*mask)(struct ntb *ntb, uint32_t doorbells);
	void (*stats)(struct ntb *ntb, struct ntb_stats *stats);
	void (*close)(struct ntb *ntb);
};

/** A bridge. Its fields do not change, but bus and size of the window out with the link. */
struct ntb {
	const struct ntb_ops *ops;
	struct ntb_window in;  /**< Our memory, which the peer writes and we read. */
	struct ntb_window out; /**< The peer's, which we write. */
	/** Readable when the link came up or went down; its value is nobody's. An eventfd. */
	int link_fd;
	/** Readable when a doorbell that is not masked was rung. To be polled only: ntb_clear(). */
	int doorbell_fd;
};

/**
 * Look for the peer, and have the link up when it does, too. A link that went down stays down
 * until this is called anew: whoever used it has let go of everything then. The window in reads as
 * zero, scratchpads and doorbells are 0.
 *
 * @return
 *   0; -EALREADY: it is enabled and has not gone down since; or another negative errno value.
 */
static inline int
ntb_link_enable(struct ntb *ntb)
{
	return ntb->ops->link_enable(ntb);
}

/** Hang up: nothing of the peer's is written, and nothing of ours is by it, on return. */
static inline void
ntb_link_disable(struct ntb *ntb)
{
	ntb->ops->link_disable(ntb);
}

static inline bool
ntb_link_up(struct ntb *ntb)
{
	return ntb->ops->link_up(ntb);
}

/**
 * Post what was written to the window out. With length 0: what was written and flushed arrives
 * before what is flushed after. Takes a struct ntb, as struct vringh_io has it.
 */
static inline void
ntb_flush(void *ntb, const void *addr, size_t len)
{
	((struct ntb *)ntb)->ops->flush(ntb, addr, len);
}

/** See, in the window in, what has arrived. Of the window out it is a read across the link. */
static inline void
ntb_invalidate(void *ntb, const void *addr, size_t len)
{
	((struct ntb *)ntb)->ops->invalidate(ntb, addr, len);
}

/** Our own scratchpad i, below NTB_SCRATCHPADS, which the peer sets. */
static inline uint32_t
ntb_scratchpad(struct ntb *ntb, unsigned int i)
{
	return ntb->ops->scratchpad(ntb, i);
}

/** The peer's, read across the link. */
static inline uint32_t
ntb_peer_scratchpad(struct ntb *ntb, unsigned int i)
{
	return ntb->ops->peer_scratchpad(ntb, i);
}

static inline void
ntb_set_peer_scratchpad(struct ntb *ntb, unsigned int i, uint32_t v)
{
	ntb->ops->set_peer_scratchpad(ntb, i, v);
}

/** Ring doorbells of the peer, a bit each. What this thread has flushed arrives before. */
static inline void
ntb_ring(struct ntb *ntb, uint32_t doorbells)
{
	ntb->ops->ring(ntb, doorbells);
}

/** Which of ours were rung since they were cleared, masked ones too. */
static inline uint32_t
ntb_doorbells(struct ntb *ntb)
{
	return ntb->ops->doorbells(ntb);
}

/** Clear some; doorbell_fd is readable again when one is rung. Then look at what they are for. */
static inline void
ntb_clear(struct ntb *ntb, uint32_t doorbells)
{
	ntb->ops->clear(ntb, doorbells);
}

/** These, and no others, leave doorbell_fd alone. What is unmasked and was rung signals it. */
static inline void
ntb_mask(struct ntb *ntb, uint32_t doorbells)
{
	ntb->ops->mask(ntb, doorbells);
}

static inline void
ntb_stats(struct ntb *ntb, struct ntb_stats *stats)
{
	ntb->ops->stats(ntb, stats);
}

/** The link is down on return; nobody uses the bridge or its memory any more. */
static inline void
ntb_close(struct ntb *ntb)
{
	ntb->ops->close(ntb);
}

/** Byte of a window by its bus address; NULL if it does not have len bytes from there. */
static inline uint8_t *
ntb_host(const struct ntb_window *w, uint64_t bus, uint64_t len)
{
	return bus >= w->bus && bus - w->bus <= w->size && len <= w->size - (bus - w->bus) ?
		w->host + (bus - w->bus) :
		NULL;
}

/** Bus address of len bytes of a window. False if they are not inside it. */
static inline bool
ntb_bus(const struct ntb_window *w, const void *host, uint64_t len, uint64_t *bus)
{
	uint64_t at = (uintptr_t)host - (uintptr_t)w->host;

	*bus = w->bus + at;
	return (uintptr_t)host >= (uintptr_t)w->host && at <= w->size && len <= w->size - at;
}

#endif /* NTB_H */
