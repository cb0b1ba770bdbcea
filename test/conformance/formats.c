/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What is peculiar to split rings (virtio 1.3, 2.7) and to packed ones (2.8). */

#include "device.h"

/* ---- split ---- */

static void
descriptor_table_is_not_written(struct dev *d, uint64_t format)
{
	static struct vring_desc before[64];
	static uint8_t avail[6 + 2 * 64];
	unsigned int i;

	(void)format;
	start(d, INDIRECT);
	for (i = 0; i < 64; i++)
		buffer_post(d, 2048);
	for (i = 0; i < 64; i++)
		frame_post(d, i, 500);
	memcpy(before, d->rx.desc, sizeof(before));
	memcpy(avail, d->rx.avail, sizeof(avail));
	ring_notify(&d->rx);
	ring_notify(&d->tx);
	for (i = 0; i < 64; i++) {
		ring_wait(&d->rx);
		ring_wait(&d->tx);
	}
	assert_memory_equal(d->rx.desc, before, sizeof(before));
	assert_memory_equal(d->rx.avail, avail, sizeof(avail));
}

static void
descriptors_may_come_before_a_table(struct dev *d, uint64_t format)
{
	struct elem out[4], in[4];
	unsigned int i, direct;
	uint8_t *got[4];
	uint32_t number;

	(void)format;
	start(d, INDIRECT);
	for (number = 0; number < 50; number++) {
		const uint64_t used = d->mem_used;
		uint8_t sent[400], whole[400];

		direct = number % 4;
		frame_write(sent, number, sizeof(sent));
		for (i = 0; i < 4; i++) {
			out[i] = (struct elem){.len = 100};
			memcpy(mem_alloc(d, 100, &out[i].at), sent + 100 * i, 100);
			in[i] = (struct elem){.len = 100, .write = true};
			got[i] = mem_alloc(d, 100, &in[i].at);
		}
		ring_post(&d->rx, in, 4, direct);
		ring_post(&d->tx, out, 4, direct);
		ring_notify(&d->rx);
		ring_notify(&d->tx);
		assert_int_equal(ring_wait(&d->rx), sizeof(sent));
		ring_wait(&d->tx);
		for (i = 0; i < 4; i++)
			memcpy(whole + 100 * i, got[i], 100);
		assert_memory_equal(whole + HDR, sent + HDR, sizeof(sent) - HDR);
		d->mem_used = used;
	}
}

/* A frame arrives; was the receive queue's driver called? */
static bool
called(struct dev *d, uint32_t number, int fd, bool expected)
{
	raised(fd, 0);
	frame_loops(d, number);
	return raised(fd, expected ? PATIENCE_MS : 5) > 0;
}

static int
call_fd(struct dev *d)
{
	msix_on(d);
	CSET(d, queue_select, 0);
	CSET(d, queue_msix_vector, 1);
	return irq_fd(d, 1);
}

static void
avail_flags_ask_for_notifications(struct dev *d, uint64_t format)
{
	unsigned int i;
	int fd;

	(void)format;
	start(d, 0);
	fd = call_fd(d);
	for (i = 0; i < 20; i++) {
		/* used_event is nothing without EVENT_IDX */
		d->rx.avail->ring[64] = i % 3 == 0 ? d->rx.used_idx : 0x4000 + i;
		ring_events(&d->rx, i % 2 == 0);
		assert_int_equal(called(d, i, fd, i % 2 == 0), i % 2 == 0);
	}
}

static void
used_event_asks_for_notifications(struct dev *d, uint64_t format)
{
	unsigned int i;
	int fd;

	(void)format;
	start(d, EVENT_IDX);
	fd = call_fd(d);
	for (i = 0; i < 30; i++) {
		/* the lower bit of flags is nothing with EVENT_IDX */
		d->rx.avail->flags = i % 5 == 0;
		/* at once, with the third from now, or not */
		d->rx.avail->ring[64] = d->rx.used_idx + (i % 3 == 1 ? 2 : i % 3 == 2 ? -1 : 0);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (i % 3 == 1) {
			assert_false(called(d, 1, fd, false));
			assert_false(called(d, 2, fd, false));
			assert_true(called(d, 3, fd, true));
		} else {
			assert_int_equal(called(d, i, fd, i % 3 == 0), i % 3 == 0);
		}
	}
}

static void
used_flags_are_valid(struct dev *d, uint64_t format)
{
	uint64_t end = clock_ms() + PATIENCE_MS;
	unsigned int i, k;
	bool asks;

	(void)format;
	for (k = 0; k < 2; k++) {
		dev_reset(d);
		start_asleep(d, k == 0 ? 0 : EVENT_IDX);
		/* also those that it writes before it sleeps */
		for (i = 0, asks = false; i < 50 || !asks; i++) {
			assert_true(clock_ms() < end);
			d->mem_used = MEM_SIZE / 2;
			frame_loops(d, i);
			assert_in_range(d->rx.used->flags, 0, k == 0 ? 1 : 0);
			assert_in_range(d->tx.used->flags, 0, k == 0 ? 1 : 0);
			nap_ms(i % 10 == 0);
			asks |= d->tx.used->flags == 0;
		}
	}
}

/* ---- packed ---- */

#define AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED  (1u << VRING_PACKED_DESC_F_USED)

/* A descriptor is the device's when AVAIL has changed, and not before. */
static void
descriptor_waits_for_its_avail_bit(struct dev *d, uint64_t format)
{
	struct elem e = {.len = 100};
	uint16_t at, flags, i;
	uint8_t *before;

	start(d, format);
	for (i = 0; i < 64; i++)
		buffer_post(d, 2048);
	/* in the first lap and in the second */
	for (i = 0; i < 100; i++) {
		at = d->tx.next;
		flags = d->tx.wrap ? 0 : AVAIL | USED; /* as in the lap before */
		frame_write(mem_alloc(d, e.len, &e.at), i, e.len);
		d->tx.slot[at] = (struct vring_packed_desc){
			.addr = e.at, .len = e.len, .id = at, .flags = flags};
		if (i % 16 == 0) {
			ring_notify(&d->tx);
			before = mem_copy(d);
			nap_ms(2);
			assert_true(mem_same(d, before));
		}
		ring_post(&d->tx, &e, 1, 1);
		ring_notify(&d->tx);
		ring_wait(&d->tx);
		assert_int_equal(ring_wait(&d->rx), e.len);
		buffer_post(d, 2048);
	}
}

static void
used_descriptor_is_not_changed_again(struct dev *d, uint64_t format)
{
	struct vring_packed_desc seen[64];
	unsigned int i;

	start(d, format);
	for (i = 0; i < 64; i++) {
		frame_loops(d, i);
		memcpy(&seen[i], &d->rx.slot[i], sizeof(seen[i]));
		assert_memory_equal(d->rx.slot, seen, (i + 1) * sizeof(seen[0]));
	}
}

static void
driver_event_area_asks_for_notifications(struct dev *d, uint64_t format)
{
	unsigned int i;
	int fd;

	start(d, format);
	fd = call_fd(d);
	for (i = 0; i < 20; i++) {
		d->rx.driver_event->off_wrap = i;
		ring_events(&d->rx, i % 2 == 0);
		assert_int_equal(called(d, i, fd, i % 2 == 0), i % 2 == 0);
	}
}

static void
driver_event_position_asks_for_notifications(struct dev *d, uint64_t format)
{
	struct ring *r = &d->rx;
	uint16_t at, wrap;
	unsigned int i, k;
	int fd;

	start(d, EVENT_IDX | format);
	fd = call_fd(d);
	for (i = 0; i < 40; i++) {
		/* with the third from now, over the end of the ring, too */
		at = r->used_idx + 2;
		wrap = r->used_wrap;
		if (at >= r->size) {
			at -= r->size;
			wrap = !wrap;
		}
		r->driver_event->off_wrap = at | wrap << 15;
		r->driver_event->flags = VRING_PACKED_EVENT_FLAG_DESC;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		for (k = 0; k < 3; k++)
			assert_int_equal(called(d, i, fd, k == 2), k == 2);
	}
	ring_events(r, false);
	assert_false(called(d, 1, fd, false));
	ring_events(r, true);
	assert_true(called(d, 1, fd, true));
}

/* False: the device asks for no notifications. */
static bool
device_event_asks(const struct ring *r)
{
	uint16_t flags = __atomic_load_n(&r->device_event->flags, __ATOMIC_ACQUIRE);

	assert_in_range(flags, VRING_PACKED_EVENT_FLAG_ENABLE,
		r->event_idx ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_DISABLE);
	if (flags == VRING_PACKED_EVENT_FLAG_DESC)
		assert_in_range(r->device_event->off_wrap & 0x7fff, 0, r->size - 1);
	return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
}

static void
device_event_area_is_valid(struct dev *d, uint64_t format)
{
	uint64_t end = clock_ms() + PATIENCE_MS;
	unsigned int i, k;
	bool asks;

	for (k = 0; k < 2; k++) {
		dev_reset(d);
		start_asleep(d, (k == 0 ? 0 : EVENT_IDX) | format);
		for (i = 0, asks = false; i < 50 || !asks; i++) {
			assert_true(clock_ms() < end);
			d->mem_used = MEM_SIZE / 2;
			frame_loops(d, i);
			device_event_asks(&d->rx);
			nap_ms(i % 10 == 0);
			asks |= device_event_asks(&d->tx);
		}
	}
}

/* On a function whose pollers sleep. */
#define CHECK_ASLEEP(s, f, which) \
	{ \
		.section = s, .name = #f, .run = f, .formats = which, .conf.sleep = true \
	}

const struct check split_checks[] = {
	CHECK_ON("2.7.5.1", descriptor_table_is_not_written, ON_SPLIT),
	CHECK_ON("2.7.5.3.2", descriptors_may_come_before_a_table, ON_SPLIT),
	CHECK_ON("2.7.7.2", avail_flags_ask_for_notifications, ON_SPLIT),
	CHECK_ON("2.7.7.2", used_event_asks_for_notifications, ON_SPLIT),
	CHECK_ASLEEP("2.7.10.2", used_flags_are_valid, ON_SPLIT),
	{0},
};

const struct check packed_checks[] = {
	CHECK_ON("2.8.15", descriptor_waits_for_its_avail_bit, ON_PACKED),
	CHECK_ON("2.8.15", used_descriptor_is_not_changed_again, ON_PACKED),
	CHECK_ON("2.8.10", driver_event_area_asks_for_notifications, ON_PACKED),
	CHECK_ON("2.8.10", driver_event_position_asks_for_notifications, ON_PACKED),
	CHECK_ASLEEP("2.8.10", device_event_area_is_valid, ON_PACKED),
	{0},
};
