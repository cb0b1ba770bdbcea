/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The virtio driver of a function behind any link (virtio 1.3, 3.1 and 4.1). It knows no class: its
 * device configuration is bytes. Who asks for what is up to the driver that uses it.
 *
 * The function is not trusted to do what it is told: whatever a register starts is waited for, with
 * a bound. Where a function does not do what it must, or the link is gone, struct vfn_vpci is
 * *failed*: it may go on touching memory. Nothing is asked of it then, and no memory is taken
 * back, until vfn_vpci_release() has reset it.
 *
 * Threads: any, one at a time for each function. All that return int return 0 or a negative errno
 * value if nothing else is said: -EIO of a function that is failed, which has been logged.
 */

#ifndef VFN_VPCI_H
#define VFN_VPCI_H

#include <stdbool.h>
#include <stdint.h>

#include <vfn_link.h>
#include <vfn_regs.h>

/** Where the structures of a function were found. */
struct vfn_vpci_place {
	uint8_t region;
	uint32_t offset;
	uint32_t length;
};

struct vfn_vpci {
	/* Set by the user. */
	struct vfn_link *link;
	const char *name;   /**< For the log. */
	uint32_t drain_ms;  /**< How long queues may take to stand still. */
	uint32_t answer_ms; /**< The same of everything else. */

	/* To be read only. */
	struct vfn_vpci_place common, notify, device, vendor;
	struct vfn_vpci_place stats, parts, msix_table;
	uint8_t msix;	      /**< The capability in configuration space. */
	uint32_t stats_step;  /**< Bytes from one queue's counters to the next's. */
	uint32_t notify_step; /**< Of queue_notify_off. */
	uint16_t type;	      /**< Virtio device id (virtio 1.3, 5). */
	uint64_t features;    /**< Offered by the function. */
	uint16_t nb_queues;
	bool failed;	    /**< See above. */
	bool deaf;	    /**< The last reset was not done in time. */
	const char *reason; /**< Why it last failed, or NULL. */
	uint32_t failures;  /**< How often it did. */
};

/** A ring as the function gets it. Addresses are bus addresses. */
struct vfn_vpci_ring {
	uint64_t desc, driver, device;
	uint64_t dirty; /**< What the dirty log calls the device area. */
	uint16_t size;
	uint16_t avail, used;  /**< Position, packed with wrap counters in bit 15. */
	uint64_t inflight;     /**< Of the in-flight region. */
	uint32_t inflight_len; /**< 0: none. */
	int kickfd, callfd;    /**< -1: none. */
};

/** A queue's registers. */
struct vfn_vpci_queue {
	struct vfn_vpci_ring ring; /**< Without eventfds. */
	bool enabled, suspended;
	uint16_t error;
};

/**
 * Find the function's structures, reset it, switch its messages (MSI-X) on and learn what it can.
 *
 * @return
 *   -ENODEV if it is no function that this driver can use.
 */
int vfn_vpci_init(struct vfn_vpci *pci);

/** Reset. The function is not failed any more if it does what it is told; its maps stay. */
int vfn_vpci_reset(struct vfn_vpci *pci);

/** Reset, and take all memory back. On success none is touched any more. */
int vfn_vpci_release(struct vfn_vpci *pci);

/** The function is failed, for a reason that stays where it is. */
void vfn_vpci_fail(struct vfn_vpci *pci, const char *reason);

/**
 * The function has ended with the process that it was in: it is failed, for a reason that stays
 * where it is, and touches nothing any more.
 */
void vfn_vpci_lost(struct vfn_vpci *pci, const char *reason);

/** Reset and initialisation up to FEATURES_OK (3.1.1). -ENOTSUP: the function refuses them. */
int vfn_vpci_negotiate(struct vfn_vpci *pci, uint64_t features);

int vfn_vpci_driver_ok(struct vfn_vpci *pci);

/** The features that were negotiated last. */
uint64_t vfn_vpci_negotiated(struct vfn_vpci *pci);

/** VFN_CAP_*. */
uint32_t vfn_vpci_capabilities(struct vfn_vpci *pci);

/** Let the function reach memory, which has to be a file. */
int vfn_vpci_map(struct vfn_vpci *pci, const struct vfn_dma_map *map);

/** Take it back. On failure it stays the function's. */
int vfn_vpci_unmap(struct vfn_vpci *pci, enum vfn_dma_space space, uint64_t iova, uint64_t len);

/* ---- device configuration ---- */

/** Bytes of it that belong together (2.5), and their generation. */
int vfn_vpci_config(
	struct vfn_vpci *pci, uint32_t offset, void *buf, size_t len, uint8_t *generation);

uint8_t vfn_vpci_config_generation(struct vfn_vpci *pci);

/** Eventfd that is told of its changes, -1: none. */
int vfn_vpci_config_irq(struct vfn_vpci *pci, int fd);

/* ---- queues ---- */

/**
 * Set up and enable a queue, before or after DRIVER_OK.
 *
 * @return
 *   -EINVAL if the function refuses the ring; the queue is off then.
 */
int vfn_vpci_queue_start(struct vfn_vpci *pci, uint16_t queue, const struct vfn_vpci_ring *ring);

/**
 * The function forgets the ring. If the queue is suspended, who sends to it still waits: until it
 * is started, or reset a second time.
 */
int vfn_vpci_queue_reset(struct vfn_vpci *pci, uint16_t queue);

/** A queue that was reset is not started after all. */
int vfn_vpci_queue_off(struct vfn_vpci *pci, uint16_t queue);

/**
 * Nothing of the queue is touched any more on success. It stays enabled: who sends to it waits
 * instead of dropping.
 */
int vfn_vpci_queue_suspend(struct vfn_vpci *pci, uint16_t queue);

/** It goes on where it stood. */
int vfn_vpci_queue_resume(struct vfn_vpci *pci, uint16_t queue);

/** Suspend every queue at once. */
int vfn_vpci_suspend(struct vfn_vpci *pci);

/**
 * Where a queue stands, which is exact if it is suspended. Its eventfds are given back.
 *
 * @return
 *   -EIO: of a failed function, and not exact; -ENODEV: the link is gone, and nobody knows.
 */
int vfn_vpci_queue_leave(struct vfn_vpci *pci, uint16_t queue, struct vfn_vpci_ring *ring);

void vfn_vpci_queue_info(struct vfn_vpci *pci, uint16_t queue, struct vfn_vpci_queue *info);

/** Offset of its doorbell in the region of notify (4.1.4.4). */
uint64_t vfn_vpci_doorbell(struct vfn_vpci *pci, uint16_t queue);

/** Counters of a queue, the first n. */
int vfn_vpci_stats(struct vfn_vpci *pci, uint16_t queue, uint64_t *value, unsigned int n);

/** Can the link do jobs? */
bool vfn_vpci_does_jobs(const struct vfn_vpci *pci);

/** NULL: none. If that fails the job may still be done. */
int vfn_vpci_set_job(struct vfn_vpci *pci, uint16_t queue, struct vfn_job *job);

/* ---- dirty log and device parts ---- */

/** -EINVAL if the function refuses such a log. */
int vfn_vpci_dirty_start(struct vfn_vpci *pci, uint64_t addr, uint64_t len);

/** Nothing is written to the log any more on success. */
int vfn_vpci_dirty_stop(struct vfn_vpci *pci);

/** Bytes of parts in buf, which has room for as many as the window (pci->parts) has. */
int vfn_vpci_parts_get(struct vfn_vpci *pci, void *buf);

/** Have the function take parts, or only check them. */
int vfn_vpci_parts_set(struct vfn_vpci *pci, const void *buf, uint32_t len, bool check);

#endif /* VFN_VPCI_H */
