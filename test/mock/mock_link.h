/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A link whose two sides do not see each other's writes by themselves: each has a copy of the
 * memory. What the driver writes gets to the device when the device invalidates, what the
 * device writes to the driver when the device flushes.
 *
 * With mock_link_strict() what the device writes is kept apart until then, too, so that it
 * cannot be read back; the checking accessors do that. One thread.
 */

#ifndef MOCK_LINK_H
#define MOCK_LINK_H

#include "vringh.h"

#define MOCK_LINK_WINDOWS 64

struct mock_link_window {
	uint64_t iova;
	uint8_t *driver;
	uint8_t *device; /**< What the device reads. */
	uint8_t *posted; /**< Strict: what the device wrote. */
	uint8_t *state;	 /**< Strict: MOCK_LINK_* of each byte. */
	size_t len;
};

/** The device wrote it, and has not flushed it. */
#define MOCK_LINK_POSTED 0x1
/** The device wrote it last, so it must not be read. */
#define MOCK_LINK_OWN 0x2

/** All zeros is a link without windows. */
struct mock_link {
	struct mock_link_window window[MOCK_LINK_WINDOWS];
	uint32_t nb_windows;
	bool strict;
	struct vringh_io io;
	/**
	 * Bus addresses of packed descriptors, of which a device polls the flags (2.8.21): that
	 * it finds its own or older ones tells it that nothing is available.
	 */
	uint64_t polled[2];
	/** Strict: bus addresses that a device must not read, and not write. */
	uint64_t unread[2], unwritten[2];
	uint64_t nb_flushes, nb_invalidates;
	uint64_t nb_orders; /**< Flushes of length 0. */
	uint64_t nb_lost;   /**< Strict: bytes that were never flushed, of windows removed. */
	/** Bus addresses for which a hook is lost on the way: controls that tests see it. */
	uint64_t lose_flush[2], lose_invalidate[2];
	bool loses; /**< Such controls ran. */
};

/** A memory's block on both sides. The device's copy; NULL if there is no room. */
uint8_t *mock_link_add(struct mock_link *link, uint64_t iova, uint8_t *driver, size_t len);

/** Remove the window with this copy of the device's. */
void mock_link_remove(struct mock_link *link, const uint8_t *device);

/** The window in which the device has an address, else NULL. */
struct mock_link_window *mock_link_find(struct mock_link *link, const void *device);

/** The driver wrote there: the device may read it again. */
void mock_link_wrote(struct mock_link *link, const uint8_t *driver, size_t len);

/** Hooks for struct vringh_mem. */
const struct vringh_io *mock_link_io(struct mock_link *link);

#endif /* MOCK_LINK_H */
