/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The virtio driver of the function: finds the structures through the capabilities, negotiates,
 * maps memory. Everything goes through the link.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_cycles.h>

#include "vfn_vpci_regs.h"

#define PCI_COMMAND	    0x04
#define PCI_COMMAND_MEMORY  0x0002
#define PCI_COMMAND_MASTER  0x0004
#define PCI_STATUS	    0x06
#define PCI_STATUS_CAP_LIST 0x10
#define PCI_CAP_POINTER	    0x34
#define PCI_CAP_ID_VENDOR   0x09
#define PCI_CAP_ID_MSIX	    0x11

#define MSIX_CONTROL	  2
#define MSIX_CONTROL_ON	  0x8000
#define MSIX_CONTROL_MASK 0x4000
#define MSIX_CONTROL_SIZE 0x07ff
#define MSIX_TABLE	  4
#define MSIX_ENTRY	  16
#define MSIX_ENTRY_MASK	  12 /* the register, of which bit 0 masks the vector */

/* A function that does not answer within this time is broken. */
#define ANSWER_MS 5000

static int
config_read(struct vfn_vpci *pci, uint8_t offset, void *buf, size_t len)
{
	return pci->link->ops->read(pci->link, VFN_REGION_CONFIG, offset, buf, len);
}

static int
config_write(struct vfn_vpci *pci, uint8_t offset, uint16_t v)
{
	return pci->link->ops->write(pci->link, VFN_REGION_CONFIG, offset, &v, sizeof(v));
}

/* The first of a type that can be used counts (4.1.4.1). */
static int
structure_found(struct vfn_vpci *pci, uint8_t at)
{
	struct vfn_vpci_place *place = NULL;
	struct vfn_vendor_cap vendor;
	struct virtio_pci_cap cap;

	if (config_read(pci, at, &cap, sizeof(cap)) < 0)
		return -ENODEV;
	if (cap.cfg_type == VIRTIO_PCI_CAP_COMMON_CFG)
		place = &pci->common;
	else if (cap.cfg_type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		place = &pci->notify;
	else if (cap.cfg_type == VIRTIO_PCI_CAP_DEVICE_CFG)
		place = &pci->device;
	if (place != NULL && place->length == 0) {
		*place = (struct vfn_vpci_place){cap.bar, cap.offset, cap.length};
		if (place == &pci->notify &&
			config_read(pci, at + sizeof(cap), &pci->notify_step,
				sizeof(pci->notify_step)) < 0)
			return -ENODEV;
	}
	if (cap.cfg_type == VFN_PCI_CAP_VENDOR_CFG &&
		config_read(pci, at, &vendor, sizeof(vendor)) == 0 &&
		vendor.vendor_id == VFN_VENDOR_ID)
		pci->vendor = (struct vfn_vpci_place){vendor.bar, vendor.offset, vendor.length};
	return 0;
}

static int
find_structures(struct vfn_vpci *pci)
{
	uint8_t at, cap[2]; /* type and next */
	uint16_t id[2], status;
	unsigned int count;
	int ret = 0;

	/* 4.1.2 */
	if (config_read(pci, 0, id, sizeof(id)) < 0 || id[0] != VFN_PCI_VENDOR ||
		id[1] <= VFN_PCI_DEVICE)
		return -ENODEV;
	pci->type = id[1] - VFN_PCI_DEVICE;
	if (config_read(pci, PCI_STATUS, &status, sizeof(status)) < 0 ||
		!(status & PCI_STATUS_CAP_LIST) ||
		config_read(pci, PCI_CAP_POINTER, &at, sizeof(at)) < 0)
		return -ENODEV;
	for (count = 0; ret == 0 && at != 0 && count < VFN_PCI_CONFIG_SIZE / 4; count++) {
		if (config_read(pci, at, cap, sizeof(cap)) < 0)
			return -ENODEV;
		if (cap[0] == PCI_CAP_ID_MSIX)
			pci->msix = at;
		if (cap[0] == PCI_CAP_ID_VENDOR)
			ret = structure_found(pci, at);
		at = cap[1];
	}
	if (ret < 0 || pci->common.length < sizeof(struct vfn_common_cfg) ||
		pci->notify.length == 0 || pci->msix == 0 ||
		pci->vendor.length < sizeof(struct vfn_vendor_cfg))
		return -ENODEV;
	return VENDOR_READ(pci, version) == VFN_VENDOR_VERSION ? 0 : -ENODEV;
}

/* The function may use memory and answer; its interrupts are messages, each masked at first. */
static int
switch_on(struct vfn_vpci *pci)
{
	uint16_t control, command;
	uint32_t table;

	if (config_read(pci, pci->msix + MSIX_CONTROL, &control, sizeof(control)) < 0 ||
		config_read(pci, pci->msix + MSIX_TABLE, &table, sizeof(table)) < 0 ||
		config_read(pci, PCI_COMMAND, &command, sizeof(command)) < 0)
		return -ENODEV;
	pci->msix_table = (struct vfn_vpci_place){
		table & 7, table & ~7u, ((control & MSIX_CONTROL_SIZE) + 1) * MSIX_ENTRY};
	control = (control & ~MSIX_CONTROL_MASK) | MSIX_CONTROL_ON;
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if (config_write(pci, PCI_COMMAND, command) < 0 ||
		config_write(pci, pci->msix + MSIX_CONTROL, control) < 0)
		return -ENODEV;
	return 0;
}

int
vfn_vpci_unmask(struct vfn_vpci *pci, unsigned int vector)
{
	const struct vfn_vpci_place *table = &pci->msix_table;
	uint32_t at = vector * MSIX_ENTRY + MSIX_ENTRY_MASK, v;

	if (at >= table->length)
		return -EINVAL;
	v = vfn_vpci_reg_read(pci, table, at, sizeof(v));
	if (v & 1)
		vfn_vpci_reg_write(pci, table, at, sizeof(v), v & ~1u);
	return 0;
}

int
vfn_vpci_init(struct vfn_vpci *pci)
{
	int ret = find_structures(pci);

	if (ret < 0) {
		PCI_LOG(ERR, pci,
			"the function does not have the structures of a virtio-pci device");
		return ret;
	}
	if (pci->answer_ms == 0)
		pci->answer_ms = ANSWER_MS;
	ret = switch_on(pci);
	if (ret == 0)
		ret = vfn_vpci_reset(pci);
	if (ret < 0)
		return ret;
	COMMON_WRITE(pci, device_feature_select, 0);
	pci->features = COMMON_READ(pci, device_feature);
	COMMON_WRITE(pci, device_feature_select, 1);
	pci->features |= (uint64_t)COMMON_READ(pci, device_feature) << 32;
	pci->nb_queues = COMMON_READ(pci, num_queues);
	pci->stats_step = VENDOR_READ(pci, stats_step);
	pci->stats = (struct vfn_vpci_place){.region = pci->vendor.region,
		.offset = VENDOR_READ(pci, stats_offset),
		.length = pci->nb_queues * pci->stats_step};
	pci->parts = (struct vfn_vpci_place){.region = pci->vendor.region,
		.offset = VENDOR_READ(pci, parts_offset),
		.length = RTE_MIN(VENDOR_READ(pci, parts_size), (uint32_t)VFN_PARTS_SIZE)};
	return pci->nb_queues <= VFN_MAX_QUEUES && !vfn_vpci_gone(pci) ? 0 : -ENODEV;
}

int
vfn_vpci_reset(struct vfn_vpci *pci)
{
	bool failed = pci->failed;
	int ret;

	COMMON_WRITE(pci, device_status, 0);
	/* Who did not hear the last one has had time enough. */
	ret = vfn_vpci_reg_wait(pci, COMMON(pci, device_status), UINT32_MAX, 0, "device_status",
		pci->deaf ? RTE_MIN(VFN_VPCI_ASK_MS, pci->answer_ms) : pci->answer_ms);
	pci->failed = pci->deaf = ret < 0;
	if (failed && ret == 0)
		PCI_LOG(NOTICE, pci, "the function is reset, and does what it is told again");
	return ret;
}

int
vfn_vpci_release(struct vfn_vpci *pci)
{
	int ret = vfn_vpci_reset(pci);

	if (ret == 0)
		ret = vfn_vpci_unmap(pci, VFN_DMA_GUEST, 0, 0);
	if (ret == 0)
		ret = vfn_vpci_unmap(pci, VFN_DMA_OWN, 0, 0);
	return ret;
}

int
vfn_vpci_negotiate(struct vfn_vpci *pci, uint64_t features)
{
	const uint8_t driver = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	int ret = pci->failed ? -EIO : vfn_vpci_reset(pci);

	if (ret < 0)
		return ret;
	COMMON_WRITE(pci, config_msix_vector, VECTOR_CONFIG);
	COMMON_WRITE(pci, device_status, driver);
	COMMON_WRITE(pci, driver_feature_select, 0);
	COMMON_WRITE(pci, driver_feature, (uint32_t)features);
	COMMON_WRITE(pci, driver_feature_select, 1);
	COMMON_WRITE(pci, driver_feature, (uint32_t)(features >> 32));
	COMMON_WRITE(pci, device_status, driver | VIRTIO_CONFIG_S_FEATURES_OK);
	ret = COMMON_ASK(
		pci, device_status, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_FEATURES_OK);
	if (ret != -EINVAL)
		return ret;
	PCI_LOG(ERR, pci, "the function refused the features 0x%" PRIx64, features);
	return -ENOTSUP;
}

int
vfn_vpci_driver_ok(struct vfn_vpci *pci)
{
	if (pci->failed)
		return -EIO;
	COMMON_WRITE(pci, device_status,
		VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
			VIRTIO_CONFIG_S_DRIVER_OK);
	return COMMON_WAIT(
		pci, device_status, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_DRIVER_OK);
}

uint64_t
vfn_vpci_negotiated(struct vfn_vpci *pci)
{
	uint64_t features;

	COMMON_WRITE(pci, driver_feature_select, 0);
	features = COMMON_READ(pci, driver_feature);
	COMMON_WRITE(pci, driver_feature_select, 1);
	return features | (uint64_t)COMMON_READ(pci, driver_feature) << 32;
}

uint32_t
vfn_vpci_capabilities(struct vfn_vpci *pci)
{
	return VENDOR_READ(pci, capabilities);
}

int
vfn_vpci_map(struct vfn_vpci *pci, const struct vfn_dma_map *map)
{
	return pci->failed ? -EIO : pci->link->ops->dma_map(pci->link, map);
}

int
vfn_vpci_unmap(struct vfn_vpci *pci, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	int ret = pci->failed ? -EIO : pci->link->ops->dma_unmap(pci->link, space, iova, len);

	if (ret < 0)
		vfn_vpci_fail(pci, "it keeps memory that is to be taken back");
	return ret;
}

uint8_t
vfn_vpci_config_generation(struct vfn_vpci *pci)
{
	return COMMON_READ(pci, config_generation);
}

int
vfn_vpci_config(struct vfn_vpci *pci, uint32_t offset, void *buf, size_t len, uint8_t *generation)
{
	uint64_t end = rte_get_timer_cycles() + rte_get_timer_hz() / 1000 * pci->answer_ms;
	uint8_t before;
	int ret;

	do {
		before = vfn_vpci_config_generation(pci);
		ret = vfn_vpci_place_read(pci, &pci->device, offset, buf, len);
	} while (ret == 0 && vfn_vpci_config_generation(pci) != before &&
		rte_get_timer_cycles() < end);
	*generation = before;
	return ret;
}

int
vfn_vpci_config_irq(struct vfn_vpci *pci, int fd)
{
	int ret = pci->link->ops->set_irq(pci->link, VECTOR_CONFIG, fd);

	return ret == 0 && fd >= 0 ? vfn_vpci_unmask(pci, VECTOR_CONFIG) : ret;
}

int
vfn_vpci_dirty_start(struct vfn_vpci *pci, uint64_t addr, uint64_t len)
{
	if (pci->failed)
		return -EIO;
	WRITE64(VENDOR, pci, dirty, addr);
	WRITE64(VENDOR, pci, dirty_len, len);
	VENDOR_WRITE(pci, dirty_control, 1);
	return VENDOR_ASK(pci, dirty_control, 1);
}

int
vfn_vpci_dirty_stop(struct vfn_vpci *pci)
{
	if (pci->failed)
		return -EIO;
	VENDOR_WRITE(pci, dirty_control, 0);
	return VENDOR_WAIT(pci, dirty_control, 0, pci->answer_ms);
}

/* Have a command carried out: its result. */
static int
parts_command(struct vfn_vpci *pci, enum vfn_parts_command command)
{
	uint32_t result;
	int ret;

	VENDOR_WRITE(pci, parts_control, command);
	ret = vfn_vpci_reg_wait(pci, VENDOR(pci, parts_control), VFN_PARTS_BUSY, 0, "parts_control",
		pci->answer_ms);
	if (ret < 0)
		return ret;
	result = VENDOR_READ(pci, parts_control);
	return result < UINT16_MAX ? -(int)result : -EIO;
}

int
vfn_vpci_parts_get(struct vfn_vpci *pci, void *buf)
{
	int ret = pci->failed ? -EIO : parts_command(pci, VFN_PARTS_GET);
	uint32_t len;

	if (ret < 0)
		return ret;
	len = VENDOR_READ(pci, parts_len);
	ret = vfn_vpci_place_read(pci, &pci->parts, 0, buf, len);
	return ret < 0 ? ret : (int)len;
}

int
vfn_vpci_parts_set(struct vfn_vpci *pci, const void *buf, uint32_t len, bool check)
{
	int ret = pci->failed ? -EIO : vfn_vpci_place_write(pci, &pci->parts, 0, buf, len);

	if (ret < 0)
		return ret;
	VENDOR_WRITE(pci, parts_len, len);
	return parts_command(pci, check ? VFN_PARTS_CHECK : VFN_PARTS_SET);
}
