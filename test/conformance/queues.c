/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Queues set up, reset and set up anew (virtio 1.3, 2.6.1, 4.1.4.3, 4.1.5.1.3). */

#include "device.h"

static void
missing_queue_has_size_0(struct dev *d, uint64_t format)
{
	static const uint16_t missing[] = {0, 1, 100, 0x7fff};
	unsigned int i;

	(void)format;
	for (i = 0; i < DIM(missing); i++) {
		CSET(d, queue_select, d->nb_queues + missing[i]);
		assert_int_equal(CGET(d, queue_size), 0);
		/* nor can it be had */
		CSET(d, queue_size, 64);
		CSET(d, queue_enable, 1);
		settle(d);
		assert_int_equal(CGET(d, queue_size), 0);
		assert_int_equal(CGET(d, queue_enable), 0);
	}
	for (i = 0; i < d->nb_queues; i++) {
		CSET(d, queue_select, i);
		assert_true(CGET(d, queue_size) > 0);
	}
}

/* Whatever the driver does, a split queue's size is 0 or a power of 2. */
static void
split_queue_size_is_a_power_of_2(struct dev *d, uint64_t format)
{
	static const uint16_t sizes[] = {64, 3, 100, 0, 65535, 1, 32768, 4097};
	unsigned int i;
	uint16_t size;

	(void)format;
	assert_true(negotiate(d, VERSION_1));
	for (i = 0; i < d->nb_queues; i++) {
		CSET(d, queue_select, i);
		size = CGET(d, queue_size);
		assert_int_equal(size & (size - 1), 0);
	}
	CSET(d, queue_select, 0);
	for (i = 0; i < DIM(sizes); i++) {
		CSET(d, queue_size, sizes[i]);
		size = CGET(d, queue_size);
		assert_int_equal(size & (size - 1), 0);
		if ((sizes[i] & (sizes[i] - 1)) == 0)
			assert_int_equal(size, sizes[i]);
		/* and a size that is none makes no queue of another size */
		if (size == 0) {
			CSET(d, queue_enable, 1);
			settle(d);
			assert_int_equal(CGET(d, queue_enable), 0);
		}
	}
}

static void
queue_reset_reads_0_when_done(struct dev *d, uint64_t format)
{
	assert_true(negotiate(d, VERSION_1 | BIT(F_RING_RESET) | format));
	CSET(d, queue_select, 0);
	assert_int_equal(get(d, &d->common, QUEUE_RESET), 0);
	ring_setup(&d->rx, d, 0, 64);
	assert_int_equal(get(d, &d->common, QUEUE_RESET), 0);
	ring_setup(&d->tx, d, 1, 64);
	driver_ok(d);
	vq_reset(d, 0);
	settle(d);
	assert_int_equal(get(d, &d->common, QUEUE_RESET), 0);
	assert_int_equal(CGET(d, queue_enable), 0);
	CSET(d, queue_select, 1);
	assert_int_equal(CGET(d, queue_enable), 1);
	/* one that is not enabled can be reset, too, and one twice */
	vq_reset(d, 2);
	vq_reset(d, 0);
	ring_setup(&d->rx, d, 0, 64);
	assert_int_equal(get(d, &d->common, QUEUE_RESET), 0);
	frame_loops(d, 1);
}

/* Where VIRTIO_F_RING_RESET was not negotiated there is no such register. */
static void
queue_reset_is_nothing_unless_negotiated(struct dev *d, uint64_t format)
{
	start(d, format);
	CSET(d, queue_select, 0);
	set(d, &d->common, QUEUE_RESET, 1);
	settle(d);
	assert_int_equal(CGET(d, queue_enable), 1);
	frame_loops(d, 1);
}

static void
reset_queue_is_left_alone(struct dev *d, uint64_t format)
{
	int rx = irq_fd(d, 1), tx = irq_fd(d, 2);
	uint8_t *before;
	unsigned int i;

	msix_on(d);
	start(d, BIT(F_RING_RESET) | format);
	for (i = 0; i < 2; i++) {
		CSET(d, queue_select, i);
		CSET(d, queue_msix_vector, i + 1);
	}
	for (i = 0; i < 32; i++)
		buffer_post(d, 2048);
	for (i = 0; i < 16; i++)
		frame_post(d, i, 1000);
	ring_notify(&d->tx);
	ring_wait(&d->tx);
	vq_reset(d, 0);
	vq_reset(d, 1);
	raised(rx, 0);
	raised(tx, 0);
	for (i = 0; i < 16; i++) {
		frame_post(d, i, 1000);
		buffer_post(d, 2048);
	}
	ring_notify(&d->rx);
	ring_notify(&d->tx);
	before = mem_copy(d);
	nap_ms(QUIET_MS);
	assert_true(mem_same(d, before));
	assert_int_equal(raised(rx, 0) + raised(tx, 0), 0);
}

static void
reset_queue_is_as_new(struct dev *d, uint64_t format)
{
	uint8_t first[COMMON_CFG_SIZE];
	unsigned int i;

	assert_true(negotiate(d, VERSION_1 | BIT(F_RING_RESET) | format));
	CSET(d, queue_select, 0);
	for (i = 22; i < COMMON_CFG_SIZE; i++) /* of the queue */
		first[i] = get(d, &d->common, i, 1);
	CSET(d, queue_msix_vector, 1);
	ring_setup(&d->rx, d, 0, 64);
	ring_setup(&d->tx, d, 1, 64);
	driver_ok(d);
	for (i = 0; i < 100; i++)
		frame_loops(d, i);
	vq_reset(d, 0);
	for (i = 22; i < COMMON_CFG_SIZE; i++)
		assert_int_equal(get(d, &d->common, i, 1), first[i]);
	/* the available state and the used state: an empty ring starts where a new one does */
	vq_reset(d, 1);
	ring_setup(&d->rx, d, 0, 64);
	ring_setup(&d->tx, d, 1, 64);
	for (i = 0; i < 100; i++)
		frame_loops(d, i);
}

static void
queue_is_enabled_anew_with_other_parameters(struct dev *d, uint64_t format)
{
	/* packed ones may have any size (2.8.10.1) */
	const uint16_t sizes[] = {64, 16, 256, 4, format ? 100 : 128, 1 + !format, format ? 7 : 8};
	unsigned int i, k;

	start(d, BIT(F_RING_RESET) | format);
	for (i = 0; i < DIM(sizes); i++) {
		d->mem_used = i % 2 * (MEM_SIZE / 2);
		vq_reset(d, 0);
		vq_reset(d, 1);
		ring_lay(&d->rx, d, 0, sizes[i]);
		ring_lay(&d->tx, d, 1, sizes[i]);
		assert_true(ring_enable(&d->rx) && ring_enable(&d->tx));
		CSET(d, queue_select, 0);
		assert_int_equal(CGET(d, queue_size), sizes[i]);
		for (k = 0; k < 2u * sizes[i] + 3; k++)
			frame_loops(d, k);
	}
}

/* What describes a ring is read when it is enabled, and stays. */
static void
enabled_queue_keeps_its_rings(struct dev *d, uint64_t format)
{
	unsigned int i;

	start(d, format);
	for (i = 0; i < 10; i++)
		frame_loops(d, i);
	for (i = 0; i < 2; i++) {
		CSET(d, queue_select, i);
		CSET(d, queue_size, 32);
		CSET(d, queue_desc_lo, 0);
		CSET(d, queue_avail_lo, 0);
		CSET(d, queue_used_lo, 0);
		CSET(d, queue_enable, 1);
	}
	for (i = 0; i < 100; i++)
		frame_loops(d, i);
}

static void
queue_can_be_enabled_after_driver_ok(struct dev *d, uint64_t format)
{
	assert_true(negotiate(d, VERSION_1 | format));
	driver_ok(d);
	ring_setup(&d->rx, d, 0, 64);
	ring_setup(&d->tx, d, 1, 64);
	frame_loops(d, 1);
}

const struct check queue_checks[] = {
	CHECK("4.1.4.3.1", missing_queue_has_size_0),
	CHECK("4.1.4.3.1", split_queue_size_is_a_power_of_2),
	CHECK_ON("4.1.4.3.1", queue_reset_reads_0_when_done, ON_BOTH),
	CHECK_ON("2.6.1", queue_reset_is_nothing_unless_negotiated, ON_BOTH),
	CHECK_ON("2.6.1.1.1", reset_queue_is_left_alone, ON_BOTH),
	CHECK_ON("2.6.1.1.1", reset_queue_is_as_new, ON_BOTH),
	CHECK_ON("2.6.1.2.1", queue_is_enabled_anew_with_other_parameters, ON_BOTH),
	CHECK_ON("4.1.4.3", enabled_queue_keeps_its_rings, ON_BOTH),
	CHECK_ON("4.1.4.3", queue_can_be_enabled_after_driver_ok, ON_BOTH),
	{0},
};
