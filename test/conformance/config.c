/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The device configuration and its generation (virtio 1.3, 2.5, 4.1.4.3.1). */

#include <vfn_net_function.h>

#include "device.h"

#define CTRL_VQ	 BIT(VIRTIO_NET_F_CTRL_VQ)
#define MAC_ADDR BIT(VIRTIO_NET_F_CTRL_MAC_ADDR)

static uint64_t
mac(struct dev *d)
{
	uint64_t v = 0;
	unsigned int i;

	for (i = 0; i < 6; i++)
		v = v << 8 | get(d, &d->config, i, 1);
	return v;
}

static void
configuration_is_readable_before_features_ok(struct dev *d, uint64_t format)
{
	const uint64_t all = offered(d);

	(void)format;
	assert_true(all & BIT(VIRTIO_NET_F_MAC));
	assert_int_equal(mac(d) >> 40 & 1, 0);
	assert_int_not_equal(mac(d), 0);
	assert_true(all & BIT(VIRTIO_NET_F_STATUS));
	assert_int_equal(NETGET(d, status), VIRTIO_NET_S_LINK_UP);
	assert_true(all & BIT(VIRTIO_NET_F_MQ));
	assert_int_equal(2 * NETGET(d, max_virtqueue_pairs) + 1, d->nb_queues);
	assert_true(all & BIT(VIRTIO_NET_F_MTU));
	assert_true(NETGET(d, mtu) >= 68);
	/* at any width that is a field's or less, to its end */
	get(d, &d->config, d->config.length - 1, 1);
}

static void
configuration_change_shows_in_the_generation(struct dev *d, uint64_t format)
{
	uint8_t generation;

	(void)format;
	if (d->target.fn == NULL) {
		print_message("# skipped: the operator is in another process\n");
		skip();
	}
	assert_int_equal(NETGET(d, status), VIRTIO_NET_S_LINK_UP);
	generation = CGET(d, config_generation);
	assert_int_equal(CGET(d, config_generation), generation);
	vfn_manage_link(d->target.fn, false);
	assert_int_equal(NETGET(d, status), 0);
	assert_int_not_equal(CGET(d, config_generation), generation);
	/* between two parts of a reading */
	generation = CGET(d, config_generation);
	assert_int_equal(NETGET(d, mtu), 1500);
	vfn_manage_mtu(d->target.fn, 9000);
	assert_int_equal(NETGET(d, status), 0);
	assert_int_equal(NETGET(d, mtu), 9000);
	assert_int_not_equal(CGET(d, config_generation), generation);
	generation = CGET(d, config_generation);
	assert_int_equal(NETGET(d, mtu), 9000);
	assert_int_equal(CGET(d, config_generation), generation);
}

/* Eight bits wrap: as many changes as there are values are a change (the note in 4.1.4.3.1). */
static void
generation_does_not_wrap(struct dev *d, uint64_t format)
{
	uint8_t generation;
	unsigned int i;

	(void)format;
	if (d->target.fn == NULL) {
		print_message("# skipped: the operator is in another process\n");
		skip();
	}
	assert_int_equal(NETGET(d, mtu), 1500);
	generation = CGET(d, config_generation);
	for (i = 1; i <= 256; i++)
		assert_int_equal(vfn_manage_mtu(d->target.fn, 1500 + i), 0);
	assert_int_equal(NETGET(d, mtu), 1756);
	assert_int_not_equal(CGET(d, config_generation), generation);
}

static void
change_by_the_driver_shows_in_the_generation(struct dev *d, uint64_t format)
{
	static const uint8_t other[6] = {2, 0, 0, 0, 0, 7};
	uint64_t first = mac(d);
	uint8_t generation;

	assert_true(negotiate(d, VERSION_1 | CTRL_VQ | MAC_ADDR | format));
	ring_setup(&d->ctrl, d, 2, 16);
	driver_ok(d);
	generation = CGET(d, config_generation);
	assert_int_equal(command(d, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6),
		VIRTIO_NET_OK);
	assert_int_equal(mac(d), 0x020000000007);
	assert_int_not_equal(CGET(d, config_generation), generation);
	/* a reset takes it back: that is a change as well */
	generation = CGET(d, config_generation);
	dev_reset(d);
	assert_int_equal(mac(d), first);
	assert_int_not_equal(CGET(d, config_generation), generation);
}

/* 3.2.1: no driver, nobody to be told. */
static void
configuration_change_is_told_to_a_driver_only(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 0);

	(void)format;
	if (d->target.fn == NULL) {
		print_message("# skipped: the operator is in another process\n");
		skip();
	}
	msix_on(d);
	assert_true(negotiate(d, VERSION_1 | BIT(VIRTIO_NET_F_STATUS)));
	CSET(d, msix_config, 0);
	settle(d);
	vfn_manage_link(d->target.fn, false);
	assert_int_equal(raised(fd, 5), 0);
	driver_ok(d);
	vfn_manage_link(d->target.fn, true);
	assert_int_equal(raised(fd, PATIENCE_MS), 1);
	/* no change, nothing to tell */
	vfn_manage_link(d->target.fn, true);
	assert_int_equal(raised(fd, 5), 0);
}

const struct check config_checks[] = {
	CHECK("2.5.2", configuration_is_readable_before_features_ok),
	CHECK("4.1.4.3.1", configuration_change_shows_in_the_generation),
	CHECK("4.1.4.3.1", generation_does_not_wrap),
	CHECK_ON("4.1.4.3.1", change_by_the_driver_shows_in_the_generation, ON_BOTH),
	CHECK("3.2.1", configuration_change_is_told_to_a_driver_only),
	{0},
};
