/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The driver side of a virtqueue, for tests, fuzzers and benchmarks of the device side.
 *
 * It keeps its own books and believes nothing the device writes: mock_collect() refuses what a
 * right device cannot have done and says why in mock_driver.fault. It can misbehave itself:
 * chains can be altered before mock_publish() and after it, and so can all that a driver writes.
 *
 * Threads: one owner at a time; the device may run on another thread. What is shared with it
 * is accessed in the order that the specification asks for. Section numbers: virtio 1.3.
 */

#ifndef MOCK_DRIVER_H
#define MOCK_DRIVER_H

#include "mock_mem.h"

/** Flags of mock_post(). */
#define MOCK_INDIRECT  0x1	  /**< Buffers go into an indirect table. */
#define MOCK_SCATTER   0x2	  /**< Split: the entries of the table are not in order. */
#define MOCK_DIRECT(n) ((n) << 8) /**< With MOCK_INDIRECT: so many stay in front of the table. */

/** Where the ring is, and what memory the driver may use for itself. */
struct mock_config {
	bool packed;
	bool event_idx;
	bool in_order; /**< Split: descriptors are taken in ring order, too (2.7.9). */
	bool apart;    /**< Packed: see struct vringh_config. */
	uint32_t size;
	uint64_t desc, driver, device; /**< Bus addresses, each area in one region. */
	struct mock_mem *desc_mem, *driver_mem,
		*device_mem; /**< Of the areas; NULL: the chains'. */
	uint64_t bufs;	     /**< Of buf_len bytes for each id. */
	uint32_t buf_len;
	uint32_t nb_bufs; /**< Ids that high share the bytes of (id % nb_bufs). */
	uint64_t tables;  /**< Of table_entries entries for each id. */
	uint32_t table_entries;
	struct vringh_state start; /**< Only .used counts: where the empty ring stands. */
};

/** A buffer of a chain. */
struct mock_buf {
	uint32_t len;
	bool write; /**< The device writes. */
	bool fixed; /**< Use iova; else the next bytes of the id's own. */
	uint64_t iova;
};

/** A descriptor of either format. */
struct mock_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags; /**< Without AVAIL and USED, those are added. */
	uint16_t ref;	/**< Split: next. Packed: buffer id. */
};

/** What came back. */
struct mock_used {
	uint64_t token;
	uint32_t len;
	uint16_t id;
	bool skipped; /**< In order: no entry of its own, so it counts as used completely. */
};

struct mock_record {
	uint64_t token;
	uint64_t write_len; /* most that the device can have written */
	uint16_t head;	    /* first ring entry */
	uint16_t slots;
	bool busy;
};

struct mock_driver {
	struct mock_config cfg;
	struct mock_mem *mem;
	struct vring_desc *desc;		      /**< Split. */
	struct vring_avail *avail_ring;		      /**< Split. */
	struct vring_used *used_ring;		      /**< Split. */
	struct vring_packed_desc *packed;	      /**< Packed. */
	struct vring_packed_desc *packed_used;	      /**< Packed: where the device writes. */
	struct vring_packed_desc_event *driver_event; /**< Packed, the driver writes. */
	struct vring_packed_desc_event *device_event; /**< Packed, the device writes. */

	uint16_t avail;	  /**< Next to make available: split index, packed slot. */
	uint16_t used;	  /**< Next to be used. */
	bool avail_wrap;  /**< Packed. */
	bool used_wrap;	  /**< Packed. */
	uint32_t nb_busy; /**< Chains at the device. */
	uint32_t nb_room; /**< Free ring entries. */

	uint16_t *free; /**< Free descriptors (split) or ids (packed), a ring. */
	uint32_t free_at, nb_free;
	uint16_t *link;	 /* split: own copy of next */
	uint16_t *order; /* in order: ids at the device, a ring */
	uint32_t order_at;
	bool in_run; /* in order: chains up to run_end are used, the last with run_len */
	uint16_t run_end;
	uint32_t run_len;
	struct mock_record *record; /**< By id. */

	uint32_t held; /* packed: slot whose flags are written last; UINT32_MAX if none */
	uint16_t held_flags;
	uint32_t nb_unkicked; /* entries since the last decision to kick */
	char fault[128];      /**< Why mock_collect() returned -1. */
};

/** Bytes of an area: 0 descriptors, 1 driver, 2 device (2.7, 2.8). */
uint32_t mock_area_len(const struct mock_config *cfg, int area);

/**
 * Lay out an empty ring. Writes the areas; returns false when they are not mapped.
 */
bool mock_init(struct mock_driver *d, struct mock_mem *mem, const struct mock_config *cfg);

void mock_free(struct mock_driver *d);

/** Look up the areas again after mock_mem_move(). */
bool mock_remap(struct mock_driver *d);

/** Permute what is free, so that the next chains get arbitrary descriptors and ids. */
void mock_shuffle(struct mock_driver *d, uint64_t *seed);

/**
 * Write a chain into the ring; the device does not see it before mock_publish().
 *
 * @return
 *   The chain's id; -1 if there is no room.
 */
int mock_post(struct mock_driver *d, const struct mock_buf *buf, unsigned int nb, uint32_t flags,
	uint64_t token);

/** Make what was posted visible (2.7.13.3, 2.8.21). */
void mock_publish(struct mock_driver *d);

/** Bus address of the @p k th own byte of an id, and of its indirect table. */
static inline uint64_t
mock_buf_addr(const struct mock_driver *d, uint16_t id, uint32_t k)
{
	return d->cfg.bufs + (uint64_t)(id % d->cfg.nb_bufs) * d->cfg.buf_len + k;
}

static inline uint64_t
mock_table_addr(const struct mock_driver *d, uint16_t id)
{
	return d->cfg.tables + (uint64_t)id * d->cfg.table_entries * sizeof(struct vring_desc);
}

/** Read and alter the @p k th ring entry of a posted chain. */
struct mock_desc mock_get_desc(const struct mock_driver *d, uint16_t id, unsigned int k);
void mock_set_desc(struct mock_driver *d, uint16_t id, unsigned int k, const struct mock_desc *m);

/** The same for the @p k th entry of its indirect table; split: ref is next. */
struct mock_desc mock_get_entry(const struct mock_driver *d, uint16_t id, unsigned int k);
void mock_set_entry(struct mock_driver *d, uint16_t id, unsigned int k, const struct mock_desc *m);

/** Split: write any index, any head into a place of the available ring, any flags. */
void mock_set_avail_idx(struct mock_driver *d, uint16_t idx);
void mock_set_head(struct mock_driver *d, uint16_t at, uint16_t head);
void mock_set_avail_flags(struct mock_driver *d, uint16_t flags);

/** Packed: write any descriptor into a slot, flags last and as they are. */
void mock_set_slot(struct mock_driver *d, uint16_t slot, const struct mock_desc *m);
struct mock_desc mock_get_slot(const struct mock_driver *d, uint16_t slot);

/** Packed: turn a slot's AVAIL and USED bits over. */
void mock_toggle_slot(struct mock_driver *d, uint16_t slot);

/** Write any event index, or packed event position and flags. */
void mock_set_event(struct mock_driver *d, uint16_t position, uint16_t flags);

/** Write into the part that is the device's: its area and, if packed, the descriptors. */
void mock_scribble_device(struct mock_driver *d, uint8_t value);

/** Whether something was used. */
bool mock_has_used(const struct mock_driver *d);

/**
 * Take back used chains.
 *
 * @return
 *   Number of entries filled; -1 if the device did something wrong: see mock_driver.fault.
 */
int mock_collect(struct mock_driver *d, struct mock_used *used, unsigned int max);

/**
 * Whether the device wants a kick for what was published since the last call (2.7.10, 2.8.14).
 * Has a full memory barrier.
 */
bool mock_should_kick(struct mock_driver *d);

/**
 * Ask for a notification of the next used chain, or after @p ahead more ring entries.
 * @return True if something is used already: look again instead of waiting.
 */
bool mock_events_enable(struct mock_driver *d, uint32_t ahead);

/** Tell the device that no notifications are needed. */
void mock_events_disable(struct mock_driver *d);

/** Position of a ring entry @p ahead of the next used one, as in an event field. */
uint16_t mock_used_position(const struct mock_driver *d, uint32_t ahead);

/** A small random number generator, so that every test owns its sequence (splitmix64). */
static inline uint64_t
mock_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

#endif /* MOCK_DRIVER_H */
