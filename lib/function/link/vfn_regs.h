/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Registers of the virtio function, as both sides of every link see them.
 *
 * The function is a virtio-pci device (virtio 1.3, 4.1) with its structures in BARs that are
 * found through the capabilities in configuration space. What virtio has no register for (queue
 * state, suspending a queue, statistics) is behind one vendor capability. All registers are
 * little-endian and accessed with their natural width.
 */

#ifndef VFN_REGS_H
#define VFN_REGS_H

#include <stddef.h>
#include <stdint.h>

#include <linux/virtio_pci.h>

/** Regions of the function, numbered as in VFIO. */
enum vfn_region {
	VFN_REGION_BAR0 = 0,   /**< Structures, see VFN_OFF_*. */
	VFN_REGION_BAR1 = 1,   /**< MSI-X table and pending bits. */
	VFN_REGION_BAR2 = 2,   /**< Doorbells, a page per queue. */
	VFN_REGION_CONFIG = 7, /**< PCI configuration space. */
};

#define VFN_PCI_VENDOR	    0x1af4
#define VFN_PCI_DEVICE_NET  0x1041 /* 0x1040 + virtio device id (4.1.2) */
#define VFN_PCI_CONFIG_SIZE 256

#define VFN_MAX_PAIRS	64
#define VFN_MAX_QUEUES	(2 * VFN_MAX_PAIRS + 1) /* receive and transmit, one control queue */
#define VFN_MAX_VECTORS (VFN_MAX_QUEUES + 1)	/* configuration changes have one */

/** Where the structures are in BAR 0. Drivers find them through the capabilities. */
#define VFN_OFF_COMMON 0x0000
#define VFN_OFF_ISR    0x1000
#define VFN_OFF_DEVICE 0x2000
#define VFN_OFF_VENDOR 0x3000
#define VFN_OFF_STATS  0x4000
#define VFN_OFF_POLLER 0x17000
#define VFN_OFF_STATE  0x18000
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

#define VFN_VENDOR_VERSION 2

/** Bits of vfn_vendor_cfg.capabilities. */
#define VFN_CAP_LOG (1u << 0) /**< The function logs the pages that it writes. */

/** Structure behind the vendor capability. The queue is the one in common queue_select. */
struct vfn_vendor_cfg {
	uint32_t version;      /**< RO: VFN_VENDOR_VERSION. */
	uint32_t stats_offset; /**< RO: statistics in the same BAR. */
	uint32_t stats_step;   /**< RO: bytes from one queue's statistics to the next's. */
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
	/**
	 * RW: queue pairs that may receive, as in VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET; 1 after reset.
	 */
	uint16_t curr_pairs;
	uint16_t suspend;      /**< RW: write 1 to suspend every queue; reads 1 once they are. */
	uint32_t capabilities; /**< RO: VFN_CAP_*. */
	/**
	 * RW: dirty log, a bit per page of 4 KiB by bus address (vhost-user, "Migration"): where it
	 * is in VFN_DMA_OWN, and its bytes. Fixed while log_control is 1.
	 */
	uint32_t log_lo;
	uint32_t log_hi;
	uint32_t log_len_lo;
	uint32_t log_len_hi;
	/**
	 * RW: 1 logs what is written from now on, 0 ends that. Stays 0 if the log does not reach to
	 * the end of what can be written.
	 */
	uint32_t log_control;
	/** RW: what the log calls the selected queue's device area; split rings only. */
	uint32_t queue_log_lo;
	uint32_t queue_log_hi;
	/** RW: the operator's side of the link, 1 plugged in, 0 not: nothing passes either way. */
	uint16_t link;
	/**
	 * RW: write 1 to have the guest announce itself; reads 1 until it has (5.1.6.5.4), or until
	 * 0 is written. Refused if VIRTIO_NET_F_GUEST_ANNOUNCE is not negotiated.
	 */
	uint16_t announce;
	/** RW: mtu of the device configuration, 68 to 65535. Refused if none is offered. */
	uint16_t mtu;
	uint16_t link_down; /**< RO: enum vfn_link_down. */
	/**
	 * RW: the selected queue's in-flight region (vhost-user, "Inflight I/O tracking"): where it
	 * is in VFN_DMA_OWN, and its bytes, 0 for none. Written before queue_enable. A region that
	 * a predecessor used tells the position of a packed ring; of a split one queue_avail and
	 * queue_used are the index in the used ring then.
	 */
	uint32_t queue_inflight_lo;
	uint32_t queue_inflight_hi;
	uint32_t queue_inflight_len;
	/** RO: a window in the same BAR for the state of the whole function, see vfn_state.h. */
	uint32_t state_offset;
	uint32_t state_size; /**< RO: bytes of the window. */
	uint32_t state_len;  /**< RW: bytes of state in the window. */
	/** W: enum vfn_state_command. Reads as what became of it: 0 or a positive errno. */
	uint32_t state_control;
	/** RO: the function's pollers in the same BAR, struct vfn_poller_stats for each. */
	uint32_t poller_offset;
	uint32_t poller_step; /**< RO: bytes from one poller to the next. */
	uint32_t nb_pollers;  /**< RO. */
};

/** Why nothing passes. */
enum vfn_link_down {
	VFN_LINK_UP,
	VFN_LINK_NO_PEER,	 /**< There is no function at the other end of the wire. */
	VFN_LINK_UNPLUGGED,	 /**< By the operator. */
	VFN_LINK_PEER_UNPLUGGED, /**< The function at the other end, by the operator. */
	VFN_LINK_NO_PORT,	 /**< The port of the process is not there, or not opened. */
	VFN_LINK_PORT_DOWN,	 /**< The port's own link is. */
	VFN_LINK_DOWN_MAX,
};

/** Written to vfn_vendor_cfg.state_control; done when the write returns. */
enum vfn_state_command {
	/**
	 * Fill the window with the state of this moment and set state_len. At any time; what the
	 * queues do meanwhile waits.
	 */
	VFN_STATE_GET = 1,
	/**
	 * Take the state in the window. EBUSY after DRIVER_OK and while the dirty log is on. Every
	 * queue that is enabled in it is enabled, and suspended; DRIVER_OK is left to the driver.
	 */
	VFN_STATE_SET = 2,
	/** Would VFN_STATE_SET take it, once its rings are mapped? Changes nothing. At any time. */
	VFN_STATE_CHECK = 3,
};

/** Vendor capability in configuration space (4.1.4.8: cfg_type, vendor_id, then our own). */
struct vfn_vendor_cap {
	uint8_t cap_vndr;
	uint8_t cap_next;
	uint8_t cap_len;
	uint8_t cfg_type; /**< VFN_PCI_CAP_VENDOR_CFG. */
	uint16_t vendor_id;
	uint8_t bar;
	uint8_t reserved;
	uint32_t offset; /**< Of struct vfn_vendor_cfg in the BAR. */
	uint32_t length;
};
#define VFN_PCI_CAP_VENDOR_CFG 9

/**
 * Statistics of a queue: 64-bit counters in this order, read only, never reset.
 * X(symbol, name). "errors_" are chains and rings that were refused, one counter per reason.
 */
/* clang-format off */
#define VFN_STATS(X) \
	X(PACKETS, "packets") /* frames taken from, or put into, the queue */ \
	X(BYTES, "bytes") /* of those, without the virtio-net header */ \
	X(DROPPED_NO_BUFFER, "dropped_no_buffer") /* the receiver had no room for a second */ \
	X(DROPPED_NO_PEER, "dropped_no_peer") /* nobody receives on the other side */ \
	X(DROPPED_SIZE, "dropped_size") /* empty, runt or larger than the receiver takes */ \
	X(DROPPED_OFFLOAD, "dropped_offload") /* the receiver wants segments; cannot be made */ \
	X(DROPPED_FILTER, "dropped_filter") /* address or VLAN that the receiver does not want */ \
	X(ERRORS_HEADER, "errors_header") /* chain too short for it, or offload fields invalid */ \
	X(ERRORS_DIRECTION, "errors_direction") /* receive chain not writable, transmit not readable */ \
	X(SEGMENTED, "segmented") /* frames cut up for a receiver that does not do it itself */ \
	X(SEGMENTS, "segments") /* what they became */ \
	X(CALLS, "calls") /* interrupts raised */ \
	X(ARMED, "armed") /* times a poller armed the doorbell to sleep */ \
	X(DOORBELL_ERRORS, "doorbell_errors") /* times a poller could not wait for the doorbell */ \
	X(CALLS_BLOCKED, "calls_blocked") /* interrupts whose eventfd blocked: off until it is replaced */ \
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

enum vfn_stat {
#define X(symbol, name) VFN_STAT_##symbol,
	VFN_STATS(X)
#undef X
		VFN_STAT_MAX
};

#define VFN_STATS_STEP 512
_Static_assert(VFN_STAT_MAX * sizeof(uint64_t) <= VFN_STATS_STEP, "statistics overlap");
_Static_assert(
	VFN_OFF_STATS + VFN_MAX_QUEUES * VFN_STATS_STEP <= VFN_OFF_POLLER, "statistics overlap");

/** Who moves the function's frames; read only. One access sees counters of one moment. */
struct vfn_poller_stats {
	uint64_t id;   /**< The same in all functions that share the poller, and in no other. */
	char name[16]; /**< Of its thread or service. */
	int64_t cpu;   /**< It is pinned to, -1: none, or a service. */
	uint64_t hz;   /**< Cycles per second. */
	uint64_t iterations;	  /**< Looks at its queues. */
	uint64_t busy_iterations; /**< Those that moved something. */
	uint64_t busy_cycles;	  /**< That those took. */
	uint64_t idle_cycles;	  /**< All others since it was made, sleep included. */
	uint64_t packets;	  /**< Frames taken from transmit queues. */
	uint64_t sleeps;
};

#define VFN_POLLER_STEP 128
_Static_assert(sizeof(struct vfn_poller_stats) <= VFN_POLLER_STEP, "pollers overlap");

/** The window of vfn_vendor_cfg.state_offset; accesses of any width. */
#define VFN_STATE_SIZE 0x8000
_Static_assert(VFN_OFF_STATE + VFN_STATE_SIZE <= VFN_BAR0_SIZE, "BAR 0 too small");

#endif /* VFN_REGS_H */
