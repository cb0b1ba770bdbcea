/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Interrupts of a function behind vfio-user: MSI-X, the pin, requests. */

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "ep_rig.h"

#define PCI_COMMAND  0x04
#define PCI_MASTER   0x0004
#define PCI_INTX_OFF 0x0400
#define MSIX_ENTRY   16
#define BUFFERS	     64

/* A guest behind a hypervisor: it has set up its queues, and nobody has written the MSI-X table. */
static struct guest *
hypervisor_guest(struct rig **rig)
{
	static const struct guest_conf conf = {.features = BIT(VIRTIO_NET_F_STATUS)};
	struct rig *r = rig_new(&conf, NULL);
	struct guest *g;

	rig_connect(r);
	g = rig_guest(r, &conf);
	/* the harness wrote the table: from the start again */
	assert_int_equal(vfu_client_reset(r->client), 0);
	guest_start(g);
	rx_post(g, 0, BUFFERS, 2048, 1);
	mock_events_enable(&g->q[0].drv, 0);
	*rig = r;
	return g;
}

static void
msix_on(struct rig *r, struct guest *g)
{
	assert_int_equal(client_set(r, VFN_REGION_CONFIG, g->msix + 2, 2, 0x8000), 0);
}

static bool
entry_masked(struct rig *r, unsigned int vector)
{
	return client_get(r, VFN_REGION_BAR1, vector * MSIX_ENTRY + 12, 4) & 1;
}

static bool
is_pending(struct rig *r, unsigned int vector)
{
	return client_get(r, VFN_REGION_BAR1, VFN_OFF_MSIX_PBA, 4) >> vector & 1;
}

static int
vector_fd(struct rig *r, unsigned int vector, const int *fd)
{
	return vfu_client_irq_fds(
		r->client, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, vector, fd, 1);
}

static int
vector_mask(struct rig *r, unsigned int vector, bool mask)
{
	return vfu_client_irq_action(r->client, VFIO_PCI_MSIX_IRQ_INDEX,
		mask ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK, vector, 1);
}

static void
receive(struct guest *g)
{
	rig_echo(g, 1);
	mock_events_enable(&g->q[0].drv, 0);
}

static void
vectors_with_an_eventfd_are_unmasked(void **state)
{
	struct rig *r;
	struct guest *g = hypervisor_guest(&r);
	int call = g->q[0].call;

	(void)state;
	msix_on(r, g);
	assert_true(entry_masked(r, 0));
	assert_false(entry_masked(r, 1));
	receive(g);
	assert_true(signalled(call));

	assert_int_equal(vector_fd(r, 1, NULL), 0);
	assert_true(entry_masked(r, 1));
	receive(g);
	assert_int_equal(signals(call, false), 0);
	assert_true(is_pending(r, 1));
	assert_int_equal(vector_fd(r, 1, &call), 0);
	assert_true(signalled(call));
	assert_false(is_pending(r, 1));

	assert_int_equal(vector_mask(r, 1, true), 0);
	receive(g);
	assert_int_equal(signals(call, false), 0);
	assert_true(is_pending(r, 1));
	assert_int_equal(vector_mask(r, 1, false), 0);
	assert_int_equal(signals(call, false), 1);
	assert_int_equal(vector_mask(r, 1, false), 0);
	assert_int_equal(signals(call, false), 0);

	/* raised by the client, as it tests them */
	assert_int_equal(vfu_client_irq_action(r->client, VFIO_PCI_MSIX_IRQ_INDEX,
				 VFIO_IRQ_SET_ACTION_TRIGGER, 1, 1),
		0);
	assert_int_equal(signals(call, false), 1);
	assert_int_equal(vfu_client_irqs_off(r->client, VFIO_PCI_MSIX_IRQ_INDEX), 0);
	assert_true(entry_masked(r, 1));
	assert_int_equal(vector_fd(r, 4, &call), -EINVAL);
}

static void
table_that_the_client_fills_is_left_alone(void **state)
{
	struct rig *r;
	struct guest *g = hypervisor_guest(&r);
	int call = g->q[0].call;

	(void)state;
	msix_on(r, g);
	assert_int_equal(client_set(r, VFN_REGION_BAR1, MSIX_ENTRY + 12, 4, 1), 0);
	assert_int_equal(vector_fd(r, 1, &call), 0);
	assert_true(entry_masked(r, 1));
	receive(g);
	assert_int_equal(signals(call, false), 0);
	assert_int_equal(client_set(r, VFN_REGION_BAR1, MSIX_ENTRY + 12, 4, 0), 0);
	assert_int_equal(signals(call, false), 1);
}

#define ISR(r) client_get(r, VFN_REGION_BAR0, VFN_OFF_ISR, 1)

static int
intx_action(struct rig *r, uint32_t action)
{
	return vfu_client_irq_action(r->client, VFIO_PCI_INTX_IRQ_INDEX, action, 0, 1);
}

static void
pin_is_a_level_that_masks_itself(void **state)
{
	struct rig *r;
	struct guest *g = hypervisor_guest(&r);
	int pin = eventfd_new(), unmask = eventfd_new(), none = -1;

	(void)state;
	assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_INTX_IRQ_INDEX,
				 VFIO_IRQ_SET_ACTION_TRIGGER, 0, &pin, 1),
		0);
	receive(g);
	assert_true(signalled(pin));
	/* nothing more until it is unmasked, however much there is */
	receive(g);
	nap_us(20000);
	assert_int_equal(signals(pin, false), 0);
	/* the level is still there */
	assert_int_equal(intx_action(r, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(signals(pin, false), 1);
	assert_int_equal(ISR(r), 1);
	assert_int_equal(ISR(r), 0);
	assert_int_equal(intx_action(r, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	nap_us(20000);
	assert_int_equal(signals(pin, false), 0);

	/* raised while it was masked */
	assert_int_equal(intx_action(r, VFIO_IRQ_SET_ACTION_MASK), 0);
	receive(g);
	nap_us(20000);
	assert_int_equal(signals(pin, false), 0);
	assert_int_equal(intx_action(r, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(signals(pin, false), 1);

	/* unmasked by an eventfd: the level is still there */
	assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_INTX_IRQ_INDEX,
				 VFIO_IRQ_SET_ACTION_UNMASK, 0, &unmask, 1),
		0);
	eventfd_write(unmask, 1);
	assert_true(signalled(pin));
	assert_int_equal(ISR(r), 1);
	eventfd_write(unmask, 1);
	nap_us(20000);
	assert_int_equal(signals(pin, false), 0);
	receive(g);
	assert_true(signalled(pin));
	ISR(r);
	assert_int_equal(intx_action(r, VFIO_IRQ_SET_ACTION_UNMASK), 0);

	/* the driver has switched the pin off */
	assert_int_equal(
		client_set(r, VFN_REGION_CONFIG, PCI_COMMAND, 2, PCI_MASTER | PCI_INTX_OFF), 0);
	receive(g);
	nap_us(20000);
	assert_int_equal(signals(pin, false), 0);
	assert_int_equal(client_set(r, VFN_REGION_CONFIG, PCI_COMMAND, 2, PCI_MASTER), 0);
	assert_true(signalled(pin));

	assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_INTX_IRQ_INDEX,
				 VFIO_IRQ_SET_ACTION_TRIGGER, 0, &none, 0),
		0);
	assert_int_equal(vfu_client_irqs_off(r->client, VFIO_PCI_INTX_IRQ_INDEX), 0);
	close(pin);
	close(unmask);
}

/* Whoever waits for a file that a client serves waits for the client: pollers, in the end. */
static void
files_are_no_eventfds(void **state)
{
	struct rig *r = rig_new(&(struct guest_conf){.sleep = true}, NULL);
	int pipes[2], file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	unsigned int i;

	(void)state;
	assert_true(pipe(pipes) == 0 && file >= 0);
	rig_connect(r);
	for (i = 0; i < 2; i++) {
		int fd = i == 0 ? file : pipes[1], ret = i == 0 ? -EINVAL : 0;

		assert_int_equal(vector_fd(r, 1, &fd), ret);
		assert_int_equal(r->link.ops->set_irq(&r->link, VFN_VECTOR_INTX, fd), ret);
		fd = i == 0 ? file : pipes[0];
		assert_int_equal(r->link.ops->set_doorbell(&r->link, 1, fd), ret);
		assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_INTX_IRQ_INDEX,
					 VFIO_IRQ_SET_ACTION_UNMASK, 0, &fd, 1),
			ret);
	}
	close(file);
	/* nobody will ring */
	file = memfd_create("none", MFD_CLOEXEC);
	assert_int_equal(r->link.ops->set_doorbell(&r->link, 1, file), 0);
	assert_int_equal(vector_fd(r, 1, &file), -EINVAL);
	close(file);
	close(pipes[0]);
	close(pipes[1]);
}

static void
operator_asks_for_the_device(void **state)
{
	struct rig *r = rig_new(&(struct guest_conf){0}, NULL);
	int request = eventfd_new();

	(void)state;
	assert_int_equal(vfn_endpoint_ask_removal(r->ep), -ENOTCONN);
	rig_connect(r);
	assert_int_equal(client_get(r, VFN_REGION_CONFIG, 0, 2), VFN_PCI_VENDOR);
	assert_int_equal(vfn_endpoint_ask_removal(r->ep), -ENOTSUP);
	assert_int_equal(vfu_client_irq_fds(r->client, VFIO_PCI_REQ_IRQ_INDEX,
				 VFIO_IRQ_SET_ACTION_TRIGGER, 0, &request, 1),
		0);
	assert_int_equal(vfn_endpoint_ask_removal(r->ep), 0);
	assert_int_equal(signals(request, false), 1);
	close(request);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define RIGGED(test) cmocka_unit_test_teardown(test, rigs_close)
		RIGGED(vectors_with_an_eventfd_are_unmasked),
		RIGGED(table_that_the_client_fills_is_left_alone),
		RIGGED(pin_is_a_level_that_masks_itself),
		RIGGED(files_are_no_eventfds),
		RIGGED(operator_asks_for_the_device),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return cmocka_run_group_tests_name("endpoint_irq", tests, NULL, NULL);
}
