/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What an endpoint's device keeps and what goes: migration, dirty pages, clients that leave,
 * storms. */

#include <rte_common.h>

#include "ep_rig.h"

#define PAGE	   4096u
#define MSIX_ENTRY 16
#define STATE_MAX  65536

static struct frame f, got;

/* ---- migration ---- */

static size_t
state_read(struct rig *r, uint8_t *data)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = vfu_client_state_read(r->client, data + len, 1000);
		assert_true(n >= 0);
		len += n;
		assert_true(len <= STATE_MAX - 1000);
	} while (n == 1000);
	return len;
}

/* Another endpoint gets the guest with its memory. */
static struct rig *
take_over(struct rig *from, struct guest *g, const struct guest_conf *conf)
{
	struct guest_conf other = *conf;
	struct rig *to;
	unsigned int i;

	other.name = "fn2";
	to = rig_new(&other, NULL);
	rig_connect(to);
	for (i = 0; i < from->nb_maps; i++) {
		assert_int_equal(vfu_client_dma_map(to->client, &from->map[i]), 0);
		to->map[to->nb_maps++] = from->map[i];
	}
	for (i = 0; i < 2; i++) {
		assert_int_equal(to->link.ops->set_irq(&to->link, i + 1, g->q[i].call), 0);
		assert_int_equal(to->link.ops->set_doorbell(&to->link, i, g->q[i].kick), 0);
	}
	g->link = g->conf.link = &to->link;
	to->guest = g;
	from->guest = NULL;
	return to;
}

/* What is on the way when the device stops arrives behind the move, all of it and in order. */
static void
guest_goes_on_elsewhere(const struct shape *shape)
{
	const struct guest_conf conf = {
		.features = shape_features(shape) | BIT(VIRTIO_NET_F_STATUS)};
	static uint8_t data[STATE_MAX];
	struct rig *from, *to;
	struct guest *g = rig_guest_on(&from, &conf);
	uint32_t number;
	size_t len, at;
	unsigned int i;

	rx_post(g, 0, 32, 2048, 1);
	for (number = 0; number < 8; number++)
		rig_echo(g, number);
	mig_go_to(from, VFIO_DEVICE_STATE_STOP);
	for (i = 0; i < 8; i++) {
		frame_make(&f, number + i, 100);
		tx_send(g, 1, &f);
	}
	nap_us(20000);
	assert_false(mock_has_used(&g->q[0].drv));
	mig_go_to(from, VFIO_DEVICE_STATE_STOP_COPY);
	len = state_read(from, data);
	assert_true(len > 500);

	to = take_over(from, g, &conf);
	mig_go_to(to, VFIO_DEVICE_STATE_RESUMING);
	for (at = 0; at < len; at += RTE_MIN(len - at, 700u))
		assert_int_equal(
			vfu_client_state_write(to->client, data + at, RTE_MIN(len - at, 700u)), 0);
	mig_go_to(to, VFIO_DEVICE_STATE_STOP);
	/* a driver's writes have come along, and masks */
	assert_int_equal(client_get(to, VFN_REGION_CONFIG, g->msix + 2, 2) & 0xc000, 0x8000);
	assert_int_equal(client_get(to, VFN_REGION_BAR1, MSIX_ENTRY + 12, 4), 0);
	nap_us(20000);
	assert_false(mock_has_used(&g->q[0].drv));
	mig_go_to(to, VFIO_DEVICE_STATE_RUNNING);
	assert_true(CGET(g, device_status) & VIRTIO_CONFIG_S_DRIVER_OK);
	/* whoever may have missed an interrupt looks */
	assert_true(signalled(g->q[0].call));
	tx_wait(g, 1, 8);
	for (i = 0; i < 8; i++) {
		frame_make(&f, number + i, 100);
		rx_wait(g, 0, &got);
		frames_equal(&got, &f);
	}
	rx_post(g, 0, 16, 2048, 1);
	for (number = 100; number < 116; number++)
		rig_echo(g, number);
	/* the old one is clean for somebody else */
	rig_disconnect(from);
}

/* By the pin, which is asserted when the driver has not looked yet: it looks on the other side. */
static void
interrupt_that_nobody_has_seen_comes_again(void **state)
{
	static const struct guest_conf conf = {0};
	static uint8_t data[STATE_MAX];
	int pin = eventfd_new();
	struct rig *r, *to;
	struct guest *g = rig_guest_on(&r, &conf);
	size_t len;

	(void)state;
	assert_int_equal(client_set(r, VFN_REGION_CONFIG, g->msix + 2, 2, 0), 0);
	rx_post(g, 0, 32, 2048, 1);
	mock_events_enable(&g->q[0].drv, 0);
	rig_echo(g, 1);
	mig_go_to(r, VFIO_DEVICE_STATE_STOP_COPY);
	len = state_read(r, data);
	to = take_over(r, g, &conf);
	assert_int_equal(to->link.ops->set_irq(&to->link, VFN_VECTOR_INTX, pin), 0);
	mig_go_to(to, VFIO_DEVICE_STATE_RESUMING);
	assert_int_equal(vfu_client_state_write(to->client, data, len), 0);
	assert_int_equal(signals(pin, false), 0);
	mig_go_to(to, VFIO_DEVICE_STATE_RUNNING);
	assert_true(signalled(pin));
	assert_int_equal(client_get(to, VFN_REGION_BAR0, VFN_OFF_ISR, 1), 1);
	close(pin);
}

/* A migration that is called off. */
static void
guest_goes_on_here(void **state)
{
	static const struct guest_conf conf = {0};
	static uint8_t data[STATE_MAX];
	struct rig *r;
	struct guest *g = rig_guest_on(&r, &conf);
	unsigned int i;

	(void)state;
	rx_post(g, 0, 32, 2048, 1);
	for (i = 0; i < 8; i++) {
		rig_echo(g, i);
		mig_go_to(r, VFIO_DEVICE_STATE_STOP_COPY);
		assert_true(state_read(r, data) > 0);
		mig_go_to(r, VFIO_DEVICE_STATE_RUNNING);
	}
}

/* A device that was loaded and has not run since can be saved again. */
static void
paused_guest_moves_twice(void **state)
{
	static const struct guest_conf conf = {0};
	static uint8_t data[2][STATE_MAX];
	struct rig *r, *to;
	struct guest *g = rig_guest_on(&r, &conf);
	size_t len;

	(void)state;
	rx_post(g, 0, 32, 2048, 1);
	mig_go_to(r, VFIO_DEVICE_STATE_STOP_COPY);
	len = state_read(r, data[0]);
	to = take_over(r, g, &conf);
	mig_go_to(to, VFIO_DEVICE_STATE_RESUMING);
	assert_int_equal(vfu_client_state_write(to->client, data[0], len), 0);
	mig_go_to(to, VFIO_DEVICE_STATE_STOP_COPY);
	assert_int_equal(state_read(to, data[1]), len);
	mig_go_to(to, VFIO_DEVICE_STATE_RESUMING);
	assert_int_equal(vfu_client_state_write(to->client, data[1], len), 0);
	mig_go_to(to, VFIO_DEVICE_STATE_RUNNING);
	rig_echo(g, 1);
}

/* Each byte that is wrong, and each length, is refused; then the right ones are taken. */
static void
state_that_is_none_is_refused(void **state)
{
	static const struct guest_conf conf = {0};
	static uint8_t data[STATE_MAX], zeroes[STATE_MAX * 2];
	struct rig *r, *to;
	struct guest *g = rig_guest_on(&r, &conf);
	size_t len, i;

	(void)state;
	rx_post(g, 0, 32, 2048, 1);
	mig_go_to(r, VFIO_DEVICE_STATE_STOP_COPY);
	len = state_read(r, data);
	to = take_over(r, g, &conf);
	for (i = 0; i < len; i += i < 64 ? 1 : 37) {
		mig_go_to(to, VFIO_DEVICE_STATE_RESUMING);
		data[i] ^= 0x41;
		assert_int_equal(vfu_client_state_write(to->client, data, len), 0);
		assert_true(vfu_client_set_mig_state(to->client, VFIO_DEVICE_STATE_STOP) < 0);
		mig_state_is(to, VFIO_DEVICE_STATE_RESUMING);
		data[i] ^= 0x41;
		assert_int_equal(vfu_client_reset(to->client), 0);
	}
	for (i = 0; i < len; i += 41) {
		mig_go_to(to, VFIO_DEVICE_STATE_RESUMING);
		if (i > 0)
			assert_int_equal(vfu_client_state_write(to->client, data, i), 0);
		assert_true(vfu_client_set_mig_state(to->client, VFIO_DEVICE_STATE_STOP) < 0);
		assert_int_equal(vfu_client_reset(to->client), 0);
	}
	mig_go_to(to, VFIO_DEVICE_STATE_RESUMING);
	assert_int_equal(vfu_client_state_write(to->client, zeroes, sizeof(zeroes)), -ENOSPC);
	assert_int_equal(vfu_client_state_write(to->client, data, len), 0);
	mig_go_to(to, VFIO_DEVICE_STATE_RUNNING);
	rig_echo(g, 7);
}

/* It has to answer, and does not. */
static void
function_that_does_not_stop_keeps_running(void **state)
{
	static const struct guest_conf conf = {.faults = VFN_FAULT_NO_SUSPEND};
	struct rig *r;
	struct guest *g = rig_guest_on(&r, &conf);

	(void)state;
	rx_post(g, 0, 32, 2048, 1);
	assert_int_equal(vfu_client_set_mig_state(r->client, VFIO_DEVICE_STATE_STOP), -ETIMEDOUT);
	mig_state_is(r, VFIO_DEVICE_STATE_RUNNING);
	rig_echo(g, 7);
}

/* ---- dirty pages ---- */

static bool
is_dirty(const uint64_t *bitmap, uint64_t page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

/* Pages of the heap that changed since the copy was made and are not in the bitmap. */
static unsigned int
unlogged(struct guest *g, const uint8_t *copy, uint64_t len, const uint64_t *bitmap,
	unsigned int *changed)
{
	const struct mock_config *cfg = &g->q[0].drv.cfg;
	uint64_t area[2][2] = {
		{cfg->bufs, cfg->bufs + (uint64_t)cfg->size * cfg->buf_len},
		{cfg->device, cfg->device + mock_area_len(cfg, 2)},
	};
	unsigned int i, missing = 0;
	uint64_t at;

	if (cfg->packed) {
		area[1][0] = cfg->desc;
		area[1][1] = cfg->desc + mock_area_len(cfg, 0);
	}
	*changed = 0;
	for (i = 0; i < DIM(area); i++)
		for (at = area[i][0] & ~(uint64_t)(PAGE - 1); at < area[i][1]; at += PAGE) {
			assert_true(at - HEAP_AT < len);
			if (memcmp(mock_mem_at(&g->mem, at, PAGE), copy + (at - HEAP_AT), PAGE) ==
				0)
				continue;
			++*changed;
			missing += !is_dirty(bitmap, (at - HEAP_AT) / PAGE);
		}
	return missing;
}

static unsigned int
dirty_pages(const uint64_t *bitmap, uint64_t len)
{
	unsigned int n = 0;
	uint64_t i;

	for (i = 0; i < len / PAGE; i++)
		n += is_dirty(bitmap, i);
	return n;
}

/* As a hypervisor asks for them; the driver knows nothing of a log. */
static void
pages_that_the_device_writes_are_reported(const struct shape *shape)
{
	const struct guest_conf conf = {.features = shape_features(shape)};
	struct rig *r = rig_new(&conf, NULL);
	uint64_t len, page = 16 * PAGE, *bitmap, *coarse;
	struct vfu_log_range range;
	unsigned int changed, n, i, round;
	struct guest *g;
	uint8_t *copy;

	rig_connect(r);
	g = rig_guest(r, &conf);
	len = g->heap_end - HEAP_AT;
	bitmap = calloc(len / PAGE / 64 + 2, 8);
	coarse = calloc(len / PAGE / 64 + 2, 8);
	copy = malloc(len);
	assert_true(bitmap != NULL && coarse != NULL && copy != NULL);
	guest_start(g);
	for (i = 0; i < 2; i++) {
		CSET(g, queue_select, i);
		assert_int_equal(VGET(g, queue_dirty_lo), (uint32_t)g->q[i].drv.cfg.device);
	}
	rx_post(g, 0, 100, 2048, 1);
	range = (struct vfu_log_range){HEAP_AT, len};
	assert_int_equal(vfu_client_log_start(r->client, &page, &range, 1), 0);
	assert_int_equal(page, PAGE);
	for (round = 0; round < 2; round++) {
		memcpy(copy, mock_mem_at(&g->mem, HEAP_AT, len), len);
		for (i = 0; i < 40; i++)
			rig_echo(g, i + 3 * round);
		assert_int_equal(vfu_client_log_report(r->client, HEAP_AT, len, PAGE, bitmap), 0);
		assert_int_equal(unlogged(g, copy, len, bitmap, &changed), 0);
		assert_true(changed >= 20);
		/* what was reported is not reported again */
		n = dirty_pages(bitmap, len);
		assert_true(n >= changed && n < len / PAGE / 2);
		assert_int_equal(vfu_client_log_report(r->client, HEAP_AT, len, PAGE, bitmap), 0);
		assert_int_equal(dirty_pages(bitmap, len), 0);
	}
	/* in larger pages, and in the middle of a word of the log */
	for (i = 0; i < 10; i++)
		rig_echo(g, i);
	assert_int_equal(vfu_client_log_report(
				 r->client, HEAP_AT, len & ~UINT64_C(0xffff), 16 * PAGE, coarse),
		0);
	n = dirty_pages(coarse, len / 16);
	assert_true(n >= 2 && n <= 12);
	rig_echo(g, 1);
	n = 0;
	for (i = 0; i < len / PAGE; i++) {
		assert_int_equal(
			vfu_client_log_report(r->client, HEAP_AT + i * PAGE, PAGE, PAGE, bitmap),
			0);
		n += bitmap[0] & 1;
	}
	assert_true(n >= 2 && n <= 4);
	assert_int_equal(vfu_client_log_stop(r->client), 0);
	assert_true(vfu_client_log_report(r->client, HEAP_AT, len, PAGE, bitmap) < 0);
	rig_echo(g, 1);
	free(bitmap);
	free(coarse);
	free(copy);
}

/* A guest that boots while it migrates has a log, too, and does not know. */
static void
log_outlives_a_reset_of_the_driver(void **state)
{
	static const struct guest_conf conf = {0};
	struct rig *r;
	struct guest *g = rig_guest_on(&r, &conf);
	uint64_t len = g->heap_end - HEAP_AT, page = 16 * PAGE,
		 *bitmap = calloc(len / PAGE / 64 + 2, 8);
	struct vfu_log_range range = {HEAP_AT, len};
	unsigned int way;

	(void)state;
	assert_non_null(bitmap);
	assert_int_equal(vfu_client_log_start(r->client, &page, &range, 1), 0);
	for (way = 0; way < 2; way++) {
		if (way == 1) {
			assert_int_equal(vfu_client_reset(r->client), 0);
			guest_msix_on(g);
		}
		guest_reset(g);
		guest_start(g);
		/* the driver has not said where the log has the used ring: where it is */
		rx_post(g, 0, 8, 2048, 1);
		assert_int_equal(vfu_client_log_report(r->client, HEAP_AT, len, PAGE, bitmap), 0);
		rig_echo(g, 1);
		assert_int_equal(vfu_client_log_report(r->client, HEAP_AT, len, PAGE, bitmap), 0);
		assert_true(is_dirty(bitmap, (g->q[0].drv.cfg.device - HEAP_AT) / PAGE));
		assert_true(is_dirty(bitmap, (g->q[0].drv.cfg.bufs - HEAP_AT) / PAGE));
	}
	free(bitmap);
}

/* The same where the driver never says where the log has it: that is 0 after a reset. */
static void
used_ring_is_logged_where_it_is(void **state)
{
	static const struct guest_conf conf = {0};
	struct rig *r = rig_new(&conf, NULL);
	uint64_t len, page = 16 * PAGE, *bitmap;
	struct vfu_log_range range;
	struct guest *g;

	(void)state;
	rig_connect(r);
	g = rig_guest(r, &conf);
	len = g->heap_end - HEAP_AT;
	range = (struct vfu_log_range){HEAP_AT, len};
	bitmap = calloc(len / PAGE / 64 + 2, 8);
	assert_non_null(bitmap);
	guest_start(g);
	queue_reset(g, 0);
	queue_lay(g, 0, 0, 0);
	CSET(g, queue_size, g->q[0].drv.cfg.size);
	CSET(g, queue_desc_lo, (uint32_t)g->q[0].drv.cfg.desc);
	CSET(g, queue_driver_lo, (uint32_t)g->q[0].drv.cfg.driver);
	CSET(g, queue_device_lo, (uint32_t)g->q[0].drv.cfg.device);
	CSET(g, queue_enable, 1);
	assert_int_equal(CGET(g, queue_enable), 1);
	assert_int_equal(VGET(g, queue_dirty_lo), 0);
	assert_int_equal(vfu_client_log_start(r->client, &page, &range, 1), 0);
	rx_post(g, 0, 8, 2048, 1);
	rig_echo(g, 1);
	assert_int_equal(vfu_client_log_report(r->client, HEAP_AT, len, PAGE, bitmap), 0);
	assert_true(is_dirty(bitmap, (g->q[0].drv.cfg.device - HEAP_AT) / PAGE));
	free(bitmap);
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
#define RIGGED(test) cmocka_unit_test_teardown(test, rigs_close)
		RIGGED(interrupt_that_nobody_has_seen_comes_again),
		RIGGED(guest_goes_on_here),
		RIGGED(paused_guest_moves_twice),
		RIGGED(state_that_is_none_is_refused),
		RIGGED(function_that_does_not_stop_keeps_running),
		RIGGED(log_outlives_a_reset_of_the_driver),
		RIGGED(used_ring_is_logged_where_it_is),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(guest_goes_on_elsewhere),
		SHAPED(pages_that_the_device_writes_are_reported),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	shaped_teardown = rigs_close;
	return run_list("endpoint_state", plain, DIM(plain), shaped, DIM(shaped));
}
