/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Available buffer notifications (virtio 1.3, 2.9, 4.1.5.2), to a device that waits for them. */

#include "device.h"

/*
 * The device may look on its own, and does before it sleeps. So until a frame stays where it is
 * for a while: only a notification can have moved it then.
 */
static void
frame_needs_its_notification(struct dev *d, uint32_t number)
{
	unsigned int i;

	for (i = 0; i < 50; i++) {
		d->mem_used = MEM_SIZE / 2;
		nap_ms(5);
		buffer_post(d, 2048);
		frame_post(d, number, 300);
		if (ring_quiet(&d->tx, QUIET_MS)) {
			ring_notify(&d->tx);
			i = UINT32_MAX - 1;
		}
		assert_int_equal(ring_wait(&d->rx), 300);
		ring_wait(&d->tx);
	}
	assert_int_equal(i, UINT32_MAX);
}

static void
notification_is_the_index_of_the_queue(struct dev *d, uint64_t format)
{
	unsigned int i;

	start_asleep(d, format);
	for (i = 0; i < 3; i++)
		frame_needs_its_notification(d, i);
}

static void
notification_has_the_position(struct dev *d, uint64_t format)
{
	unsigned int i;

	assert_true(offered(d) & BIT(F_NOTIFICATION_DATA));
	start_asleep(d, BIT(F_NOTIFICATION_DATA) | format);
	for (i = 0; i < 3; i++)
		frame_needs_its_notification(d, i);
	/* with all positions, over the end of the ring */
	for (i = 0; i < 200; i++)
		frame_loops(d, i);
}

static void
notification_has_data_of_the_device(struct dev *d, uint64_t format)
{
	const uint64_t both = BIT(F_NOTIFICATION_DATA) | BIT(F_NOTIF_CONFIG_DATA);
	uint16_t before;
	unsigned int i;

	assert_true(offered(d) & BIT(F_NOTIF_CONFIG_DATA));
	for (i = 0; i < 2; i++) {
		dev_reset(d);
		d->mem_used = 0;
		start_asleep(d, (i == 0 ? BIT(F_NOTIF_CONFIG_DATA) : both) | format);
		/* it is the device's */
		CSET(d, queue_select, 1);
		before = get(d, &d->common, QUEUE_NOTIF_DATA);
		set(d, &d->common, QUEUE_NOTIF_DATA, before ^ 0xffff);
		assert_int_equal(get(d, &d->common, QUEUE_NOTIF_DATA), before);
		frame_needs_its_notification(d, i);
	}
}

/* With nothing in the ring, with a position that is wrong, of a queue that is off: nothing. */
static void
spurious_notifications_are_harmless(struct dev *d, uint64_t format)
{
	const uint64_t features[] = {0, BIT(F_NOTIFICATION_DATA)};
	unsigned int i, k, q;

	for (k = 0; k < DIM(features); k++) {
		dev_reset(d);
		d->mem_used = 0;
		assert_true(negotiate(d, VERSION_1 | (features[k] & offered(d)) | format));
		for (q = 0; q < d->nb_queues; q++)
			bar_set(d, d->notify.bar, d->notify.offset + q * d->multiplier, 2, q);
		ring_setup(&d->rx, d, 0, 64);
		ring_setup(&d->tx, d, 1, 64);
		driver_ok(d);
		for (i = 0; i < 100; i++) {
			for (q = 0; q < d->nb_queues; q++) {
				const uint64_t at = d->notify.offset + q * d->multiplier;

				bar_set(d, d->notify.bar, at, 2, q);
				bar_set(d, d->notify.bar, at, 4, 0xdead0000 * i + q);
				bar_set(d, d->notify.bar, at, 4, UINT32_MAX);
			}
			frame_loops(d, i);
		}
		assert_int_equal(status_now(d), S_RUNNING);
	}
}

#define ASLEEP(s, f) \
	{ \
		.section = s, .name = #f, .run = f, .formats = ON_BOTH, .conf.sleep = true \
	}

const struct check notify_checks[] = {
	ASLEEP("4.1.5.2", notification_is_the_index_of_the_queue),
	ASLEEP("2.9", notification_has_the_position),
	ASLEEP("4.1.5.2", notification_has_data_of_the_device),
	CHECK_ON("2.7.10.2", spurious_notifications_are_harmless, ON_BOTH),
	{0},
};
