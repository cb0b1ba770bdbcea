/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What is behind the vendor capability (lib/link/vfn_regs.h): suspend and resume, and a device
 * that is saved and loaded as parts (doc/parts.md).
 */

#include <errno.h>

#include <vfn_parts.h>

#include "device.h"

static void
suspended_queue_is_left_alone(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 1);
	uint8_t *before;
	unsigned int i;

	msix_on(d);
	start(d, format);
	CSET(d, queue_select, 0);
	CSET(d, queue_msix_vector, 1);
	frame_loops(d, 1);
	for (i = 0; i < 8; i++)
		buffer_post(d, 2048);
	CSET(d, queue_select, 0);
	VSET(d, queue_suspend, 1);
	assert_true(VREADS(d, queue_suspend, 1));
	/* positions are final, and equal: nothing is in flight */
	assert_int_equal(VGET(d, queue_avail), VGET(d, queue_used));
	raised(fd, 0);
	for (i = 0; i < 8; i++)
		frame_post(d, i, 500);
	ring_notify(&d->tx);
	before = mem_copy(d);
	nap_ms(QUIET_MS);
	/* who sends to it waits, and so all is as it was */
	assert_true(mem_same(d, before));
	assert_int_equal(raised(fd, 0), 0);
	CSET(d, queue_select, 0);
	VSET(d, queue_suspend, 0);
	assert_true(VREADS(d, queue_suspend, 0));
	for (i = 0; i < 8; i++)
		assert_int_equal(ring_wait(&d->rx), 500);
	assert_true(raised(fd, PATIENCE_MS) > 0);
}

static void
all_queues_are_suspended_at_once(struct dev *d, uint64_t format)
{
	uint8_t *before;
	unsigned int i, k;

	start(d, format);
	for (k = 0; k < 5; k++) {
		for (i = 0; i < 16; i++) {
			buffer_post(d, 2048);
			frame_post(d, i, 400);
		}
		ring_notify(&d->tx);
		VSET(d, suspend, 1);
		assert_true(VREADS(d, suspend, 1));
		before = mem_copy(d);
		nap_ms(5);
		assert_true(mem_same(d, before));
		for (i = 0; i < 2; i++) {
			CSET(d, queue_select, i);
			assert_int_equal(VGET(d, queue_suspend), 1);
			assert_int_equal(VGET(d, queue_avail), VGET(d, queue_used));
		}
		VSET(d, suspend, 0);
		assert_true(VREADS(d, suspend, 0));
		for (i = 0; i < 16; i++) {
			assert_int_equal(ring_wait(&d->rx), 400);
			ring_wait(&d->tx);
		}
		d->mem_used = MEM_SIZE / 2;
	}
}

/* ---- parts ---- */

static uint32_t
parts_command(struct dev *d, uint32_t what)
{
	uint64_t end = clock_ms() + PATIENCE_MS;
	uint32_t v;

	VSET(d, parts_control, what);
	while ((v = VGET(d, parts_control)) == VFN_PARTS_BUSY)
		assert_true(clock_ms() < end);
	return v;
}

static uint32_t
parts_get(struct dev *d, uint8_t *parts)
{
	const uint32_t at = VGET(d, parts_offset);
	uint32_t len, i;

	assert_int_equal(parts_command(d, VFN_PARTS_GET), 0);
	len = VGET(d, parts_len);
	assert_in_range(len, sizeof(struct vfn_parts_header), VGET(d, parts_size));
	for (i = 0; i < len; i++)
		parts[i] = bar_get(d, d->vendor.bar, at + i, 1);
	return len;
}

static uint32_t
parts_set(struct dev *d, const uint8_t *parts, uint32_t len, uint32_t what)
{
	const uint32_t at = VGET(d, parts_offset);
	uint32_t i;

	for (i = 0; i < len; i++)
		bar_set(d, d->vendor.bar, at + i, 1, parts[i]);
	VSET(d, parts_len, len);
	return parts_command(d, what);
}

/* What a queue's registers are, in the common structure and in the vendor's. */
struct queue_regs {
	uint32_t vector, enable, avail, used, area[6];
};

static void
queue_regs(struct dev *d, uint16_t queue, struct queue_regs *r)
{
	unsigned int i;

	CSET(d, queue_select, queue);
	r->vector = CGET(d, queue_msix_vector);
	r->enable = CGET(d, queue_enable);
	r->avail = VGET(d, queue_avail);
	r->used = VGET(d, queue_used);
	for (i = 0; i < DIM(r->area); i++)
		r->area[i] = get(d, &d->common,
			offsetof(struct virtio_pci_common_cfg, queue_desc_lo) + 4 * i, 4);
}

static void
device_is_saved_and_loaded(struct dev *d, uint64_t format)
{
	static uint8_t parts[VFN_PARTS_SIZE], again[VFN_PARTS_SIZE];
	struct queue_regs before[VFN_MAX_QUEUES], after;
	unsigned int i, k;
	uint32_t len;

	start(d, format);
	CSET(d, msix_config, 2);
	for (i = 0; i < d->nb_queues; i++) {
		CSET(d, queue_select, i);
		CSET(d, queue_msix_vector, i + 1);
	}
	for (k = 0; k < 3; k++) {
		for (i = 0; i < 50; i++) {
			frame_loops(d, i);
			d->mem_used = MEM_SIZE / 2;
		}
		/* one that the first has not taken, for the second to find */
		VSET(d, suspend, 1);
		assert_true(VREADS(d, suspend, 1));
		frame_post(d, 7, 321);
		buffer_post(d, 2048);
		len = parts_get(d, parts);
		for (i = 0; i < d->nb_queues; i++)
			queue_regs(d, i, &before[i]);
		dev_exchange(d, NULL);
		assert_int_equal(parts_set(d, parts, len, VFN_PARTS_CHECK), 0);
		assert_int_equal(status_now(d), 0);
		assert_int_equal(parts_set(d, parts, len, VFN_PARTS_SET), 0);
		assert_int_equal(status_now(d), S_FEATURES);
		assert_int_equal(CGET(d, msix_config), 2);
		driver_ok(d);
		assert_int_equal(parts_get(d, again), len);
		assert_memory_equal(again, parts, len);
		for (i = 0; i < d->nb_queues; i++) {
			queue_regs(d, i, &after);
			assert_memory_equal(&after, &before[i], sizeof(after));
		}
		VSET(d, suspend, 0);
		assert_true(VREADS(d, suspend, 0));
		ring_notify(&d->tx);
		assert_int_equal(ring_wait(&d->rx), 321);
		ring_wait(&d->tx);
	}
}

static void
wrong_parts_change_nothing(struct dev *d, uint64_t format)
{
	static uint8_t parts[VFN_PARTS_SIZE];
	uint32_t len, i;

	(void)format;
	assert_true(negotiate(d, VERSION_1));
	len = parts_get(d, parts);
	dev_reset(d);
	for (i = 0; i < len; i += 37) {
		parts[i] ^= 0x20;
		assert_int_not_equal(parts_set(d, parts, len, VFN_PARTS_SET), 0);
		assert_int_equal(status_now(d), 0);
		parts[i] ^= 0x20;
	}
	assert_int_not_equal(parts_set(d, parts, len - 1, VFN_PARTS_SET), 0);
	assert_int_not_equal(parts_command(d, 0x7777), 0);
	assert_int_equal(status_now(d), 0);
	assert_int_equal(parts_set(d, parts, len, VFN_PARTS_SET), 0);
	assert_int_equal(status_now(d), S_FEATURES);
}

static void
running_device_takes_no_parts(struct dev *d, uint64_t format)
{
	static uint8_t parts[VFN_PARTS_SIZE];
	uint32_t len;

	start(d, format);
	len = parts_get(d, parts);
	assert_int_equal(parts_set(d, parts, len, VFN_PARTS_SET), EBUSY);
	assert_int_equal(parts_set(d, parts, len, VFN_PARTS_CHECK), 0);
	frame_loops(d, 1);
}

const struct check parts_checks[] = {
	CHECK_ON("vfn", suspended_queue_is_left_alone, ON_BOTH),
	CHECK_ON("vfn", all_queues_are_suspended_at_once, ON_BOTH),
	CHECK_ON("vfn", device_is_saved_and_loaded, ON_BOTH),
	CHECK("vfn", wrong_parts_change_nothing),
	CHECK_ON("vfn", running_device_takes_no_parts, ON_BOTH),
	{0},
};
