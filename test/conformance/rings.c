/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What rings of both formats have in common (virtio 1.3, 2.7, 2.8), and what ends one. */

#include "device.h"

#define LEN 1012u /* of header and frame */

/* Bytes of a frame in pieces, beside each of which there is a mark. */
struct pieces {
	struct elem e[8];
	uint8_t *at[8];
	unsigned int n;
};

#define MARK 0xa5

static void
pieces_make(struct dev *d, struct pieces *p, const uint32_t *lens, bool write)
{
	for (p->n = 0; lens[p->n] != 0; p->n++) {
		struct elem *e = &p->e[p->n];

		e->len = lens[p->n];
		e->write = write;
		p->at[p->n] = mem_alloc(d, e->len + 1, &e->at);
		memset(p->at[p->n], write ? MARK : 0, e->len);
		p->at[p->n][e->len] = MARK;
	}
}

static void
pieces_copy(const struct pieces *p, uint8_t *bytes, uint32_t len, bool to)
{
	uint32_t done = 0, step;
	unsigned int i;

	for (i = 0; i < p->n && done < len; i++, done += step) {
		step = p->e[i].len < len - done ? p->e[i].len : len - done;
		if (to)
			memcpy(p->at[i], bytes + done, step);
		else
			memcpy(bytes + done, p->at[i], step);
		assert_int_equal(p->at[i][p->e[i].len], MARK);
	}
	assert_int_equal(done, len);
}

/* In these pieces out, and in those in; direct: so many are not in a table. */
static void
passes_in(struct dev *d, uint32_t number, const uint32_t *out, unsigned int direct_out,
	const uint32_t *in, unsigned int direct_in)
{
	struct pieces tx, rx;
	uint8_t sent[LEN], got[LEN];

	pieces_make(d, &rx, in, true);
	pieces_make(d, &tx, out, false);
	frame_write(sent, number, LEN);
	pieces_copy(&tx, sent, LEN, true);
	ring_post(&d->rx, rx.e, rx.n, direct_in < rx.n ? direct_in : rx.n);
	ring_post(&d->tx, tx.e, tx.n, direct_out < tx.n ? direct_out : tx.n);
	ring_notify(&d->rx);
	ring_notify(&d->tx);
	assert_int_equal(ring_wait(&d->rx), LEN);
	assert_int_equal(ring_wait(&d->tx), 0);
	pieces_copy(&rx, got, LEN, false);
	sent[offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers)] = 1;
	assert_memory_equal(got, sent, LEN);
	/* what was only to be read is as it was */
	sent[offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers)] = 0;
	pieces_copy(&tx, got, LEN, false);
	assert_memory_equal(got, sent, LEN);
}

static const uint32_t framings[][9] = {
	{LEN},
	{12, 1000},
	{1, 1, 10, 1, 999},
	{5, 500, 7, 500},
	{11, 2, 999},
	{1, 1, 1, 1, 1, 1, 1, 1005},
};
/* One that has room to spare. */
static const uint32_t roomy[] = {3, 1000, 2000, 0};

static void
any_framing_is_taken(struct dev *d, uint64_t format)
{
	unsigned int i, k, n = 0;

	start(d, format);
	for (i = 0; i < DIM(framings); i++)
		for (k = 0; k < DIM(framings); k++)
			passes_in(d, n++, framings[i], 8, framings[k], 8);
	for (i = 0; i < DIM(framings); i++)
		passes_in(d, n++, framings[i], 8, roomy, 8);
}

static void
tables_are_taken(struct dev *d, uint64_t format)
{
	unsigned int i, n = 0;

	start(d, INDIRECT | format);
	for (i = 0; i < DIM(framings); i++) {
		passes_in(d, n++, framings[i], 0, framings[i], 0);
		passes_in(d, n++, framings[i], 0, framings[i], 8);
		passes_in(d, n++, framings[i], 8, roomy, 0);
	}
}

static void
write_flag_of_a_table_is_ignored(struct dev *d, uint64_t format)
{
	unsigned int i;

	start(d, INDIRECT | format);
	d->tx.indirect_flags = VRING_DESC_F_WRITE;
	for (i = 0; i < DIM(framings); i++)
		passes_in(d, i, framings[i], 0, framings[i], 0);
	d->tx.indirect_flags = 0;
	d->rx.indirect_flags = VRING_DESC_F_WRITE;
	for (i = 0; i < DIM(framings); i++)
		passes_in(d, i, framings[i], 0, framings[i], 0);
}

/* Rings go round many times, with chains of all lengths, and each is used once. */
static void
rings_go_round(struct dev *d, uint64_t format)
{
	unsigned int i;

	assert_true(negotiate(d, VERSION_1 | format));
	ring_setup(&d->rx, d, 0, 16);
	ring_setup(&d->tx, d, 1, 16);
	driver_ok(d);
	for (i = 0; i < 300; i++) {
		const uint64_t used = d->mem_used;

		passes_in(d, i, framings[i % DIM(framings)], 8, framings[i / 2 % DIM(framings)], 8);
		d->mem_used = used;
		if (i % 50 == 0)
			assert_true(ring_quiet(&d->rx, 1) && ring_quiet(&d->tx, 1));
	}
}

static void
chains_are_used_in_ring_order(struct dev *d, uint64_t format)
{
	unsigned int i, k;

	start(d, format);
	for (k = 0; k < 10; k++) {
		for (i = 0; i < 40; i++)
			buffer_post(d, 200);
		for (i = 0; i < 40; i++)
			frame_post(d, i, 100 + i);
		ring_notify(&d->rx);
		ring_notify(&d->tx);
		/* ring_used() asserts whose turn it is; lengths tell the frames */
		for (i = 0; i < 40; i++)
			assert_int_equal(ring_wait(&d->rx), 100 + i);
		for (i = 0; i < 40; i++)
			ring_wait(&d->tx);
		d->mem_used = MEM_SIZE / 2;
	}
}

/* 6.2: the same where it is promised, and used entries may stand for more than one. */
static void
in_order_is_in_order(struct dev *d, uint64_t format)
{
	unsigned int i, k;
	uint32_t len;

	start(d, BIT(VIRTIO_F_IN_ORDER) | format);
	for (k = 0; k < 10; k++) {
		for (i = 0; i < 40; i++)
			buffer_post(d, 100 + i);
		for (i = 0; i < 40; i++)
			frame_post(d, i, 100 + i);
		ring_notify(&d->rx);
		ring_notify(&d->tx);
		for (i = 0; i < 40; i++) {
			len = ring_wait(&d->rx);
			/* used completely, or so it says */
			assert_true(len == UINT32_MAX || len == 100 + i);
			ring_wait(&d->tx);
		}
		d->mem_used = MEM_SIZE / 2;
	}
}

/* A length is never more than what was written (2.7.8.2; 2.8.4), beside nothing else is. */
static void
used_length_is_what_was_written(struct dev *d, uint64_t format)
{
	uint8_t *got, sent[2048];
	uint32_t len;

	start(d, format);
	for (len = HDR + 14; len < 1500; len += 97) {
		got = buffer_post(d, 2048);
		memset(got, MARK, 2048);
		frame_post(d, len, len);
		ring_notify(&d->rx);
		ring_notify(&d->tx);
		assert_int_equal(ring_wait(&d->rx), len);
		assert_int_equal(ring_wait(&d->tx), 0);
		frame_write(sent, len, len);
		memset(sent + len, MARK, sizeof(sent) - len);
		sent[offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers)] = 1;
		assert_memory_equal(got + HDR, sent + HDR, len - HDR);
		assert_memory_equal(got, sent, len);
	}
}

/* What cannot be gone on with is said; a reset mends it (2.1.2). */
static void
broken_queue_needs_a_reset(struct dev *d, uint64_t format)
{
	int fd = irq_fd(d, 0);

	msix_on(d);
	start(d, format);
	CSET(d, msix_config, 0);
	frame_loops(d, 1);
	assert_int_equal(raised(fd, 0), 0);
	ring_break(&d->tx);
	ring_notify(&d->tx);
	assert_true(CREADS(d, device_status, S_RUNNING | S_NEEDS_RESET));
	assert_true(raised(fd, PATIENCE_MS) > 0);
	assert_int_equal(get(d, &d->isr, 0, 1) & 2, 2);
	dev_reset(d);
	start(d, format);
	frame_loops(d, 2);
	assert_int_equal(status_now(d), S_RUNNING);
}

/* With VIRTIO_F_RING_RESET no reset of the device is needed: the queue's is enough. */
static void
broken_queue_is_mended_by_its_reset(struct dev *d, uint64_t format)
{
	uint64_t end = clock_ms() + PATIENCE_MS;

	start(d, BIT(F_RING_RESET) | format);
	frame_loops(d, 1);
	ring_break(&d->tx);
	ring_notify(&d->tx);
	while (VGET(d, queue_error) == 0)
		assert_true(clock_ms() < end);
	nap_ms(5);
	assert_int_equal(status_now(d), S_RUNNING);
	vq_reset(d, 1);
	ring_setup(&d->tx, d, 1, 64);
	frame_loops(d, 2);
	assert_int_equal(status_now(d), S_RUNNING);
}

const struct check ring_checks[] = {
	CHECK_ON("2.7.4.1", any_framing_is_taken, ON_BOTH),
	CHECK_ON("2.7.5.3", tables_are_taken, ON_BOTH),
	CHECK_ON("2.7.5.3.2", write_flag_of_a_table_is_ignored, ON_BOTH),
	CHECK_ON("2.7.13", rings_go_round, ON_BOTH),
	CHECK_ON("2.8.12", chains_are_used_in_ring_order, ON_BOTH),
	CHECK_ON("6.2", in_order_is_in_order, ON_BOTH),
	CHECK_ON("2.7.8.2", used_length_is_what_was_written, ON_BOTH),
	CHECK_ON("2.1.2", broken_queue_needs_a_reset, ON_BOTH),
	CHECK_ON("2.6.1", broken_queue_is_mended_by_its_reset, ON_BOTH),
	{0},
};
