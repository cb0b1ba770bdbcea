/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What a driver finds in configuration space (virtio 1.3, 4.1.1 to 4.1.4). */

#include "device.h"

#define ID_NET 1 /* 5.1.1 */

static void
header_is_that_of_a_pci_function(struct dev *d, uint64_t format)
{
	uint32_t i, before[16], v;

	(void)format;
	/* type 0, and a list of capabilities */
	assert_int_equal(pci_get(d, 0x0e, 1) & 0x7f, 0);
	assert_true(pci_get(d, 0x06, 2) & 0x10);
	/* the pin that ISR is of */
	assert_in_range(pci_get(d, 0x3d, 1), 1, 4);
	for (i = 0; i < 16; i++)
		before[i] = pci_get(d, 4 * i, 4);
	/* only command, BARs, ROM address and interrupt line are the driver's */
	for (i = 0; i < 16; i++)
		if (i != 1 && (i < 4 || i > 9) && i != 12)
			pci_set(d, 4 * i, 4, ~before[i]);
	for (i = 0; i < 16; i++) {
		v = pci_get(d, 4 * i, 4);
		if (i == 15) /* the interrupt line is written by firmware */
			assert_int_equal(v & ~0xffu, before[i] & ~0xffu);
		else if (i != 1)
			assert_int_equal(v, before[i]);
	}
	/* every register can be read at every width */
	for (i = 0; i < 64; i++)
		assert_int_equal(pci_get(d, i, 1), pci_get(d, i & ~3u, 4) >> i % 4 * 8 & 0xff);
}

static void
device_is_identified(struct dev *d, uint64_t format)
{
	(void)format;
	assert_int_equal(pci_get(d, 0x00, 2), 0x1af4);
	assert_int_equal(pci_get(d, 0x02, 2), 0x1040 + ID_NET);
	assert_true(pci_get(d, 0x08, 1) >= 1);	  /* revision */
	assert_true(pci_get(d, 0x2e, 2) >= 0x40); /* subsystem */
}

static void
halves_of_64_bits_are_independent(struct dev *d, uint64_t format)
{
	static const uint32_t at[] = {VIRTIO_PCI_COMMON_Q_DESCLO, VIRTIO_PCI_COMMON_Q_AVAILLO,
		VIRTIO_PCI_COMMON_Q_USEDLO};
	unsigned int i;

	(void)format;
	CSET(d, queue_select, 0);
	for (i = 0; i < DIM(at); i++) {
		set(d, &d->common, at[i] + 4, 4, 0x11112222);
		assert_int_equal(get(d, &d->common, at[i], 4), 0);
		assert_int_equal(get(d, &d->common, at[i] + 4, 4), 0x11112222);
		set(d, &d->common, at[i], 4, 0x33334440);
		assert_int_equal(get(d, &d->common, at[i], 4), 0x33334440);
		assert_int_equal(get(d, &d->common, at[i] + 4, 4), 0x11112222);
		set(d, &d->common, at[i] + 4, 4, 0);
		assert_int_equal(get(d, &d->common, at[i], 4), 0x33334440);
	}
	/* and as the fields are read: 4.1.3.1 */
	assert_int_equal(
		get(d, &d->config, 0, 1) | get(d, &d->config, 1, 1) << 8, get(d, &d->config, 0, 2));
}

static void
capabilities_say_how_long_they_are(struct dev *d, uint64_t format)
{
	uint8_t at;

	(void)format;
	for (at = pci_get(d, 0x34, 1); at != 0; at = pci_get(d, at + 1, 1)) {
		uint8_t len = pci_get(d, at + 2, 1), type = pci_get(d, at + 3, 1);

		if (pci_get(d, at, 1) != 9)
			continue;
		assert_true(at + len <= 256);
		if (type == VFN_PCI_CAP_VENDOR_CFG)
			continue;
		assert_true(len >= 16 + 4 * (type == VIRTIO_PCI_CAP_NOTIFY_CFG) +
				4 * (type == VIRTIO_PCI_CAP_PCI_CFG));
	}
}

static void
there_is_no_shared_memory(struct dev *d, uint64_t format)
{
	uint8_t at;

	(void)format;
	for (at = pci_get(d, 0x34, 1); at != 0; at = pci_get(d, at + 1, 1))
		assert_false(pci_get(d, at, 1) == 9 &&
			pci_get(d, at + 3, 1) == VIRTIO_PCI_CAP_SHARED_MEMORY_CFG);
}

static void
vendor_capability_is_not_of_virtio(struct dev *d, uint64_t format)
{
	uint8_t bytes[256];
	unsigned int i, k;

	(void)format;
	assert_int_equal(d->vendor.cap_len % 4, 0);
	/* what is virtio's is not a vendor's */
	assert_int_not_equal(pci_get(d, d->vendor.at + 4, 2), 0x1af4);
	/* nothing happens by reading it */
	for (k = 0; k < 2; k++)
		for (i = 0; i < d->vendor.cap_len; i++) {
			const uint8_t v = pci_get(d, d->vendor.at + i, 1);

			assert_true(k == 0 || v == bytes[i]);
			bytes[i] = v;
		}
	assert_int_equal(status_now(d), 0);
}

static void
structures_are_there_and_aligned(struct dev *d, uint64_t format)
{
	(void)format;
	/* found by dev_open(): each at least once */
	assert_int_equal(d->common.offset % 4, 0);
	assert_true(d->common.length >= COMMON_CFG_SIZE);
	assert_true(d->isr.length >= 1);
	assert_int_equal(d->config.offset % 4, 0);
	assert_true(d->config.length >= sizeof(struct virtio_net_config));
	assert_true(d->window.at != 0);
	assert_true(d->common.bar <= 5 && d->isr.bar <= 5 && d->config.bar <= 5);
}

static void
structures_do_not_overlap(struct dev *d, uint64_t format)
{
	const struct place *const p[] = {&d->common, &d->notify, &d->isr, &d->config, &d->vendor};
	unsigned int i, k;

	(void)format;
	for (i = 0; i < DIM(p); i++)
		for (k = 0; k < i; k++)
			assert_true(p[i]->bar != p[k]->bar ||
				p[i]->offset + p[i]->length <= p[k]->offset ||
				p[k]->offset + p[k]->length <= p[i]->offset);
}

static void
doorbells_are_within_their_structure(struct dev *d, uint64_t format)
{
	const uint32_t width = offered(d) & BIT(F_NOTIFICATION_DATA) ? 4 : 2;
	unsigned int i;

	(void)format;
	assert_int_equal(d->notify.offset % width, 0);
	assert_true(d->notify.length >= width);
	/* a power of 2 that is a multiple of the width, or 0 */
	assert_int_equal(d->multiplier & (d->multiplier - 1), 0);
	assert_int_equal(d->multiplier % width, 0);
	for (i = 0; i < d->nb_queues; i++) {
		CSET(d, queue_select, i);
		assert_true(d->notify.length >= CGET(d, queue_notify_off) * d->multiplier + width);
	}
}

static void
device_features_beyond_63_are_0(struct dev *d, uint64_t format)
{
	static const uint32_t select[] = {2, 3, 31, 0x80000000, UINT32_MAX};
	unsigned int i;

	(void)format;
	for (i = 0; i < DIM(select); i++) {
		CSET(d, device_feature_select, select[i]);
		assert_int_equal(CGET(d, device_feature_select), select[i]);
		assert_int_equal(CGET(d, device_feature), 0);
	}
	assert_true(offered(d) & VERSION_1);
}

static void
driver_features_read_back(struct dev *d, uint64_t format)
{
	const uint64_t features = offered(d);
	unsigned int i;

	(void)format;
	accept_features(d, features);
	for (i = 0; i < 2; i++) {
		CSET(d, guest_feature_select, i);
		assert_int_equal(CGET(d, guest_feature), (uint32_t)(features >> 32 * i));
	}
	/* of no other word anything */
	CSET(d, guest_feature_select, 2);
	CSET(d, guest_feature, 0);
	CSET(d, guest_feature_select, 0);
	assert_int_equal(CGET(d, guest_feature), (uint32_t)features);
}

/* Set the fields as a driver that has no BARs mapped does. */
static uint32_t
window(struct dev *d, uint8_t bar, uint32_t offset, uint32_t len)
{
	pci_set(d, d->window.at + 4, 1, bar);
	pci_set(d, d->window.at + 8, 4, offset);
	pci_set(d, d->window.at + 12, 4, len);
	assert_int_equal(pci_get(d, d->window.at + 4, 1), bar);
	assert_int_equal(pci_get(d, d->window.at + 8, 4), offset);
	assert_int_equal(pci_get(d, d->window.at + 12, 4), len);
	return d->window.at + 16;
}

static void
window_reads_and_writes_the_bars(struct dev *d, uint64_t format)
{
	const uint32_t at = d->common.offset;
	uint32_t data, i;

	(void)format;
	/* 1, 2 and 4 bytes */
	data = window(
		d, d->common.bar, at + offsetof(struct virtio_pci_common_cfg, device_status), 1);
	pci_set(d, data, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_true(CREADS(d, device_status, VIRTIO_CONFIG_S_ACKNOWLEDGE));
	assert_int_equal(pci_get(d, data, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	data = window(
		d, d->common.bar, at + offsetof(struct virtio_pci_common_cfg, queue_select), 2);
	pci_set(d, data, 2, 1);
	assert_int_equal(CGET(d, queue_select), 1);
	assert_int_equal(pci_get(d, data, 2), 1);
	data = window(d, d->common.bar, at + VIRTIO_PCI_COMMON_Q_DESCLO, 4);
	pci_set(d, data, 4, 0x12345670);
	assert_int_equal(get(d, &d->common, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0x12345670);
	assert_int_equal(pci_get(d, data, 4), 0x12345670);
	/* and the other structures */
	for (i = 0; i < 6; i++) {
		data = window(d, d->config.bar, d->config.offset + i, 1);
		assert_int_equal(pci_get(d, data, 1), get(d, &d->config, i, 1));
	}
	data = window(d, d->isr.bar, d->isr.offset, 1);
	assert_int_equal(pci_get(d, data, 1), 0);
	/* of another BAR */
	data = window(d, d->table_bar, d->table_at + 8, 4);
	pci_set(d, data, 4, 0x4711);
	assert_int_equal(bar_get(d, d->table_bar, d->table_at + 8, 4), 0x4711);
	assert_int_equal(pci_get(d, data, 4), 0x4711);
	/* a doorbell rings (and nobody is there) */
	data = window(d, d->notify.bar, d->notify.offset, 2);
	pci_set(d, data, 2, 0);
	assert_int_equal(status_now(d), VIRTIO_CONFIG_S_ACKNOWLEDGE);
}

const struct check caps_checks[] = {
	CHECK("4.1.1", header_is_that_of_a_pci_function),
	CHECK("4.1.2.1", device_is_identified),
	CHECK("4.1.3.2", halves_of_64_bits_are_independent),
	CHECK("4.1.4.2", capabilities_say_how_long_they_are),
	CHECK("4.1.4.7.1", there_is_no_shared_memory),
	CHECK("4.1.4.8.1", vendor_capability_is_not_of_virtio),
	CHECK("4.1.4.3.1", structures_are_there_and_aligned),
	CHECK("4.1.4", structures_do_not_overlap),
	CHECK("4.1.4.3.1", device_features_beyond_63_are_0),
	CHECK("4.1.4.3.1", driver_features_read_back),
	CHECK("4.1.4.4.1", doorbells_are_within_their_structure),
	CHECK("4.1.4.9.1", window_reads_and_writes_the_bars),
	{0},
};
