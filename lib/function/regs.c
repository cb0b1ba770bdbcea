/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The register file: PCI configuration space and the BARs. Every access is trapped: it comes
 * here as a call, and has its effect before the call returns. Control.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
	memcpy(fn->pci_config + at, &cap, sizeof(cap));
}

void
vfn_regs_init(struct vfn_function *fn)
{
	/* Type 0 header: ids, status with a capability list, class network/ethernet, BARs. */
	static const struct {
		uint8_t at, len;
		uint32_t value;
	} header[] = {
		{0x00, 2, VFN_PCI_VENDOR},
		{0x02, 2, VFN_PCI_DEVICE_NET},
		{0x06, 2, 0x0010},
		{0x08, 1, 1},
		{0x0b, 1, 0x02},
		{0x2c, 2, VFN_PCI_VENDOR},
		{0x2e, 2, VFN_PCI_DEVICE_NET},
		{0x34, 1, CAP_MSIX},
		{0x3d, 1, 1},
	};
	struct vfn_vendor_cap vendor = {
		.cap_vndr = PCI_CAP_ID_VENDOR,
		.cap_len = sizeof(vendor),
		.cfg_type = VFN_PCI_CAP_VENDOR_CFG,
		.vendor_id = VFN_PCI_VENDOR,
		.bar = VFN_REGION_BAR0,
		.offset = VFN_OFF_VENDOR,
		.length = sizeof(struct vfn_vendor_cfg),
	};
	uint32_t step = VFN_NOTIFY_STEP, table = VFN_OFF_MSIX_TABLE | VFN_REGION_BAR1,
		 pba = VFN_OFF_MSIX_PBA | VFN_REGION_BAR1;
	uint16_t control = vfn_nb_vectors(fn) - 1;
	uint8_t *config = fn->pci_config;
	unsigned int i;

	for (i = 0; i < sizeof(header) / sizeof(header[0]); i++)
		memcpy(config + header[i].at, &header[i].value, header[i].len);
	config[CAP_MSIX] = PCI_CAP_ID_MSIX;
	config[CAP_MSIX + 1] = CAP_COMMON;
	memcpy(config + CAP_MSIX + 2, &control, sizeof(control));
	memcpy(config + CAP_MSIX + 4, &table, sizeof(table));
	memcpy(config + CAP_MSIX + 8, &pba, sizeof(pba));
	virtio_cap(fn, CAP_COMMON, CAP_NOTIFY, VIRTIO_PCI_CAP_COMMON_CFG, VFN_REGION_BAR0,
		VFN_OFF_COMMON, sizeof(struct vfn_common_cfg));
	virtio_cap(fn, CAP_NOTIFY, CAP_ISR, VIRTIO_PCI_CAP_NOTIFY_CFG, VFN_REGION_BAR2, 0,
		fn->nb_queues * VFN_NOTIFY_STEP);
	memcpy(config + CAP_NOTIFY + sizeof(struct virtio_pci_cap), &step, sizeof(step));
	virtio_cap(
		fn, CAP_ISR, CAP_DEVICE, VIRTIO_PCI_CAP_ISR_CFG, VFN_REGION_BAR0, VFN_OFF_ISR, 1);
	virtio_cap(fn, CAP_DEVICE, CAP_PCI_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VFN_REGION_BAR0,
		VFN_OFF_DEVICE, sizeof(struct virtio_net_config));
	virtio_cap(fn, CAP_PCI_CFG, CAP_VENDOR, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0);
	memcpy(config + CAP_VENDOR, &vendor, sizeof(vendor));
	vfn_function_reset(fn);
}

void
vfn_regs_clear(struct vfn_function *fn)
{
	unsigned int i;

	fn->status = 0;
	fn->driver_features = 0;
	fn->device_feature_select = 0;
	fn->driver_feature_select = 0;
	fn->config_vector = NO_VECTOR;
	fn->queue_select = 0;
	fn->curr_pairs = 1;
	fn->isr = 0;
	fn->log_addr = fn->log_len = 0;
	fn->offloads_off = 0;
	vfn_filter_reset(fn);
	vfn_config_reset(fn);
	for (i = 0; i < fn->nb_queues; i++)
		vfn_queue_init(&fn->queue[i]);
}

/* Device status 0 (2.1, 4.1.4.3.1): everything as after power-on, maps and fds excepted. */
void
vfn_function_reset(struct vfn_function *fn)
{
	vfn_log_control(fn, false);
	vfn_port_stop(fn);
	vfn_bar2_close(fn);
	vfn_regs_clear(fn);
	vfn_port_start(fn);
}

/* Feature negotiation (2.2, 3.1.1): may FEATURES_OK be set? */
bool
vfn_regs_features_ok(const struct vfn_function *fn)
{
	uint64_t unknown = fn->driver_features & ~fn->device_features;
	uint64_t missing = vfn_net_features_missing(fn->driver_features);

	if (unknown != 0)
		FN_LOG(ERR, fn, "features 0x%" PRIx64 " were not offered", unknown);
	else if (missing != 0)
		FN_LOG(ERR, fn, "features 0x%" PRIx64 " need 0x%" PRIx64, fn->driver_features,
			missing);
	else
		return true;
	return false;
}

static void
write_status(struct vfn_function *fn, uint8_t status)
{
	unsigned int i;

	if (status == 0) {
		vfn_function_reset(fn);
		return;
	}
	/* Bits are never cleared but by a reset (2.1.1). */
	status |= fn->status;
	if ((status & ~fn->status) & VIRTIO_CONFIG_S_FEATURES_OK) {
		if (!vfn_regs_features_ok(fn)) {
			status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
		} else if (vfn_has(fn, VIRTIO_F_RING_PACKED)) {
			for (i = 0; i < fn->nb_queues; i++)
				fn->queue[i].state = VRINGH_PACKED_START;
		}
	}
	if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK)) {
		FN_LOG(ERR, fn, "DRIVER_OK before FEATURES_OK");
		status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	}
	if (status == fn->status)
		return;
	vfn_port_stop(fn);
	fn->status = status;
	vfn_port_start(fn);
	FN_LOG(DEBUG, fn, "status 0x%x", status);
}

static void
set_half(uint64_t *v, bool high, uint32_t half)
{
	*v = high ? (*v & UINT32_MAX) | (uint64_t)half << 32 : (*v & ~(uint64_t)UINT32_MAX) | half;
}

#define COMMON(field) (VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, field))
#define VENDOR(field) (VFN_OFF_VENDOR + offsetof(struct vfn_vendor_cfg, field))
/* A register's place and width as one number, so that a wrong width is an unknown register. */
#define REG(offset, width)	((uint64_t)(offset) << 4 | (width))
#define COMMON_REG(field, type) REG(COMMON(field), sizeof(type))
#define VENDOR_REG(field, type) REG(VENDOR(field), sizeof(type))

static void
queue_reset(struct vfn_queue *q)
{
	bool moving = q->enabled && q->suspended;

	vfn_port_stop(q->fn);
	vfn_queue_init(q);
	q->moving = moving;
	if (vfn_has(q->fn, VIRTIO_F_RING_PACKED))
		q->state = VRINGH_PACKED_START;
	vfn_port_start(q->fn);
}

/*
 * Registers of the selected queue. Where there is no such queue they read as 0 and writes are
 * lost (4.1.5.1.3); what describes a ring is fixed once it is enabled.
 */
static int
write_queue_reg(struct vfn_function *fn, struct vfn_queue *q, uint64_t reg, uint32_t v)
{
	bool settable = q != NULL && !q->enabled;
	unsigned int area;

	switch (reg) {
	case COMMON_REG(queue_msix_vector, uint16_t):
		if (q != NULL)
			vfn_queue_set_vector(q, v);
		return 0;
	case COMMON_REG(queue_enable, uint16_t):
		/* The driver must not write 0 (4.1.4.3.2), nor enable before FEATURES_OK. */
		if (settable && v == 1 && (fn->status & VIRTIO_CONFIG_S_FEATURES_OK))
			vfn_queue_enable(q);
		return 0;
	case COMMON_REG(queue_reset, uint16_t):
		if (q != NULL && v == 1 && vfn_has(fn, VIRTIO_F_RING_RESET))
			queue_reset(q);
		return 0;
	case VENDOR_REG(queue_suspend, uint16_t):
		if (q != NULL)
			vfn_queue_suspend(q, v != 0);
		return 0;
	case COMMON_REG(queue_size, uint16_t):
		if (settable)
			q->size = v;
		return 0;
	case VENDOR_REG(queue_avail, uint16_t):
		if (settable)
			q->state.avail = v;
		return 0;
	case VENDOR_REG(queue_used, uint16_t):
		if (settable)
			q->state.used = v;
		return 0;
	case VENDOR_REG(queue_log_lo, uint32_t):
	case VENDOR_REG(queue_log_hi, uint32_t):
		if (settable)
			set_half(&q->log, reg == VENDOR_REG(queue_log_hi, uint32_t), v);
		return 0;
	case VENDOR_REG(queue_inflight_lo, uint32_t):
	case VENDOR_REG(queue_inflight_hi, uint32_t):
		if (settable)
			set_half(&q->inflight_addr, reg == VENDOR_REG(queue_inflight_hi, uint32_t),
				v);
		return 0;
	case VENDOR_REG(queue_inflight_len, uint32_t):
		if (settable)
			q->inflight_len = v;
		return 0;
	case COMMON_REG(queue_desc_lo, uint32_t):
	case COMMON_REG(queue_desc_hi, uint32_t):
	case COMMON_REG(queue_driver_lo, uint32_t):
	case COMMON_REG(queue_driver_hi, uint32_t):
	case COMMON_REG(queue_device_lo, uint32_t):
	case COMMON_REG(queue_device_hi, uint32_t):
		area = ((reg >> 4) - COMMON(queue_desc_lo)) / sizeof(uint32_t);
		if (settable)
			set_half(&q->area[area / 2], area % 2, v);
		return 0;
	}
	return -EINVAL;
}

static struct vfn_queue *
selected(struct vfn_function *fn)
{
	return fn->queue_select < fn->nb_queues ? &fn->queue[fn->queue_select] : NULL;
}

static int
write_bar0(struct vfn_function *fn, uint64_t offset, uint32_t v, size_t len)
{
	switch (REG(offset, len)) {
	case COMMON_REG(device_feature_select, uint32_t):
		fn->device_feature_select = v;
		return 0;
	case COMMON_REG(driver_feature_select, uint32_t):
		fn->driver_feature_select = v;
		return 0;
	case COMMON_REG(driver_feature, uint32_t):
		/* Frozen by FEATURES_OK (2.2.1). */
		if (fn->driver_feature_select < 2 && !(fn->status & VIRTIO_CONFIG_S_FEATURES_OK))
			set_half(&fn->driver_features, fn->driver_feature_select, v);
		return 0;
	case COMMON_REG(config_msix_vector, uint16_t):
		fn->config_vector = v < vfn_nb_vectors(fn) ? v : NO_VECTOR;
		return 0;
	case COMMON_REG(device_status, uint8_t):
		write_status(fn, v);
		return 0;
	case COMMON_REG(queue_select, uint16_t):
		fn->queue_select = v;
		return 0;
	case VENDOR_REG(curr_pairs, uint16_t):
		if (v < 1 || v > fn->params.max_pairs)
			return -EINVAL;
		vfn_port_stop(fn);
		fn->curr_pairs = v;
		vfn_port_start(fn);
		return 0;
	case VENDOR_REG(suspend, uint16_t):
		if (!(fn->params.faults & VFN_FAULT_NO_SUSPEND))
			vfn_queues_suspend(fn, v != 0);
		return 0;
	case VENDOR_REG(log_lo, uint32_t):
	case VENDOR_REG(log_hi, uint32_t):
		if (!fn->log_on)
			set_half(
				&fn->log_addr, REG(offset, len) == VENDOR_REG(log_hi, uint32_t), v);
		return 0;
	case VENDOR_REG(log_len_lo, uint32_t):
	case VENDOR_REG(log_len_hi, uint32_t):
		if (!fn->log_on)
			set_half(&fn->log_len, REG(offset, len) == VENDOR_REG(log_len_hi, uint32_t),
				v);
		return 0;
	case VENDOR_REG(log_control, uint32_t):
		vfn_log_control(fn, v != 0);
		return 0;
	case VENDOR_REG(state_len, uint32_t):
		if (v > VFN_STATE_SIZE)
			return -EINVAL;
		fn->state_len = v;
		return 0;
	case VENDOR_REG(state_control, uint32_t):
		vfn_state_control(fn, v);
		return 0;
	case VENDOR_REG(link, uint16_t):
		return vfn_config_set_link(fn, v);
	case VENDOR_REG(announce, uint16_t):
		return vfn_config_set_announce(fn, v);
	case VENDOR_REG(mtu, uint16_t):
		return vfn_config_set_mtu(fn, v);
	}
	return write_queue_reg(fn, selected(fn), REG(offset, len), v);
}

/* A doorbell: rings by being written, whatever the value (4.1.5.2). */
static int
write_doorbell(struct vfn_function *fn, uint64_t offset, const void *buf, size_t len)
{
	uint64_t index = offset / VFN_NOTIFY_STEP;

	if (offset % VFN_NOTIFY_STEP != 0 || index >= fn->nb_queues || (len != 2 && len != 4))
		return -EINVAL;
	vfn_bar2_store(fn, offset, buf, len);
	vfn_port_wake(&fn->queue[index]);
	return 0;
}

static struct vfn_common_cfg
common_cfg(struct vfn_function *fn)
{
	const struct vfn_queue *q = selected(fn);
	struct vfn_common_cfg cfg = {
		.device_feature_select = fn->device_feature_select,
		.driver_feature_select = fn->driver_feature_select,
		.config_msix_vector = fn->config_vector,
		.num_queues = fn->nb_queues,
		.device_status = fn->status,
		.config_generation = fn->config_generation,
		.queue_select = fn->queue_select,
	};

	if (fn->device_feature_select < 2)
		cfg.device_feature = fn->device_features >> 32 * fn->device_feature_select;
	if (fn->driver_feature_select < 2)
		cfg.driver_feature = fn->driver_features >> 32 * fn->driver_feature_select;
	if (q != NULL) {
		cfg.queue_size = q->size;
		cfg.queue_msix_vector = q->vector;
		cfg.queue_enable = q->enabled;
		cfg.queue_notify_off = q->index;
		cfg.queue_desc_lo = q->area[0];
		cfg.queue_desc_hi = q->area[0] >> 32;
		cfg.queue_driver_lo = q->area[1];
		cfg.queue_driver_hi = q->area[1] >> 32;
		cfg.queue_device_lo = q->area[2];
		cfg.queue_device_hi = q->area[2] >> 32;
		cfg.queue_notify_data = q->index;
	}
	return cfg;
}

static struct vfn_vendor_cfg
vendor_cfg(struct vfn_function *fn)
{
	const struct vfn_queue *q = selected(fn);
	struct vfn_vendor_cfg cfg = {
		.version = VFN_VENDOR_VERSION,
		.stats_offset = VFN_OFF_STATS,
		.stats_step = VFN_STATS_STEP,
		.curr_pairs = fn->curr_pairs,
		.suspend = !(fn->params.faults & VFN_FAULT_NO_SUSPEND),
		.capabilities = VFN_CAP_LOG,
		.log_lo = fn->log_addr,
		.log_hi = fn->log_addr >> 32,
		.log_len_lo = fn->log_len,
		.log_len_hi = fn->log_len >> 32,
		.log_control = fn->log_on,
		.state_offset = VFN_OFF_STATE,
		.state_size = VFN_STATE_SIZE,
		.state_len = fn->state_len,
		.state_control = fn->state_result,
		.link = !fn->unplugged,
		.announce = !!(fn->config.status & VIRTIO_NET_S_ANNOUNCE),
		.mtu = fn->config.mtu,
		.link_down = vfn_link_down(fn),
		.poller_offset = VFN_OFF_POLLER,
		.poller_step = VFN_POLLER_STEP,
		.nb_pollers = fn->nb_pollers,
	};
	unsigned int i;

	for (i = 0; i < fn->nb_queues; i++)
		if (vfn_queue_active(&fn->queue[i]))
			cfg.suspend = 0;

	if (q != NULL) {
		/* Exact while suspended; before, a snapshot of a moving target. */
		struct vringh_state state = q->enabled ? vringh_get_state(&q->vr) : q->state;

		cfg.queue_suspend = q->suspended;
		cfg.queue_error = q->enabled ? vringh_broken(&q->vr) : q->error;
		cfg.queue_avail = state.avail;
		cfg.queue_used = state.used;
		cfg.queue_log_lo = q->log;
		cfg.queue_log_hi = q->log >> 32;
		cfg.queue_inflight_lo = q->inflight_addr;
		cfg.queue_inflight_hi = q->inflight_addr >> 32;
		cfg.queue_inflight_len = q->inflight_len;
	}
	return cfg;
}

/* Copy what [offset, offset + len) has of a structure at [at, at + size). */
static bool
read_struct(uint64_t offset, void *buf, size_t len, uint64_t at, const void *from, size_t size)
{
	if (offset < at || offset - at > size || len > size - (offset - at))
		return false;
	memcpy(buf, (const uint8_t *)from + (offset - at), len);
	return true;
}

static int
read_stats(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	uint64_t index = (offset - VFN_OFF_STATS) / VFN_STATS_STEP;
	uint64_t stats[VFN_STATS_STEP / sizeof(uint64_t)] = {0};
	unsigned int i;

	if (offset < VFN_OFF_STATS || index >= fn->nb_queues)
		return -EINVAL;
	for (i = 0; i < VFN_STAT_MAX; i++)
		stats[i] = vfn_queue_stat(&fn->queue[index], i);
	if (!read_struct(
		    offset, buf, len, VFN_OFF_STATS + index * VFN_STATS_STEP, stats, sizeof(stats)))
		return -EINVAL;
	return 0;
}

static int
read_poller(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	uint64_t index = (offset - VFN_OFF_POLLER) / VFN_POLLER_STEP;
	struct vfn_poller_stats stats;

	if (index >= fn->nb_pollers)
		return -EINVAL;
	vfn_poller_stats(fn->poller[index], &stats);
	if (!read_struct(offset, buf, len, VFN_OFF_POLLER + index * VFN_POLLER_STEP, &stats,
		    sizeof(stats)))
		return -EINVAL;
	return 0;
}

static int
read_bar0(struct vfn_function *fn, uint64_t offset, void *buf, size_t len)
{
	struct vfn_common_cfg common = common_cfg(fn);
	struct vfn_vendor_cfg vendor = vendor_cfg(fn);

	if (read_struct(offset, buf, len, VFN_OFF_COMMON, &common, sizeof(common)) ||
		read_struct(offset, buf, len, VFN_OFF_VENDOR, &vendor, sizeof(vendor)) ||
		read_struct(offset, buf, len, VFN_OFF_DEVICE, &fn->config, sizeof(fn->config)) ||
		read_struct(offset, buf, len, VFN_OFF_STATE, fn->state, sizeof(fn->state)))
		return 0;
	if (read_struct(offset, buf, len, VFN_OFF_ISR, &fn->isr, sizeof(fn->isr))) {
		fn->isr = 0; /* reading clears it (4.1.4.5) */
		return 0;
	}
	if (offset >= VFN_OFF_POLLER)
		return read_poller(fn, offset, buf, len);
	return read_stats(fn, offset, buf, len);
}

/*
 * The window of 4.1.4.9: pci_cfg_data stands for the BAR place that the capability's own
 * fields name, for drivers that cannot map BARs.
 */
static int
config_window(struct vfn_function *fn, uint64_t offset, size_t len, struct virtio_pci_cap *cap)
{
	if (offset != CAP_PCI_CFG + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data))
		return -ENOENT;
	memcpy(cap, fn->pci_config + CAP_PCI_CFG, sizeof(*cap));
	if (cap->length != len || cap->bar > VFN_REGION_BAR2)
		return -EINVAL;
	return 0;
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

int
vfn_regs_read(struct vfn_function *fn, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	struct virtio_pci_cap cap;
	int ret;

	if (!in_region(region, offset, len))
		return -EINVAL;
	switch (region) {
	case VFN_REGION_BAR0:
		return read_bar0(fn, offset, buf, len);
	case VFN_REGION_BAR1:
		memset(buf, 0, len); /* pending bits: an interrupt is signalled at once */
		if (offset < VFN_OFF_MSIX_PBA &&
			!read_struct(offset, buf, len, VFN_OFF_MSIX_TABLE, fn->msix_table,
				sizeof(fn->msix_table)))
			return -EINVAL;
		return 0;
	case VFN_REGION_BAR2:
		vfn_bar2_read(fn, offset, buf, len);
		return 0;
	case VFN_REGION_CONFIG:
		ret = config_window(fn, offset, len, &cap);
		if (ret != -ENOENT)
			return ret < 0 ? ret : vfn_regs_read(fn, cap.bar, cap.offset, buf, len);
		memcpy(buf, fn->pci_config + offset, len);
		return 0;
	}
	return -EINVAL;
}

/* Writable configuration space: command, interrupt line, MSI-X control, the window. */
static void
write_config(struct vfn_function *fn, uint64_t offset, const void *buf, size_t len)
{
	static const struct {
		uint8_t at, len, mask;
	} writable[] = {
		{0x04, 2, 0xff},
		{0x3c, 1, 0xff},
		{CAP_MSIX + 3, 1, 0xc0},
		{CAP_PCI_CFG + offsetof(struct virtio_pci_cap, bar), 1, 0xff},
		{CAP_PCI_CFG + offsetof(struct virtio_pci_cap, offset), 8, 0xff},
	};
	size_t i, b;

	for (b = 0; b < len; b++) {
		uint8_t *p = &fn->pci_config[offset + b], v = ((const uint8_t *)buf)[b];

		for (i = 0; i < sizeof(writable) / sizeof(writable[0]); i++)
			if (offset + b - writable[i].at < writable[i].len)
				*p = (*p & ~writable[i].mask) | (v & writable[i].mask);
	}
}

int
vfn_regs_write(
	struct vfn_function *fn, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	struct virtio_pci_cap cap;
	uint32_t v = 0;
	int ret;

	if (!in_region(region, offset, len))
		return -EINVAL;
	switch (region) {
	case VFN_REGION_BAR0:
		if (offset >= VFN_OFF_STATE && offset + len <= VFN_OFF_STATE + VFN_STATE_SIZE) {
			memcpy(fn->state + (offset - VFN_OFF_STATE), buf, len);
			return 0;
		}
		if (len > sizeof(v))
			return -EINVAL;
		memcpy(&v, buf, len);
		return write_bar0(fn, offset, v, len);
	case VFN_REGION_BAR1:
		if (offset > sizeof(fn->msix_table) || len > sizeof(fn->msix_table) - offset)
			return -EINVAL;
		memcpy(fn->msix_table + offset, buf, len);
		return 0;
	case VFN_REGION_BAR2:
		return write_doorbell(fn, offset, buf, len);
	case VFN_REGION_CONFIG:
		ret = config_window(fn, offset, len, &cap);
		if (ret != -ENOENT)
			return ret < 0 ? ret : vfn_regs_write(fn, cap.bar, cap.offset, buf, len);
		write_config(fn, offset, buf, len);
		return 0;
	}
	return -EINVAL;
}
