/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Interrupts (virtio 1.3, 4.1.4.5, 4.1.5.1.2, 4.1.5.3, 4.1.5.4), and what PCI has to say of them
 * (PCI 3.0, 6.8).
 */

#include <vfn_net_function.h>

#include "device.h"

#define COMMAND_NO_PIN 0x0400
#define STATUS	       0x06
#define STATUS_PIN     0x08

static void
map_queue(struct dev *d, uint16_t queue, uint16_t vector)
{
	CSET(d, queue_select, queue);
	CSET(d, queue_msix_vector, vector);
	assert_int_equal(CGET(d, queue_msix_vector), vector);
}

static void
map_config(struct dev *d, uint16_t vector)
{
	CSET(d, msix_config, vector);
	assert_int_equal(CGET(d, msix_config), vector);
}

/* The operator is at hand where the function is in this process. */
static void
change_link(struct dev *d, bool up)
{
	if (d->target.fn == NULL) {
		print_message("# skipped: the operator is in another process\n");
		skip();
	}
	vfn_manage_link(d->target.fn, up);
	/* What it raised comes before what is read after. */
	CGET(d, device_status);
}

/* Started, and one event for each frame: nobody is called for what was sent. */
static void
start_receiving(struct dev *d, uint64_t features)
{
	start(d, features);
	ring_events(&d->tx, false);
}

/* A chain is used before its driver is called. */
#define EVENTUALLY(condition) \
	do { \
		const uint64_t end_ = clock_ms() + PATIENCE_MS; \
		while (!(condition)) \
			assert_true(clock_ms() < end_); \
	} while (0)

static uint8_t
isr(struct dev *d)
{
	return get(d, &d->isr, 0, 1);
}

static bool
pin_is_up(struct dev *d)
{
	return pci_get(d, STATUS, 2) & STATUS_PIN;
}

/* ---- vectors ---- */

static void
table_has_the_vectors_it_says(struct dev *d, uint64_t format)
{
	unsigned int i;

	(void)format;
	assert_true(d->nb_vectors >= 2 && d->nb_vectors <= 0x800);
	for (i = 0; i < d->nb_vectors; i++) {
		/* masked after power-on, and the rest of an entry is the driver's */
		assert_int_equal(bar_get(d, d->table_bar, d->table_at + 16 * i + 12, 4) & 1, 1);
		bar_set(d, d->table_bar, d->table_at + 16 * i, 4, 0xfee00000 + 4 * i);
		bar_set(d, d->table_bar, d->table_at + 16 * i + 8, 4, i);
	}
	for (i = 0; i < d->nb_vectors; i++) {
		assert_int_equal(
			bar_get(d, d->table_bar, d->table_at + 16 * i, 4), 0xfee00000 + 4 * i);
		assert_int_equal(bar_get(d, d->table_bar, d->table_at + 16 * i + 8, 4), i);
		assert_false(vector_pending(d, i));
	}
}

static void
any_event_maps_to_any_vector(struct dev *d, uint64_t format)
{
	unsigned int v, i, other = 0;

	msix_on(d);
	start(d, format);
	for (v = 0; v < d->nb_vectors; v++)
		irq_fd(d, v);
	for (v = 0; v < d->nb_vectors; v++) {
		map_queue(d, 0, v);
		map_queue(d, 1, NONE);
		map_config(d, NONE);
		ring_events(&d->rx, true);
		frame_loops(d, v);
		assert_true(raised(d->irq[v], PATIENCE_MS) > 0);
		map_queue(d, 0, NONE);
		if (d->target.fn != NULL) {
			map_config(d, v);
			change_link(d, false);
			assert_true(raised(d->irq[v], PATIENCE_MS) > 0);
			change_link(d, true);
			raised(d->irq[v], 0);
		}
		for (i = 0; i < d->nb_vectors; i++)
			other += raised(d->irq[i], 0);
	}
	assert_int_equal(other, 0);
}

static void
events_can_share_a_vector(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 0);

	msix_on(d);
	start(d, format);
	map_queue(d, 0, 0);
	map_queue(d, 1, 0);
	map_config(d, 0);
	frame_loops(d, 1);
	assert_true(raised(fd, PATIENCE_MS) > 0);
	raised(fd, 5);
	change_link(d, false);
	assert_true(raised(fd, PATIENCE_MS) > 0);
}

static void
vector_that_is_not_there_reads_as_none(struct dev *d, uint64_t format)
{
	const uint16_t missing[] = {d->nb_vectors, d->nb_vectors + 1, 0x7ff, 0x800, 0xfffe};
	unsigned int i;

	(void)format;
	for (i = 0; i < DIM(missing); i++) {
		map_queue(d, 0, 1);
		CSET(d, queue_msix_vector, missing[i]);
		assert_int_equal(CGET(d, queue_msix_vector), NONE);
		map_config(d, 1);
		CSET(d, msix_config, missing[i]);
		assert_int_equal(CGET(d, msix_config), NONE);
	}
	map_queue(d, 0, d->nb_vectors - 1);
	map_config(d, d->nb_vectors - 1);
}

static void
vectors_are_unmapped_by_reset(struct dev *d, uint64_t format)
{
	unsigned int i;

	(void)format;
	assert_int_equal(CGET(d, msix_config), NONE);
	for (i = 0; i < d->nb_queues; i++) {
		CSET(d, queue_select, i);
		assert_int_equal(CGET(d, queue_msix_vector), NONE);
		map_queue(d, i, 1);
	}
	map_config(d, 0);
	dev_reset(d);
	assert_int_equal(CGET(d, msix_config), NONE);
	for (i = 0; i < d->nb_queues; i++) {
		CSET(d, queue_select, i);
		assert_int_equal(CGET(d, queue_msix_vector), NONE);
	}
}

static void
unmapped_events_do_not_interrupt(struct dev *d, uint64_t format)
{
	unsigned int v, i, n = 0;

	msix_on(d);
	start(d, format);
	for (v = 0; v < d->nb_vectors; v++)
		irq_fd(d, v);
	irq_fd(d, VFN_VECTOR_INTX);
	/* never mapped, and mapped once */
	for (i = 0; i < 2; i++) {
		frame_loops(d, i);
		if (d->target.fn != NULL) {
			change_link(d, false);
			change_link(d, true);
		}
		nap_ms(QUIET_MS);
		for (v = 0; v < d->nb_vectors; v++) {
			n += raised(d->irq[v], 0);
			n += vector_pending(d, v);
		}
		n += raised(d->irq[VFN_VECTOR_INTX], 0);
		map_queue(d, 0, 1);
		map_queue(d, 1, 2);
		map_config(d, 0);
		map_queue(d, 0, NONE);
		map_queue(d, 1, NONE);
		map_config(d, NONE);
	}
	assert_int_equal(n, 0);
}

static void
masked_vector_stays_pending(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 1);
	unsigned int way;

	msix_on(d);
	start_receiving(d, format);
	map_queue(d, 0, 1);
	for (way = 0; way < 2; way++) {
		if (way == 0)
			vector_mask(d, 1, true);
		else
			msix_control(d, MSIX_ON | MSIX_MASKED);
		frame_loops(d, way);
		EVENTUALLY(vector_pending(d, 1));
		assert_int_equal(raised(fd, 0), 0);
		assert_false(vector_pending(d, 0));
		if (way == 0)
			vector_mask(d, 1, false);
		else
			msix_control(d, MSIX_ON);
		assert_int_equal(raised(fd, PATIENCE_MS), 1);
		assert_false(vector_pending(d, 1));
	}
	/* nothing pending, nobody called */
	vector_mask(d, 1, true);
	vector_mask(d, 1, false);
	settle(d);
	assert_int_equal(raised(fd, 0), 0);
}

/* What happened before a reset nobody is told after it (2.4.1, 2.6.1.1.1). */
static void
pending_interrupts_end_with_a_reset(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 1);
	unsigned int way;

	msix_on(d);
	for (way = 0; way < 2; way++) {
		dev_reset(d);
		start_receiving(d, BIT(F_RING_RESET) | format);
		map_queue(d, 0, 1);
		raised(fd, 0);
		vector_mask(d, 1, true);
		frame_loops(d, way);
		EVENTUALLY(vector_pending(d, 1));
		if (way == 0)
			dev_reset(d);
		else
			vq_reset(d, 0);
		assert_false(vector_pending(d, 1));
		vector_mask(d, 1, false);
		settle(d);
		assert_int_equal(raised(fd, 0), 0);
	}
}

/* Another event of the same vector is not forgotten with a queue that is reset. */
static void
pending_interrupts_of_others_do_not_end_with_a_queue(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 1);

	msix_on(d);
	start(d, BIT(F_RING_RESET) | format);
	map_queue(d, 0, 1);
	map_queue(d, 1, 1);
	vector_mask(d, 1, true);
	frame_loops(d, 1);
	EVENTUALLY(vector_pending(d, 1));
	vq_reset(d, 0);
	assert_true(vector_pending(d, 1));
	vector_mask(d, 1, false);
	assert_true(raised(fd, PATIENCE_MS) > 0);
}

/* ---- the pin and ISR ---- */

static void
isr_and_the_pin_tell_without_messages(struct dev *d, uint64_t format)
{
	int pin = irq_fd(d, VFN_VECTOR_INTX);

	start_receiving(d, format);
	assert_int_equal(isr(d), 0);
	assert_false(pin_is_up(d));
	frame_loops(d, 1);
	assert_true(raised(pin, PATIENCE_MS) > 0);
	assert_true(pin_is_up(d));
	assert_int_equal(isr(d), 1);
	assert_false(pin_is_up(d));
	/* with messages on the pin is silent */
	msix_on(d);
	raised(pin, 0);
	frame_loops(d, 2);
	nap_ms(5);
	assert_int_equal(raised(pin, 0), 0);
	assert_false(pin_is_up(d));
}

static void
isr_is_cleared_by_reading(struct dev *d, uint64_t format)
{
	start_receiving(d, format);
	frame_loops(d, 1);
	EVENTUALLY(pin_is_up(d));
	/* no other access does */
	CGET(d, device_status);
	assert_true(pin_is_up(d));
	assert_int_equal(isr(d), 1);
	assert_int_equal(isr(d), 0);
	frame_loops(d, 2);
	EVENTUALLY(pin_is_up(d));
	assert_int_equal(isr(d), 1);
}

static void
pin_can_be_switched_off(struct dev *d, uint64_t format)
{
	int pin = irq_fd(d, VFN_VECTOR_INTX);
	uint16_t cmd = pci_get(d, CONFIG_COMMAND, 2);

	start_receiving(d, format);
	pci_set(d, CONFIG_COMMAND, 2, cmd | COMMAND_NO_PIN);
	frame_loops(d, 1);
	/* that it would be raised is to be seen all the same */
	EVENTUALLY(pin_is_up(d));
	nap_ms(5);
	assert_int_equal(raised(pin, 0), 0);
	pci_set(d, CONFIG_COMMAND, 2, cmd);
	assert_true(raised(pin, PATIENCE_MS) > 0);
	assert_int_equal(isr(d), 1);
}

static void
isr_tells_of_a_configuration_change(struct dev *d, uint64_t format)
{
	int pin = irq_fd(d, VFN_VECTOR_INTX), fd = irq_fd(d, 0);

	(void)format;
	assert_true(negotiate(d, VERSION_1 | BIT(VIRTIO_NET_F_STATUS)));
	driver_ok(d);
	change_link(d, false);
	assert_true(raised(pin, PATIENCE_MS) > 0);
	assert_true(pin_is_up(d));
	assert_int_equal(isr(d), 2);
	assert_int_equal(isr(d), 0);
	/* with messages, too */
	msix_on(d);
	map_config(d, 0);
	change_link(d, true);
	assert_true(raised(fd, PATIENCE_MS) > 0);
	assert_int_equal(isr(d), 2);
	assert_int_equal(raised(pin, 0), 0);
}

static void
isr_ends_with_a_reset(struct dev *d, uint64_t format)
{
	start(d, format);
	frame_loops(d, 1);
	EVENTUALLY(pin_is_up(d));
	dev_reset(d);
	assert_false(pin_is_up(d));
	assert_int_equal(isr(d), 0);
}

/* ---- bus master: messages are writes to memory, too (PCI 3.0, 6.2.2) ---- */

static void
set_master(struct dev *d, bool on)
{
	uint32_t command = pci_get(d, CONFIG_COMMAND, 2);

	command = on ? command | CONFIG_MASTER : command & ~CONFIG_MASTER;
	pci_set(d, CONFIG_COMMAND, 2, command);
	settle(d);
}

static void
memory_is_left_alone_without_bus_master(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 1);
	uint8_t *before;
	unsigned int i;

	msix_on(d);
	start_receiving(d, format);
	map_queue(d, 0, 1);
	frame_loops(d, 1);
	assert_true(raised(fd, PATIENCE_MS) > 0);
	for (i = 0; i < 8; i++)
		buffer_post(d, 2048);
	set_master(d, false);
	for (i = 0; i < 8; i++)
		frame_post(d, i, 500);
	ring_notify(&d->tx);
	before = mem_copy(d);
	nap_ms(QUIET_MS);
	assert_true(mem_same(d, before));
	assert_int_equal(raised(fd, 0), 0);
	set_master(d, true);
	for (i = 0; i < 8; i++)
		assert_int_equal(ring_wait(&d->rx), 500);
	assert_true(raised(fd, PATIENCE_MS) > 0);
}

static void
messages_wait_for_bus_master(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 0);

	msix_on(d);
	start(d, format | BIT(VIRTIO_NET_F_STATUS));
	map_config(d, 0);
	set_master(d, false);
	change_link(d, false);
	nap_ms(QUIET_MS);
	assert_int_equal(raised(fd, 0), 0);
	set_master(d, true);
	assert_int_equal(raised(fd, PATIENCE_MS), 1);
}

const struct check irq_checks[] = {
	CHECK("4.1.5.1.2.1", table_has_the_vectors_it_says),
	CHECK_ON("4.1.5.1.2.1", any_event_maps_to_any_vector, ON_BOTH),
	CHECK_ON("4.1.5.1.2.1", events_can_share_a_vector, ON_BOTH),
	CHECK("4.1.5.1.2.1", vector_that_is_not_there_reads_as_none),
	CHECK("4.1.5.1.2.1", vectors_are_unmapped_by_reset),
	CHECK_ON("4.1.5.3.1", unmapped_events_do_not_interrupt, ON_BOTH),
	CHECK_ON("4.1.1", masked_vector_stays_pending, ON_BOTH),
	CHECK_ON("2.4.1", pending_interrupts_end_with_a_reset, ON_BOTH),
	CHECK_ON("2.6.1.1.1", pending_interrupts_of_others_do_not_end_with_a_queue, ON_BOTH),
	CHECK_ON("4.1.4.5.1", isr_and_the_pin_tell_without_messages, ON_BOTH),
	CHECK_ON("4.1.4.5.1", isr_is_cleared_by_reading, ON_BOTH),
	CHECK_ON("4.1.1", pin_can_be_switched_off, ON_BOTH),
	CHECK("4.1.4.5.1", isr_tells_of_a_configuration_change),
	CHECK_ON("2.4.1", isr_ends_with_a_reset, ON_BOTH),
	CHECK_ON("4.1.1", memory_is_left_alone_without_bus_master, ON_BOTH),
	CHECK("4.1.1", messages_wait_for_bus_master),
	{0},
};
