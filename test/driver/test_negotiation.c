/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Device status, features, and what it takes to enable a queue (virtio 1.3, 2.1, 2.2, 3.1). */

#include "fn_harness.h"

#define V1   BIT(VIRTIO_F_VERSION_1)
#define DONE (STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK)

static struct guest_conf one_pair, four_pairs = {.pairs = 4};

static void
status_bits_are_cleared_by_reset_only(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	assert_int_equal(CGET(g, device_status), 0);
	CSET(g, device_status, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	CSET(g, device_status, VIRTIO_CONFIG_S_DRIVER);
	assert_int_equal(CGET(g, device_status), STATUS_DRIVER);
	assert_int_equal(guest_negotiate(g, V1), 0);
	guest_driver_ok(g);
	CSET(g, device_status, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	assert_int_equal(CGET(g, device_status), DONE);
	CSET(g, device_status, VIRTIO_CONFIG_S_FAILED);
	assert_int_equal(CGET(g, device_status), DONE | VIRTIO_CONFIG_S_FAILED);
	CSET(g, device_status, 0);
	assert_int_equal(CGET(g, device_status), 0);
}

static void
driver_ok_needs_features_ok(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	CSET(g, device_status, STATUS_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(CGET(g, device_status), STATUS_DRIVER);
	/* refused features take DRIVER_OK along, even in one write */
	CSET(g, driver_feature, BIT(VIRTIO_NET_F_GUEST_TSO4));
	CSET(g, device_status, DONE);
	assert_int_equal(CGET(g, device_status), STATUS_DRIVER);
	CSET(g, driver_feature, 0);
	CSET(g, driver_feature_select, 1);
	CSET(g, driver_feature, V1 >> 32);
	CSET(g, device_status, DONE);
	assert_int_equal(CGET(g, device_status), DONE);
}

static void
features_are_refused(uint64_t features, const char *why)
{
	struct guest *g = guest_new(&four_pairs);

	if (guest_negotiate(g, features) == 0)
		fail_msg("%s is accepted", why);
	/* and that is not the end: less is accepted afterwards */
	assert_int_equal(CGET(g, device_status), STATUS_DRIVER);
	assert_int_equal(guest_negotiate(g, V1), 0);
	guest_close(g);
}

static void
features_that_were_not_offered_are_refused(void **state)
{
	struct guest *g = guest_new(&four_pairs);
	uint64_t offered = guest_features(g), bit;

	(void)state;
	guest_close(g);
	for (bit = 0; bit < 64; bit++)
		if (!(offered & BIT(bit)))
			features_are_refused(V1 | BIT(bit), "a feature that was not offered");
}

static void
legacy_drivers_are_served(void **state)
{
	static const uint64_t features[] = {
		0, BIT(VIRTIO_NET_F_MRG_RXBUF), BIT(VIRTIO_F_ANY_LAYOUT) | BIT(VIRTIO_NET_F_MAC)};
	size_t i;

	(void)state;
	for (i = 0; i < DIM(features); i++) {
		struct guest *g = guest_new(&four_pairs);

		assert_int_equal(guest_negotiate(g, features[i]), 0);
		guest_driver_ok(g);
		guest_close(g);
	}
}

/* 5.1.3.1: a feature, and one set of others that satisfies it. */
static const struct {
	uint64_t feature, needs;
	const char *name;
} dependencies[] = {
#define N(f) BIT(VIRTIO_NET_F_##f)
	{N(GUEST_TSO4), N(GUEST_CSUM), "GUEST_TSO4"},
	{N(GUEST_TSO6), N(GUEST_CSUM), "GUEST_TSO6"},
	{N(GUEST_UFO), N(GUEST_CSUM), "GUEST_UFO"},
	{N(GUEST_ECN) | N(GUEST_CSUM), N(GUEST_TSO4), "GUEST_ECN"},
	{N(GUEST_ECN) | N(GUEST_CSUM), N(GUEST_TSO6), "GUEST_ECN"},
	{N(HOST_TSO4), N(CSUM), "HOST_TSO4"},
	{N(HOST_TSO6), N(CSUM), "HOST_TSO6"},
	{N(HOST_UFO), N(CSUM), "HOST_UFO"},
	{N(HOST_ECN) | N(CSUM), N(HOST_TSO4), "HOST_ECN"},
	{N(HOST_ECN) | N(CSUM), N(HOST_TSO6), "HOST_ECN"},
	{N(CTRL_RX), N(CTRL_VQ), "CTRL_RX"},
	{N(CTRL_VLAN), N(CTRL_VQ), "CTRL_VLAN"},
	{N(CTRL_MAC_ADDR), N(CTRL_VQ), "CTRL_MAC_ADDR"},
	{N(GUEST_ANNOUNCE), N(CTRL_VQ), "GUEST_ANNOUNCE"},
	{N(MQ), N(CTRL_VQ), "MQ"},
#undef N
};

static void
features_that_need_others_are_refused_alone(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < DIM(dependencies); i++) {
		struct guest *g;

		features_are_refused(V1 | dependencies[i].feature, dependencies[i].name);
		g = guest_new(&four_pairs);
		assert_int_equal(
			guest_negotiate(g, V1 | dependencies[i].feature | dependencies[i].needs),
			0);
		guest_close(g);
	}
}

static void
everything_offered_is_accepted_together(void **state)
{
	struct guest *g = guest_new(&(struct guest_conf){.pairs = 4, .mtu = 9000});

	(void)state;
	assert_int_equal(guest_negotiate(g, guest_features(g)), 0);
}

static void
features_are_frozen_by_features_ok(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	assert_int_equal(guest_negotiate(g, V1 | BIT(VIRTIO_NET_F_MRG_RXBUF)), 0);
	CSET(g, driver_feature_select, 0);
	CSET(g, driver_feature, 0);
	assert_int_equal(CGET(g, driver_feature), BIT(VIRTIO_NET_F_MRG_RXBUF));
	CSET(g, driver_feature_select, 1);
	CSET(g, driver_feature, UINT32_MAX);
	assert_int_equal(CGET(g, driver_feature), V1 >> 32);
	/* there are 64 of them */
	CSET(g, driver_feature_select, 2);
	CSET(g, driver_feature, 1);
	assert_int_equal(CGET(g, driver_feature), 0);
}

/* ---- enabling queues ---- */

static void
queue_is_not_enabled_before_features_ok(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	queue_lay(g, 0, 0, 0);
	assert_false(queue_enable(g, 0));
	assert_int_equal(guest_negotiate(g, V1), 0);
	assert_true(queue_enable(g, 0));
	/* only a reset takes it back */
	CSET(g, queue_enable, 0);
	assert_int_equal(CGET(g, queue_enable), 1);
	CSET(g, queue_enable, 2);
	assert_int_equal(CGET(g, queue_enable), 1);
}

static void
queue_does_nothing_before_driver_ok(void **state)
{
	struct guest *g = guest_new(&one_pair);
	static struct frame f;
	struct mock_used used;

	(void)state;
	assert_int_equal(guest_negotiate(g, V1), 0);
	queue_setup(g, 0);
	queue_setup(g, 1);
	rx_post(g, 0, 4, 2048, 1);
	frame_make(&f, 1, 100);
	assert_true(tx_post(g, 1, &f, NULL, 0) >= 0);
	mock_publish(&g->q[1].drv);
	queue_kick_always(g, 1);
	assert_false(used_try(g, 1, &used, 20));
	guest_driver_ok(g);
	tx_wait(g, 1, 1);
	rx_wait(g, 0, &f);
}

/* One thing wrong with an otherwise good ring, and the reason that is told. */
struct flaw {
	const char *name;
	enum vringh_error error;
	int packed; /* -1: both formats */
	uint32_t size;
	uint32_t desc, driver, device; /* added to the addresses */
	int overlap;		       /* driver area at descriptors + n, if above 0 */
	uint64_t at;		       /* the descriptors are here */
	uint16_t avail, used;
};

#define RO_AT	(FREE_AT + 0x100000)
#define WO_AT	(FREE_AT + 0x200000)
#define HALF_AT (FREE_AT + 0x300000)

static const struct flaw flaws[] = {
	{"size 0", VRINGH_E_SIZE, -1, .size = 0},
	{"size 3", VRINGH_E_SIZE, 0, .size = 3},
	{"size 32769", VRINGH_E_SIZE, 1, .size = 32769},
	{"size 65535", VRINGH_E_SIZE, -1, .size = 65535},
	{"descriptors not aligned", VRINGH_E_ALIGN, -1, 256, .desc = 8},
	{"available ring not aligned", VRINGH_E_ALIGN, 0, 256, .driver = 1},
	{"driver events not aligned", VRINGH_E_ALIGN, 1, 256, .driver = 2},
	{"device area not aligned", VRINGH_E_ALIGN, -1, 256, .device = 2},
	{"driver area over descriptors", VRINGH_E_OVERLAP, -1, 256, .overlap = 4092},
	{"descriptors not mapped", VRINGH_E_AREA, -1, 256, .at = FREE_AT + 0x900000},
	{"descriptors at the top", VRINGH_E_AREA, -1, 256, .at = UINT64_MAX - 15},
	{"descriptors half mapped", VRINGH_E_AREA, -1, 256, .at = HALF_AT},
	{"descriptors not writable", VRINGH_E_AREA, 1, 256, .at = RO_AT},
	{"descriptors not readable", VRINGH_E_AREA, -1, 256, .at = WO_AT},
	{"used ahead", VRINGH_E_STATE, 0, 256, .avail = 5, .used = 6},
	{"too far apart", VRINGH_E_STATE, 0, 256, .avail = 300, .used = 43},
	{"slot outside", VRINGH_E_STATE, 1, 256, .avail = 0x8100, .used = 0x8100},
	{"used ahead in the lap", VRINGH_E_STATE, 1, 256, .avail = 0x8005, .used = 0x8006},
	{"more than a lap", VRINGH_E_STATE, 1, 256, .avail = 7, .used = 0x8006},
};

static void
try_flaw(struct guest *g, const struct flaw *flaw)
{
	struct mock_config *cfg = &g->q[0].drv.cfg, good = *cfg;

	CSET(g, queue_select, 0);
	cfg->size = flaw->size;
	if (flaw->at != 0)
		cfg->desc = flaw->at;
	cfg->desc += flaw->desc;
	cfg->driver += flaw->driver;
	cfg->device += flaw->device;
	if (flaw->overlap > 0)
		cfg->driver = cfg->desc + flaw->overlap;
	if (flaw->avail != 0) {
		VSET(g, queue_avail, flaw->avail);
		VSET(g, queue_used, flaw->used);
	}
	if (queue_enable(g, 0))
		fail_msg("%s: enabled", flaw->name);
	if (VGET(g, queue_error) != flaw->error)
		fail_msg("%s: error %u instead of %u", flaw->name, VGET(g, queue_error),
			flaw->error);
	/* the next attempt is what counts */
	*cfg = good;
	VSET(g, queue_avail, cfg->packed ? 0x8000 : 0);
	VSET(g, queue_used, cfg->packed ? 0x8000 : 0);
	assert_true(queue_enable(g, 0));
	assert_int_equal(VGET(g, queue_error), 0);
	queue_reset(g, 0);
}

static void
refused_queue_tells_why(struct guest *g, bool packed)
{
	size_t i;

	assert_int_equal(
		guest_negotiate(g,
			V1 | BIT(VIRTIO_F_RING_RESET) | (packed ? BIT(VIRTIO_F_RING_PACKED) : 0)),
		0);
	guest_map(g, RO_AT, 0x10000, VRINGH_PERM_READ);
	guest_map(g, WO_AT, 0x10000, VRINGH_PERM_WRITE);
	guest_map(g, HALF_AT, 4096 - 16, VRINGH_PERM_RW);
	queue_lay(g, 0, 0, packed ? 0x8000 : 0);
	guest_driver_ok(g);
	for (i = 0; i < DIM(flaws); i++)
		if (flaws[i].packed < 0 || flaws[i].packed == packed)
			try_flaw(g, &flaws[i]);
}

static void
refused_split_queue_tells_why(void **state)
{
	(void)state;
	refused_queue_tells_why(guest_new(&one_pair), false);
}

static void
refused_packed_queue_tells_why(void **state)
{
	(void)state;
	refused_queue_tells_why(guest_new(&one_pair), true);
}

static void
ring_registers_are_fixed_while_enabled(void **state)
{
	struct guest *g = guest_open(&one_pair);
	uint32_t lo, device_hi;

	(void)state;
	CSET(g, queue_select, 1);
	lo = CGET(g, queue_desc_lo);
	device_hi = CGET(g, queue_device_hi);
	CSET(g, queue_size, 2);
	CSET(g, queue_desc_lo, 0x5000);
	CSET(g, queue_device_hi, 0x5000);
	VSET(g, queue_avail, 9);
	VSET(g, queue_used, 9);
	assert_int_equal(CGET(g, queue_size), 256);
	assert_int_equal(CGET(g, queue_desc_lo), lo);
	assert_int_equal(CGET(g, queue_device_hi), device_hi);
	assert_int_equal(VGET(g, queue_avail), 0);
	assert_int_equal(VGET(g, queue_used), 0);
}

/* Queue registers as after power-on, but for the control queue's size. */
static void
assert_fresh(struct guest *g, unsigned int queue, uint16_t start)
{
	CSET(g, queue_select, queue);
	assert_int_equal(CGET(g, queue_enable), 0);
	assert_int_equal(CGET(g, queue_size), VRINGH_MAX_SIZE);
	assert_int_equal(CGET(g, queue_msix_vector), NO_VECTOR);
	assert_int_equal(CGET(g, queue_desc_lo) | CGET(g, queue_desc_hi) |
			CGET(g, queue_driver_lo) | CGET(g, queue_driver_hi) |
			CGET(g, queue_device_lo) | CGET(g, queue_device_hi),
		0);
	assert_int_equal(VGET(g, queue_suspend), 0);
	assert_int_equal(VGET(g, queue_avail), start);
	assert_int_equal(VGET(g, queue_used), start);
}

static void
device_reset_brings_back_the_first_state(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = BIT(VIRTIO_F_RING_PACKED)});

	(void)state;
	CSET(g, config_msix_vector, 0);
	queue_suspend(g, 1, true);
	guest_reset(g);
	assert_int_equal(CGET(g, config_msix_vector), NO_VECTOR);
	assert_int_equal(CGET(g, driver_feature), 0);
	assert_int_equal(CGET(g, queue_select), 0);
	assert_fresh(g, 0, 0);
	assert_fresh(g, 1, 0);
	/* and everything works once more */
	guest_start(g);
}

static void
queue_reset_brings_back_one_queue(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = BIT(VIRTIO_F_RING_PACKED)});

	(void)state;
	queue_reset(g, 1);
	assert_fresh(g, 1, 0x8000);
	CSET(g, queue_select, 0);
	assert_int_equal(CGET(g, queue_enable), 1);
}

static void
queue_reset_is_nothing_unless_negotiated(void **state)
{
	struct guest *g = guest_new(&one_pair);

	(void)state;
	assert_int_equal(guest_negotiate(g, V1), 0);
	queue_setup(g, 0);
	CSET(g, queue_reset, 1);
	assert_int_equal(CGET(g, queue_reset), 0);
	assert_int_equal(CGET(g, queue_enable), 1);
}

static void
resets_clear_the_reason_why_a_queue_broke(void **state)
{
	struct guest *g = guest_open(&one_pair);

	(void)state;
	g->q[1].drv.avail_ring->idx = 1000;
	queue_kick_always(g, 1);
	stat_wait(g, 1, VFN_STAT_ERRORS_AVAIL_IDX, 1);
	CSET(g, queue_select, 1);
	assert_int_equal(VGET(g, queue_error), VRINGH_E_AVAIL_IDX);
	queue_reset(g, 1);
	assert_int_equal(VGET(g, queue_error), 0);
	guest_reset(g);
	CSET(g, queue_select, 1);
	assert_int_equal(VGET(g, queue_error), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(status_bits_are_cleared_by_reset_only),
		PLAIN(driver_ok_needs_features_ok),
		PLAIN(features_that_were_not_offered_are_refused),
		PLAIN(legacy_drivers_are_served),
		PLAIN(features_that_need_others_are_refused_alone),
		PLAIN(everything_offered_is_accepted_together),
		PLAIN(features_are_frozen_by_features_ok),
		PLAIN(queue_is_not_enabled_before_features_ok),
		PLAIN(queue_does_nothing_before_driver_ok),
		PLAIN(refused_split_queue_tells_why),
		PLAIN(refused_packed_queue_tells_why),
		PLAIN(ring_registers_are_fixed_while_enabled),
		PLAIN(device_reset_brings_back_the_first_state),
		PLAIN(queue_reset_brings_back_one_queue),
		PLAIN(queue_reset_is_nothing_unless_negotiated),
		PLAIN(resets_clear_the_reason_why_a_queue_broke),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("negotiation", tests, DIM(tests), NULL, 0);
}
