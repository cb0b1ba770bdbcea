/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The function's register file: capabilities, widths, places, what is read-only. */

#include <sys/eventfd.h>
#include <sys/mman.h>

#include "fn_harness.h"

static struct guest_conf one_pair, four_pairs = {.pairs = 4, .mtu = 1500};

static int
raw_read(struct guest *g, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	return g->link->ops->read(g->link, region, offset, buf, len);
}

static int
raw_write(struct guest *g, unsigned int region, uint64_t offset, uint64_t v, size_t len)
{
	uint8_t buf[16] = {0};

	memcpy(buf, &v, sizeof(v));
	return g->link->ops->write(g->link, region, offset, buf, len);
}

static uint32_t
region_size(unsigned int bar)
{
	static const uint32_t size[] = {VFN_BAR0_SIZE, VFN_BAR1_SIZE, VFN_BAR2_SIZE};

	return bar < DIM(size) ? size[bar] : 0;
}

static void
each_structure_has_one_capability_inside_its_bar(void **state)
{
	struct guest *g = guest_new(&four_pairs);
	unsigned int seen[16] = {0}, caps = 0, msix = 0;
	uint16_t status;
	uint8_t at;

	(void)state;
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, 0x06, &status, 2), 0);
	assert_true(status & 0x10);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, 0x34, &at, 1), 0);
	for (; at != 0; caps++) {
		struct virtio_pci_cap cap;

		assert_true(caps < 32 && at >= 0x40 && at % 4 == 0);
		assert_int_equal(raw_read(g, VFN_REGION_CONFIG, at, &cap, sizeof(cap)), 0);
		if (cap.cap_vndr == 0x11) {
			msix++;
		} else if (cap.cfg_type == VFN_PCI_CAP_VENDOR_CFG) {
			struct vfn_vendor_cap v;

			assert_int_equal(raw_read(g, VFN_REGION_CONFIG, at, &v, sizeof(v)), 0);
			assert_int_equal(v.cap_len, sizeof(v));
			assert_int_equal(v.vendor_id, VFN_VENDOR_ID);
			assert_true(v.length >= sizeof(struct vfn_vendor_cfg));
			assert_true(v.offset + v.length <= region_size(v.bar));
			seen[VFN_PCI_CAP_VENDOR_CFG]++;
		} else {
			assert_int_equal(cap.cap_vndr, 9);
			assert_true(cap.cfg_type < DIM(seen));
			assert_true(cap.cap_len >= sizeof(cap) && at + cap.cap_len <= 256);
			seen[cap.cfg_type]++;
			if (cap.cfg_type != VIRTIO_PCI_CAP_PCI_CFG) {
				assert_true(cap.length > 0);
				assert_true(cap.offset + cap.length <= region_size(cap.bar));
			}
		}
		at = cap.cap_next;
	}
	assert_int_equal(msix, 1);
	assert_int_equal(seen[VIRTIO_PCI_CAP_COMMON_CFG], 1);
	assert_int_equal(seen[VIRTIO_PCI_CAP_NOTIFY_CFG], 1);
	assert_int_equal(seen[VIRTIO_PCI_CAP_ISR_CFG], 1);
	assert_int_equal(seen[VIRTIO_PCI_CAP_DEVICE_CFG], 1);
	assert_int_equal(seen[VIRTIO_PCI_CAP_PCI_CFG], 1);
	assert_int_equal(seen[VFN_PCI_CAP_VENDOR_CFG], 1);
	assert_int_equal(g->common.length, sizeof(struct vfn_common_cfg));
	assert_true(g->notify.length >= g->nb_queues * VFN_NOTIFY_STEP);
}

static void
config_space_identifies_a_virtio_net_device(void **state)
{
	struct guest *g = guest_new(&one_pair);
	uint16_t id[2];
	uint8_t class_code[4];

	(void)state;
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, 0, id, sizeof(id)), 0);
	assert_int_equal(id[0], 0x1af4);
	assert_int_equal(id[1], 0x1041);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, 8, class_code, sizeof(class_code)), 0);
	assert_true(class_code[0] >= 1); /* revision, 4.1.2.1 */
	assert_int_equal(class_code[3], 2);
	/* whatever is written */
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, 0, 0x12345678, 4), 0);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, 0, id, sizeof(id)), 0);
	assert_int_equal(id[0], 0x1af4);
	assert_int_equal(id[1], 0x1041);
	/* bus master enable is the driver's */
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, 4, 0x0406, 2), 0);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, 4, id, 2), 0);
	assert_int_equal(id[0], 0x0406);
}

static void
msix_has_a_vector_for_each_queue_and_one_for_changes(void **state)
{
	struct guest *g = guest_new(&four_pairs);
	uint32_t table, pba, v;
	uint16_t control;
	uint8_t at, cap[2];

	(void)state;
	raw_read(g, VFN_REGION_CONFIG, 0x34, &at, 1);
	for (raw_read(g, VFN_REGION_CONFIG, at, cap, 2); cap[0] != 0x11;
		at = cap[1], raw_read(g, VFN_REGION_CONFIG, at, cap, 2))
		assert_int_not_equal(cap[1], 0);
	raw_read(g, VFN_REGION_CONFIG, at + 2, &control, 2);
	raw_read(g, VFN_REGION_CONFIG, at + 4, &table, 4);
	raw_read(g, VFN_REGION_CONFIG, at + 8, &pba, 4);
	assert_int_equal((control & 0x7ff) + 1, g->nb_queues + 1);
	assert_true((table & ~7u) + 16u * (g->nb_queues + 1) <= region_size(table & 7));
	assert_true((pba & ~7u) + 8u <= region_size(pba & 7));
	/* enable and function mask can be written, the size cannot */
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, at + 2, 0xc000, 2), 0);
	raw_read(g, VFN_REGION_CONFIG, at + 2, &control, 2);
	assert_int_equal(control, 0xc000 | g->nb_queues);
	/* the table keeps what is written, pending bits are read-only and 0 */
	assert_int_equal(raw_write(g, table & 7, (table & ~7u) + 16, 0xfee00000, 4), 0);
	assert_int_equal(raw_read(g, table & 7, (table & ~7u) + 16, &v, 4), 0);
	assert_int_equal(v, 0xfee00000);
	assert_int_equal(raw_write(g, pba & 7, pba & ~7u, 1, 4), -EINVAL);
	assert_int_equal(raw_read(g, pba & 7, pba & ~7u, &v, 4), 0);
	assert_int_equal(v, 0);
}

static void
vector_outside_the_msix_table_reads_back_as_none(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	CSET(g, queue_select, 0);
	CSET(g, queue_msix_vector, g->nb_queues); /* the last there is */
	assert_int_equal(CGET(g, queue_msix_vector), g->nb_queues);
	CSET(g, queue_msix_vector, 0xfffe);
	assert_int_equal(CGET(g, queue_msix_vector), NO_VECTOR);
	CSET(g, config_msix_vector, 0x1000);
	assert_int_equal(CGET(g, config_msix_vector), NO_VECTOR);
	assert_int_equal(g->link->ops->set_irq(g->link, 0x1000, -1), -EINVAL);
	CSET(g, queue_msix_vector, g->nb_queues + 1);
	assert_int_equal(CGET(g, queue_msix_vector), NO_VECTOR);
}

/* Registers that can be written: place, width, value, what reads back. */
static const struct {
	uint32_t offset, len, value;
} writable[] = {
#define RW(f, v) \
	{ \
		FIELD(struct vfn_common_cfg, f), v \
	}
	RW(device_feature_select, 1),
	RW(driver_feature_select, 1),
	RW(driver_feature, 0x12345678),
	RW(config_msix_vector, 1),
	RW(device_status, 1),
	RW(queue_select, 1),
	RW(queue_size, 64),
	RW(queue_msix_vector, 2),
	RW(queue_desc_lo, 0x11110000),
	RW(queue_desc_hi, 0x22222222),
	RW(queue_driver_lo, 0x33330000),
	RW(queue_driver_hi, 0x44444444),
	RW(queue_device_lo, 0x55550000),
	RW(queue_device_hi, 0x66666666),
#undef RW
};

static void
writes_take_the_natural_width_only(void **state)
{
	struct guest *g = guest_new(&one_pair);
	uint8_t before[sizeof(struct vfn_common_cfg)], after[sizeof(before)];
	size_t i, len;

	(void)state;
	for (i = 0; i < DIM(writable); i++) {
		const uint64_t at = g->common.offset + writable[i].offset;
		uint32_t v = 0;

		raw_read(g, g->common.bar, g->common.offset, before, sizeof(before));
		for (len = 0; len <= 16; len++)
			if (len != writable[i].len)
				assert_int_equal(
					raw_write(g, g->common.bar, at, UINT64_MAX, len), -EINVAL);
		for (len = 1; len < writable[i].len; len++)
			assert_int_equal(
				raw_write(g, g->common.bar, at + len, UINT64_MAX, writable[i].len),
				-EINVAL);
		raw_read(g, g->common.bar, g->common.offset, after, sizeof(after));
		assert_memory_equal(before, after, sizeof(before));
		assert_int_equal(
			raw_write(g, g->common.bar, at, writable[i].value, writable[i].len), 0);
		raw_read(g, g->common.bar, at, &v, writable[i].len);
		assert_int_equal(v, writable[i].value);
	}
}

/* Places that are there to be read: a write is refused and changes nothing. */
static void
refuse_writes(struct guest *g)
{
	const struct {
		const struct place *p;
		uint32_t offset, len;
	} ro[] = {
		{&g->common, FIELD(struct vfn_common_cfg, device_feature)},
		{&g->common, FIELD(struct vfn_common_cfg, num_queues)},
		{&g->common, FIELD(struct vfn_common_cfg, config_generation)},
		{&g->common, FIELD(struct vfn_common_cfg, queue_notify_off)},
		{&g->common, FIELD(struct vfn_common_cfg, queue_notify_data)}, {&g->isr, 0, 1},
		{&g->device, FIELD(struct virtio_net_config, mac)},
		{&g->device, FIELD(struct virtio_net_config, status)},
		{&g->device, FIELD(struct virtio_net_config, mtu)},
		{&g->vendor, FIELD(struct vfn_vendor_cfg, version)},
		{&g->vendor, FIELD(struct vfn_vendor_cfg, stats_offset)},
		{&g->vendor, FIELD(struct vfn_vendor_cfg, stats_step)},
		{&g->vendor, FIELD(struct vfn_vendor_cfg, queue_error)},
		{&g->vendor, FIELD(struct vfn_vendor_cfg, capabilities)},
		{&(struct place){0, VFN_OFF_STATS, 8}, 0, 4},
		{&(struct place){0, 0x500, 8}, 0, 4}, /* nothing there */
	};
	size_t i;

	for (i = 0; i < DIM(ro); i++) {
		uint8_t before[8], after[8];
		int r = raw_read(
			g, ro[i].p->bar, ro[i].p->offset + ro[i].offset, before, ro[i].len);

		if (raw_write(g, ro[i].p->bar, ro[i].p->offset + ro[i].offset, UINT64_MAX,
			    ro[i].len) != -EINVAL)
			fail_msg("write to 0x%x (%u bytes) is taken",
				ro[i].p->offset + ro[i].offset, ro[i].len);
		assert_int_equal(
			raw_read(g, ro[i].p->bar, ro[i].p->offset + ro[i].offset, after, ro[i].len),
			r);
		if (r == 0)
			assert_memory_equal(before, after, ro[i].len);
	}
}

static void
read_only_registers_refuse_writes(void **state)
{
	struct guest *g = guest_new(&four_pairs);

	(void)state;
	refuse_writes(g);
}

static void
read_only_registers_refuse_writes_without_a_queue_selected(void **state)
{
	struct guest *g = guest_new(&four_pairs);

	(void)state;
	CSET(g, queue_select, g->nb_queues);
	refuse_writes(g);
	/* nor are widths any less exact */
	assert_int_equal(
		raw_write(g, g->common.bar,
			g->common.offset + offsetof(struct vfn_common_cfg, queue_size), 1, 4),
		-EINVAL);
}

static void
accesses_outside_a_region_are_refused(void **state)
{
	static const struct {
		unsigned int region;
		uint64_t offset;
		size_t len;
	} outside[] = {
		{VFN_REGION_BAR0, VFN_BAR0_SIZE, 1},
		{VFN_REGION_BAR0, VFN_BAR0_SIZE - 2, 4},
		{VFN_REGION_BAR0, UINT64_MAX, 2},
		{VFN_REGION_BAR0, UINT64_MAX - 1, 4},
		{VFN_REGION_BAR0, 0, VFN_BAR0_SIZE + 1},
		{VFN_REGION_BAR0, 0, SIZE_MAX},
		{VFN_REGION_BAR0, sizeof(struct vfn_common_cfg), 1},
		{VFN_REGION_BAR0, sizeof(struct vfn_common_cfg) - 1, 2},
		{VFN_REGION_BAR0, VFN_OFF_VENDOR + sizeof(struct vfn_vendor_cfg), 1},
		{VFN_REGION_BAR0, VFN_OFF_DEVICE + sizeof(struct virtio_net_config), 1},
		{VFN_REGION_BAR0, VFN_OFF_ISR + 1, 1},
		/* no such queue, and across two queues' */
		{VFN_REGION_BAR0, VFN_OFF_STATS + 9 * VFN_STATS_STEP, 8},
		{VFN_REGION_BAR0, VFN_OFF_STATS + VFN_STATS_STEP - 4, 8},
		{VFN_REGION_BAR1, VFN_BAR1_SIZE, 4},
		{VFN_REGION_BAR1, VFN_BAR1_SIZE - 1, 2},
		{VFN_REGION_BAR1, VFN_MAX_VECTORS * 16, 4},
		{VFN_REGION_BAR1, 0xffc, 8},
		{VFN_REGION_BAR2, VFN_BAR2_SIZE, 2},
		{VFN_REGION_BAR2, UINT64_MAX - 1, 2},
		{VFN_REGION_CONFIG, 256, 1},
		{VFN_REGION_CONFIG, 255, 2},
		{3, 0, 1},
		{4, 0, 1},
		{5, 0, 1},
		{6, 0, 1},
		{8, 0, 1},
		{UINT32_MAX, 0, 1},
	};
	struct guest *g = guest_new(&four_pairs);
	static uint8_t buf[64];
	size_t i;

	(void)state;
	for (i = 0; i < DIM(outside); i++) {
		memset(buf, 0x5a, sizeof(buf));
		if (raw_read(g, outside[i].region, outside[i].offset, buf, outside[i].len) !=
			-EINVAL)
			fail_msg("read %zu is taken", i);
		if (g->link->ops->write(g->link, outside[i].region, outside[i].offset, buf,
			    outside[i].len) != -EINVAL)
			fail_msg("write %zu is taken", i);
	}
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, 0, (uint8_t[256]){0}, 256), 0);
}

static void
missing_queue_reads_as_zero_and_loses_writes(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	CSET(g, queue_select, g->nb_queues);
	CSET(g, queue_size, 64);
	CSET(g, queue_desc_lo, 0x1000);
	CSET(g, queue_msix_vector, 1);
	CSET(g, queue_enable, 1);
	CSET(g, queue_reset, 1);
	VSET(g, queue_suspend, 1);
	assert_int_equal(CGET(g, queue_size), 0);
	assert_int_equal(CGET(g, queue_enable), 0);
	assert_int_equal(CGET(g, queue_desc_lo), 0);
	assert_int_equal(CGET(g, queue_msix_vector), 0);
	assert_int_equal(VGET(g, queue_suspend), 0);
	assert_int_equal(VGET(g, queue_error), 0);
	CSET(g, queue_select, 0xffff);
	assert_int_equal(CGET(g, queue_size), 0);
	/* and the last one is there */
	CSET(g, queue_select, g->nb_queues - 1);
	assert_int_not_equal(CGET(g, queue_size), 0);
	assert_int_equal(CGET(g, queue_notify_off), g->nb_queues - 1);
	assert_int_equal(g->link->ops->set_doorbell(g->link, g->nb_queues, -1), -EINVAL);
}

static void
device_configuration_tells_mac_pairs_and_mtu(void **state)
{
	static const uint8_t mac[6] = {0x02, 'v', 'f', 'n', 't', 's'};
	struct guest *g = guest_new(&four_pairs);
	struct virtio_net_config config;

	(void)state;
	assert_int_equal(raw_read(g, g->device.bar, g->device.offset, &config, sizeof(config)), 0);
	assert_memory_equal(config.mac, mac, sizeof(mac));
	assert_int_equal(config.max_virtqueue_pairs, 4);
	assert_int_equal(config.mtu, 1500);
	assert_int_equal(config.status, VIRTIO_NET_S_LINK_UP);
	assert_int_equal(g->nb_queues, 9);
	assert_true(guest_features(g) & BIT(VIRTIO_NET_F_MQ));
	assert_true(guest_features(g) & BIT(VIRTIO_NET_F_MTU));
	guest_close(g);
	g = guest_new(&one_pair);
	assert_false(guest_features(g) & BIT(VIRTIO_NET_F_MQ));
	assert_false(guest_features(g) & BIT(VIRTIO_NET_F_MTU));
	CSET(g, device_feature_select, 2);
	assert_int_equal(CGET(g, device_feature), 0);
}

static void
link_is_up_while_there_is_a_peer(void **state)
{
	struct guest *a = guest_new(&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE});
	struct guest *b;

	(void)state;
#define LINK(g) reg_get(g, &(g)->device, FIELD(struct virtio_net_config, status))
	assert_int_equal(LINK(a), 0);
	b = guest_new(&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a"});
	assert_int_equal(LINK(a), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(LINK(b), VIRTIO_NET_S_LINK_UP);
	guest_close(b);
	assert_int_equal(LINK(a), 0);
}

static void
link_change_is_told_by_the_configuration_interrupt(void **state)
{
	struct guest *a = guest_new(&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE});
	int fd = eventfd(0, EFD_NONBLOCK);
	eventfd_t v = 0;

	(void)state;
	/* 4.1.5.4: a change of the device configuration is an interrupt of this vector */
	assert_int_equal(a->link->ops->set_irq(a->link, 0, fd), 0);
	CSET(a, config_msix_vector, 0);
	assert_int_equal(guest_negotiate(a, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_STATUS)), 0);
	guest_driver_ok(a);
	guest_new(&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a"});
	eventfd_read(fd, &v);
	close(fd);
	assert_int_equal(v, 1);
}

/* Set the window's fields as a driver without BARs does (4.1.4.9). */
static uint8_t
window(struct guest *g, uint8_t bar, uint32_t offset, uint32_t len)
{
	struct virtio_pci_cap cap;
	uint8_t at;

	raw_read(g, VFN_REGION_CONFIG, 0x34, &at, 1);
	for (raw_read(g, VFN_REGION_CONFIG, at, &cap, sizeof(cap));
		cap.cap_vndr != 9 || cap.cfg_type != VIRTIO_PCI_CAP_PCI_CFG;
		at = cap.cap_next, raw_read(g, VFN_REGION_CONFIG, at, &cap, sizeof(cap)))
		assert_int_not_equal(cap.cap_next, 0);
	raw_write(g, VFN_REGION_CONFIG, at + offsetof(struct virtio_pci_cap, bar), bar, 1);
	raw_write(g, VFN_REGION_CONFIG, at + offsetof(struct virtio_pci_cap, offset), offset, 4);
	raw_write(g, VFN_REGION_CONFIG, at + offsetof(struct virtio_pci_cap, length), len, 4);
	return at + sizeof(cap);
}

static void
pci_cfg_window_reaches_every_bar(void **state)
{
	struct guest *g = guest_new(&one_pair);
	uint32_t v = 0;
	uint8_t data;

	(void)state;
	data = window(g, g->common.bar,
		g->common.offset + offsetof(struct vfn_common_cfg, num_queues), 2);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, data, &v, 2), 0);
	assert_int_equal(v, 3);
	/* another width than the one announced: bytes that mean nothing */
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, data, &v, 4), 0);
	assert_int_equal(v, 0);
	window(g, g->common.bar, g->common.offset + offsetof(struct vfn_common_cfg, queue_select),
		2);
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, data, 2, 2), 0);
	assert_int_equal(CGET(g, queue_select), 2);
	window(g, VFN_REGION_BAR1, 0x10, 4);
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, data, 77, 4), 0);
	raw_read(g, VFN_REGION_BAR1, 0x10, &v, 4);
	assert_int_equal(v, 77);
	window(g, VFN_REGION_BAR2, 0, 2);
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, data, 0, 2), 0);
	/* the same for no BAR, least of all configuration space itself */
	window(g, 3, 0, 4);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, data, &v, 4), 0);
	assert_int_equal(v, 0);
	window(g, VFN_REGION_CONFIG, data, 4);
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, data, 77, 4), 0);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, data, &v, 4), 0);
	assert_int_equal(v, 0);
	/* outside a BAR */
	window(g, VFN_REGION_BAR0, VFN_BAR0_SIZE - 2, 4);
	assert_int_equal(raw_read(g, VFN_REGION_CONFIG, data, &v, 4), -EINVAL);
	window(g, VFN_REGION_BAR0, UINT32_MAX, 4);
	assert_int_equal(raw_write(g, VFN_REGION_CONFIG, data, v, 4), -EINVAL);
}

static void
doorbells_take_two_or_four_bytes_at_their_page_only(void **state)
{
	struct guest *g = guest_new(&one_pair);
	size_t len;

	(void)state;
	for (len = 1; len <= 8; len++)
		assert_int_equal(raw_write(g, VFN_REGION_BAR2, 0, 0, len),
			len == 2 || len == 4 ? 0 : -EINVAL);
	assert_int_equal(raw_write(g, VFN_REGION_BAR2, 2, 0, 2), -EINVAL);
	assert_int_equal(raw_write(g, VFN_REGION_BAR2, VFN_NOTIFY_STEP + 4, 0, 2), -EINVAL);
	assert_int_equal(raw_write(g, VFN_REGION_BAR2, 2 * VFN_NOTIFY_STEP, 0xffff, 2), 0);
	assert_int_equal(raw_write(g, VFN_REGION_BAR2, 3 * VFN_NOTIFY_STEP, 0, 2), -EINVAL);
}

static uint8_t *
map_doorbells(struct guest *g, int *fd)
{
	uint64_t size;
	uint8_t *map;

	assert_int_equal(g->link->ops->get_region_fd(g->link, VFN_REGION_BAR2, fd, &size), 0);
	assert_int_equal(size, VFN_BAR2_SIZE);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	return map;
}

static void
doorbells_are_a_file_with_a_page_for_each_queue(void **state)
{
	struct guest *g = guest_new(&four_pairs);
	uint64_t size;
	uint16_t q, i, v;
	uint8_t *map;
	int fd, same;

	(void)state;
	map = map_doorbells(g, &fd);
	assert_int_equal(g->link->ops->get_region_fd(g->link, VFN_REGION_BAR2, &same, &size), 0);
	assert_int_equal(same, fd);
	for (q = 0; q < g->nb_queues; q++) {
		CSET(g, queue_select, q);
		v = 0x100 + q;
		memcpy(map + CGET(g, queue_notify_off) * VFN_NOTIFY_STEP, &v, sizeof(v));
		/* what was stored is in its own place of the BAR, and nowhere else */
		for (i = 0; i < g->nb_queues; i++) {
			raw_read(g, VFN_REGION_BAR2, i * VFN_NOTIFY_STEP, &v, sizeof(v));
			assert_int_equal(v, i <= q ? 0x100 + i : 0);
		}
	}
	/* the other way round */
	assert_int_equal(raw_write(g, VFN_REGION_BAR2, 3 * VFN_NOTIFY_STEP, 0x1234, 2), 0);
	memcpy(&v, map + 3 * VFN_NOTIFY_STEP, sizeof(v));
	assert_int_equal(v, 0x1234);
	munmap(map, VFN_BAR2_SIZE);
	for (i = 0; i <= 8; i++)
		if (i != VFN_REGION_BAR2)
			assert_int_equal(
				g->link->ops->get_region_fd(g->link, i, &fd, &size), -ENOTSUP);
}

static void
doorbell_file_outlives_no_guest_and_keeps_its_size(void **state)
{
	struct guest *g = guest_new(&one_pair);
	uint8_t *old, *map;
	uint16_t v = 0;
	int fd;

	(void)state;
	old = map_doorbells(g, &fd);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, 2 * VFN_BAR2_SIZE), -1);
	CSET(g, device_status, 0);
	map = map_doorbells(g, &fd);
	old[VFN_NOTIFY_STEP] = 1;
	raw_read(g, VFN_REGION_BAR2, VFN_NOTIFY_STEP, &v, sizeof(v));
	assert_int_equal(v, 0);
	map[VFN_NOTIFY_STEP] = 2;
	raw_read(g, VFN_REGION_BAR2, VFN_NOTIFY_STEP, &v, sizeof(v));
	assert_int_equal(v, 2);
	assert_int_equal(old[VFN_NOTIFY_STEP], 1);
	munmap(map, VFN_BAR2_SIZE);
	munmap(old, VFN_BAR2_SIZE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(each_structure_has_one_capability_inside_its_bar),
		PLAIN(config_space_identifies_a_virtio_net_device),
		PLAIN(msix_has_a_vector_for_each_queue_and_one_for_changes),
		PLAIN(vector_outside_the_msix_table_reads_back_as_none),
		PLAIN(writes_take_the_natural_width_only),
		PLAIN(read_only_registers_refuse_writes),
		PLAIN(read_only_registers_refuse_writes_without_a_queue_selected),
		PLAIN(accesses_outside_a_region_are_refused),
		PLAIN(missing_queue_reads_as_zero_and_loses_writes),
		PLAIN(device_configuration_tells_mac_pairs_and_mtu),
		PLAIN(link_is_up_while_there_is_a_peer),
		PLAIN(link_change_is_told_by_the_configuration_interrupt),
		PLAIN(pci_cfg_window_reaches_every_bar),
		PLAIN(doorbells_take_two_or_four_bytes_at_their_page_only),
		PLAIN(doorbells_are_a_file_with_a_page_for_each_queue),
		PLAIN(doorbell_file_outlives_no_guest_and_keeps_its_size),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("registers", tests, DIM(tests), NULL, 0);
}
