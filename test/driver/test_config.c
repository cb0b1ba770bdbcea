/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The operator's calls: link, announcement and MTU, and what the driver gets to know. */

#include <sys/eventfd.h>

#include "fn_harness.h"

#define N(f)	  BIT(VIRTIO_NET_F_##f)
#define ANNOUNCE  (N(CTRL_VQ) | N(GUEST_ANNOUNCE))
#define CTRL	  2
#define STATUS(g) reg_get(g, &(g)->device, FIELD(struct virtio_net_config, status))
#define MTU(g)	  reg_get(g, &(g)->device, FIELD(struct virtio_net_config, mtu))
#define UP	  VIRTIO_NET_S_LINK_UP

static struct frame f, got;

/* The eventfd of a guest's configuration interrupt; a second call says whether one came. */
static int
listen_to(struct guest *g)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	assert_int_equal(g->link->ops->set_irq(g->link, 0, fd), 0);
	CSET(g, config_msix_vector, 0);
	assert_int_equal(CGET(g, config_msix_vector), 0);
	return fd;
}

static unsigned int
interrupts(int fd)
{
	eventfd_t n = 0;

	eventfd_read(fd, &n);
	return n;
}

static void
wired(struct guest **a, struct guest **b, uint64_t features)
{
	*a = guest_open(
		&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE, .features = features});
	*b = guest_open(&(struct guest_conf){
		.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a", .features = features});
	rx_post(*a, 0, 16, 2048, 1);
	rx_post(*b, 0, 16, 2048, 1);
}

static void
is_dropped(struct guest *from, struct guest *to)
{
	uint64_t before = stat_of(from, 1, VFN_STAT_DROPPED_NO_PEER);

	tx_send(from, 1, &f);
	tx_wait(from, 1, 1);
	stat_wait(from, 1, VFN_STAT_DROPPED_NO_PEER, before + 1);
	assert_false(rx_try(to, 0, &got, 0));
}

static void
cable_that_is_pulled_is_seen_at_both_ends(void **state)
{
	struct guest *a, *b;
	uint32_t generation;
	int fd[2];

	(void)state;
	wired(&a, &b, N(STATUS));
	fd[0] = listen_to(a);
	fd[1] = listen_to(b);
	frame_make(&f, 1, 100);
	assert_true(STATUS(a) == UP && STATUS(b) == UP);
	frame_passes(a, 1, b, 0, &f);

	generation = CGET(b, config_generation);
	vfn_manage_link(a->fn, false);
	assert_true(STATUS(a) == 0 && STATUS(b) == 0);
	assert_int_equal(vfn_manage_link_down(a->fn), VFN_LINK_UNPLUGGED);
	assert_int_equal(vfn_manage_link_down(b->fn), VFN_LINK_PEER_UNPLUGGED);
	assert_true(interrupts(fd[0]) == 1 && interrupts(fd[1]) == 1);
	assert_int_not_equal(CGET(b, config_generation), generation);
	assert_int_equal(reg_get(a, &a->isr, 0, 1), 2);
	is_dropped(a, b);
	is_dropped(b, a);

	/* the other end too: it takes both to be up */
	vfn_manage_link(b->fn, false);
	vfn_manage_link(a->fn, true);
	assert_true(STATUS(a) == 0 && STATUS(b) == 0);
	assert_true(interrupts(fd[0]) == 0 && interrupts(fd[1]) == 0);
	is_dropped(a, b);
	is_dropped(b, a);
	vfn_manage_link(b->fn, true);
	assert_true(STATUS(a) == UP && STATUS(b) == UP);
	assert_true(interrupts(fd[0]) == 1 && interrupts(fd[1]) == 1);
	frame_passes(a, 1, b, 0, &f);
	frame_passes(b, 1, a, 0, &f);
	close(fd[0]);
	close(fd[1]);
}

static void
loop_is_cut_and_closed(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = N(STATUS)});
	int fd = listen_to(g);

	(void)state;
	rx_post(g, 0, 4, 2048, 1);
	frame_make(&f, 1, 100);
	frame_passes(g, 1, g, 0, &f);
	vfn_manage_link(g->fn, false);
	assert_int_equal(STATUS(g), 0);
	is_dropped(g, g);
	/* no change, no interrupt */
	vfn_manage_link(g->fn, false);
	assert_int_equal(interrupts(fd), 1);
	vfn_manage_link(g->fn, true);
	assert_int_equal(STATUS(g), UP);
	assert_int_equal(interrupts(fd), 1);
	frame_passes(g, 1, g, 0, &f);
	close(fd);
}

static void
unplugged_link_survives_a_reset_and_a_peer(void **state)
{
	struct guest *a = guest_open(&(struct guest_conf){.name = "a", .wiring = VFN_WIRING_WIRE}),
		     *b;

	(void)state;
	vfn_manage_link(a->fn, false);
	guest_reset(a);
	assert_int_equal(vfn_manage_link_down(a->fn), VFN_LINK_UNPLUGGED);
	guest_start(a);
	b = guest_open(&(struct guest_conf){.name = "b", .wiring = VFN_WIRING_WIRE, .peer = "a"});
	assert_true(STATUS(a) == 0 && STATUS(b) == 0);
	vfn_manage_link(a->fn, true);
	assert_true(STATUS(a) == UP && STATUS(b) == UP);
	guest_close(b);
	assert_int_equal(STATUS(a), 0);
	vfn_manage_link(a->fn, false);
	vfn_manage_link(a->fn, true);
	assert_int_equal(STATUS(a), 0);
}

static void
announcement_is_asked_for_until_it_is_acknowledged(const struct shape *shape)
{
	struct guest *g = guest_open(
		&(struct guest_conf){.features = shape_features(shape) | ANNOUNCE | N(STATUS)});
	int fd = listen_to(g);
	unsigned int i;

	for (i = 0; i < 2; i++) {
		assert_int_equal(vfn_manage_announce(g->fn, true), 0);
		assert_int_equal(STATUS(g), UP | VIRTIO_NET_S_ANNOUNCE);
		assert_int_equal(interrupts(fd), 1);
		/* anything but an acknowledgement */
		assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_ANNOUNCE, 1), VIRTIO_NET_ERR);
		assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_ANNOUNCE, 0, 0), VIRTIO_NET_ERR);
		assert_int_equal(STATUS(g), UP | VIRTIO_NET_S_ANNOUNCE);
		assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_ANNOUNCE, 0), VIRTIO_NET_OK);
		assert_int_equal(STATUS(g), UP);
		assert_int_equal(interrupts(fd), 0);
	}
	/* withdrawn */
	assert_int_equal(vfn_manage_announce(g->fn, true), 0);
	assert_int_equal(vfn_manage_announce(g->fn, false), 0);
	assert_int_equal(STATUS(g), UP);
	/* forgotten by a reset */
	assert_int_equal(vfn_manage_announce(g->fn, true), 0);
	guest_reset(g);
	assert_int_equal(STATUS(g), UP);
	close(fd);
}

static void
announcement_needs_a_driver_that_knows_of_it(void **state)
{
	struct guest *g = guest_new(&(struct guest_conf){.features = N(CTRL_VQ) | N(STATUS)});

	(void)state;
	assert_int_equal(vfn_manage_announce(g->fn, true), -ENOTSUP);
	guest_start(g);
	assert_int_equal(vfn_manage_announce(g->fn, true), -ENOTSUP);
	assert_int_equal(COMMAND(g, CTRL, VIRTIO_NET_CTRL_ANNOUNCE, 0), VIRTIO_NET_ERR);
	assert_int_equal(STATUS(g), UP);
}

/* Does a frame pass whose IP packet has that size? */
static bool
fits(struct guest *g, uint32_t mtu)
{
	uint64_t before = stat_of(g, 1, VFN_STAT_DROPPED_SIZE);
	bool passed;

	frame_make(&f, mtu, mtu + 18);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	passed = rx_try(g, 0, &got, 0);
	if (passed)
		rx_post(g, 0, 1, 2048, 1);
	stat_wait(g, 1, VFN_STAT_DROPPED_SIZE, before + !passed);
	return passed;
}

static void
smaller_mtu_holds_at_once_and_a_larger_one_later(void **state)
{
	struct guest *g = guest_new(
		&(struct guest_conf){.features = N(MTU) | N(STATUS), .mtu = 1000, .size = 64});
	int fd;

	(void)state;
	/* before anybody has looked */
	assert_int_equal(vfn_manage_mtu(g->fn, 1200), 0);
	guest_start(g);
	fd = listen_to(g);
	rx_post(g, 0, 16, 2048, 1);
	assert_int_equal(MTU(g), 1200);
	assert_true(fits(g, 1200));
	assert_false(fits(g, 1201));
	assert_int_equal(vfn_manage_mtu(g->fn, 900), 0);
	assert_int_equal(MTU(g), 900);
	assert_int_equal(interrupts(fd), 1);
	assert_true(fits(g, 900));
	assert_false(fits(g, 901));
	/* the driver knew of 900: it may have no larger buffers */
	assert_int_equal(vfn_manage_mtu(g->fn, 1500), 0);
	assert_int_equal(interrupts(fd), 1);
	assert_int_equal(MTU(g), 1500);
	assert_false(fits(g, 901));
	assert_int_equal(vfn_manage_mtu(g->fn, 1500), 0);
	assert_int_equal(vfn_manage_mtu(g->fn, 67), -EINVAL);
	assert_int_equal(vfn_manage_mtu(g->fn, 0), -EINVAL);
	assert_int_equal(MTU(g), 1500);
	assert_int_equal(interrupts(fd), 0);
	guest_reset(g);
	assert_int_equal(MTU(g), 1500);
	guest_start(g);
	rx_post(g, 0, 16, 2048, 1);
	assert_true(fits(g, 1500));
	assert_false(fits(g, 1501));
	close(fd);
}

static void
mtu_that_is_not_offered_cannot_be_set(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){0});

	(void)state;
	assert_int_equal(vfn_manage_mtu(g->fn, 1500), -ENOTSUP);
	assert_int_equal(MTU(g), 0);
}

static void
nobody_is_interrupted_before_driver_ok(void **state)
{
	struct guest *g = guest_new(&(struct guest_conf){0});
	int fd = listen_to(g);

	(void)state;
	vfn_manage_link(g->fn, false);
	assert_int_equal(interrupts(fd), 0);
	assert_int_equal(reg_get(g, &g->isr, 0, 1), 0);
	assert_int_equal(STATUS(g), 0);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(cable_that_is_pulled_is_seen_at_both_ends),
		PLAIN(loop_is_cut_and_closed),
		PLAIN(unplugged_link_survives_a_reset_and_a_peer),
		PLAIN(announcement_needs_a_driver_that_knows_of_it),
		PLAIN(smaller_mtu_holds_at_once_and_a_larger_one_later),
		PLAIN(mtu_that_is_not_offered_cannot_be_set),
		PLAIN(nobody_is_interrupted_before_driver_ok),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(announcement_is_asked_for_until_it_is_acknowledged),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("config", tests, DIM(tests), shaped, DIM(shaped));
}
