/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Hostile drivers on rings of every kind: a bad chain goes back with length 0 and harms no
 * other (answer B of the design), and what is odd but legal works (C).
 */

#include "harness.h"

#define RO_AT (FREE_AT)
#define WO_AT (FREE_AT + 0x100000)
/* Adds up to less than 4 GiB with a few more bytes. */
#define BIG (UINT32_MAX - 64)

static const struct mock_buf rrw[] = {{.len = 10}, {.len = 20}, {.len = 30, .write = true}};

/*
 * A bad chain between two good ones: they come with it, it is returned with length 0 in its
 * turn, counted once, and the ring goes on.
 */
static void
bad(struct queue *q, const struct mock_buf *buf, unsigned int nb, uint32_t flags,
	enum vringh_error error, void (*spoil)(struct queue *q, int id))
{
	uint64_t count = vringh_error_count(&q->vr, error), all = errors_counted(q);
	struct vringh_chain *chain = q->batch.chain;
	uint32_t i;
	int id[3];

	id[0] = mock_post(&q->drv, rrw, 2, 0, 1);
	id[1] = mock_post(&q->drv, buf, nb, flags, 2);
	id[2] = mock_post(&q->drv, rrw + 1, 2, 0, 3);
	for (i = 0; i < 3; i++)
		assert_true(id[i] >= 0);
	if (spoil != NULL)
		spoil(q, id[1]);
	mock_publish(&q->drv);
	assert_int_equal(fetch_refusing(q, 8), 3);
	expect_chain(q, &chain[0], id[0], rrw, 2);
	expect_chain(q, &chain[2], id[2], rrw + 1, 2);
	if (chain[1].error != error)
		fail_msg("'%s' instead of '%s'", vringh_strerror(chain[1].error),
			vringh_strerror(error));
	assert_int_equal(chain[1].id, id[1]);
	assert_int_equal(chain[1].nb_read | chain[1].nb_write | chain[1].read_len |
			chain[1].write_len | chain[1].written,
		0);
	assert_int_equal(q->batch.nb_segs, 4);
	vringh_discard(&q->vr, chain, 3);
	assert_int_equal(fetch_refusing(q, 8), 3);
	fill(q, &chain[2], 30, 0x33);
	complete(q, 0, 3);
	assert_int_equal(vringh_error_count(&q->vr, error), count + 1);
	assert_int_equal(errors_counted(q), all + 1);
	expect_used(q, 1, 0);
	expect_used_short(q, 2, 0);
	expect_used(q, 3, 30);
	expect_none(q);
	assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
	/* And alone. */
	id[1] = mock_post(&q->drv, buf, nb, flags, 2);
	if (spoil != NULL)
		spoil(q, id[1]);
	mock_publish(&q->drv);
	expect_bad(q, id[1], error);
}

static void
address(struct queue *q)
{
	uint64_t first = q->mem.view.table[0].iova;
	const struct mock_buf at[] = {
		{.len = 1, .fixed = true, .iova = 0},
		{.len = 4096, .fixed = true, .iova = NOWHERE},
		{.len = 2, .fixed = true, .iova = first - 1}, /* from nowhere into memory */
		{.len = 1, .fixed = true, .iova = UINT64_MAX},
		{.len = 2, .fixed = true, .iova = UINT64_MAX},
		{.len = BIG, .fixed = true, .iova = BUFS_AT},
		{.len = BIG, .fixed = true, .iova = UINT64_MAX - 5},
		/* Wraps right into the buffers. */
		{.len = BIG, .fixed = true, .iova = (uint64_t)BUFS_AT - BIG},
	};
	unsigned int i;

	for (i = 0; i < DIM(at); i++) {
		struct mock_buf buf[3] = {{.len = 5}, at[i], {.len = 6, .write = true}};
		uint32_t f;

		bad(q, &at[i], 1, 0, VRINGH_E_ADDR, NULL);
		for (f = 0; f <= q->v.indirect; f++) {
			bad(q, buf, 3, f, VRINGH_E_ADDR, NULL);
			buf[1].write = true;
			bad(q, buf, 2, f, VRINGH_E_ADDR, NULL);
			buf[1].write = false;
		}
	}
}

static void
hole(struct queue *q)
{
	struct mock_buf buf = {.len = 0x20, .fixed = true, .iova = FREE_AT + 0xff0};

	mock_mem_add(&q->mem, FREE_AT, 0x1000, VRINGH_PERM_RW);
	mock_mem_add(&q->mem, FREE_AT + 0x1008, 0x1000, VRINGH_PERM_RW);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	bad(q, &buf, 1, 0, VRINGH_E_ADDR, NULL); /* over the hole */
	buf.len = 0x11;
	bad(q, &buf, 1, 0, VRINGH_E_ADDR, NULL); /* one byte into it */
	buf.iova = FREE_AT + 0x1000;
	buf.len = 8;
	bad(q, &buf, 1, 0, VRINGH_E_ADDR, NULL); /* the hole itself */
	buf.iova = FREE_AT + 0x2001;
	bad(q, &buf, 1, 0, VRINGH_E_ADDR, NULL); /* one byte too long */
}

static void
rights(struct queue *q)
{
	struct mock_buf read = {.len = 8, .fixed = true, .iova = WO_AT};
	struct mock_buf write = {.len = 8, .write = true, .fixed = true, .iova = RO_AT};
	struct mock_buf across = {.len = 16, .fixed = true, .iova = RO_AT + 0x1000 - 8};
	int id;

	mock_mem_add(&q->mem, RO_AT, 0x1000, VRINGH_PERM_READ);
	mock_mem_add(&q->mem, RO_AT + 0x1000, 0x1000, VRINGH_PERM_WRITE);
	mock_mem_add(&q->mem, WO_AT, 0x1000, VRINGH_PERM_WRITE);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	bad(q, &read, 1, 0, VRINGH_E_PERM, NULL);
	bad(q, &write, 1, 0, VRINGH_E_PERM, NULL);
	bad(q, &across, 1, 0, VRINGH_E_PERM, NULL);
	across.write = true;
	bad(q, &across, 1, 0, VRINGH_E_PERM, NULL);
	/* The other way round both are right. */
	read.iova = RO_AT;
	write.iova = WO_AT;
	id = post(q, &read, 1, 0, 1);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, &read, 1);
	id = post(q, &write, 1, 0, 2);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, &write, 1);
}

static void
read_after_write(struct queue *q)
{
	static const struct mock_buf wr[] = {{.len = 1}, {.len = 1, .write = true}, {.len = 1}};
	static const struct mock_buf zero[] = {{.len = 0, .write = true}, {.len = 0}};
	uint32_t f;

	for (f = 0; f <= q->v.indirect; f++) {
		bad(q, wr, 3, f, VRINGH_E_ORDER, NULL);
		bad(q, zero, 2, f, VRINGH_E_ORDER, NULL);
	}
	if (q->v.indirect) /* the order holds across the table's border */
		bad(q, wr, 3, MOCK_INDIRECT | MOCK_DIRECT(2), VRINGH_E_ORDER, NULL);
}

static void
length_sum(struct queue *q)
{
	struct mock_buf buf[3] = {
		{.len = 1, .fixed = true, .iova = BUFS_AT},
		{.len = UINT32_MAX, .fixed = true, .iova = BUFS_AT},
		{.len = 1, .fixed = true, .iova = BUFS_AT},
	};
	unsigned int i;

	bad(q, buf, 2, 0, VRINGH_E_LEN, NULL);
	for (i = 0; i < 3; i++)
		buf[i].write = true;
	bad(q, buf, 2, 0, VRINGH_E_LEN, NULL);
	/* One direction is not the other. */
	buf[0].write = false;
	buf[1].len = UINT32_MAX - 4096 * 4;
	bad(q, buf, 2, 0, VRINGH_E_ADDR, NULL);
}

static void
spoil_indirect(struct queue *q, int id)
{
	struct mock_desc m = mock_get_desc(&q->drv, id, 0);

	m.flags |= VRING_DESC_F_INDIRECT;
	m.len = 16;
	mock_set_desc(&q->drv, id, 0, &m);
}

static void
spoil_indirect_last(struct queue *q, int id)
{
	struct mock_desc m = mock_get_desc(&q->drv, id, 1);

	m.flags |= VRING_DESC_F_INDIRECT;
	m.len = 16;
	mock_set_desc(&q->drv, id, 1, &m);
}

static void
not_negotiated(struct queue *q)
{
	bad(q, rrw, 1, 0, VRINGH_E_INDIRECT, spoil_indirect);
	bad(q, rrw, 2, 0, VRINGH_E_INDIRECT, spoil_indirect);
	bad(q, rrw, 2, 0, VRINGH_E_INDIRECT, spoil_indirect_last);
}

/* INDIRECT with NEXT, the rest of the chain being there. */
static void
with_next(struct queue *q)
{
	bad(q, rrw, 2, 0, VRINGH_E_INDIRECT, spoil_indirect);
	bad(q, rrw, 3, 0, VRINGH_E_INDIRECT, spoil_indirect);
}

static void
spoil_nested(struct queue *q, int id)
{
	struct mock_desc m = mock_get_entry(&q->drv, id, 1);

	m.flags |= VRING_DESC_F_INDIRECT;
	mock_set_entry(&q->drv, id, 1, &m);
}

static void
nested(struct queue *q)
{
	bad(q, rrw, 2, MOCK_INDIRECT, VRINGH_E_INDIRECT, spoil_nested);
}

static uint32_t table_len;
static uint64_t table_at;

static void
spoil_table(struct queue *q, int id)
{
	struct mock_desc m = mock_get_desc(&q->drv, id, 0);

	m.len = table_len;
	m.addr = table_at != 0 ? table_at : m.addr;
	mock_set_desc(&q->drv, id, 0, &m);
}

static void
table(struct queue *q)
{
	uint32_t lens[] = {0, 1, 15, 17, 31, 16 * q->v.size + 16, UINT32_MAX, UINT32_MAX - 15};
	unsigned int i;

	table_at = 0;
	for (i = 0; i < DIM(lens); i++) {
		table_len = lens[i];
		bad(q, rrw, 3, MOCK_INDIRECT, VRINGH_E_TABLE, spoil_table);
	}
	table_len = 48;
	table_at = UINT64_MAX - 40;
	bad(q, rrw, 3, MOCK_INDIRECT, VRINGH_E_ADDR, spoil_table);
	table_at = NOWHERE;
	bad(q, rrw, 3, MOCK_INDIRECT, VRINGH_E_ADDR, spoil_table);
	/* From nowhere into memory. */
	table_at = q->mem.view.table[0].iova - 8;
	bad(q, rrw, 3, MOCK_INDIRECT, VRINGH_E_ADDR, spoil_table);
}

static void
table_rights(struct queue *q)
{
	/* Memory that the device may only write. */
	queue_map(q, WO_AT, 0x1000, VRINGH_PERM_WRITE);
	table_len = 48;
	table_at = WO_AT;
	bad(q, rrw, 3, MOCK_INDIRECT, VRINGH_E_PERM, spoil_table);
	/* Half of an entry is mapped. */
	queue_map(q, FREE_AT, 0x1000 - 8, VRINGH_PERM_READ);
	table_at = FREE_AT + 0x1000 - 16;
	table_len = 16;
	bad(q, rrw, 3, MOCK_INDIRECT, VRINGH_E_ADDR, spoil_table);
	/* The other half may not be read. */
	queue_map(q, FREE_AT + 0x1000 - 8, 0x100, VRINGH_PERM_WRITE);
	bad(q, rrw, 3, MOCK_INDIRECT, VRINGH_E_PERM, spoil_table);
}

/* A window that the device may only read, or only write, for its buffers. */
static void
window_rights(struct queue *q)
{
	struct vringh_region region = q->mem.view.table[0];
	struct vringh_mem mem = q->mem.view;
	struct mock_buf buf = {.len = 8};
	uint32_t perm, write;

	mem.table = &region;
	q->cfg.mem = &mem;
	q->cfg.desc_mem = &q->area[0]->view;
	q->cfg.driver_mem = &q->area[1]->view;
	q->cfg.device_mem = &q->area[2]->view;
	for (perm = VRINGH_PERM_READ; perm <= VRINGH_PERM_RW; perm++)
		for (write = 0; write < 2; write++) {
			bool may = perm & (write ? VRINGH_PERM_WRITE : VRINGH_PERM_READ);
			int id;

			region.perm = perm;
			queue_restart(q);
			buf.write = write;
			if (!may) {
				expect_bad(q, post(q, &buf, 1, 0, 1), VRINGH_E_PERM);
				continue;
			}
			id = post(q, &buf, 1, 0, 1);
			assert_int_equal(fetch(q, 1), 1);
			expect_chain(q, &q->batch.chain[0], id, &buf, 1);
			complete(q, 0, 1);
			expect_used(q, 1, 0);
		}
}

static void
spoil_write(struct queue *q, int id)
{
	struct mock_desc m = mock_get_desc(&q->drv, id, 0);

	m.flags |= VRING_DESC_F_WRITE;
	mock_set_desc(&q->drv, id, 0, &m);
}

/* INDIRECT with WRITE on the outer descriptor; direct descriptors in front of it: legal. */
static void
odd_indirect(struct queue *q)
{
	int id = mock_post(&q->drv, rrw, 3, MOCK_INDIRECT, 1);

	spoil_write(q, id);
	mock_publish(&q->drv);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, rrw, 3);
	complete(q, 0, 1);
	expect_used(q, 1, 0);
	if (q->v.packed) /* 2.8.8 knows only a table alone */
		return;
	id = post(q, rrw, 3, MOCK_INDIRECT | MOCK_DIRECT(2), 2);
	assert_int_equal(fetch(q, 1), 1);
	expect_chain(q, &q->batch.chain[0], id, rrw, 3);
}

/* Zero lengths, wherever they point to: they are no bytes, so no address is wrong. */
static void
zero_length(struct queue *q)
{
	static const struct mock_buf buf[] = {
		{.len = 0, .fixed = true, .iova = 0},
		{.len = 4},
		{.len = 0, .fixed = true, .iova = UINT64_MAX},
		{.len = 0, .write = true, .fixed = true, .iova = NOWHERE},
	};
	unsigned int first, f;

	for (f = 0; f <= q->v.indirect; f++)
		for (first = 0; first < 4; first++) {
			int id = post(q, buf + first, 4 - first, f, 1);

			assert_int_equal(fetch(q, 1), 1);
			expect_chain(q, &q->batch.chain[0], id, buf + first, 4 - first);
			complete(q, 0, 1);
			expect_used(q, 1, 0);
		}
}

/* A bad chain is no reason to look at any chain twice: a full ring of them, in one batch. */
static void
all_bad(struct queue *q)
{
	struct mock_buf buf = {.len = 1, .fixed = true, .iova = NOWHERE};
	uint32_t i, lap;

	for (lap = 0; lap < 3; lap++) {
		for (i = 0; i < q->v.size; i++)
			mock_post(&q->drv, &buf, 1, 0, i);
		mock_publish(&q->drv);
		assert_int_equal(fetch_refusing(q, q->v.size), q->v.size);
		assert_int_equal(q->batch.nb_segs, 0);
		complete(q, 0, q->v.size);
		assert_int_equal(vringh_error_count(&q->vr, VRINGH_E_ADDR), (lap + 1) * q->v.size);
		for (i = 0; i < q->v.size; i++)
			expect_used_short(q, i, 0);
	}
	expect_neighbour(q);
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"unmapped and wrapping addresses", address, T_ALL, 8, 256},
		{"buffer over a hole", hole, T_ALL | T_REGIONS, 8, 256},
		{"memory without the right to read or write", rights, T_ALL | T_REGIONS, 8, 256},
		{"window without the right to read or write", window_rights,
			T_ALL | T_WINDOW | T_DIRECT, 8, 8},
		{"readable after writable", read_after_write, T_ALL, 8, 256},
		{"lengths of 4 GiB", length_sum, T_ALL, 8, 256},
		{"indirect not negotiated", not_negotiated, T_ALL | T_DIRECT, 8, 256},
		{"indirect together with next", with_next, T_ALL | T_INDIRECT, 8, 256},
		{"nested indirect", nested, T_ALL | T_INDIRECT, 8, 256},
		{"indirect table of bad length or place", table, T_ALL | T_INDIRECT, 8, 256},
		{"indirect table without the right to read", table_rights,
			T_ALL | T_INDIRECT | T_REGIONS, 8, 256},
		{"odd but legal indirect", odd_indirect, T_ALL | T_INDIRECT, 8, 256},
		{"zero length refused", zero_length, T_ALL, 5, 256},
		{"a ring full of bad chains", all_bad, T_ALL, 1, 256},
		{"a big ring full of bad chains", all_bad, 0, 32768, 0},
	};

	return RUN("errors", tests);
}
