/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Registers of the function through its link, and waiting for them. Private to this folder. */

#ifndef VFN_VPCI_REGS_H
#define VFN_VPCI_REGS_H

#include <stddef.h>

#include <linux/virtio_config.h>

#include <rte_log.h>

#include "vfn_vpci.h"

extern int vfn_vpci_logtype;
#define PCI_LOG(level, pci, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_vpci_logtype, "%s: " fmt "\n", (pci)->name, ##__VA_ARGS__)

/* So long a function has to take what it may refuse without a word. */
#define VFN_VPCI_ASK_MS 100

int vfn_vpci_place_read(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	void *buf, size_t len);
int vfn_vpci_place_write(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	const void *buf, size_t len);

/* One register of 1, 2 or 4 bytes. A link that is gone reads as all ones. */
uint32_t vfn_vpci_reg_read(
	struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset, size_t size);
/* What becomes of it is seen by reading: writes may be posted. */
void vfn_vpci_reg_write(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	size_t size, uint32_t v);

/* All ones, which no status is: nobody answers. */
bool vfn_vpci_gone(struct vfn_vpci *pci);

/*
 * Wait until the bits of mask are v. A function that does not come to that within so many
 * milliseconds is failed, and so is one that is gone.
 */
int vfn_vpci_reg_wait(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	size_t size, uint32_t mask, uint32_t v, const char *what, uint32_t ms);

/* The same where to stay as it was is an answer too: -EINVAL, and it is not waited for long. */
int vfn_vpci_reg_ask(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	size_t size, uint32_t mask, uint32_t v);

/* Place, offset and width of a field. */
#define COMMON(pci, field) \
	&(pci)->common, offsetof(struct vfn_common_cfg, field), \
		sizeof(((struct vfn_common_cfg *)NULL)->field)
#define VENDOR(pci, field) \
	&(pci)->vendor, offsetof(struct vfn_vendor_cfg, field), \
		sizeof(((struct vfn_vendor_cfg *)NULL)->field)
#define COMMON_READ(pci, field)		vfn_vpci_reg_read(pci, COMMON(pci, field))
#define COMMON_WRITE(pci, field, value) vfn_vpci_reg_write(pci, COMMON(pci, field), value)
#define COMMON_WAIT(pci, field, mask, value) \
	vfn_vpci_reg_wait(pci, COMMON(pci, field), mask, value, #field, (pci)->answer_ms)
#define COMMON_ASK(pci, field, mask, value) vfn_vpci_reg_ask(pci, COMMON(pci, field), mask, value)
#define VENDOR_READ(pci, field)		    vfn_vpci_reg_read(pci, VENDOR(pci, field))
#define VENDOR_WRITE(pci, field, value)	    vfn_vpci_reg_write(pci, VENDOR(pci, field), value)
#define VENDOR_WAIT(pci, field, value, ms) \
	vfn_vpci_reg_wait(pci, VENDOR(pci, field), UINT32_MAX, value, #field, ms)
#define VENDOR_ASK(pci, field, value) vfn_vpci_reg_ask(pci, VENDOR(pci, field), UINT32_MAX, value)

/* A 64-bit register in two halves. */
#define WRITE64(kind, pci, field, value) \
	do { \
		kind##_WRITE(pci, field##_lo, (uint32_t)(value)); \
		kind##_WRITE(pci, field##_hi, (uint64_t)(value) >> 32); \
	} while (0)
#define READ64(kind, pci, field) \
	((uint64_t)kind##_READ(pci, field##_hi) << 32 | kind##_READ(pci, field##_lo))

#define VECTOR_CONFIG	    0
#define VECTOR_QUEUE(queue) ((queue) + 1)

/* Have a vector of the MSI-X table signal. -EINVAL: there is none like that. */
int vfn_vpci_unmask(struct vfn_vpci *pci, unsigned int vector);

#endif /* VFN_VPCI_REGS_H */
