/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The adaptor to VDUSE (drivers/vduse) against a kernel that is played: what a container's root may
 * have the kernel say by vhost-vdpa, and what no kernel should say.
 */

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "vduse_play.h"
#include "vfn_guard.h"

/* cmocka takes the signal for itself before every test. */
static struct sigaction before;
static bool lost;

static void
buffers_come_with_the_first_kick(void **state)
{
	(void)state;
	play_open(0);
	play_start(false, false);
	/* One that is left over from before is none. */
	eventfd_write(play.q[0].kick_fd, 1);
	nap_us(20000);
	assert_string_equal(play_phase(), "waits for the first kick");
	play_buffers();
	play_frames(10);
	assert_int_equal(play_stat(1, VFN_STAT_ERRORS_ADDR), 0);
}

static void
memory_goes_while_traffic_runs(void **state)
{
	struct mock_used used;
	unsigned int i;

	(void)state;
	play_open(0);
	play_start(false, true);
	play_frames(10);
	for (i = 0; i < 3; i++) {
		uint64_t errors = play_stat(1, VFN_STAT_ERRORS_ADDR);

		play_send(1); /* waits for a receive buffer: it is in the memory that goes */
		play_unmap(BUFFERS_AT);
		assert_int_equal(play_update(BUFFERS_AT, BUFFERS_AT + BUFFERS - 1), OK);
		/* From here on nothing of it is touched: it is not there any more. */
		assert_int_equal(play_info().regions, 2);
		play_kick(1);
		assert_true(play_used(1, &used, PATIENCE_MS));
		assert_true(play_stat(1, VFN_STAT_ERRORS_ADDR) > errors);
		play_buffers();
		assert_int_equal(play_update(0, UINT64_MAX), OK);
		play_frames(10);
	}
}

static void
update_keeps_what_is_the_same(void **state)
{
	uint64_t generation;

	(void)state;
	play_open(0);
	play_start(false, true);
	play_frames(10);
	generation = play_info().bytes;
	assert_int_equal(play_update(0, UINT64_MAX), OK);
	assert_int_equal(play_update(RING_AT, RING_AT), OK);
	assert_int_equal(play_update(UINT64_MAX, UINT64_MAX), OK);
	assert_int_equal(play_update(1, 0), FAILED);
	assert_int_equal(play_info().bytes, generation);
	/* A ring whose memory went and came back would be broken. */
	play_frames(10);
}

static void
memory_of_a_ring_vanishes(void **state)
{
	(void)state;
	play_open(0);
	play_start(false, true);
	play_frames(10);
	play_unmap(RING_AT + 0x8000);
	assert_int_equal(play_update(RING_AT, RING_AT + 0xffff), OK);
	assert_int_equal(play_info().regions, 2);
	/* A queue that is broken does not stand in the way of its position. */
	play_position(1);
	play_still_works();
}

static void
memory_shrinks(void **state)
{
	struct mock_used used;

	(void)state;
	play_open(0);
	play_start(false, true);
	play_frames(10);
	play_unmap(BUFFERS_AT);
	play_map(BUFFERS_AT, BUFFERS / 2, RW);
	assert_int_equal(play_update(BUFFERS_AT, BUFFERS_AT + BUFFERS - 1), OK);
	/* Transmit buffers are in the half that is gone. */
	play_send(1);
	play_kick(1);
	assert_true(play_used(1, &used, PATIENCE_MS));
	assert_int_equal(play_stat(1, VFN_STAT_ERRORS_ADDR), 1);
	play_still_works();
}

static void
permissions_hold(void **state)
{
	struct mock_buf buf = {.len = 2048, .write = true};
	struct mock_used used;

	(void)state;
	play_open(0);
	assert_int_equal(play_status(STATUS_DRIVER), OK);
	assert_int_equal(play_status(STATUS_FEATURES), OK);
	play_rings(false);
	play_map(BUFFERS_AT, BUFFERS, VRINGH_PERM_READ);
	assert_int_equal(play_status(RUNNING), OK);
	play_wait("running");
	assert_true(mock_post(&play.q[0].drv, &buf, 1, 0, 1) >= 0);
	mock_publish(&play.q[0].drv);
	play_kick(0);
	play_send(1);
	assert_true(play_used(0, &used, PATIENCE_MS));
	assert_int_equal(used.len, 0);
	assert_int_equal(play_stat(0, VFN_STAT_ERRORS_PERM), 1);
	/* Nothing can be mapped to be written only: it is left out. */
	play_unmap(BUFFERS_AT);
	play_map(BUFFERS_AT, BUFFERS, RW);
	assert_int_equal(play_update(0, UINT64_MAX), OK);
	play_still_works();
}

/* A kernel that lies about its ranges: nothing comes of it, and it comes to an end. */
static void
ranges_that_cannot_be(void **state)
{
	int small = memfd_create("small", MFD_CLOEXEC);
	const struct play_lie overlapping[] = {
		{.start = 0x100000000, .last = 0x100000fff, .perm = 3, .fd = small},
		{.start = 0x100000800, .last = 0x1000017ff, .perm = 3, .fd = small}};
	const struct play_lie other[] = {
		/* backwards, behind, wrapped, beyond its file, all of memory, no permission */
		{.start = 0x200000fff, .last = 0x200000000, .perm = 3, .fd = small},
		{.start = 0x200000000, .last = UINT64_MAX, .perm = 3, .fd = small},
		{.start = 0x200000000, .last = 0x2000ffffff, .perm = 3, .fd = small},
		{.start = 0x200000000,
			.last = 0x200000fff,
			.perm = 3,
			.offset = UINT64_MAX - 100,
			.fd = small},
		{.start = UINT64_MAX - 0xfff,
			.last = UINT64_MAX,
			.perm = 3,
			.offset = 1 << 30,
			.fd = small}};
	const struct play_lie same = {
		.start = 0x300000000, .last = 0x300000fff, .perm = 3, .fd = small};
	unsigned int i;

	(void)state;
	assert_int_equal(ftruncate(small, 0x2000), 0);
	play_open(0);
	play_start(false, true);
	play_frames(5);

	play.lies = overlapping;
	play.next_lie = 0;
	play.nb_lies = 2;
	assert_int_equal(play_update(0x100000000, 0x1ffffffff), FAILED);
	play_frames(5);
	for (i = 0; i < DIM(other); i++) {
		play.lies = &other[i];
		play.next_lie = 0;
		play.nb_lies = 1;
		assert_int_equal(play_update(0x200000000, UINT64_MAX), FAILED);
	}
	play_frames(5);
	/* The same again and again. */
	play.lies = &same;
	play.next_lie = 0;
	play.nb_lies = 1;
	play.lie_for_ever = true;
	play.nb_fds = 0;
	assert_int_equal(play_update(0x300000000, 0x3ffffffff), FAILED);
	assert_true(play.nb_fds < 10);
	play.nb_lies = 0;
	assert_int_equal(play_update(0, UINT64_MAX), OK);
	assert_int_equal(play_info().regions, 3);
	play_frames(5);
	close(small);
}

static void
more_memory_than_there_may_be(void **state)
{
	static struct play_lie many[600];
	int fd = memfd_create("many", MFD_CLOEXEC);
	unsigned int i;

	(void)state;
	assert_int_equal(ftruncate(fd, 0x1000), 0);
	for (i = 0; i < DIM(many); i++)
		many[i] = (struct play_lie){.start = 0x100000000 + i * 0x1000,
			.last = 0x100000fff + i * 0x1000,
			.perm = 3,
			.fd = fd};
	play_open(0);
	play_start(false, true);
	play.lies = many;
	play.nb_lies = DIM(many);
	assert_int_equal(play_update(0x100000000, UINT64_MAX), FAILED);
	assert_true(play_info().regions <= 512);
	play_frames(5);
	play_still_works();
	close(fd);
}

/* The file is cut off under us: the device rests, until its driver begins anew. */
static void
memory_is_cut_off(void **state)
{
	uint64_t offset;

	(void)state;
	sigaction(SIGBUS, &before, NULL);
	play_open(0);
	play_start(false, true);
	play_frames(10);
	play_send(1);
	assert_int_equal(ftruncate(mock_mem_fd(&play.mem, BUFFERS_AT, &offset), 0), 0);
	play_kick(1);
	nap_us(50000);
	play_position(0);
	play_still_works();
}

static void
status_has_an_order(void **state)
{
	(void)state;
	play_open(0);
	play_rings(false);
	play_buffers();
	assert_int_equal(play_status(STATUS_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK), FAILED);
	assert_int_equal(play_status(0x40), FAILED); /* NEEDS_RESET is not the driver's */
	assert_int_equal(play_status(STATUS_DRIVER), OK);
	assert_int_equal(play_status(VIRTIO_CONFIG_S_ACKNOWLEDGE), FAILED);
	/* Features that were not offered, or without the one that VDUSE needs. */
	play.features |= BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) << 40;
	assert_int_equal(play_status(STATUS_FEATURES), FAILED);
	play.features = BIT(VIRTIO_F_VERSION_1);
	assert_int_equal(play_status(STATUS_FEATURES), FAILED);
	play.features |= BIT(VIRTIO_F_ACCESS_PLATFORM);
	/* Two steps at once are none too many. */
	assert_int_equal(play_status(RUNNING), OK);
	play_wait("running");
	assert_int_equal(play_status(RUNNING | VIRTIO_CONFIG_S_FAILED), OK);
	assert_string_equal(play_phase(), "failed");
	assert_int_equal(play_info().regions, 0);
	play_still_works();
}

static void
messages_that_cannot_be(void **state)
{
	struct vduse_dev_request r = {.type = 77};
	struct vduse_dev_response response;

	(void)state;
	play_open(0);
	play_start(false, true);
	assert_int_equal(play_ask(&r, &response), FAILED);
	r = (struct vduse_dev_request){.type = VDUSE_GET_VQ_STATE, .vq_state.index = 2};
	assert_int_equal(play_ask(&r, &response), FAILED);
	r.vq_state.index = UINT32_MAX;
	assert_int_equal(play_ask(&r, &response), FAILED);
	/* Half a message is none, and a read that is interrupted is done again. */
	assert_int_equal(write(play.here, &r, 10), 10);
	play.interrupt_reads = 5;
	assert_int_equal(play_update(0, UINT64_MAX), OK);
	play_frames(10);
	assert_int_equal(play_info().refused, 3);
}

static void
messages_in_any_order(void **state)
{
	uint64_t seed = 17;
	unsigned int i;

	(void)state;
	play_open(50);
	play_rings(false);
	play_buffers();
	for (i = 0; i < 3000; i++) {
		uint64_t x = mock_random(&seed);
		struct vduse_dev_request r = {.type = x % 4};
		struct vduse_dev_response response;

		if (r.type == VDUSE_GET_VQ_STATE)
			r.vq_state.index = x >> 8 & 3;
		else if (r.type == VDUSE_SET_STATUS)
			r.s.status = x >> 9 & 1 ? RUNNING : x >> 8;
		else if (r.type == VDUSE_UPDATE_IOTLB)
			r.iova = (struct vduse_iova_range){
				x >> 8 & 1 ? 0 : mock_random(&seed), mock_random(&seed)};
		if (r.type == VDUSE_SET_STATUS && (x >> 20 & 3) == 0)
			r.s.status = 0;
		if ((x >> 24 & 15) == 0) {
			play.features = x >> 32 & 1 ? play.features : mock_random(&seed);
			play.q[x >> 33 & 1].info.desc_addr ^= x >> 34 & 0x1ffff;
			play.q[x >> 33 & 1].info.ready = x >> 60 & 1;
		}
		if (r.type == VDUSE_SET_STATUS)
			assert_true(play_status(r.s.status) >= 0);
		else
			assert_true(play_ask(&r, &response) >= 0);
	}
	play_still_works();
}

static void
kernel_gives_up(void **state)
{
	(void)state;
	play_open(0);
	play_start(false, true);
	play_frames(10);
	close(play.here);
	play.here = -1;
	play_wait("given up by the kernel");
	assert_int_equal(play_info().regions, 0);
}

static void
configuration_is_told(void **state)
{
	unsigned int before;

	(void)state;
	play_open(0);
	play_start(false, true);
	before = play.config_irqs;
	assert_int_equal(play.config.status, VIRTIO_NET_S_LINK_UP);
	vfn_manage_link(play.fn, false);
	pthread_mutex_lock(&play.pci_lock);
	vfn_vduse_config_changed(play.vduse);
	pthread_mutex_unlock(&play.pci_lock);
	assert_int_equal(play.config.status, 0);
	assert_int_equal(play.config_irqs, before + 1);
}

static void
version_is_agreed_on(void **state)
{
	struct vfn_vduse *vduse;

	(void)state;
	play_open(0);
	play.version = 0;
	assert_int_equal(play_create("vd", 0, &vduse), 0);
	vfn_vduse_close(vduse, false);
	play.version_gone = true;
	assert_int_equal(play_create("vd", 0, &vduse), -EINVAL);
}

static void
names_that_cannot_be(void **state)
{
	char longest[VDUSE_NAME_MAX + 1] = {0};
	const char *const bad[] = {"", ".", "..", "a/b", "control", longest};
	struct vfn_vduse *vduse;
	unsigned int i;

	(void)state;
	play_open(0);
	memset(longest, 'x', VDUSE_NAME_MAX);
	for (i = 0; i < DIM(bad); i++)
		assert_int_equal(play_create(bad[i], 0, &vduse), -EINVAL);
	longest[VDUSE_NAME_MAX - 1] = '\0';
	assert_int_equal(play_create(longest, 0, &vduse), 0);
	vfn_vduse_close(vduse, false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(buffers_come_with_the_first_kick, play_close),
		cmocka_unit_test_teardown(memory_goes_while_traffic_runs, play_close),
		cmocka_unit_test_teardown(update_keeps_what_is_the_same, play_close),
		cmocka_unit_test_teardown(memory_of_a_ring_vanishes, play_close),
		cmocka_unit_test_teardown(memory_shrinks, play_close),
		cmocka_unit_test_teardown(permissions_hold, play_close),
		cmocka_unit_test_teardown(ranges_that_cannot_be, play_close),
		cmocka_unit_test_teardown(more_memory_than_there_may_be, play_close),
		cmocka_unit_test_teardown(memory_is_cut_off, play_close),
		cmocka_unit_test_teardown(status_has_an_order, play_close),
		cmocka_unit_test_teardown(messages_that_cannot_be, play_close),
		cmocka_unit_test_teardown(messages_in_any_order, play_close),
		cmocka_unit_test_teardown(kernel_gives_up, play_close),
		cmocka_unit_test_teardown(configuration_is_told, play_close),
		cmocka_unit_test_teardown(version_is_agreed_on, play_close),
		cmocka_unit_test_teardown(names_that_cannot_be, play_close),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	/* The handler of the guard is there with the first map. */
	assert_int_equal(vfn_guard_add(&before, 1, &lost), 0);
	vfn_guard_remove(&before, &lost);
	sigaction(SIGBUS, NULL, &before);
	return cmocka_run_group_tests_name("vduse", tests, NULL, NULL);
}
