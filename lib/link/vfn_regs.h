/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Registers of the virtio function, as both sides of every link see them.
 *
 * The function is a virtio-pci device (virtio 1.3, 4.1) with its structures in BARs that are
 * found through the capabilities in configuration space. What virtio has no register for
 * (positions, suspending a queue, the dirty log, counters) is behind one vendor capability. All
 * registers are little-endian and accessed with their natural width.
 */

#ifndef VFN_REGS_H
#define VFN_REGS_H

#include <stddef.h>
#include <stdint.h>

#include <linux/virtio_pci.h>

/* Feature bits (6) that the headers of older kernels do not have. */
#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA 38
#endif
#ifndef VIRTIO_F_NOTIF_CONFIG_DATA
#define VIRTIO_F_NOTIF_CONFIG_DATA 39
#endif

/** Regions of the function, numbered as in VFIO. */
enum vfn_region {
	VFN_REGION_BAR0 = 0,   /**< Structures, see VFN_OFF_*. */
	VFN_REGION_BAR1 = 1,   /**< MSI-X table and pending bits. */
	VFN_REGION_BAR2 = 2,   /**< Doorbells, a page per queue. */
	VFN_REGION_CONFIG = 7, /**< PCI configuration space. */
};

#define VFN_PCI_VENDOR	    0x1af4
#define VFN_PCI_DEVICE	    0x1040 /* and the class's virtio device id (4.1.2) */
#define VFN_PCI_CONFIG_SIZE 256

#define VFN_MAX_QUEUES	129		     /* 64 pairs of the net class, one control queue */
#define VFN_MAX_VECTORS (VFN_MAX_QUEUES + 1) /* configuration changes have one */
#define VFN_VECTOR_INTX VFN_MAX_VECTORS	     /* of set_irq(): the interrupt pin */

/** Where the structures are in BAR 0. Drivers find them through the capabilities. */
#define VFN_OFF_COMMON 0x0000
#define VFN_OFF_ISR    0x1000
#define VFN_OFF_DEVICE 0x2000
#define VFN_OFF_VENDOR 0x3000
#define VFN_OFF_STATS  0x4000
#define VFN_OFF_PARTS  0x18000
#define VFN_BAR0_SIZE  0x20000

/** BAR 1. */
#define VFN_OFF_MSIX_TABLE 0x0000
#define VFN_OFF_MSIX_PBA   0x1000
#define VFN_BAR1_SIZE	   0x2000

/** BAR 2: doorbell of queue n at n * VFN_NOTIFY_STEP. */
#define VFN_NOTIFY_STEP 4096
#define VFN_BAR2_SIZE	0x100000

/** Common configuration structure of virtio 1.3, 4.1.4.3 (no admin queues). */
struct vfn_common_cfg {
	uint32_t device_feature_select;
	uint32_t device_feature;
	uint32_t driver_feature_select;
	uint32_t driver_feature;
	uint16_t config_msix_vector;
	uint16_t num_queues;
	uint8_t device_status;
	uint8_t config_generation;
	uint16_t queue_select;
	uint16_t queue_size;
	uint16_t queue_msix_vector;
	uint16_t queue_enable;
	uint16_t queue_notify_off;
	uint32_t queue_desc_lo;
	uint32_t queue_desc_hi;
	uint32_t queue_driver_lo;
	uint32_t queue_driver_hi;
	uint32_t queue_device_lo;
	uint32_t queue_device_hi;
	uint16_t queue_notify_data;
	uint16_t queue_reset;
};
_Static_assert(sizeof(struct vfn_common_cfg) == 60, "layout of virtio 1.3, 4.1.4.3");
_Static_assert(offsetof(struct vfn_common_cfg, queue_desc_lo) == VIRTIO_PCI_COMMON_Q_DESCLO,
	"layout of virtio 1.3, 4.1.4.3");

#define VFN_VENDOR_VERSION 4

/** Bits of vfn_vendor_cfg.capabilities. */
#define VFN_CAP_DIRTY_LOG (1u << 0) /**< The function logs the pages that it writes. */

/** Structure behind the vendor capability. The queue is the one in common queue_select. */
struct vfn_vendor_cfg {
	uint32_t version;      /**< RO: VFN_VENDOR_VERSION. */
	uint32_t stats_offset; /**< RO: counters in the same BAR. */
	uint32_t stats_step;   /**< RO: bytes from one queue's counters to the next's. */
	/**
	 * RW: write 1 to suspend; reads 1 once it is, 0 resumes. While a queue is suspended, and on
	 * from its reset until it is enabled or reset again, those who send to it wait.
	 */
	uint16_t queue_suspend;
	uint16_t queue_error; /**< RO: why the queue was refused or broke, 0 if it did not. */
	/**
	 * RW: the queue's position, split index or packed slot with the wrap counter in bit 15.
	 * Written before queue_enable; read while suspended, then both are final and equal.
	 */
	uint16_t queue_avail;
	uint16_t queue_used;
	uint16_t suspend;      /**< RW: write 1 to suspend every queue; reads 1 once they are. */
	uint16_t reserved;     /**< RO: 0. */
	uint32_t capabilities; /**< RO: VFN_CAP_*. */
	/**
	 * RW: dirty log, a bit per page of 4 KiB by bus address (vhost-user, "Migration"): where it
	 * is in VFN_DMA_OWN, and its bytes. Fixed while dirty_control is 1.
	 */
	uint32_t dirty_lo;
	uint32_t dirty_hi;
	uint32_t dirty_len_lo;
	uint32_t dirty_len_hi;
	/**
	 * RW: 1 logs what is written from now on, 0 ends that. Stays 0 if the dirty log does not
	 * reach to the end of what can be written.
	 */
	uint32_t dirty_control;
	/**
	 * RW: what the dirty log calls the selected queue's device area, 0: its bus address; split
	 * rings only.
	 */
	uint32_t queue_dirty_lo;
	uint32_t queue_dirty_hi;
	/**
	 * RW: the selected queue's in-flight region (vhost-user, "Inflight I/O tracking"): where it
	 * is in VFN_DMA_OWN, and its bytes, 0 for none. Written before queue_enable. A region that
	 * a predecessor used tells the position of a packed ring; of a split one queue_avail and
	 * queue_used are the index in the used ring then.
	 */
	uint32_t queue_inflight_lo;
	uint32_t queue_inflight_hi;
	uint32_t queue_inflight_len;
	/** RO: a window in the same BAR for the function's device parts, see vfn_parts.h. */
	uint32_t parts_offset;
	uint32_t parts_size; /**< RO: bytes of the window. */
	uint32_t parts_len;  /**< RW: bytes of parts in the window. */
	/**
	 * W: enum vfn_parts_command. Reads as VFN_PARTS_BUSY until it is done, then as what became
	 * of it: 0 or a positive errno.
	 */
	uint32_t parts_control;
};

/** Read from vfn_vendor_cfg.parts_control. */
#define VFN_PARTS_BUSY UINT32_C(0x80000000)

/** Written to vfn_vendor_cfg.parts_control. */
enum vfn_parts_command {
	/**
	 * Fill the window with the parts of this moment and set parts_len. At any time; what the
	 * queues do meanwhile waits.
	 */
	VFN_PARTS_GET = 1,
	/**
	 * Take the parts in the window. EBUSY after DRIVER_OK and while the dirty log is on. Every
	 * queue that is enabled in them is enabled, and suspended; DRIVER_OK is left to the driver.
	 */
	VFN_PARTS_SET = 2,
	/** Would VFN_PARTS_SET take them, once the rings are mapped? Changes nothing. At any time.
	 */
	VFN_PARTS_CHECK = 3,
};

/** Vendor capability in configuration space (4.1.4.8: cfg_type, vendor_id, then our own). */
struct vfn_vendor_cap {
	uint8_t cap_vndr;
	uint8_t cap_next;
	uint8_t cap_len;
	uint8_t cfg_type;   /**< VFN_PCI_CAP_VENDOR_CFG. */
	uint16_t vendor_id; /**< VFN_VENDOR_ID. */
	uint8_t bar;
	uint8_t reserved;
	uint32_t offset; /**< Of struct vfn_vendor_cfg in the BAR. */
	uint32_t length;
};
#define VFN_PCI_CAP_VENDOR_CFG 9
/** Not virtio's, as that may not be, and nobody else's: none is assigned to us (4.1.4.8.1). */
#define VFN_VENDOR_ID 0xffff

/**
 * Counters of a queue: 64 bits each, read only, never reset. These come first, the class's follow
 * (vfn_net.h). X(symbol, name). "errors_" are chains and rings that were refused, one counter per
 * reason.
 */
/* clang-format off */
#define VFN_QUEUE_STATS(X) \
	X(CALLS, "calls") /* interrupts raised */ \
	X(ARMED, "armed") /* times a poller armed the doorbell to sleep */ \
	X(DOORBELL_ERRORS, "doorbell_errors") /* times a poller could not wait for the doorbell */ \
	X(CALLS_BLOCKED, "calls_blocked") /* interrupts whose eventfd blocked: off until it is replaced */ \
	X(MISSES, "misses") /* translations asked for */ \
	X(MISSES_AGAIN, "misses_again") /* asked for once more, as there was no answer */ \
	X(MISSES_REFUSED, "misses_refused") /* given up: the chain was refused */ \
	X(ERRORS_AVAIL_IDX, "errors_avail_idx") \
	X(ERRORS_HEAD, "errors_head") \
	X(ERRORS_RUNAWAY, "errors_runaway") \
	X(ERRORS_NEXT, "errors_next") \
	X(ERRORS_LOOP, "errors_loop") \
	X(ERRORS_ORDER, "errors_order") \
	X(ERRORS_INDIRECT, "errors_indirect") \
	X(ERRORS_TABLE, "errors_table") \
	X(ERRORS_ADDR, "errors_addr") \
	X(ERRORS_PERM, "errors_perm") \
	X(ERRORS_LEN, "errors_len") \
	X(ERRORS_SEGS, "errors_segs")
/* clang-format on */

enum vfn_queue_stat {
#define X(symbol, name) VFN_STAT_##symbol,
	VFN_QUEUE_STATS(X)
#undef X
		VFN_STAT_CLASS /**< The first of the class's. */
};

/** Of a queue, the class's included. */
#define VFN_STATS_MAX  64
#define VFN_STATS_STEP (VFN_STATS_MAX * 8)
_Static_assert(
	VFN_OFF_STATS + VFN_MAX_QUEUES * VFN_STATS_STEP <= VFN_OFF_PARTS, "counters overlap");

/** The window of vfn_vendor_cfg.parts_offset; accesses of any width. */
#define VFN_PARTS_SIZE 0x8000
_Static_assert(VFN_OFF_PARTS + VFN_PARTS_SIZE <= VFN_BAR0_SIZE, "BAR 0 too small");

#endif /* VFN_REGS_H */
