/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Interrupts as PCI has them: masks, pending bits, the pin (virtio 1.3, 4.1.4.5, 4.1.5.3). */

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "endpoint_link.h"
#include "fn_harness.h"

#define MSIX_ON	    0x8000u
#define MSIX_MASKED 0x4000u
#define INTX_OFF    0x0400u
#define PCI_COMMAND 0x04
#define PCI_STATUS  0x06
#define ISR(g)	    reg_get(g, &(g)->isr, 0, 1)

static struct frame f, got;

static uint16_t
config_get(struct guest *g, uint8_t at)
{
	uint16_t v;

	assert_int_equal(g->link->ops->read(g->link, VFN_REGION_CONFIG, at, &v, sizeof(v)), 0);
	return v;
}

static void
config_set(struct guest *g, uint8_t at, uint16_t v)
{
	assert_int_equal(g->link->ops->write(g->link, VFN_REGION_CONFIG, at, &v, sizeof(v)), 0);
}

static void
msix(struct guest *g, uint16_t bits)
{
	uint16_t control = config_get(g, g->msix + 2);

	config_set(g, g->msix + 2, (control & ~(MSIX_ON | MSIX_MASKED)) | bits);
}

static void
mask(struct guest *g, unsigned int vector, bool on)
{
	uint32_t v = on;

	assert_int_equal(g->link->ops->write(g->link, VFN_REGION_BAR1,
				 VFN_OFF_MSIX_TABLE + 16 * vector + 12, &v, sizeof(v)),
		0);
}

static bool
is_pending(struct guest *g, unsigned int vector)
{
	uint64_t bits;

	assert_int_equal(g->link->ops->read(g->link, VFN_REGION_BAR1,
				 VFN_OFF_MSIX_PBA + vector / 64 * 8, &bits, sizeof(bits)),
		0);
	return bits >> vector % 64 & 1;
}

/* How often it was signalled; waits for the first time if it has to be. */
static unsigned int
signals(int fd, bool wait)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	eventfd_t n = 0;

	if (poll(&pfd, 1, wait ? PATIENCE_MS : 0) == 1)
		eventfd_read(fd, &n);
	return n;
}

/* A guest that wants to be called for what it receives, and has not been. */
static struct guest *
called_guest(uint64_t features)
{
	struct guest *g =
		guest_open(&(struct guest_conf){.features = features | BIT(VIRTIO_NET_F_STATUS)});

	rx_post(g, 0, 64, 2048, 1);
	mock_events_enable(&g->q[0].drv, 0);
	return g;
}

/* What it receives it is called for. */
static void
receive(struct guest *g)
{
	static uint32_t number;

	frame_make(&f, number++, 100);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	rx_wait(g, 0, &got);
	frames_equal(&got, &f);
	mock_events_enable(&g->q[0].drv, 0);
}

static void
vectors_are_masked_after_power_on(void **state)
{
	struct vfn_function *fn;
	struct vfn_link *link;
	uint32_t control;
	unsigned int i;

	(void)state;
	assert_int_equal(function_open(&(struct guest_conf){.pairs = 3}, &fn, &link), 0);
	for (i = 0; i < 8; i++) {
		assert_int_equal(link->ops->read(link, VFN_REGION_BAR1, 16 * i + 12, &control,
					 sizeof(control)),
			0);
		assert_int_equal(control, 1);
	}
	link->ops->close(link);
}

static void
masked_vector_stays_pending(const struct shape *shape)
{
	struct guest *g = called_guest(shape_features(shape));
	int call = g->q[0].call;
	unsigned int way;

	for (way = 0; way < 2; way++) {
		if (way == 0)
			mask(g, 1, true);
		else
			msix(g, MSIX_ON | MSIX_MASKED);
		receive(g);
		assert_int_equal(signals(call, false), 0);
		assert_true(is_pending(g, 1));
		assert_false(is_pending(g, 0));
		if (way == 0)
			mask(g, 1, false);
		else
			msix(g, MSIX_ON);
		assert_int_equal(signals(call, false), 1);
		assert_false(is_pending(g, 1));
		receive(g);
		assert_int_equal(signals(call, true), 1);
	}
	/* unmasked with nothing pending nobody is called */
	mask(g, 1, true);
	mask(g, 1, false);
	assert_int_equal(signals(call, false), 0);
	assert_int_equal(ISR(g) & 1, 0);
}

static void
masked_configuration_vector_stays_pending(void **state)
{
	struct guest *g = called_guest(0);
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	(void)state;
	assert_int_equal(g->link->ops->set_irq(g->link, 0, fd), 0);
	CSET(g, config_msix_vector, 0);
	mask(g, 0, true);
	vfn_manage_link(g->fn, false);
	assert_int_equal(signals(fd, false), 0);
	assert_true(is_pending(g, 0));
	mask(g, 0, false);
	assert_int_equal(signals(fd, false), 1);
	assert_int_equal(ISR(g), 2);
	close(fd);
}

static void
without_messages_the_pin_and_isr_tell(const struct shape *shape)
{
	struct guest *g = called_guest(shape_features(shape));
	int pin = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	/* VFIO masks it each time */
	if (over_endpoint())
		skip();
	assert_int_equal(g->link->ops->set_irq(g->link, VFN_VECTOR_INTX, pin), 0);
	assert_int_equal(g->link->ops->set_irq(g->link, VFN_VECTOR_INTX + 1, pin), -EINVAL);
	receive(g);
	assert_int_equal(signals(g->q[0].call, true), 1);
	assert_int_equal(signals(pin, false), 0);
	assert_int_equal(config_get(g, PCI_STATUS) & 8, 0);

	msix(g, 0);
	receive(g);
	assert_int_equal(signals(pin, true), 1);
	assert_int_equal(signals(g->q[0].call, false), 0);
	assert_int_equal(config_get(g, PCI_STATUS) & 8, 8);
	assert_int_equal(ISR(g), 1);
	/* reading has cleared it (4.1.4.5) */
	assert_int_equal(ISR(g), 0);
	assert_int_equal(config_get(g, PCI_STATUS) & 8, 0);

	vfn_manage_link(g->fn, false);
	vfn_manage_link(g->fn, true);
	receive(g);
	assert_true(signals(pin, true) >= 1);
	assert_int_equal(ISR(g), 3);

	/* the pin may be off: ISR tells all the same, and the pin once it is on */
	config_set(g, PCI_COMMAND, config_get(g, PCI_COMMAND) | INTX_OFF);
	signals(pin, false);
	receive(g);
	assert_int_equal(signals(pin, false), 0);
	config_set(g, PCI_COMMAND, config_get(g, PCI_COMMAND) & ~INTX_OFF);
	assert_int_equal(signals(pin, false), 1);
	assert_int_equal(ISR(g), 1);

	/* back to messages */
	msix(g, MSIX_ON);
	receive(g);
	assert_int_equal(signals(g->q[0].call, true), 1);
	assert_int_equal(signals(pin, false), 0);
	close(pin);
}

struct toggler {
	struct guest *g;
	bool quit;
};

static void *
toggle(void *arg)
{
	struct toggler *t = arg;

	while (!__atomic_load_n(&t->quit, __ATOMIC_RELAXED)) {
		mask(t->g, 1, true);
		mask(t->g, 1, false);
	}
	return NULL;
}

/* Masks change while frames arrive: each of these is told of in the end. */
static void
no_interrupt_is_lost_to_a_mask(const struct shape *shape)
{
	struct guest *g = called_guest(shape_features(shape));
	struct toggler t = {.g = g};
	pthread_t thread;
	unsigned int i;

	assert_int_equal(pthread_create(&thread, NULL, toggle, &t), 0);
	for (i = 0; i < 200; i++) {
		frame_make(&f, i, 100);
		assert_int_equal(tx_post(g, 1, &f, NULL, 0) < 0, 0);
		mock_publish(&g->q[1].drv);
		queue_kick(g, 1);
		if (signals(g->q[0].call, true) == 0)
			break;
		/* called more than once for one frame is no fault: it may have been pending */
		rx_wait(g, 0, &got);
		tx_wait(g, 1, 1);
		rx_post(g, 0, 1, 2048, 1);
		signals(g->q[0].call, false);
		mock_events_enable(&g->q[0].drv, 0);
	}
	__atomic_store_n(&t.quit, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_int_equal(i, 200);
}

static void
function_without_messages_has_the_pin(void **state)
{
	const struct guest_conf conf = {.no_msix = true};
	struct guest *g = guest_new(&conf);
	int pin = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	unsigned int at;

	(void)state;
	/* no capability, and no bit of one can be set */
	assert_int_equal(g->msix, 0);
	for (at = 0x40; at < VFN_PCI_CONFIG_SIZE; at += 2)
		config_set(g, at, 0xffff);
	guest_start(g);
	assert_int_equal(g->link->ops->set_irq(g->link, VFN_VECTOR_INTX, pin), 0);
	vfn_manage_link(g->fn, false);
	assert_int_equal(signals(pin, true), 1);
	assert_int_equal(ISR(g), 2);
	close(pin);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(function_without_messages_has_the_pin),
		PLAIN(vectors_are_masked_after_power_on),
		PLAIN(masked_configuration_vector_stays_pending),
	};
	const struct shaped_test shaped[] = {
		SHAPED(masked_vector_stays_pending),
		SHAPED(without_messages_the_pin_and_isr_tell),
		SHAPED(no_interrupt_is_lost_to_a_mask),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("interrupts", tests, DIM(tests), shaped, DIM(shaped));
}
