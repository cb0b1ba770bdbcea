/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Rings to be measured and what is checked on them. Runs on the thread that measures. */

#include <stdlib.h>
#include <string.h>

#include "queue.h"

#define PAGE	       4096
#define RING_AT	       0x100000
#define FILL_LOW_AT    0x10000
#define FILL_HIGH_AT   0x1000000000
#define CACHE_LINE     64
#define ALIGN_UP(v, a) (((uint64_t)(v) + (a)-1) / (a) * (a))

/*
 * Regions beside each other in a table: the ring is in one, buffers and indirect tables are in
 * another, the rest is never hit. One of them: everything is in it.
 */
static const uint32_t nb_regions[VRINGH_MEM_MAX] = {
	[VRINGH_MEM_DIRECT] = 1,
	[VRINGH_MEM_REGION] = 4,
	[VRINGH_MEM_IOTLB] = 16,
	[VRINGH_MEM_IOMEM] = 2,
};

static bool
fail(struct queue *q, const char *what, uint64_t number)
{
	snprintf(q->fault, sizeof(q->fault), "%s (%ju)", what, (uintmax_t)number);
	return false;
}

static bool
add_regions(struct queue *q, uint32_t nb, uint64_t bufs_at, uint64_t end)
{
	struct mock_mem *mem = &q->mock_mem;
	bool ok;
	uint32_t i;

	if (nb == 1)
		return mock_mem_add(mem, RING_AT, end - RING_AT, VRINGH_PERM_RW) != NULL;
	ok = mock_mem_add(mem, RING_AT, bufs_at - RING_AT, VRINGH_PERM_RW) != NULL &&
		mock_mem_add(mem, bufs_at, end - bufs_at, VRINGH_PERM_RW) != NULL;
	for (i = 2; i < nb && ok; i++)
		ok = mock_mem_add(mem, (i % 2 ? FILL_LOW_AT : FILL_HIGH_AT) + i * 2 * PAGE, PAGE,
			     VRINGH_PERM_RW) != NULL;
	return ok;
}

static void *
zalloc(size_t len)
{
	void *p = aligned_alloc(CACHE_LINE, ALIGN_UP(len, CACHE_LINE));

	return p != NULL ? memset(p, 0, len) : NULL;
}

bool
queue_open(struct queue *q, enum format format, enum vringh_mem_kind memory,
	const struct shape *shape, uint32_t size, uint32_t burst)
{
	bool packed = format_packed(format);
	uint32_t stride = ALIGN_UP(shape->nb_bufs * shape->len, CACHE_LINE);
	/* As the legacy layout has it: the device area starts a page (2.7.2). */
	uint64_t driver_at = RING_AT + size * sizeof(struct vring_desc);
	uint64_t device_at = ALIGN_UP(driver_at + 6 + 2 * size, PAGE);
	uint64_t bufs_at = ALIGN_UP(device_at + 6 + 8 * size, PAGE);
	uint64_t tables_at = bufs_at + (uint64_t)size * stride;
	uint64_t end = tables_at + (uint64_t)size * shape->nb_bufs * sizeof(struct vring_desc);
	struct mock_config cfg = {
		.packed = packed,
		.event_idx = true,
		.in_order = format_in_order(format),
		.size = size,
		.desc = RING_AT,
		.driver = driver_at,
		.device = device_at,
		.bufs = bufs_at,
		.buf_len = stride,
		.tables = tables_at,
		.table_entries = shape->nb_bufs,
		.start = packed ? VRINGH_PACKED_START : (struct vringh_state){0, 0},
	};
	struct bench_device *dev = &q->dev;
	uint64_t i, seed = size;
	uint8_t *bufs;

	*q = (struct queue){.shape = *shape};
	q->nb_chains = shape->indirect ? size : size / shape->nb_bufs;
	if (!add_regions(q, nb_regions[memory], bufs_at, end) ||
		!mock_init(&q->drv, &q->mock_mem, &cfg))
		return fail(q, "no memory for a ring of entries", size);
	q->mem = (struct vringh_mem){
		.kind = memory,
		.nb_regions = q->mock_mem.nb_regions,
		.table = q->mock_mem.region,
		.max_regions = MOCK_MAX_REGIONS,
	};
	dev->cfg = (struct vringh_config){
		.packed = packed,
		.event_idx = true,
		.indirect = true,
		.in_order = format_in_order(format),
		.reads_only = !shape->write,
		.size = size,
		.desc = RING_AT,
		.driver = driver_at,
		.device = device_at,
		.mem = &q->mem,
	};
	dev->work = shape->work;
	dev->push_len = shape->len;
	dev->burst = burst;
	dev->batch.max_chains = burst;
	dev->batch.max_segs = 4 * burst > size ? 4 * burst : size;
	dev->batch.chain = zalloc(burst * sizeof(*dev->batch.chain));
	dev->batch.seg = zalloc(dev->batch.max_segs * sizeof(*dev->batch.seg));
	dev->scratch = zalloc(shape->write ? shape->len : burst * BENCH_PULL);
	q->id = zalloc(size * sizeof(*q->id));
	q->dirty.desc = RING_AT;
	q->dirty.device = device_at;
	q->dirty.len = ALIGN_UP(end, PAGE * 64) / PAGE / 8;
	q->dirty.bitmap = zalloc(q->dirty.len);
	bufs = mock_mem_at(&q->mock_mem, bufs_at, (uint64_t)size * stride);
	if (dev->batch.chain == NULL || dev->batch.seg == NULL || dev->scratch == NULL ||
		q->id == NULL || q->dirty.bitmap == NULL || bufs == NULL)
		return fail(q, "no memory for a burst of chains", burst);
	for (i = 0; i < (uint64_t)size * stride; i++)
		bufs[i] = mock_random(&seed);
	return true;
}

void
queue_close(struct queue *q)
{
	free(q->dev.batch.chain);
	free(q->dev.batch.seg);
	free(q->dev.scratch);
	free(q->id);
	free(q->dirty.bitmap);
	mock_free(&q->drv);
	mock_mem_free(&q->mock_mem);
}

bool
queue_give(struct queue *q, const struct bench_variant *variant, bool each, bool dirty)
{
	uint16_t at = mock_used_position(&q->drv, 0);
	int error;

	memset(q->dirty.bitmap, 0, q->dirty.len);
	q->dev.each = each;
	q->dev.dirty = dirty ? &q->dirty : NULL;
	q->dev.cfg.state = (struct vringh_state){.avail = at, .used = at};
	error = variant->open(&q->dev);
	if (error < 0)
		return fail(q, vringh_strerror(error), -error);
	return true;
}

static bool
post_lap(struct queue *q)
{
	struct mock_buf buf[4];
	uint32_t i;

	for (i = 0; i < q->shape.nb_bufs; i++)
		buf[i] = (struct mock_buf){.len = q->shape.len, .write = q->shape.write};
	q->token += q->nb_chains;
	for (i = 0; i < q->nb_chains; i++) {
		int id = mock_post(&q->drv, buf, q->shape.nb_bufs,
			q->shape.indirect ? MOCK_INDIRECT : 0, q->token + i);

		if (id < 0)
			return fail(q, "driver: no room for a chain", i);
		q->id[i] = id;
	}
	mock_publish(&q->drv);
	/* Nothing that is checked later can be left of an earlier lap. */
	memset(q->dev.batch.chain, 0, q->dev.burst * sizeof(*q->dev.batch.chain));
	memset(q->dev.batch.seg, 0, 4 * q->dev.burst * sizeof(*q->dev.batch.seg));
	if (q->shape.write)
		memset(q->dev.scratch, q->token / q->nb_chains, q->shape.len);
	else
		memset(q->dev.scratch, 0, q->dev.burst * BENCH_PULL);
	return true;
}

/* The k-th chain of the last burst is the one with this id; where its first buffer is. */
static bool
check_chain(struct queue *q, uint32_t k, uint16_t id, const uint8_t **bytes)
{
	const struct vringh_chain *chain = &q->dev.batch.chain[k];
	const struct shape *s = &q->shape;
	uint32_t total = s->nb_bufs * s->len, i;

	*bytes = mock_mem_at(&q->mock_mem, mock_buf_addr(&q->drv, id, 0), total);
	if (*bytes == NULL || chain->id != id || chain->error != VRINGH_OK ||
		chain->nb_read != (s->write ? 0 : s->nb_bufs) ||
		chain->nb_write != (s->write ? s->nb_bufs : 0) ||
		chain->read_len != (s->write ? 0 : total) ||
		chain->write_len != (s->write ? total : 0) ||
		chain->written != (s->write ? total : 0) ||
		chain->slots != (q->dev.cfg.packed && !s->indirect ? s->nb_bufs : 1))
		return false;
	for (i = 0; i < s->nb_bufs; i++)
		if (chain->seg[i].len != s->len ||
			(q->mem.kind <= VRINGH_MEM_IOTLB &&
				chain->seg[i].addr != *bytes + i * s->len))
			return false;
	return true;
}

static bool
check_last_burst(struct queue *q)
{
	uint32_t n = q->dev.batch.nb_chains, k;

	if (q->dev.missing != 0) {
		snprintf(q->fault, sizeof(q->fault), "device: %u of %u chains were not fetched: %s",
			q->dev.missing, q->nb_chains,
			q->dev.answer < 0 ? vringh_strerror(q->dev.answer) : "none is there");
		return false;
	}
	if (n == 0 || n > q->nb_chains)
		return fail(q, "device: chains in the last burst", n);
	for (k = 0; k < n; k++) {
		const uint8_t *bytes;

		if (!check_chain(q, k, q->id[q->nb_chains - n + k], &bytes))
			return fail(q, "device: a chain is not what was posted", k);
		if ((q->shape.work == WORK_PULL &&
			    memcmp(q->dev.scratch + k * BENCH_PULL, bytes, BENCH_PULL) != 0) ||
			(q->shape.work == WORK_PUSH &&
				memcmp(q->dev.scratch, bytes, q->shape.len) != 0))
			return fail(q, "device: wrong bytes copied, chain", k);
	}
	return true;
}

static bool
collect_lap(struct queue *q)
{
	uint32_t len = q->shape.write ? q->shape.nb_bufs * q->shape.len : 0;
	uint32_t done = 0;
	struct mock_used used[64];
	int n, i;

	while ((n = mock_collect(&q->drv, used, DIM(used))) > 0)
		for (i = 0; i < n; i++, done++)
			if (done == q->nb_chains || used[i].token != q->token + done ||
				used[i].len != len)
				return fail(q, "driver: a chain came back wrong", done);
	if (n < 0) {
		snprintf(q->fault, sizeof(q->fault), "driver: %s", q->drv.fault);
		return false;
	}
	return done == q->nb_chains || fail(q, "driver: chains that came back", done);
}

uint64_t
queue_lap(struct queue *q, const struct bench_variant *variant)
{
	uint64_t ticks;

	if (!post_lap(q))
		return 0;
	ticks = variant->lap(&q->dev, q->nb_chains);
	if (variant->show != NULL)
		variant->show(&q->dev);
	if (!check_last_burst(q) || !collect_lap(q))
		return 0;
	return ticks;
}

static void
expect_dirty(uint8_t *bitmap, uint64_t iova, uint64_t len)
{
	uint64_t page;

	for (page = iova / PAGE; page <= (iova + len - 1) / PAGE; page++)
		bitmap[page / 8] |= 1 << page % 8;
}

bool
queue_check_dirty(struct queue *q)
{
	const struct vringh_config *cfg = &q->dev.cfg;
	uint8_t *expected = zalloc(q->dirty.len);
	bool same;
	uint32_t i;

	if (expected == NULL)
		return fail(q, "no memory for a bitmap of bytes", q->dirty.len);
	for (i = 0; i < q->nb_chains; i++)
		expect_dirty(expected, mock_buf_addr(&q->drv, q->id[i], 0),
			q->shape.nb_bufs * q->shape.len);
	if (cfg->packed)
		expect_dirty(expected, cfg->desc, cfg->size * sizeof(struct vring_packed_desc));
	else
		expect_dirty(expected, cfg->device, 4 + cfg->size * sizeof(struct vring_used_elem));
	same = memcmp(expected, q->dirty.bitmap, q->dirty.len) == 0;
	free(expected);
	return same || fail(q, "device: wrong pages in the dirty log, laps from", q->token);
}
