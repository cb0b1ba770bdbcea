/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the unit tests share. Runs on the test's only thread. */

#include <stdio.h>

#include "harness.h"

static const uint32_t split_sizes[] = {1, 2, 8, 256, 32768};
static const uint32_t packed_sizes[] = {1, 3, 5, 8, 256, 32768};

struct queue *
queue_open(const struct variant *v)
{
	uint32_t event = v->event_idx ? 2 : 0;
	struct mock_config mc = {
		.packed = v->packed,
		.event_idx = v->event_idx,
		.size = v->size,
		.desc = DESC_AT,
		.driver = DRIVER_AT,
		.device = DEVICE_AT,
		.bufs = BUFS_AT,
		.buf_len = 4096,
		.nb_bufs = v->size <= 256 ? v->size : 256,
		.tables = TABLES_AT,
		.table_entries = v->size <= 256 ? v->size : 8,
		.start = v->start,
	};
	struct queue *q = aligned_alloc(64, (sizeof(*q) + 63) / 64 * 64);
	uint32_t rw = VRINGH_PERM_RW, r = VRINGH_PERM_READ, w = VRINGH_PERM_WRITE;
	uint64_t driver_len = v->packed ? 4 : 4 + 2 * v->size + event;
	uint64_t device_len = v->packed ? 4 : 4 + 8 * v->size + event;

	assert_non_null(q);
	memset(q, 0, sizeof(*q));
	q->v = *v;
	if (v->packed && v->start.used == 0 && v->start.avail == 0)
		mc.start = VRINGH_PACKED_START;
	assert_non_null(mock_mem_add(&q->mem, DESC_AT, 16 * v->size, v->packed ? rw : r));
	assert_non_null(mock_mem_add(&q->mem, DRIVER_AT, driver_len, r));
	assert_non_null(mock_mem_add(&q->mem, DEVICE_AT, device_len, w));
	assert_non_null(mock_mem_add(&q->mem, BUFS_AT, (uint64_t)mc.buf_len * mc.nb_bufs, rw));
	assert_non_null(mock_mem_add(&q->mem, TABLES_AT, 16ull * mc.table_entries * v->size, r));
	assert_true(mock_init(&q->drv, &q->mem, &mc));
	q->batch.max_chains = v->size;
	q->batch.max_segs = 4 * v->size;
	q->batch.chain = calloc(q->batch.max_chains, sizeof(*q->batch.chain));
	q->batch.seg = calloc(q->batch.max_segs, sizeof(*q->batch.seg));
	assert_true(q->batch.chain != NULL && q->batch.seg != NULL);
	q->cfg = (struct vringh_config){
		.packed = v->packed,
		.event_idx = v->event_idx,
		.indirect = v->indirect,
		.size = v->size,
		.desc = DESC_AT,
		.driver = DRIVER_AT,
		.device = DEVICE_AT,
	};
	queue_restart(q);
	return q;
}

void
queue_close(struct queue *q)
{
	mock_free(&q->drv);
	mock_mem_free(&q->mem);
	free(q->batch.chain);
	free(q->batch.seg);
	free(q);
}

void
queue_restart(struct queue *q)
{
	uint16_t at = mock_used_position(&q->drv, 0);

	q->cfg.mem = mock_mem_view(&q->mem);
	q->cfg.state = (struct vringh_state){.avail = at, .used = at};
	assert_int_equal(vringh_init(&q->vr, &q->cfg), VRINGH_OK);
}

void
queue_rewind(struct queue *q, struct vringh_state at)
{
	struct mock_config mc = q->drv.cfg;

	mock_free(&q->drv);
	mc.start = at;
	assert_true(mock_init(&q->drv, &q->mem, &mc));
	queue_restart(q);
}

struct vringh_state
near_end(const struct variant *v, uint32_t n)
{
	uint16_t at = v->packed ? (v->size - n % v->size) % v->size | 0x8000 : 0x10000 - n;

	return (struct vringh_state){.avail = at, .used = at};
}

int
post(struct queue *q, const struct mock_buf *buf, unsigned int nb, uint32_t flags, uint64_t token)
{
	int id = mock_post(&q->drv, buf, nb, flags, token);

	assert_true(id >= 0);
	mock_publish(&q->drv);
	return id;
}

int
post_one(struct queue *q, uint32_t len, bool write, uint64_t token)
{
	struct mock_buf buf = {.len = len, .write = write};

	return post(q, &buf, 1, 0, token);
}

int
fetch(struct queue *q, unsigned int max)
{
	q->batch.nb_chains = 0;
	q->batch.nb_segs = 0;
	return vringh_fetch(&q->vr, &q->batch, max);
}

void
complete(struct queue *q, unsigned int first, unsigned int n)
{
	vringh_complete(&q->vr, &q->batch.chain[first], n);
}

void
expect_used(struct queue *q, uint64_t token, uint32_t len)
{
	struct mock_used used;
	int n = mock_collect(&q->drv, &used, 1);

	if (n < 0)
		fail_msg("the driver found: %s", q->drv.fault);
	assert_int_equal(n, 1);
	assert_int_equal(used.token, token);
	assert_int_equal(used.len, len);
}

void
expect_none(struct queue *q)
{
	struct mock_used used;
	int n = mock_collect(&q->drv, &used, 1);

	if (n < 0)
		fail_msg("the driver found: %s", q->drv.fault);
	assert_int_equal(n, 0);
}

/* Sum and content: the segments are these bytes of guest memory, in this order. */
static void
expect_bytes(struct queue *q, const struct vringh_seg *seg, unsigned int nb_seg, int id,
	const struct mock_buf *buf, unsigned int nb, bool write, uint32_t len)
{
	uint64_t own = 0;
	uint32_t k, total = 0, off = 0;
	unsigned int i, s = 0;

	for (i = 0; i < nb; i++) {
		uint64_t at = buf[i].fixed ? buf[i].iova : mock_buf_addr(&q->drv, id, own);

		own += buf[i].fixed ? 0 : buf[i].len;
		if (buf[i].write != write)
			continue;
		total += buf[i].len;
		for (k = 0; k < buf[i].len; k++) {
			assert_true(s < nb_seg);
			assert_ptr_equal(seg[s].addr + off, mock_mem_at(&q->mem, at + k, 1));
			if (++off == seg[s].len) {
				s++;
				off = 0;
			}
		}
	}
	assert_int_equal(s, nb_seg);
	assert_int_equal(total, len);
}

void
expect_chain(struct queue *q, const struct vringh_chain *chain, int id, const struct mock_buf *buf,
	unsigned int nb)
{
	assert_int_equal(chain->error, VRINGH_OK);
	assert_int_equal(chain->id, id);
	assert_int_equal(chain->written, 0);
	assert_int_equal(chain->slots, q->v.packed ? q->drv.record[id].slots : 1);
	expect_bytes(q, chain->seg, chain->nb_read, id, buf, nb, false, chain->read_len);
	expect_bytes(q, chain->seg + chain->nb_read, chain->nb_write, id, buf, nb, true,
		chain->write_len);
}

void
turn(struct queue *q, uint32_t n)
{
	while (n-- > 0) {
		post_one(q, 8, true, n);
		assert_int_equal(fetch(q, 1), 1);
		assert_int_equal(q->batch.chain[0].error, VRINGH_OK);
		q->batch.chain[0].written = n % 9;
		complete(q, 0, 1);
		expect_used(q, n, n % 9);
		expect_none(q);
	}
}

void
expect_bad(struct queue *q, int id, enum vringh_error error)
{
	const struct vringh_chain *chain = &q->batch.chain[0];
	uint64_t count = q->vr.nb_errors[error];
	uint64_t token = q->drv.record[id].token;

	assert_int_equal(fetch(q, 1), 1);
	if (chain->error != error)
		fail_msg("'%s' instead of '%s'", vringh_strerror(chain->error),
			vringh_strerror(error));
	assert_int_equal(chain->id, id);
	assert_int_equal(chain->nb_read + chain->nb_write, 0);
	assert_int_equal(chain->read_len | chain->write_len | chain->written, 0);
	assert_int_equal(q->batch.nb_segs, 0);
	/* Counted when it is completed, so that handing it back does not count it twice. */
	vringh_discard(&q->vr, chain, 1);
	assert_int_equal(fetch(q, 1), 1);
	assert_int_equal(chain->error, error);
	complete(q, 0, 1);
	assert_int_equal(q->vr.nb_errors[error], count + 1);
	assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
	expect_used(q, token, 0);
	expect_none(q);
}

void
expect_broken(struct queue *q, enum vringh_error error)
{
	uint8_t *area[2] = {mock_mem_at(&q->mem, DESC_AT, 16), mock_mem_at(&q->mem, DEVICE_AT, 4)};
	struct vringh_chain chain = {.slots = 1};
	uint8_t before[2][16], after[2][16];
	int i;

	if (vringh_broken(&q->vr) == VRINGH_OK)
		assert_int_equal(fetch(q, 1), -(int)error);
	assert_int_equal(vringh_broken(&q->vr), error);
	for (i = 0; i < 2; i++)
		memcpy(before[i], area[i], i == 0 ? 16 : 4);
	assert_int_equal(fetch(q, 1), -(int)error);
	assert_int_equal(q->batch.nb_chains, 0);
	vringh_complete(&q->vr, &chain, 1);
	assert_false(vringh_pending(&q->vr));
	assert_false(vringh_need_notify(&q->vr));
	assert_false(vringh_notify_enable(&q->vr));
	vringh_notify_disable(&q->vr);
	vringh_get_state(&q->vr);
	assert_int_equal(vringh_set_mem(&q->vr, &q->cfg.mem), error);
	for (i = 0; i < 2; i++) {
		memcpy(after[i], area[i], i == 0 ? 16 : 4);
		assert_memory_equal(before[i], after[i], i == 0 ? 16 : 4);
	}
	queue_rewind(q, near_end(&q->v, 1));
	turn(q, q->v.size > 256 ? 8 : 2 * q->v.size + 2);
}

struct run {
	const struct ring_test *test;
	struct variant variant;
	struct queue *q;
};

static int
run_setup(void **state)
{
	struct run *run = *state;

	run->q = queue_open(&run->variant);
	return 0;
}

static int
run_teardown(void **state)
{
	struct run *run = *state;

	queue_close(run->q);
	return 0;
}

static void
run_one(void **state)
{
	struct run *run = *state;

	run->test->fn(run->q);
}

/* A test of a kind of ring, or 0 where it makes no sense. */
static unsigned int
add(struct CMUnitTest *to, struct run *run, const char *group, const struct ring_test *t,
	const struct variant *v)
{
	unsigned int has = (v->packed ? T_PACKED : T_SPLIT) | (v->event_idx ? T_EVENT : T_FLAGS) |
		(v->indirect ? T_INDIRECT : T_DIRECT);
	char *name;

	if ((t->only & ~has) != 0 || v->size < t->min_size ||
		(t->max_size != 0 && v->size > t->max_size))
		return 0;
	if (asprintf(&name, "%s %s%s%s %u: %s", group, v->packed ? "packed" : "split",
		    v->event_idx ? " event" : "", v->indirect ? " indirect" : "", v->size,
		    t->name) < 0)
		abort();
	*run = (struct run){.test = t, .variant = *v};
	*to = (struct CMUnitTest){.name = name,
		.test_func = run_one,
		.setup_func = run_setup,
		.teardown_func = run_teardown,
		.initial_state = run};
	return 1;
}

int
run_group(const char *group, const struct ring_test *tests, unsigned int nb_tests,
	const struct CMUnitTest *plain, unsigned int nb_plain)
{
	unsigned int most = nb_plain + nb_tests * 4 * (DIM(split_sizes) + DIM(packed_sizes));
	struct CMUnitTest *list = calloc(most, sizeof(*list));
	struct run *run = calloc(most, sizeof(*run));
	unsigned int i, t, bits, n = 0;
	int ret;

	if (list == NULL || run == NULL)
		abort();
	for (i = 0; i < nb_plain; i++) {
		list[n] = plain[i];
		if (asprintf((char **)&list[n].name, "%s: %s", group, plain[i].name) < 0)
			abort();
		n++;
	}
	for (t = 0; t < nb_tests; t++)
		for (bits = 0; bits < 8; bits++)
			for (i = 0; i < (bits & 4 ? DIM(packed_sizes) : DIM(split_sizes)); i++) {
				struct variant v = {
					.packed = bits & 4,
					.indirect = bits & 2,
					.event_idx = bits & 1,
					.size = bits & 4 ? packed_sizes[i] : split_sizes[i],
				};

				n += add(&list[n], &run[n], group, &tests[t], &v);
			}
	/* What cmocka_run_group_tests() calls; the macro wants an array of known length. */
	ret = _cmocka_run_group_tests(group, list, n, NULL, NULL);
	for (i = 0; i < n; i++)
		free((char *)list[i].name);
	free(list);
	free(run);
	return ret;
}
