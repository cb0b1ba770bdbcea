/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Queues of the adaptor to VDUSE (drivers/vduse) against a kernel that is played: frames,
 * interrupts, where rings are and stand, and who serves them next.
 */

#include <rte_log.h>

#include "vduse_play.h"

static void
frames_pass(bool packed)
{
	struct vduse_vq_state at;

	play_open(0);
	play_start(packed, true);
	play_frames(300);
	assert_true(play.q[0].irqs > 0 && play.q[0].irqs <= 300);
	assert_int_equal(play_info().refused, 0);
	at = play_position(1);
	if (packed) {
		assert_int_equal(at.packed.last_avail_idx, 300 - 256);
		assert_int_equal(at.packed.last_avail_counter, 0);
		assert_int_equal(at.packed.last_used_idx, 300 - 256);
	} else {
		assert_int_equal(at.split.avail_index, 300);
	}
	/* It stands still, and the other one does not. */
	play_send(1);
	nap_us(20000);
	assert_false(mock_has_used(&play.q[1].drv));
	assert_int_equal(play_status(0), OK);
	assert_int_equal(play_info().regions, 0);
	assert_string_equal(play_phase(), "no driver");
	assert_int_equal(play.begun, 1);
	assert_int_equal(play.ended, 1);
}

static void
frames_pass_split(void **state)
{
	(void)state;
	frames_pass(false);
}

static void
frames_pass_packed(void **state)
{
	(void)state;
	frames_pass(true);
}

/* Sends so many at once, and waits until all are back. */
static void
burst(unsigned int n)
{
	struct mock_buf buf = {.len = 2048, .write = true};
	struct mock_used used;
	unsigned int i;

	for (i = 0; i < n; i++)
		assert_true(mock_post(&play.q[0].drv, &buf, 1, 0, i) >= 0);
	mock_publish(&play.q[0].drv);
	play_kick(0);
	for (i = 0; i < n; i++)
		play_prepare(i);
	mock_publish(&play.q[1].drv);
	play_kick(1);
	for (i = 0; i < 2 * n; i++)
		assert_true(play_used(i < n, &used, PATIENCE_MS));
}

static uint64_t
irqs(uint32_t queue)
{
	uint64_t n;

	pthread_mutex_lock(&play.lock);
	n = play.q[queue].irqs;
	pthread_mutex_unlock(&play.lock);
	return n;
}

static void
irqs_if_wanted(bool packed)
{
	uint64_t before;
	uint32_t i;

	play_open(0);
	play_start(packed, true);
	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		mock_events_disable(&play.q[i].drv);
	burst(32);
	nap_us(20000);
	assert_int_equal(irqs(0) + irqs(1), 0);
	/* One for all of a burst. */
	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		mock_events_enable(&play.q[i].drv, 0);
	for (i = 0; i < 10; i++) {
		before = irqs(0);
		burst(32);
		while (irqs(0) == before)
			nap_us(100);
	}
	assert_true(irqs(0) <= 2 * 10 && irqs(1) <= 2 * 10);
	assert_int_equal(play_info().interrupts, irqs(0) + irqs(1));
}

static void
irqs_if_wanted_split(void **state)
{
	(void)state;
	irqs_if_wanted(false);
}

static void
irqs_if_wanted_packed(void **state)
{
	(void)state;
	irqs_if_wanted(true);
}

/* Up to DRIVER_OK, with a ring of queue 1 that has something wrong with it. */
static void
start_with(bool packed, const struct vduse_vq_info *bad, char *log, size_t size)
{
	FILE *file = fmemopen(log, size, "w");

	assert_non_null(file);
	rte_openlog_stream(file);
	play.features = PLAY_FEATURES | (packed ? BIT(VIRTIO_F_RING_PACKED) : 0);
	assert_int_equal(play_status(STATUS_DRIVER), OK);
	assert_int_equal(play_status(STATUS_FEATURES), OK);
	play_rings(packed);
	play_buffers();
	pthread_mutex_lock(&play.lock);
	play.q[1].info = *bad;
	play.q[1].info.ready = 1;
	pthread_mutex_unlock(&play.lock);
	assert_int_equal(play_status(RUNNING), OK);
	play_wait("running");
	rte_openlog_stream(stderr);
	fclose(file);
}

static void
one_queue_is_off(const char *log, const char *why)
{
	struct vfn_vpci_queue q[VFN_VDUSE_QUEUES];
	uint32_t i;

	pthread_mutex_lock(&play.pci_lock);
	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		vfn_vpci_queue_info(&play.pci, i, &q[i]);
	pthread_mutex_unlock(&play.pci_lock);
	/* The other one is used all the same. */
	assert_true(q[0].enabled);
	if (q[1].enabled)
		fail_msg("runs, instead of \"%s\"", why);
	if (strstr(log, "/dev/vduse/vd: queue 1 stays off: ") == NULL || strstr(log, why) == NULL)
		fail_msg("not \"%s\" but: %s", why, log);
	play_still_works();
	assert_int_equal(play_status(0), OK);
	play_clear();
}

#define AT (RING_AT + 0x8000)
#define SIZED(n, d, a, u) \
	{ \
		.num = (n), .desc_addr = (d), .driver_addr = (a), .device_addr = (u) \
	}

static void
rings_that_cannot_be(void **state)
{
	static const char size[] = "its size is not offered", memory[] = "not in the memory",
			  function[] = "the function refuses it";
	const struct {
		struct vduse_vq_info info;
		const char *why;
	} bad[] = {
		{SIZED(0, AT, AT + 0x1000, AT + 0x1204), size},
		{SIZED(2048, BUFFERS_AT, BUFFERS_AT + 0x8000, BUFFERS_AT + 0x10000), size},
		{SIZED(32769, AT, AT + 0x1000, AT + 0x1204), size},
		{SIZED(UINT32_MAX, AT, AT + 0x1000, AT + 0x1204), size},
		/* all of it in front of, behind, or at the end of memory */
		{SIZED(256, 0x10, AT + 0x1000, AT + 0x1204), memory},
		{SIZED(256, UINT64_MAX - 15, AT + 0x1000, AT + 0x1204), memory},
		{SIZED(256, AT, UINT64_MAX, AT + 0x1204), memory},
		{SIZED(256, AT, AT + 0x1000, AT - 4), memory},
		/* more entries than there is room for */
		{SIZED(512, AT, AT + 0x1000, AT + 0x1204), memory},
		/* not a power of two, unaligned, on top of each other */
		{SIZED(255, AT, AT + 0x1000, AT + 0x1204), function},
		{SIZED(128, AT + 1, AT + 0x1000, AT + 0x1204), function},
		{SIZED(128, AT, AT + 0x1001, AT + 0x1204), function},
		{SIZED(128, AT, AT + 0x1000, AT + 0x1202), function},
		{SIZED(256, AT, AT, AT + 0x1204), function},
		{SIZED(256, AT, AT + 0x1000, AT + 0x1000), function},
	};
	char log[2000];
	unsigned int i;

	(void)state;
	for (i = 0; i < DIM(bad); i++) {
		/* another one: each says so many lines */
		play_open(0);
		start_with(false, &bad[i].info, log, sizeof(log));
		one_queue_is_off(log, bad[i].why);
		play_close(state);
	}
}

/* Of a packed ring the kernel tells where it stands. */
static void
positions_that_cannot_be(void **state)
{
	static const char none[] = "its position is none of a ring",
			  function[] = "the function refuses it";
	const struct {
		struct vduse_vq_state_packed at;
		const char *why;
	} bad[] = {
		{{.last_avail_counter = 1, .last_avail_idx = 256}, function},
		{{.last_used_counter = 1, .last_used_idx = 256}, function},
		{{.last_avail_counter = 1, .last_avail_idx = 0x8000}, none},
		{{.last_avail_counter = 2}, none},
		{{.last_used_idx = UINT16_MAX}, none},
		{{.last_used_counter = UINT16_MAX}, none},
	};
	struct vduse_vq_info info;
	char log[2000];
	unsigned int i;

	(void)state;
	play_open(0);
	for (i = 0; i < DIM(bad); i++) {
		info = (struct vduse_vq_info)SIZED(256, AT, AT + 0x1000, AT + 0x1004);
		info.packed = bad[i].at;
		start_with(true, &info, log, sizeof(log));
		one_queue_is_off(log, bad[i].why);
	}
}

static void
queues_are_ready_later_or_never(void **state)
{
	(void)state;
	play_open(300);
	assert_int_equal(play_status(STATUS_DRIVER), OK);
	assert_int_equal(play_status(STATUS_FEATURES), OK);
	play_rings(false);
	play_buffers();
	play.q[1].info.ready = 0;
	assert_int_equal(play_status(RUNNING), OK);
	nap_us(50000);
	assert_string_equal(play_phase(), "queues are not ready");
	play.q[1].info.ready = 1;
	play_wait("running");
	play_frames(10);
	assert_int_equal(play_status(0), OK);

	play_clear();
	assert_int_equal(play_status(STATUS_DRIVER), OK);
	assert_int_equal(play_status(STATUS_FEATURES), OK);
	play_rings(false);
	play_buffers();
	play.q[1].info.ready = 0;
	assert_int_equal(play_status(RUNNING), OK);
	play_wait("running");
	play_still_works();
}

static void
successor_goes_on_split(void **state)
{
	(void)state;
	play_open(0);
	play_start(false, true);
	play_frames(100);
	play_serve_anew();
	play_wait("running");
	play_frames(100);
	assert_int_equal(play_position(1).split.avail_index, 200);
}

static void
successor_goes_on_packed(void **state)
{
	(void)state;
	play_open(0);
	play_start(true, true);
	play_frames(300);
	play.know = true;
	play_serve_anew();
	play_wait("running");
	play_frames(100);
	/* And where nobody knows where it stands it is left alone. */
	play.know = false;
	play_serve_anew();
	play_wait("running");
	play_send(1);
	nap_us(20000);
	assert_false(mock_has_used(&play.q[1].drv));
}

/* What is under way when one server ends comes to the next: once, in order, whole. */
static void
successor_has_what_is_under_way(bool packed)
{
	struct mock_buf buf = {.len = 2048, .write = true};
	struct mock_used used;
	unsigned int i, round;

	play_open(0);
	play_start(packed, true);
	play.know = true;
	for (round = 0; round < 20; round++) {
		for (i = 0; i < 200; i++)
			assert_true(mock_post(&play.q[0].drv, &buf, 1, 0, i) >= 0);
		mock_publish(&play.q[0].drv);
		play_kick(0);
		for (i = 0; i < 200; i++)
			play_send(i);
		/* Sooner or later while it works on them. */
		nap_us(round * 10);
		play_serve_anew();
		play_wait("running");
		for (i = 0; i < 200; i++) {
			assert_true(play_used(1, &used, PATIENCE_MS));
			assert_int_equal(used.token, i);
			play_receive(i);
		}
		assert_false(mock_has_used(&play.q[0].drv));
	}
}

static void
successor_has_what_is_under_way_split(void **state)
{
	(void)state;
	successor_has_what_is_under_way(false);
}

static void
successor_has_what_is_under_way_packed(void **state)
{
	(void)state;
	successor_has_what_is_under_way(true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(frames_pass_split, play_close),
		cmocka_unit_test_teardown(frames_pass_packed, play_close),
		cmocka_unit_test_teardown(irqs_if_wanted_split, play_close),
		cmocka_unit_test_teardown(irqs_if_wanted_packed, play_close),
		cmocka_unit_test_teardown(rings_that_cannot_be, play_close),
		cmocka_unit_test_teardown(positions_that_cannot_be, play_close),
		cmocka_unit_test_teardown(queues_are_ready_later_or_never, play_close),
		cmocka_unit_test_teardown(successor_goes_on_split, play_close),
		cmocka_unit_test_teardown(successor_goes_on_packed, play_close),
		cmocka_unit_test_teardown(successor_has_what_is_under_way_split, play_close),
		cmocka_unit_test_teardown(successor_has_what_is_under_way_packed, play_close),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	return cmocka_run_group_tests_name("vduse_queue", tests, NULL, NULL);
}
