/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The virtio driver of the function (virtio 1.3, 3.1 and 4.1): finds the structures through the
 * capabilities, negotiates, and programs queues. Everything goes through the link.
 */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include <rte_cycles.h>

#include "vfn_drv.h"

#define PCI_STATUS	    0x06
#define PCI_STATUS_CAP_LIST 0x10
#define PCI_CAP_POINTER	    0x34
#define PCI_CAP_ID_VENDOR   0x09
#define PCI_CAP_ID_MSIX	    0x11

/* A function that does not answer a reset within this time is broken. */
#define TIMEOUT_MS 5000

static int
place_read(
	struct vfn_dev *dev, const struct vfn_place *place, uint32_t offset, void *buf, size_t len)
{
	if (offset + len > place->length)
		return -EINVAL;
	return dev->link->ops->read(dev->link, place->region, place->offset + offset, buf, len);
}

static int
place_write(struct vfn_dev *dev, const struct vfn_place *place, uint32_t offset, const void *buf,
	size_t len)
{
	if (offset + len > place->length)
		return -EINVAL;
	return dev->link->ops->write(dev->link, place->region, place->offset + offset, buf, len);
}

/* One register of 1, 2 or 4 bytes. A link that is gone reads as all ones. */
static uint32_t
reg_read(struct vfn_dev *dev, const struct vfn_place *place, uint32_t offset, size_t size)
{
	uint32_t v = 0;

	if (place_read(dev, place, offset, &v, size) < 0)
		v = UINT32_MAX >> (32 - 8 * size);
	return v;
}

static int
reg_write(struct vfn_dev *dev, const struct vfn_place *place, uint32_t offset, size_t size,
	uint32_t v)
{
	return place_write(dev, place, offset, &v, size);
}

/* Wait for a register that the function changes when it is done. */
static int
reg_wait(struct vfn_dev *dev, const struct vfn_place *place, uint32_t offset, size_t size,
	uint32_t v, const char *what, uint32_t ms)
{
	uint64_t end = rte_get_timer_cycles() + rte_get_timer_hz() / 1000 * ms;

	while (reg_read(dev, place, offset, size) != v) {
		if (rte_get_timer_cycles() > end) {
			DEV_LOG(ERR, dev, "the function does not answer for %u ms: %s stays", ms,
				what);
			return -ETIMEDOUT;
		}
		usleep(10);
	}
	return 0;
}

/* Place, offset and width of a field. */
#define COMMON(dev, field) \
	&(dev)->common, offsetof(struct vfn_common_cfg, field), \
		sizeof(((struct vfn_common_cfg *)NULL)->field)
#define VENDOR(dev, field) \
	&(dev)->vendor, offsetof(struct vfn_vendor_cfg, field), \
		sizeof(((struct vfn_vendor_cfg *)NULL)->field)
#define COMMON_READ(dev, field)		reg_read(dev, COMMON(dev, field))
#define COMMON_WRITE(dev, field, value) reg_write(dev, COMMON(dev, field), value)
#define COMMON_WAIT(dev, field, value)	reg_wait(dev, COMMON(dev, field), value, #field, TIMEOUT_MS)
#define VENDOR_READ(dev, field)		reg_read(dev, VENDOR(dev, field))
#define VENDOR_WRITE(dev, field, value) reg_write(dev, VENDOR(dev, field), value)
#define VENDOR_WAIT(dev, field, value) \
	reg_wait(dev, VENDOR(dev, field), value, #field, (dev)->drain_ms)

static int
config_read(struct vfn_dev *dev, uint8_t offset, void *buf, size_t len)
{
	return dev->link->ops->read(dev->link, VFN_REGION_CONFIG, offset, buf, len);
}

static int
find_structures(struct vfn_dev *dev)
{
	unsigned int count;
	uint16_t status;
	uint8_t at;

	if (config_read(dev, PCI_STATUS, &status, sizeof(status)) < 0 ||
		!(status & PCI_STATUS_CAP_LIST) ||
		config_read(dev, PCI_CAP_POINTER, &at, sizeof(at)) < 0)
		return -ENODEV;
	for (count = 0; at != 0 && count < VFN_PCI_CONFIG_SIZE / 4; count++) {
		struct vfn_vendor_cap vendor;
		struct virtio_pci_cap cap;
		struct vfn_place *place = NULL;

		if (config_read(dev, at, &cap, 2) < 0)
			return -ENODEV;
		if (cap.cap_vndr == PCI_CAP_ID_MSIX)
			dev->msix = at;
		if (cap.cap_vndr == PCI_CAP_ID_VENDOR) {
			if (config_read(dev, at, &cap, sizeof(cap)) < 0)
				return -ENODEV;
			if (cap.cfg_type == VIRTIO_PCI_CAP_COMMON_CFG)
				place = &dev->common;
			else if (cap.cfg_type == VIRTIO_PCI_CAP_NOTIFY_CFG)
				place = &dev->notify;
			else if (cap.cfg_type == VIRTIO_PCI_CAP_DEVICE_CFG)
				place = &dev->device;
			/* The first of a type that can be used counts (4.1.4.1). */
			if (place != NULL && place->length == 0) {
				*place = (struct vfn_place){cap.bar, cap.offset, cap.length};
				if (place == &dev->notify &&
					config_read(dev, at + sizeof(cap), &dev->notify_step,
						sizeof(dev->notify_step)) < 0)
					return -ENODEV;
			}
			if (cap.cfg_type == VFN_PCI_CAP_VENDOR_CFG &&
				config_read(dev, at, &vendor, sizeof(vendor)) == 0 &&
				vendor.vendor_id == VFN_PCI_VENDOR)
				dev->vendor = (struct vfn_place){
					vendor.bar, vendor.offset, vendor.length};
		}
		at = cap.cap_next;
	}
	if (dev->common.length < sizeof(struct vfn_common_cfg) || dev->notify.length == 0 ||
		dev->device.length < sizeof(struct virtio_net_config) ||
		dev->vendor.length < sizeof(struct vfn_vendor_cfg))
		return -ENODEV;
	return VENDOR_READ(dev, version) == VFN_VENDOR_VERSION ? 0 : -ENODEV;
}

/* Interrupts are messages, each masked at first. */
static int
msix_on(struct vfn_dev *dev)
{
	uint32_t unmasked = 0, table;
	uint16_t control;
	unsigned int i;
	int ret;

	if (dev->msix == 0)
		return -ENODEV;
	ret = config_read(dev, dev->msix + 2, &control, sizeof(control));
	if (ret == 0)
		ret = config_read(dev, dev->msix + 4, &table, sizeof(table));
	for (i = 0; ret == 0 && i <= (control & 0x7ffu); i++)
		ret = dev->link->ops->write(dev->link, table & 7, (table & ~7u) + 16 * i + 12,
			&unmasked, sizeof(unmasked));
	control |= 0x8000;
	return ret < 0 ? ret :
			 dev->link->ops->write(dev->link, VFN_REGION_CONFIG, dev->msix + 2,
				 &control, sizeof(control));
}

/* Find the function's structures and learn what it can. */
int
vfn_pci_init(struct vfn_dev *dev)
{
	int ret = find_structures(dev);

	if (ret < 0) {
		DEV_LOG(ERR, dev,
			"the function does not have the structures of a virtio-pci device");
		return ret;
	}
	vfn_pci_reset(dev);
	ret = msix_on(dev);
	if (ret < 0)
		return ret;
	COMMON_WRITE(dev, device_feature_select, 0);
	dev->features = COMMON_READ(dev, device_feature);
	COMMON_WRITE(dev, device_feature_select, 1);
	dev->features |= (uint64_t)COMMON_READ(dev, device_feature) << 32;
	dev->nb_queues = COMMON_READ(dev, num_queues);
	dev->max_pairs = reg_read(dev, &dev->device,
		offsetof(struct virtio_net_config, max_virtqueue_pairs), sizeof(uint16_t));
	dev->stats = (struct vfn_place){
		.region = dev->vendor.region, .offset = VENDOR_READ(dev, stats_offset)};
	dev->stats_step = VENDOR_READ(dev, stats_step);
	dev->stats.length = dev->nb_queues * dev->stats_step;
	dev->window = (struct vfn_place){.region = dev->vendor.region,
		.offset = VENDOR_READ(dev, parts_offset),
		.length = VENDOR_READ(dev, parts_size)};
	if (dev->nb_queues > VFN_MAX_QUEUES || 2 * dev->max_pairs >= dev->nb_queues)
		return -ENODEV;
	return 0;
}

/* Device initialisation up to FEATURES_OK (3.1.1). */
int
vfn_pci_negotiate(struct vfn_dev *dev, uint64_t features)
{
	const uint8_t driver = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	vfn_pci_reset(dev);
	COMMON_WRITE(dev, config_msix_vector, 0);
	COMMON_WRITE(dev, device_status, driver);
	COMMON_WRITE(dev, driver_feature_select, 0);
	COMMON_WRITE(dev, driver_feature, (uint32_t)features);
	COMMON_WRITE(dev, driver_feature_select, 1);
	COMMON_WRITE(dev, driver_feature, (uint32_t)(features >> 32));
	COMMON_WRITE(dev, device_status, driver | VIRTIO_CONFIG_S_FEATURES_OK);
	if (!(COMMON_READ(dev, device_status) & VIRTIO_CONFIG_S_FEATURES_OK)) {
		DEV_LOG(ERR, dev, "the function refused the features 0x%" PRIx64, features);
		return -ENOTSUP;
	}
	return 0;
}

int
vfn_pci_driver_ok(struct vfn_dev *dev)
{
	return COMMON_WRITE(
		dev, device_status, COMMON_READ(dev, device_status) | VIRTIO_CONFIG_S_DRIVER_OK);
}

void
vfn_pci_reset(struct vfn_dev *dev)
{
	COMMON_WRITE(dev, device_status, 0);
	COMMON_WAIT(dev, device_status, 0);
}

/*
 * The function forgets the ring. If the queue is suspended, who sends to it still waits: until it
 * is started, or reset a second time.
 */
int
vfn_pci_queue_reset(struct vfn_dev *dev, uint16_t queue)
{
	COMMON_WRITE(dev, queue_select, queue);
	COMMON_WRITE(dev, queue_reset, 1);
	return COMMON_WAIT(dev, queue_reset, 0);
}

/* A queue that was reset and is not started after all. */
void
vfn_pci_queue_off(struct vfn_dev *dev, uint16_t queue)
{
	COMMON_WRITE(dev, queue_select, queue);
	if (COMMON_READ(dev, queue_enable) != 1)
		vfn_pci_queue_reset(dev, queue);
}

/* 0, or -EINVAL if the function refuses the ring. DRIVER_OK may be set before or after. */
int
vfn_pci_queue_start(struct vfn_dev *dev, uint16_t queue, const struct vfn_ring *ring)
{
	uint16_t vector = queue + 1; /* vector 0 is for configuration changes */
	int ret;

	ret = dev->link->ops->set_irq(dev->link, vector, ring->callfd);
	if (ret == 0)
		ret = dev->link->ops->set_doorbell(dev->link, queue, ring->kickfd);
	if (ret < 0) {
		DEV_LOG(ERR, dev, "queue %u: cannot use its kick or call fd: %s", queue,
			strerror(-ret));
		return ret;
	}
	COMMON_WRITE(dev, queue_select, queue);
	/* Suspended, or from a restored state; it moves only by a reset (2.6.1). */
	if (COMMON_READ(dev, queue_enable) == 1)
		vfn_pci_queue_reset(dev, queue);
	COMMON_WRITE(dev, queue_size, ring->size);
	COMMON_WRITE(dev, queue_msix_vector, vector);
	COMMON_WRITE(dev, queue_desc_lo, (uint32_t)ring->desc);
	COMMON_WRITE(dev, queue_desc_hi, ring->desc >> 32);
	COMMON_WRITE(dev, queue_driver_lo, (uint32_t)ring->driver);
	COMMON_WRITE(dev, queue_driver_hi, ring->driver >> 32);
	COMMON_WRITE(dev, queue_device_lo, (uint32_t)ring->device);
	COMMON_WRITE(dev, queue_device_hi, ring->device >> 32);
	VENDOR_WRITE(dev, queue_avail, ring->avail);
	VENDOR_WRITE(dev, queue_used, ring->used);
	VENDOR_WRITE(dev, queue_dirty_lo, (uint32_t)ring->log);
	VENDOR_WRITE(dev, queue_dirty_hi, ring->log >> 32);
	VENDOR_WRITE(dev, queue_inflight_lo, (uint32_t)ring->inflight);
	VENDOR_WRITE(dev, queue_inflight_hi, ring->inflight >> 32);
	VENDOR_WRITE(dev, queue_inflight_len, ring->inflight_len);
	COMMON_WRITE(dev, queue_enable, 1);
	if (COMMON_READ(dev, queue_enable) != 1) {
		DEV_LOG(ERR, dev, "queue %u was refused by the function, reason %u; it stays off",
			queue, VENDOR_READ(dev, queue_error));
		return -EINVAL;
	}
	return 0;
}

/*
 * Nothing of the queue is touched any more on return. It stays enabled: who sends to it waits
 * instead of dropping.
 */
void
vfn_pci_queue_suspend(struct vfn_dev *dev, uint16_t queue)
{
	COMMON_WRITE(dev, queue_select, queue);
	VENDOR_WRITE(dev, queue_suspend, 1);
	VENDOR_WAIT(dev, queue_suspend, 1);
}

/* It goes on where it stood. */
void
vfn_pci_queue_resume(struct vfn_dev *dev, uint16_t queue)
{
	COMMON_WRITE(dev, queue_select, queue);
	VENDOR_WRITE(dev, queue_suspend, 0);
}

/* Suspend every queue at once; -ETIMEDOUT if the function goes on. */
int
vfn_pci_suspend(struct vfn_dev *dev)
{
	VENDOR_WRITE(dev, suspend, 1);
	return VENDOR_WAIT(dev, suspend, 1);
}

/* Where a suspended queue stands. Its eventfds are given back. */
void
vfn_pci_queue_leave(struct vfn_dev *dev, uint16_t queue, struct vfn_ring *ring)
{
	COMMON_WRITE(dev, queue_select, queue);
	ring->avail = VENDOR_READ(dev, queue_avail);
	ring->used = VENDOR_READ(dev, queue_used);
	ring->log =
		VENDOR_READ(dev, queue_dirty_lo) | (uint64_t)VENDOR_READ(dev, queue_dirty_hi) << 32;
	dev->link->ops->set_irq(dev->link, queue + 1, -1);
	dev->link->ops->set_doorbell(dev->link, queue, -1);
}

/* Where it is in the region of dev->notify (4.1.4.4). */
uint64_t
vfn_pci_doorbell(struct vfn_dev *dev, uint16_t queue)
{
	COMMON_WRITE(dev, queue_select, queue);
	return dev->notify.offset + (uint64_t)COMMON_READ(dev, queue_notify_off) * dev->notify_step;
}

uint32_t
vfn_pci_capabilities(struct vfn_dev *dev)
{
	return VENDOR_READ(dev, capabilities);
}

/* The features that were negotiated last. */
uint64_t
vfn_pci_negotiated(struct vfn_dev *dev)
{
	uint64_t features;

	COMMON_WRITE(dev, driver_feature_select, 0);
	features = COMMON_READ(dev, driver_feature);
	COMMON_WRITE(dev, driver_feature_select, 1);
	return features | (uint64_t)COMMON_READ(dev, driver_feature) << 32;
}

#define COMMON_READ64(dev, field) \
	((uint64_t)COMMON_READ(dev, field##_hi) << 32 | COMMON_READ(dev, field##_lo))
#define VENDOR_READ64(dev, field) \
	((uint64_t)VENDOR_READ(dev, field##_hi) << 32 | VENDOR_READ(dev, field##_lo))

void
vfn_pci_queue_info(struct vfn_dev *dev, uint16_t queue, struct vfn_queue_info *info)
{
	COMMON_WRITE(dev, queue_select, queue);
	*info = (struct vfn_queue_info){
		.ring.desc = COMMON_READ64(dev, queue_desc),
		.ring.driver = COMMON_READ64(dev, queue_driver),
		.ring.device = COMMON_READ64(dev, queue_device),
		.ring.log = VENDOR_READ64(dev, queue_dirty),
		.ring.size = COMMON_READ(dev, queue_size),
		.ring.avail = VENDOR_READ(dev, queue_avail),
		.ring.used = VENDOR_READ(dev, queue_used),
		.enabled = COMMON_READ(dev, queue_enable),
		.suspended = VENDOR_READ(dev, queue_suspend),
		.error = VENDOR_READ(dev, queue_error),
	};
}

int
vfn_pci_config(struct vfn_dev *dev, struct virtio_net_config *config)
{
	return place_read(dev, &dev->device, 0, config, sizeof(*config));
}

uint8_t
vfn_pci_config_generation(struct vfn_dev *dev)
{
	return COMMON_READ(dev, config_generation);
}

/* -EINVAL if the function refuses such a log. */
int
vfn_pci_log_start(struct vfn_dev *dev, uint64_t addr, uint64_t len)
{
	VENDOR_WRITE(dev, dirty_lo, (uint32_t)addr);
	VENDOR_WRITE(dev, dirty_hi, addr >> 32);
	VENDOR_WRITE(dev, dirty_len_lo, (uint32_t)len);
	VENDOR_WRITE(dev, dirty_len_hi, len >> 32);
	VENDOR_WRITE(dev, dirty_control, 1);
	return VENDOR_READ(dev, dirty_control) == 1 ? 0 : -EINVAL;
}

/* Nothing is written to the log any more on return. */
void
vfn_pci_log_stop(struct vfn_dev *dev)
{
	VENDOR_WRITE(dev, dirty_control, 0);
	VENDOR_WAIT(dev, dirty_control, 0);
}

/* Bytes of the function's state in buf, which has room for the whole window; or -errno. */
int
vfn_pci_state_get(struct vfn_dev *dev, void *buf)
{
	uint32_t result, len;
	int ret;

	VENDOR_WRITE(dev, parts_control, VFN_PARTS_GET);
	result = VENDOR_READ(dev, parts_control);
	len = VENDOR_READ(dev, parts_len);
	if (result != 0 || len > dev->window.length)
		return result > 0 && result < UINT16_MAX ? -(int)result : -EIO;
	ret = place_read(dev, &dev->window, 0, buf, len);
	return ret < 0 ? ret : (int)len;
}

/* Have the function set its state, or only check it. */
int
vfn_pci_state_set(struct vfn_dev *dev, const void *buf, uint32_t len, bool check)
{
	uint32_t result;
	int ret = place_write(dev, &dev->window, 0, buf, len);

	if (ret < 0)
		return ret;
	VENDOR_WRITE(dev, parts_len, len);
	VENDOR_WRITE(dev, parts_control, check ? VFN_PARTS_CHECK : VFN_PARTS_SET);
	result = VENDOR_READ(dev, parts_control);
	return result < UINT16_MAX ? -(int)result : -EIO;
}

int
vfn_pci_stats(struct vfn_dev *dev, uint16_t queue, uint64_t value[VFN_NET_STAT_MAX])
{
	return place_read(dev, &dev->stats, queue * dev->stats_step, value,
		VFN_NET_STAT_MAX * sizeof(value[0]));
}
