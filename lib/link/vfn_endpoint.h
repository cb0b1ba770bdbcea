/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A function behind vfio-user: what both ends of that link agree on beyond the protocol. A client
 * that knows nothing of this, such as a hypervisor, sees a virtio-pci device and needs none of it.
 */

#ifndef VFN_ENDPOINT_H
#define VFN_ENDPOINT_H

#include <stdint.h>

#include <linux/vfio.h>

#include "vfn_regs.h"

/**
 * DMA addresses from here on are VFN_DMA_OWN, at the address without this bit. No descriptor of a
 * guest reaches them: these are looked up in VFN_DMA_GUEST only.
 */
#define VFN_ENDPOINT_OWN (UINT64_C(1) << 63)

/** Types of interrupts: those of VFIO and, behind them, this one. */
enum vfn_endpoint_irq {
	/**
	 * The other way round: eventfds with which the client rings the doorbells of queues, set
	 * with VFIO_IRQ_SET_ACTION_UNMASK. The same without data: nobody rings, and the function
	 * looks by itself. Without either the client's messages ring.
	 */
	VFN_ENDPOINT_IRQ_DOORBELL = VFIO_PCI_NUM_IRQS,
	VFN_ENDPOINT_NUM_IRQS
};

/**
 * Behind the regions of PCI, where a guest behind a hypervisor does not get: struct
 * vfn_endpoint_control. It has bytes only of an endpoint that leaves control to its client
 * (control=host).
 */
#define VFN_ENDPOINT_REGION_CONTROL VFIO_PCI_NUM_REGIONS
#define VFN_ENDPOINT_NUM_REGIONS    (VFN_ENDPOINT_REGION_CONTROL + 1)

/** What an endpoint's client decides, of a net function; written whole, while no driver has it. */
struct vfn_endpoint_control {
	uint64_t features; /**< At most these are offered. */
	uint8_t mac[6];
	uint16_t mtu;	    /**< 0: not offered. */
	uint16_t max_pairs; /**< 0: as many as there are. */
	uint16_t reserved[3];
};

#endif /* VFN_ENDPOINT_H */
