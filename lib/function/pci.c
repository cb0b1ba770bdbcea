/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The register file: PCI configuration space, where in the BARs the structures are, and the MSI-X
 * table. Every access is trapped: it comes here as a call, and has its effect before the call
 * returns. BARs have no addresses here: a link knows them by their numbers. Control.
 */

#include "function.h"

/* Configuration space (4.1.2, 4.1.4). Offsets of the capabilities. */
#define CAP_MSIX    0x40
#define CAP_COMMON  0x50
#define CAP_NOTIFY  0x60
#define CAP_ISR	    0x78
#define CAP_DEVICE  0x88
#define CAP_PCI_CFG 0x98
#define CAP_VENDOR  0xb0

#define PCI_CAP_ID_VENDOR 0x09
#define PCI_CAP_ID_MSIX	  0x11

#define PCI_COMMAND	     0x04
#define PCI_COMMAND_MASTER   0x0004
#define PCI_COMMAND_INTX_OFF 0x0400
#define PCI_STATUS	     0x06
#define PCI_STATUS_CAP_LIST  0x10
#define PCI_STATUS_INTX	     0x08

/* Of the capability's control word, and of a table entry (PCI 3.0, 6.8.2). */
#define MSIX_ON	     0x8000
#define MSIX_MASKED  0x4000
#define MSIX_ENTRY   16
#define MSIX_CONTROL 12

static void
virtio_cap(struct vfn_function *fn, uint8_t at, uint8_t next, uint8_t type, uint8_t bar,
	uint32_t offset, uint32_t length)
{
	struct virtio_pci_cap cap = {
		.cap_vndr = PCI_CAP_ID_VENDOR,
		.cap_next = next,
		.cap_len = sizeof(cap),
		.cfg_type = type,
		.bar = bar,
		.offset = offset,
		.length = length,
	};

	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		cap.cap_len = sizeof(struct virtio_pci_notify_cap);
	if (type == VIRTIO_PCI_CAP_PCI_CFG)
		cap.cap_len = sizeof(struct virtio_pci_cfg_cap);
	memcpy(fn->pci.config + at, &cap, sizeof(cap));
}

/* As after power-on. */
void
vfn_pci_power_on(struct vfn_function *fn)
{
	/* Type 0 header: ids, status with a capability list, revision, first capability, INTA. */
	const struct {
		uint8_t at, len;
		uint32_t value;
	} header[] = {
		{0x00, 2, VFN_PCI_VENDOR},
		{0x02, 2, VFN_PCI_DEVICE + fn->class->device_id},
		{PCI_STATUS, 2, PCI_STATUS_CAP_LIST},
		{0x08, 1, 1},
		{0x2c, 2, VFN_PCI_VENDOR},
		{0x2e, 2, VFN_PCI_DEVICE + fn->class->device_id},
		{0x34, 1, fn->params.no_msix ? CAP_COMMON : CAP_MSIX},
		{0x3d, 1, 1},
	};
	struct vfn_vendor_cap vendor = {
		.cap_vndr = PCI_CAP_ID_VENDOR,
		.cap_len = sizeof(vendor),
		.cfg_type = VFN_PCI_CAP_VENDOR_CFG,
		.vendor_id = VFN_VENDOR_ID,
		.bar = VFN_REGION_BAR0,
		.offset = VFN_OFF_VENDOR,
		.length = sizeof(struct vfn_vendor_cfg),
	};
	uint32_t step = VFN_NOTIFY_STEP, table = VFN_OFF_MSIX_TABLE | VFN_REGION_BAR1,
		 pba = VFN_OFF_MSIX_PBA | VFN_REGION_BAR1;
	uint16_t control = vfn_nb_vectors(fn) - 1;
	uint8_t *config = fn->pci.config;
	unsigned int i;

	for (i = 0; i < sizeof(header) / sizeof(header[0]); i++)
		memcpy(config + header[i].at, &header[i].value, header[i].len);
	memcpy(config + 0x09, fn->class->pci_class, sizeof(fn->class->pci_class));
	if (!fn->params.no_msix) {
		config[CAP_MSIX] = PCI_CAP_ID_MSIX;
		config[CAP_MSIX + 1] = CAP_COMMON;
		memcpy(config + CAP_MSIX + 2, &control, sizeof(control));
		memcpy(config + CAP_MSIX + 4, &table, sizeof(table));
		memcpy(config + CAP_MSIX + 8, &pba, sizeof(pba));
	}
	virtio_cap(fn, CAP_COMMON, CAP_NOTIFY, VIRTIO_PCI_CAP_COMMON_CFG, VFN_REGION_BAR0,
		VFN_OFF_COMMON, sizeof(struct vfn_common_cfg));
	virtio_cap(fn, CAP_NOTIFY, CAP_ISR, VIRTIO_PCI_CAP_NOTIFY_CFG, VFN_REGION_BAR2, 0,
		fn->nb_queues * VFN_NOTIFY_STEP);
	memcpy(config + CAP_NOTIFY + sizeof(struct virtio_pci_cap), &step, sizeof(step));
	virtio_cap(
		fn, CAP_ISR, CAP_DEVICE, VIRTIO_PCI_CAP_ISR_CFG, VFN_REGION_BAR0, VFN_OFF_ISR, 1);
	virtio_cap(fn, CAP_DEVICE, CAP_PCI_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VFN_REGION_BAR0,
		VFN_OFF_DEVICE, fn->class->config_size);
	virtio_cap(fn, CAP_PCI_CFG, CAP_VENDOR, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0);
	memcpy(config + CAP_VENDOR, &vendor, sizeof(vendor));
	for (i = 0; i < vfn_nb_vectors(fn); i++)
		fn->pci.msix_table[i * MSIX_ENTRY + MSIX_CONTROL] = 1; /* masked */
}

static uint16_t
config_word(const struct vfn_function *fn, unsigned int at)
{
	return fn->pci.config[at] | fn->pci.config[at + 1] << 8;
}

/* May the function read and write memory, which messages are, too (PCI 3.0, 6.2.2)? */
bool
vfn_pci_master(const struct vfn_function *fn)
{
	return config_word(fn, PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* How interrupts are raised: on the pin, or as messages, and which of these are masked. */
bool
vfn_pci_intx_off(const struct vfn_function *fn)
{
	return config_word(fn, PCI_COMMAND) & PCI_COMMAND_INTX_OFF;
}

bool
vfn_pci_msix_on(const struct vfn_function *fn)
{
	return config_word(fn, CAP_MSIX + 2) & MSIX_ON;
}

bool
vfn_pci_msix_masked(const struct vfn_function *fn, unsigned int vector)
{
	return !vfn_pci_master(fn) || (config_word(fn, CAP_MSIX + 2) & MSIX_MASKED) ||
		(fn->pci.msix_table[vector * MSIX_ENTRY + MSIX_CONTROL] & 1);
}

/* The structures of BAR 0, and where each ends. */
static int
read_bar0(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	uint8_t isr;

	if (offset >= VFN_OFF_PARTS)
		return vfn_read_struct(
			offset - VFN_OFF_PARTS, buf, len, fn->parts, sizeof(fn->parts));
	if (offset >= VFN_OFF_STATS)
		return vfn_stats_read(fn, offset - VFN_OFF_STATS, buf, len);
	if (offset >= VFN_OFF_VENDOR)
		return vfn_vendor_read(fn, offset - VFN_OFF_VENDOR, buf, len);
	if (offset >= VFN_OFF_DEVICE)
		return vfn_device_config_read(fn, offset - VFN_OFF_DEVICE, buf, len);
	if (offset >= VFN_OFF_ISR) {
		if (offset != VFN_OFF_ISR || len != sizeof(isr))
			return -EINVAL;
		/* Reading clears it (4.1.4.5). */
		isr = __atomic_exchange_n(&fn->isr, 0, __ATOMIC_ACQ_REL);
		memcpy(buf, &isr, sizeof(isr));
		return 0;
	}
	return vfn_common_read(fn, offset, buf, len);
}

static int
write_bar0(struct vfn_function *fn, uint64_t offset, const void *buf, size_t len)
{
	uint32_t v = 0;

	if (offset >= VFN_OFF_DEVICE && offset < VFN_OFF_VENDOR &&
		fn->class->config_write != NULL) {
		offset -= VFN_OFF_DEVICE;
		if (offset > fn->class->config_size || len > fn->class->config_size - offset)
			return -EINVAL;
		return fn->class->config_write(fn, offset, buf, len);
	}
	if (offset >= VFN_OFF_PARTS) {
		offset -= VFN_OFF_PARTS;
		if (len > sizeof(fn->parts) - offset)
			return -EINVAL;
		memcpy(fn->parts + offset, buf, len);
		return 0;
	}
	if (len > sizeof(v))
		return -EINVAL;
	memcpy(&v, buf, len);
	if (offset < VFN_OFF_ISR)
		return vfn_common_write(fn, offset, v, len);
	if (offset >= VFN_OFF_VENDOR && offset < VFN_OFF_STATS)
		return vfn_vendor_write(fn, offset - VFN_OFF_VENDOR, v, len);
	return -EINVAL;
}

static int
read_bar1(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	uint8_t pending[(VFN_MAX_VECTORS + 7) / 8 + 7] = {0};
	unsigned int i;

	if (offset < VFN_OFF_MSIX_PBA)
		return vfn_read_struct(offset - VFN_OFF_MSIX_TABLE, buf, len, fn->pci.msix_table,
			sizeof(fn->pci.msix_table));
	for (i = 0; i < vfn_nb_vectors(fn); i++)
		if (__atomic_load_n(&fn->irq[i].pending, __ATOMIC_RELAXED))
			pending[i / 8] |= 1 << i % 8;
	return vfn_read_struct(offset - VFN_OFF_MSIX_PBA, buf, len, pending, sizeof(pending));
}

/* Pollers look at masks: these change while they do not, and what was raised is delivered then. */
static void
irqs_changed(struct vfn_function *fn)
{
	vfn_irqs_update(fn);
	vfn_resume(fn);
	vfn_irqs_deliver(fn);
}

static int
write_bar1(struct vfn_function *fn, uint64_t offset, const void *buf, size_t len)
{
	uint8_t *at = fn->pci.msix_table + offset;

	if (offset > sizeof(fn->pci.msix_table) || len > sizeof(fn->pci.msix_table) - offset)
		return -EINVAL;
	if (memcmp(at, buf, len) == 0)
		return 0;
	vfn_quiesce(fn);
	memcpy(at, buf, len);
	irqs_changed(fn);
	return 0;
}

/*
 * The window of 4.1.4.9: pci_cfg_data stands for the BAR place that the capability's own
 * fields name, for drivers that cannot map BARs. While they name none it is bytes like others, for
 * those who read all of configuration space.
 */
static bool
config_window(struct vfn_function *fn, uint64_t offset, size_t len, struct virtio_pci_cap *cap)
{
	if (offset != CAP_PCI_CFG + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data))
		return false;
	memcpy(cap, fn->pci.config + CAP_PCI_CFG, sizeof(*cap));
	return cap->length == len && cap->bar <= VFN_REGION_BAR2;
}

static bool
in_region(unsigned int region, uint64_t offset, size_t len)
{
	static const uint32_t size[] = {
		[VFN_REGION_BAR0] = VFN_BAR0_SIZE,
		[VFN_REGION_BAR1] = VFN_BAR1_SIZE,
		[VFN_REGION_BAR2] = VFN_BAR2_SIZE,
		[VFN_REGION_CONFIG] = VFN_PCI_CONFIG_SIZE,
	};

	return region < sizeof(size) / sizeof(size[0]) && offset <= size[region] &&
		len <= size[region] - offset;
}

static void
read_config(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	fn->pci.config[PCI_STATUS] &= ~PCI_STATUS_INTX;
	if (!vfn_pci_msix_on(fn) && __atomic_load_n(&fn->isr, __ATOMIC_RELAXED) != 0)
		fn->pci.config[PCI_STATUS] |= PCI_STATUS_INTX;
	memcpy(buf, fn->pci.config + offset, len);
}

int
vfn_regs_read(struct vfn_function *fn, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	struct virtio_pci_cap cap;

	if (!in_region(region, offset, len))
		return -EINVAL;
	switch (region) {
	case VFN_REGION_BAR0:
		return read_bar0(fn, offset, buf, len);
	case VFN_REGION_BAR1:
		return read_bar1(fn, offset, buf, len);
	case VFN_REGION_BAR2:
		vfn_doorbells_read(fn, offset, buf, len);
		return 0;
	case VFN_REGION_CONFIG:
		if (config_window(fn, offset, len, &cap))
			return vfn_regs_read(fn, cap.bar, cap.offset, buf, len);
		read_config(fn, offset, buf, len);
		return 0;
	}
	return -EINVAL;
}

/* Writable configuration space: command, interrupt line, MSI-X control, the window. */
static void
write_config(struct vfn_function *fn, uint64_t offset, const void *buf, size_t len)
{
	const struct {
		uint8_t at, len, mask;
	} writable[] = {
		{PCI_COMMAND, 1, 0x47},
		{PCI_COMMAND + 1, 1, 0x05},
		{0x3c, 1, 0xff},
		{CAP_MSIX + 3, 1, fn->params.no_msix ? 0 : 0xc0},
		{CAP_PCI_CFG + offsetof(struct virtio_pci_cap, bar), 1, 0xff},
		{CAP_PCI_CFG + offsetof(struct virtio_pci_cap, offset), 8, 0xff},
	};
	bool irqs = (offset <= PCI_COMMAND + 1 && offset + len > PCI_COMMAND) ||
		(offset <= CAP_MSIX + 3 && offset + len > CAP_MSIX + 2);
	bool master = vfn_pci_master(fn);
	size_t i, b;

	if (irqs)
		vfn_quiesce(fn);
	for (b = 0; b < len; b++) {
		uint8_t *p = &fn->pci.config[offset + b], v = ((const uint8_t *)buf)[b];

		for (i = 0; i < sizeof(writable) / sizeof(writable[0]); i++)
			if (offset + b - writable[i].at < writable[i].len)
				*p = (*p & ~writable[i].mask) | (v & writable[i].mask);
	}
	if (irqs)
		irqs_changed(fn);
	if (vfn_pci_master(fn) != master)
		fn->class->activated(fn);
}

int
vfn_regs_write(
	struct vfn_function *fn, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	struct virtio_pci_cap cap;

	if (!in_region(region, offset, len))
		return -EINVAL;
	switch (region) {
	case VFN_REGION_BAR0:
		return write_bar0(fn, offset, buf, len);
	case VFN_REGION_BAR1:
		return write_bar1(fn, offset, buf, len);
	case VFN_REGION_BAR2:
		return vfn_doorbells_write(fn, offset, buf, len);
	case VFN_REGION_CONFIG:
		if (config_window(fn, offset, len, &cap))
			return vfn_regs_write(fn, cap.bar, cap.offset, buf, len);
		write_config(fn, offset, buf, len);
		return 0;
	}
	return -EINVAL;
}
