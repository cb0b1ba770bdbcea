/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A function behind a bridge: drivers of all kinds, and what gets lost on the way. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include <ntb_mailbox.h>
#include <ntb_sim.h>
#include <vfn_net_function.h>
#include <vfn_ntb_link.h>
#include <vfn_ntb_server.h>

#include "fn_harness.h"

#define ANSWER_MS 400
#define MEET_MS	  20000
#define WINDOW	  (64u << 10)

struct rig {
	struct vfn_function *fn;
	struct vfn_link *link;
	struct ntb *far;
	struct vfn_ntb_server *server;
	char path[64];
};

static struct ntb *
bridge(const struct rig *r, uint64_t bus, uint64_t size)
{
	const struct ntb_sim_params params = {
		.name = "test", .path = r->path, .bus = bus, .size = size};
	struct ntb *ntb;
	char why[128];

	assert_int_equal(ntb_sim_open(&params, &ntb, why, sizeof(why)), 0);
	return ntb;
}

static void
serve(struct rig *r, bool control)
{
	struct guest_conf conf = {.name = "far", .pairs = 2};
	struct vfn_ntb_server_params params = {
		.name = "far", .offer = control ? vfn_manage_net_offer : NULL};

	snprintf(r->path, sizeof(r->path), "/tmp/vfn-ntb-%d", getpid());
	assert_int_equal(function_open(&conf, &r->fn, &r->link), 0);
	r->far = params.ntb = bridge(r, VFN_NTB_DEVICE_BUS, WINDOW);
	assert_int_equal(vfn_ntb_serve(r->link, r->fn, &params, &r->server), 0);
}

static void
end(struct rig *r)
{
	vfn_ntb_server_close(r->server);
	ntb_close(r->far);
	r->link->ops->close(r->link);
}

static int
driver(const struct rig *r, const struct vfn_endpoint_control *control, char *why, size_t size,
	struct vfn_link **link)
{
	return vfn_ntb_connect(bridge(r, VFN_NTB_DRIVER_BUS, WINDOW), control, MEET_MS, ANSWER_MS,
		why, size, link);
}

static struct vfn_link *
good_driver(const struct rig *r)
{
	struct vfn_link *link;
	char why[192] = "";

	if (driver(r, NULL, why, sizeof(why), &link) != 0)
		fail_msg("%s", why);
	return link;
}

static uint32_t
get(struct vfn_link *link, uint64_t offset, size_t len)
{
	uint32_t v = 0;

	assert_int_equal(link->ops->read(link, VFN_REGION_BAR0, offset, &v, len), 0);
	return v;
}

#define COMMON(field) \
	VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, field), \
		sizeof(((struct vfn_common_cfg *)NULL)->field)

static struct vfn_ntb_info
info(struct rig *r)
{
	struct vfn_ntb_info now;

	vfn_ntb_server_info(r->server, &now);
	return now;
}

#define EVENTUALLY(condition) \
	do { \
		int ms_; \
		for (ms_ = 0; !(condition) && ms_ < MEET_MS; ms_++) \
			nap_us(1000); \
		assert_true(condition); \
	} while (0)

/* ---- who has control ---- */

static void
either_side_has_control(void **state)
{
	const struct vfn_endpoint_control want = {
		.features = UINT64_MAX, .mac = {2, 0, 0, 0, 0, 9}, .mtu = 1400, .max_pairs = 1};
	struct virtio_net_config config;
	struct vfn_link *link;
	struct rig r;
	char why[192];

	(void)state;
	serve(&r, false);
	assert_int_equal(driver(&r, &want, why, sizeof(why), &link), -ENODEV);
	assert_non_null(strstr(why, "it is not control=host there"));
	link = good_driver(&r);
	assert_int_equal(get(link, COMMON(num_queues)), 5);
	link->ops->close(link);
	end(&r);

	serve(&r, true);
	assert_int_equal(driver(&r, &want, why, sizeof(why), &link), 0);
	assert_int_equal(
		link->ops->read(link, VFN_REGION_BAR0, VFN_OFF_DEVICE, &config, sizeof(config)), 0);
	assert_memory_equal(config.mac, want.mac, sizeof(config.mac));
	assert_int_equal(config.mtu, 1400);
	assert_false(get(link, COMMON(device_feature)) & BIT(VIRTIO_NET_F_MQ));
	link->ops->close(link);
	/* More than there is. */
	EVENTUALLY(!info(&r).driver);
	assert_int_equal(
		driver(&r, &(struct vfn_endpoint_control){.features = UINT64_MAX, .max_pairs = 77},
			why, sizeof(why), &link),
		-EINVAL);
	/* And what one has said is forgotten with it. */
	link = good_driver(&r);
	assert_true(get(link, COMMON(device_feature)) & BIT(VIRTIO_NET_F_MQ));
	link->ops->close(link);
	end(&r);
}

/* ---- what gets lost, or never comes ---- */

static void
lost_doorbells_only_delay(void **state)
{
	struct vfn_link *link;
	struct rig r;

	(void)state;
	serve(&r, false);
	link = good_driver(&r);
	ntb_sim_lose(vfn_ntb_bridge(link), NTB_SIM_LOSE_DOORBELL, 1);
	assert_int_equal(get(link, COMMON(num_queues)), 5);
	ntb_sim_lose(r.far, NTB_SIM_LOSE_DOORBELL, 1);
	assert_int_equal(get(link, COMMON(num_queues)), 5);
	link->ops->close(link);
	end(&r);
}

static bool
is_dead(struct vfn_link *link)
{
	uint8_t v;

	return link->ops->read(link, VFN_REGION_CONFIG, 0, &v, 1) == -ENODEV &&
		link->ops->write(link, VFN_REGION_CONFIG, 4, &v, 1) == -ENODEV &&
		link->ops->dma_unmap(link, VFN_DMA_GUEST, 0, 0) == -ENODEV &&
		link->ops->set_irq(link, 0, -1) == -ENODEV;
}

static void
lost_messages_end_the_link_and_another_driver_comes(void **state)
{
	struct vfn_link *link;
	struct rig r;
	unsigned int i;
	uint8_t v;

	(void)state;
	serve(&r, false);
	/*
	 * What is sent, and what comes back: all of it, or but what is in the message. The device
	 * writes first that it has taken the one before.
	 */
	for (i = 0; i < 4; i++) {
		link = good_driver(&r);
		assert_int_equal(get(link, COMMON(num_queues)), 5);
		ntb_sim_lose(i % 2 ? r.far : vfn_ntb_bridge(link), NTB_SIM_LOSE_FLUSH,
			i < 2 ? UINT32_MAX : i - 1);
		assert_int_equal(
			link->ops->read(link, VFN_REGION_CONFIG, 0, &v, sizeof(v)), -ENODEV);
		assert_true(is_dead(link));
		ntb_sim_lose(r.far, NTB_SIM_LOSE_FLUSH, 0);
		link->ops->close(link);
	}
	link = good_driver(&r);
	link->ops->close(link);
	end(&r);
}

static void
device_that_ends_is_noticed(void **state)
{
	struct vfn_link *link;
	struct rig r;

	(void)state;
	serve(&r, false);
	link = good_driver(&r);
	vfn_ntb_server_close(r.server);
	r.server = NULL;
	EVENTUALLY(is_dead(link));
	link->ops->close(link);
	end(&r);
}

/* A peer that says what it wants. */
static void
scratchpads_are_checked(void **state)
{
	static const struct {
		unsigned int pad;
		uint32_t value;
		const char *why;
	} cases[] = {
		{VFN_NTB_PAD_MAGIC, 1, "scratchpad 0 (magic number) is 0x1"},
		{VFN_NTB_PAD_VERSION, 77, "scratchpad 1 (version) is 0x4d"},
		{VFN_NTB_PAD_MESSAGE, 0xffffffff, "size of messages"},
		{VFN_NTB_PAD_AREA, 0, "control area"},
		{VFN_NTB_PAD_ROLE, VFN_NTB_DRIVER, "no device"},
		{VFN_NTB_PAD_ROLE, 0xffffffff, "no device"},
		{VFN_NTB_PAD_READY, 0, "says nothing"},
	};
	struct rig r = {0};
	struct vfn_link *link;
	struct ntb *far;
	unsigned int i;
	char why[192];

	(void)state;
	snprintf(r.path, sizeof(r.path), "/tmp/vfn-ntb-%d", getpid());
	for (i = 0; i < DIM(cases); i++) {
		far = bridge(&r, VFN_NTB_DEVICE_BUS, WINDOW);
		assert_int_equal(ntb_link_enable(far), 0);
		struct ntb *near = bridge(&r, VFN_NTB_DRIVER_BUS, WINDOW);

		assert_int_equal(ntb_link_enable(near), 0);
		EVENTUALLY(ntb_link_up(far) && ntb_link_up(near));
		vfn_ntb_say(far, VFN_NTB_DEVICE);
		ntb_set_peer_scratchpad(far, cases[i].pad, cases[i].value);
		assert_true(vfn_ntb_connect(
				    near, NULL, ANSWER_MS, ANSWER_MS, why, sizeof(why), &link) < 0);
		if (strstr(why, cases[i].why) == NULL)
			fail_msg("no \"%s\" in: %s", cases[i].why, why);
		ntb_close(far);
	}
	/* Nobody is there. */
	assert_int_equal(vfn_ntb_connect(bridge(&r, VFN_NTB_DRIVER_BUS, WINDOW), NULL, 50,
				 ANSWER_MS, why, sizeof(why), &link),
		-ETIMEDOUT);
	/* A window without room. */
	serve(&r, false);
	assert_int_equal(vfn_ntb_connect(bridge(&r, VFN_NTB_DRIVER_BUS, 4096), NULL, MEET_MS,
				 ANSWER_MS, why, sizeof(why), &link),
		-ENODEV);
	assert_non_null(strstr(why, "our window of 0x1000 bytes has no room"));
	end(&r);
}

static void
only_windows_are_mapped(void **state)
{
	static uint8_t other[4096];
	struct vfn_link *link;
	struct ntb *ntb;
	struct rig r;

	(void)state;
	serve(&r, false);
	link = good_driver(&r);
	ntb = vfn_ntb_bridge(link);
#define MAP(at, n, r_, w_) \
	link->ops->dma_map(link, \
		&(struct vfn_dma_map){.iova = 0x1000, \
			.len = n, \
			.host = at, \
			.fd = -1, \
			.readable = r_, \
			.writable = w_})
	assert_int_equal(MAP(other, 4096, true, false), -ENOTSUP);
	assert_int_equal(MAP(ntb->out.host, 4096, true, true), -ENOTSUP);
	assert_int_equal(MAP(ntb->out.host, 4096, false, true), -ENOTSUP);
	assert_int_equal(MAP(ntb->in.host, 4096, true, false), -ENOTSUP);
	assert_int_equal(MAP(ntb->out.host, WINDOW + 1, true, false), -ENOTSUP);
	assert_int_equal(MAP(ntb->out.host, 0, true, false), -EINVAL);
	assert_int_equal(MAP(ntb->out.host, 4096, true, false), 0);
	assert_int_equal(MAP(ntb->out.host, 4096, true, false), -EEXIST);
	assert_int_equal(link->ops->dma_unmap(link, VFN_DMA_GUEST, 0x1000, 4096), 0);
	assert_int_equal(MAP(ntb->in.host, 4096, false, true), 0);
#undef MAP
	link->ops->close(link);
	end(&r);
}

static void
windows_are_behind_the_control_area(void **state)
{
	struct vfn_link *link;
	struct vfn_windows w;
	char why[192] = "";
	struct ntb *ntb;
	struct rig r;

	(void)state;
	serve(&r, false);
	link = good_driver(&r);
	ntb = vfn_ntb_bridge(link);
	assert_int_equal(link->ops->get_windows(link, &w), 0);
	assert_int_equal(w.out.len, WINDOW - VFN_NTB_AREA_SIZE);
	assert_int_equal(w.in.len, WINDOW - VFN_NTB_AREA_SIZE);
	assert_ptr_equal(ntb_host(&ntb->out, w.out.iova, w.out.len), w.out.host);
	assert_ptr_equal(ntb_host(&ntb->in, w.in.iova, w.in.len), w.in.host);
	assert_ptr_equal(w.out.host, ntb->out.host + VFN_NTB_AREA_SIZE);
	vfn_ntb_hang_up(link);
	assert_int_equal(link->ops->get_windows(link, &w), -ENODEV);
	link->ops->close(link);

	/* One that has room for messages only. */
	EVENTUALLY(!info(&r).driver);
	assert_int_equal(vfn_ntb_connect(bridge(&r, VFN_NTB_DRIVER_BUS, VFN_NTB_AREA_SIZE), NULL,
				 MEET_MS, ANSWER_MS, why, sizeof(why), &link),
		0);
	assert_int_equal(link->ops->get_windows(link, &w), -ENOSPC);
	link->ops->close(link);
	end(&r);
}

/* ---- drivers that are not ours ---- */

struct raw {
	struct ntb *ntb;
	struct ntb_mailbox box;
};

static void
raw_open(struct rig *r, struct raw *raw)
{
	uint32_t role;
	char why[128];

	raw->ntb = bridge(r, VFN_NTB_DRIVER_BUS, WINDOW);
	assert_int_equal(ntb_link_enable(raw->ntb), 0);
	EVENTUALLY(ntb_link_up(raw->ntb));
	ntb_mailbox_init(&raw->box, raw->ntb, VFN_NTB_MAILBOX_AT, VFN_NTB_BELL_MESSAGE);
	vfn_ntb_say(raw->ntb, VFN_NTB_DRIVER);
	EVENTUALLY(
		vfn_ntb_hear(raw->ntb, VFN_NTB_DEVICE, &role, why, sizeof(why)) == VFN_NTB_READY);
}

static ssize_t
raw_receive(struct raw *raw, union vfn_message *m)
{
	ssize_t len = -EAGAIN;
	int ms;

	for (ms = 0; len == -EAGAIN && ms < MEET_MS; ms++) {
		len = ntb_mailbox_receive(&raw->box, m);
		if (len == -EAGAIN)
			nap_us(1000);
	}
	return len;
}

/* All that virtio-msg has and nothing of ours. */
static void
driver_that_knows_virtio_msg_only(void **state)
{
	union vfn_message m;
	struct raw raw;
	struct rig r;

	(void)state;
	serve(&r, false);
	raw_open(&r, &raw);
#define ASK(type, id, ...) \
	do { \
		vfn_msg_init(&m, type, id, 7); \
		__VA_ARGS__; \
		assert_int_equal(ntb_mailbox_send(&raw.box, &m, m.header.msg_size), 0); \
		assert_true(raw_receive(&raw, &m) > 0); \
		assert_null(vfn_msg_wrong(&m, m.header.msg_size, false)); \
		assert_int_equal(m.header.token, 7); \
		assert_int_equal(m.header.msg_id, id); \
	} while (0)
	ASK(VFN_MSG_BUS, VFN_MSG_BUS_PING, m.ping = 0x12345678);
	assert_int_equal(m.ping, 0x12345678);
	ASK(VFN_MSG_BUS, VFN_MSG_BUS_GET_DEVICES, m.devices.num = 8);
	assert_int_equal(m.found.bits[0], 1);
	ASK(0, VFN_MSG_GET_DEVICE_INFO, (void)0);
	assert_int_equal(m.info.device_id, 1);
	assert_int_equal(m.info.vendor_id, VFN_PCI_VENDOR);
	assert_int_equal(m.info.max_vqs, 5);
	assert_true(m.info.config_size >= sizeof(struct virtio_net_config));
	ASK(0, VFN_MSG_SET_DEVICE_STATUS, m.status.status = 3);
	assert_int_equal(m.status.status, 3);
	ASK(0, VFN_MSG_GET_DEVICE_FEATURES, m.features.num = 2);
	assert_int_equal(m.features.num, 2);
	assert_true(m.features.block[1] & 1);
	ASK(0, VFN_MSG_SET_DRIVER_FEATURES, m.features.num = 2,
		m.features.block[0] = 1u << VIRTIO_NET_F_STATUS, m.features.block[1] = 1,
		m.header.msg_size += 8);
	ASK(0, VFN_MSG_SET_DEVICE_STATUS, m.status.status = 11);
	assert_int_equal(m.status.status, 11);
	ASK(0, VFN_MSG_GET_VQUEUE, m.index.index = 4);
	assert_true(m.vqueue.max_size > 0);
	ASK(0, VFN_MSG_GET_VQUEUE, m.index.index = 5);
	assert_int_equal(m.vqueue.max_size, 0);
	ASK(0, VFN_MSG_GET_SHM, (void)0);
	assert_int_equal(m.shm.length, 0);
	ASK(0, VFN_MSG_GET_CONFIG, m.get_config.size = 6);
	assert_int_equal(m.config.size, 6);
	ASK(0, VFN_MSG_GET_CONFIG, m.get_config.size = UINT32_MAX);
	assert_int_equal(m.config.size, 0);
	ASK(0, VFN_MSG_SET_DEVICE_STATUS, m.status.status = 15);
	vfn_manage_link(r.fn, false);
	assert_true(raw_receive(&raw, &m) > 0);
	assert_int_equal(m.header.msg_id, VFN_MSG_EVENT_CONFIG);
	assert_int_equal(m.header.token, 0);
	assert_int_equal(m.event_config.status, 15);
#undef ASK
	ntb_close(raw.ntb);
	end(&r);
}

static void
nonsense_is_refused(void **state)
{
	struct vfn_link *link;
	union vfn_message m;
	struct raw raw;
	struct rig r;
	unsigned int i;
	size_t len;
	int ret;

	(void)state;
	serve(&r, true);
	raw_open(&r, &raw);
	srandom(1);
	for (i = 0; i < 20000; i++) {
		for (len = 0; len < sizeof(m); len++)
			((uint8_t *)&m)[len] = random();
		len = random() % (sizeof(m) + 1);
		/* Most are nearly right. */
		if (i % 8 != 0) {
			m.header.type = random() % 4;
			m.header.msg_id = random() % 2 ? random() % 16 : 0x80 + random() % 6;
			m.header.dev_num = 0;
			m.header.msg_size = len;
			m.features.index %= 4;
			m.features.num %= 80;
		}
		while ((ret = ntb_mailbox_send(&raw.box, &m, len)) == -EAGAIN)
			while (ntb_mailbox_receive(&raw.box, &m) > 0)
				;
		assert_int_equal(ret, 0);
		while (ntb_mailbox_receive(&raw.box, &m) > 0)
			;
	}
	assert_true(info(&r).refused > 1000);
	ntb_close(raw.ntb);
	/* Slots that are none, and one who takes what was not sent. */
	for (i = 0; i < 2; i++) {
		struct ntb_mailbox_area *area;

		raw_open(&r, &raw);
		area = (void *)(raw.ntb->out.host + VFN_NTB_MAILBOX_AT);
		area->slot[0].number = 1;
		area->slot[0].length = UINT32_MAX;
		area->taken = 1000;
		if (i == 0) {
			ntb_flush(raw.ntb, &area->slot[0].length, sizeof(uint32_t));
			ntb_flush(raw.ntb, &area->slot[0].number, sizeof(uint32_t));
		} else {
			ntb_flush(raw.ntb, &area->taken, sizeof(uint32_t));
			vfn_msg_init(&m, VFN_MSG_BUS, VFN_MSG_BUS_PING, 1);
			ntb_mailbox_send(&raw.box, &m, m.header.msg_size);
		}
		ntb_ring(raw.ntb, 1);
		EVENTUALLY(!ntb_link_up(raw.ntb));
		ntb_close(raw.ntb);
	}
	link = good_driver(&r);
	assert_int_equal(get(link, COMMON(num_queues)), 5);
	link->ops->close(link);
	end(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(either_side_has_control),
		cmocka_unit_test(lost_doorbells_only_delay),
		cmocka_unit_test(lost_messages_end_the_link_and_another_driver_comes),
		cmocka_unit_test(device_that_ends_is_noticed),
		cmocka_unit_test(scratchpads_are_checked),
		cmocka_unit_test(only_windows_are_mapped),
		cmocka_unit_test(windows_are_behind_the_control_area),
		cmocka_unit_test(driver_that_knows_virtio_msg_only),
		cmocka_unit_test(nonsense_is_refused),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
