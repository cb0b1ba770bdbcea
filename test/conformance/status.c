/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Device status, features and reset (virtio 1.3, 2.1, 2.2, 2.4, 3.1, 6). */

#include "device.h"

static void
status_starts_as_0_and_keeps_its_bits(struct dev *d, uint64_t format)
{
	static const uint8_t steps[] = {VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER};
	uint8_t expected = 0;
	unsigned int i;

	(void)format;
	assert_int_equal(status_now(d), 0);
	for (i = 0; i < DIM(steps); i++) {
		expected |= steps[i];
		CSET(d, device_status, expected);
		assert_true(CREADS(d, device_status, expected));
	}
	accept_features(d, VERSION_1);
	CSET(d, device_status, S_FEATURES);
	assert_true(CREADS(d, device_status, S_FEATURES));
	CSET(d, device_status, S_FEATURES | VIRTIO_CONFIG_S_FAILED);
	assert_true(CREADS(d, device_status, S_FEATURES | VIRTIO_CONFIG_S_FAILED));
	dev_reset(d);
	assert_int_equal(status_now(d), 0);
}

static void
driver_ok_needs_features_ok(struct dev *d, uint64_t format)
{
	(void)format;
	CSET(d, device_status, S_DRIVER);
	CSET(d, device_status, S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(status_now(d), S_DRIVER);
	/* in one write, with features that are refused */
	accept_features(d, VERSION_1 | BIT(VIRTIO_F_SR_IOV));
	CSET(d, device_status, S_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(status_now(d), S_DRIVER);
}

static void
nothing_moves_before_driver_ok(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 1);
	uint8_t *before;

	msix_on(d);
	assert_true(negotiate(d, VERSION_1 | format));
	CSET(d, queue_select, 0);
	CSET(d, queue_msix_vector, 1);
	ring_setup(&d->rx, d, 0, 64);
	ring_setup(&d->tx, d, 1, 64);
	buffer_post(d, 2048);
	frame_post(d, 1, 100);
	ring_notify(&d->rx);
	ring_notify(&d->tx);
	before = mem_copy(d);
	nap_ms(QUIET_MS);
	assert_true(mem_same(d, before));
	assert_int_equal(raised(fd, 0), 0);
	/* and what waited then moves */
	driver_ok(d);
	ring_notify(&d->tx);
	assert_int_equal(ring_wait(&d->rx), 100);
	assert_true(raised(fd, PATIENCE_MS) > 0);
}

/* ---- features ---- */

/* 5.1.3.1: needs one of them. */
static const struct {
	uint8_t bit;
	uint64_t any_of;
} needs[] = {
#define N(f) BIT(VIRTIO_NET_F_##f)
	{VIRTIO_NET_F_GUEST_TSO4, N(GUEST_CSUM)},
	{VIRTIO_NET_F_GUEST_TSO6, N(GUEST_CSUM)},
	{VIRTIO_NET_F_GUEST_ECN, N(GUEST_TSO4) | N(GUEST_TSO6)},
	{VIRTIO_NET_F_GUEST_UFO, N(GUEST_CSUM)},
	{VIRTIO_NET_F_HOST_TSO4, N(CSUM)},
	{VIRTIO_NET_F_HOST_TSO6, N(CSUM)},
	{VIRTIO_NET_F_HOST_ECN, N(HOST_TSO4) | N(HOST_TSO6)},
	{VIRTIO_NET_F_HOST_UFO, N(CSUM)},
	{VIRTIO_NET_F_CTRL_RX, N(CTRL_VQ)},
	{VIRTIO_NET_F_CTRL_VLAN, N(CTRL_VQ)},
	{VIRTIO_NET_F_GUEST_ANNOUNCE, N(CTRL_VQ)},
	{VIRTIO_NET_F_MQ, N(CTRL_VQ)},
	{VIRTIO_NET_F_CTRL_MAC_ADDR, N(CTRL_VQ)},
#undef N
};

static bool
complete(uint64_t features)
{
	unsigned int i;

	for (i = 0; i < DIM(needs); i++)
		if ((features & BIT(needs[i].bit)) && !(features & needs[i].any_of))
			return false;
	return true;
}

static void
offered_features_are_complete(struct dev *d, uint64_t format)
{
	const struct target_conf plain = {.plain = true};

	(void)format;
	assert_true(complete(offered(d)));
	dev_exchange(d, &plain);
	assert_true(complete(offered(d)));
}

static void
reserved_features_are_not_offered(struct dev *d, uint64_t format)
{
	/* legacy's (24, 30) and what a function does not have */
	const uint64_t never = BIT(24) | BIT(30) | BIT(VIRTIO_F_SR_IOV) | BIT(F_ADMIN_VQ) |
		(strcmp(link_kind, "iommu") != 0 ? BIT(VIRTIO_F_ACCESS_PLATFORM) : 0);
	/* 0 to 24 and 52 up are the class's, 24 to 41 have a meaning, no others (2.2) */
	const uint64_t reserved = (BIT(50) - 1) & ~(BIT(42) - 1);

	(void)format;
	assert_int_equal(offered(d) & (never | reserved), 0);
}

static void
version_1_is_offered(struct dev *d, uint64_t format)
{
	(void)format;
	assert_true(offered(d) & VERSION_1);
	assert_true(negotiate(d, VERSION_1));
}

/* FEATURES_OK stays clear, and with fewer features it is set afterwards. */
static void
refused(struct dev *d, uint64_t features)
{
	dev_reset(d);
	if (negotiate(d, features))
		fail_msg("features 0x%llx are taken", (unsigned long long)features);
	assert_int_equal(status_now(d), S_DRIVER);
	assert_true(negotiate(d, VERSION_1));
}

static void
features_are_refused_not_ignored(struct dev *d, uint64_t format)
{
	const uint64_t all = offered(d);
	unsigned int i;

	(void)format;
	for (i = 0; i < 64; i++)
		if (!(all & BIT(i)))
			refused(d, VERSION_1 | BIT(i));
	for (i = 0; i < DIM(needs); i++)
		if (all & BIT(needs[i].bit))
			refused(d, VERSION_1 | BIT(needs[i].bit));
}

static void
subsets_are_taken_again_and_again(struct dev *d, uint64_t format)
{
	const uint64_t all = offered(d);
	uint64_t seed = 1, subset;
	unsigned int i;

	(void)format;
	for (i = 0; i < 100; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		subset = VERSION_1 | (all & (i == 0 ? all : seed >> 7));
		if (!complete(subset))
			continue;
		dev_reset(d);
		assert_true(negotiate(d, subset));
		dev_reset(d);
		assert_true(negotiate(d, subset));
	}
}

static void
features_are_fixed_by_features_ok(struct dev *d, uint64_t format)
{
	(void)format;
	assert_true(negotiate(d, VERSION_1));
	accept_features(d, offered(d));
	CSET(d, guest_feature_select, 0);
	assert_int_equal(CGET(d, guest_feature), 0);
	CSET(d, guest_feature_select, 1);
	assert_int_equal(CGET(d, guest_feature), VERSION_1 >> 32);
}

/* ---- reset ---- */

static void
reset_ends_everything(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 1);
	uint8_t *before;
	unsigned int i;

	msix_on(d);
	start(d, format);
	CSET(d, queue_select, 0);
	CSET(d, queue_msix_vector, 1);
	for (i = 0; i < 32; i++)
		buffer_post(d, 2048);
	for (i = 0; i < 16; i++)
		frame_post(d, i, 1000);
	ring_notify(&d->tx);
	/* in the middle of it */
	ring_wait(&d->tx);
	dev_reset(d);
	raised(fd, 0);
	/* what is made available now nobody looks at */
	for (i = 0; i < 16; i++)
		frame_post(d, i, 1000);
	bar_set(d, d->notify.bar, d->notify.offset, 2, 0);
	bar_set(d, d->notify.bar, d->notify.offset + d->multiplier, 2, 1);
	before = mem_copy(d);
	nap_ms(QUIET_MS);
	assert_true(mem_same(d, before));
	assert_int_equal(raised(fd, 0), 0);
	/* and it starts anew */
	d->mem_used = 0;
	start(d, format);
	frame_loops(d, 1);
}

static void
reset_makes_registers_as_new(struct dev *d, uint64_t format)
{
	uint8_t first[COMMON_CFG_SIZE];
	unsigned int q, i;

	(void)format;
	for (q = 0; q < d->nb_queues; q++) {
		dev_reset(d);
		CSET(d, queue_select, q);
		for (i = 0; i < COMMON_CFG_SIZE; i++)
			first[i] = get(d, &d->common, i, 1);
		assert_true(negotiate(d, VERSION_1 | BIT(F_RING_RESET)));
		CSET(d, queue_select, q);
		CSET(d, queue_msix_vector, 1);
		CSET(d, msix_config, 2);
		ring_setup(&d->rx, d, q, 32);
		dev_reset(d);
		CSET(d, queue_select, q);
		for (i = 0; i < COMMON_CFG_SIZE; i++)
			assert_int_equal(get(d, &d->common, i, 1), first[i]);
		assert_int_equal(CGET(d, queue_enable), 0);
		assert_int_equal(get(d, &d->common, QUEUE_RESET), 0);
		assert_int_equal(CGET(d, queue_msix_vector), NONE);
		assert_int_equal(CGET(d, msix_config), NONE);
	}
}

const struct check status_checks[] = {
	CHECK("2.1", status_starts_as_0_and_keeps_its_bits),
	CHECK("3.1.1", driver_ok_needs_features_ok),
	CHECK_ON("2.1.2", nothing_moves_before_driver_ok, ON_BOTH),
	CHECK("2.2.2", offered_features_are_complete),
	CHECK("2.2.2", reserved_features_are_not_offered),
	CHECK("6.2", version_1_is_offered),
	CHECK("2.2.2", features_are_refused_not_ignored),
	CHECK("2.2.2", subsets_are_taken_again_and_again),
	CHECK("2.2.1", features_are_fixed_by_features_ok),
	CHECK_ON("2.4.1", reset_ends_everything, ON_BOTH),
	CHECK("4.1.4.3.1", reset_makes_registers_as_new),
	{0},
};
