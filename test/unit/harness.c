/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Queues in every kind of memory, and the lists of tests that run on them. Runs on the test's
 * only thread.
 */

#include <stdio.h>

#include "harness.h"

static const uint32_t split_sizes[] = {1, 2, 8, 256, 32768};
static const uint32_t packed_sizes[] = {1, 3, 5, 8, 256, 32768};

/* Kinds of memory of the buffers and of the descriptor, driver and device area. */
static const struct {
	const char *name;
	enum vringh_mem_kind bufs, area[3];
} sorts[MEM_SORTS] = {
	[VRINGH_MEM_DIRECT] = {.name = "direct"},
	[VRINGH_MEM_REGION] = {.name = "region"},
	[VRINGH_MEM_IOTLB] = {.name = "iotlb"},
	[VRINGH_MEM_IOMEM] = {.name = "iomem"},
	[MEM_NTB] = {"ntb", VRINGH_MEM_IOTLB,
		{VRINGH_MEM_REGION, VRINGH_MEM_DIRECT, VRINGH_MEM_IOMEM}},
	[MEM_MIX] = {"mix", VRINGH_MEM_DIRECT,
		{VRINGH_MEM_IOMEM, VRINGH_MEM_IOTLB, VRINGH_MEM_DIRECT}},
	[MEM_FAR] = {"far", VRINGH_MEM_IOMEM,
		{VRINGH_MEM_REGION, VRINGH_MEM_REGION, VRINGH_MEM_REGION}},
	[MEM_APART] = {"apart", VRINGH_MEM_IOMEM,
		{VRINGH_MEM_IOMEM, VRINGH_MEM_IOMEM, VRINGH_MEM_IOMEM}},
};

unsigned int tests_only;

static const uint64_t area_at[3] = {DESC_AT, DRIVER_AT, DEVICE_AT};

const char *
mem_name(unsigned int mem)
{
	return sorts[mem].name;
}

struct variant
format_variant(unsigned int format, unsigned int mem, uint32_t size)
{
	return (struct variant){.packed = format & 1,
		.in_order = format & 2,
		.event_idx = true,
		.indirect = true,
		.size = size,
		.mem = mem};
}

const char *
format_name(unsigned int format)
{
	static const char *const name[NB_FORMATS] = {
		"split", "packed", "split in-order", "packed in-order"};

	return name[format];
}

static void
mem_open(struct queue *q, struct mock_mem *mem, enum vringh_mem_kind kind, uint64_t iova,
	uint64_t end)
{
	bool linked = kind == VRINGH_MEM_IOMEM && !q->v.coherent;

	assert_true(mock_mem_init(mem, kind, iova, end - iova, linked ? &q->link : NULL));
	/* The log is in other terms than the bus where it may be. */
	mem->dirty_shift = 0x10000000;
}

static void
areas_open(struct queue *q, struct mock_config *mc)
{
	static const uint32_t perm[3] = {VRINGH_PERM_READ, VRINGH_PERM_READ, VRINGH_PERM_WRITE};
	struct mock_mem **mems[3] = {&mc->desc_mem, &mc->driver_mem, &mc->device_mem};
	int i;

	for (i = 0; i < 3; i++) {
		uint32_t len = mock_area_len(mc, i);

		q->area[i] = &q->mem;
		if (q->v.mem >= VRINGH_MEM_MAX) {
			q->area[i] = *mems[i] = &q->own[i];
			mem_open(q, q->area[i], sorts[q->v.mem].area[i], area_at[i],
				area_at[i] + 0x100000);
		}
		assert_non_null(mock_mem_add(q->area[i], area_at[i], len,
			i == 0 && q->v.packed && !mc->apart ? (uint32_t)VRINGH_PERM_RW : perm[i]));
	}
}

static void
next_open(struct queue *q)
{
	struct mock_config mc = {
		.packed = q->v.packed,
		.in_order = q->v.in_order,
		.event_idx = q->v.event_idx,
		.size = 4,
		.desc = NEXT_AT,
		.driver = NEXT_AT + 0x100,
		.device = NEXT_AT + 0x200,
		.bufs = NEXT_AT + 0x1000,
		.buf_len = 0x100,
		.start.used = q->v.packed ? 0x8000 : 0,
	};
	struct vringh_config cfg = {
		.packed = q->v.packed,
		.in_order = q->v.in_order,
		.event_idx = q->v.event_idx,
		.size = 4,
		.desc = mc.desc,
		.driver = mc.driver,
		.device = mc.device,
		.mem = &q->mem.view,
		.state = {mc.start.used, mc.start.used},
	};

	assert_true(mock_init(&q->next.drv, &q->mem, &mc));
	assert_int_equal(vringh_init(&q->next.vr, &cfg), VRINGH_OK);
}

struct queue *
queue_open(const struct variant *v)
{
	struct mock_config mc = {
		.packed = v->packed,
		.in_order = v->in_order,
		.event_idx = v->event_idx,
		.apart = v->packed && v->mem == MEM_APART,
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
	int i;

	assert_non_null(q);
	memset(q, 0, sizeof(*q));
	q->v = *v;
#ifdef HARNESS_CHECKED
	q->link.strict = true;
	checked_watch(&q->link);
	q->link.unread[0] = DEVICE_AT;
	q->link.unread[1] = TABLES_AT;
	if (mc.apart) {
		q->link.unwritten[0] = DESC_AT;
		q->link.unwritten[1] = DEVICE_AT;
	} else if (v->packed) {
		q->link.polled[0] = DESC_AT;
		q->link.polled[1] = DESC_AT + 16 * v->size;
	}
#endif
	if (v->packed && v->start.used == 0 && v->start.avail == 0)
		mc.start = VRINGH_PACKED_START;
	mem_open(q, &q->mem,
		v->mem < VRINGH_MEM_MAX ? (enum vringh_mem_kind)v->mem : sorts[v->mem].bufs,
		WINDOW_AT, WINDOW_END);
	areas_open(q, &mc);
	assert_non_null(
		mock_mem_add(&q->mem, BUFS_AT, (uint64_t)mc.buf_len * mc.nb_bufs, VRINGH_PERM_RW));
	assert_non_null(mock_mem_add(
		&q->mem, TABLES_AT, 16ull * mc.table_entries * v->size, VRINGH_PERM_READ));
	assert_non_null(mock_mem_add(&q->mem, NEXT_AT, 0x2000, VRINGH_PERM_RW));
	assert_true(mock_init(&q->drv, &q->mem, &mc));
	q->batch.max_chains = v->size;
	q->batch.max_segs = 4 * v->size;
	q->batch.chain = calloc(q->batch.max_chains, sizeof(*q->batch.chain));
	q->batch.seg = calloc(q->batch.max_segs, sizeof(*q->batch.seg));
	assert_true(q->batch.chain != NULL && q->batch.seg != NULL);
	mock_mem_view(&q->mem);
	for (i = 0; i < 3; i++)
		mock_mem_view(q->area[i]);
	q->cfg = (struct vringh_config){
		.packed = v->packed,
		.in_order = v->in_order,
		.event_idx = v->event_idx,
		.indirect = v->indirect,
		.apart = mc.apart,
		.size = v->size,
		.desc = DESC_AT,
		.driver = DRIVER_AT,
		.device = DEVICE_AT,
		.mem = &q->mem.view,
	};
	if (v->mem >= VRINGH_MEM_MAX) {
		q->cfg.desc_mem = &q->area[0]->view;
		q->cfg.driver_mem = &q->area[1]->view;
		q->cfg.device_mem = &q->area[2]->view;
	}
	queue_restart(q);
	next_open(q);
	return q;
}

void
queue_close(struct queue *q)
{
	int i;

	mock_free(&q->drv);
	mock_free(&q->next.drv);
	mock_mem_free(&q->mem);
	for (i = 0; i < 3; i++)
		mock_mem_free(&q->own[i]);
#ifdef HARNESS_CHECKED
	checked_forget(&q->link);
#endif
	free(q->batch.chain);
	free(q->batch.seg);
	free(q);
}

void
queue_restart(struct queue *q)
{
	uint16_t at = mock_used_position(&q->drv, 0);

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

int
queue_remap(struct queue *q)
{
	int i;

	mock_mem_view(&q->mem);
	for (i = 0; i < 3; i++)
		if (q->area[i] != &q->mem)
			mock_mem_view(q->area[i]);
	if (!mock_remap(&q->drv) || !mock_remap(&q->next.drv))
		return -VRINGH_E_AREA;
	assert_int_equal(vringh_set_mem(&q->next.vr, NULL), VRINGH_OK);
	return vringh_set_mem(&q->vr, NULL);
}

uint8_t *
queue_map(struct queue *q, uint64_t iova, uint64_t len, uint32_t perm)
{
	uint8_t *host = mock_mem_add(&q->mem, iova, len, perm);

	assert_non_null(host);
	assert_int_equal(queue_remap(q), VRINGH_OK);
	return host;
}

struct vringh_state
near_end(const struct variant *v, uint32_t n)
{
	uint16_t at = v->packed ? (v->size - n % v->size) % v->size | 0x8000 : 0x10000 - n;

	return (struct vringh_state){.avail = at, .used = at};
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

static unsigned int
has(const struct variant *v)
{
	bool one = v->mem < VRINGH_MEM_MAX;
	enum vringh_mem_kind kind = one ? v->mem : sorts[v->mem].bufs;
	unsigned int bits = T_ALL | T_COHERENT;

	bits |= v->packed ? T_PACKED : T_SPLIT;
	bits |= v->event_idx ? T_EVENT : T_FLAGS;
	bits |= v->indirect ? T_INDIRECT : T_DIRECT;
	bits |= v->in_order ? T_IN_ORDER : T_ANY_ORDER;
	bits |= v->mem == VRINGH_MEM_IOTLB ? T_IOTLB : 0;
	bits |= v->mem == VRINGH_MEM_IOMEM || !one ? T_LINK : 0;
	bits |= one ? T_ONE_MEM : 0;
	bits |= v->packed && v->mem == MEM_APART ? T_APART : T_TOGETHER;
	bits |= kind != VRINGH_MEM_IOTLB ? T_NO_MISS : 0;
	bits |= kind != VRINGH_MEM_DIRECT ? T_REGIONS : T_WINDOW;
	bits |= kind != VRINGH_MEM_IOMEM ? T_IN_PLACE : 0;
	return bits;
}

struct list {
	const char *group;
	struct CMUnitTest *test;
	struct run *run;
	unsigned int n, room;
};

/* A test on a kind of ring and memory; false where it makes no sense. */
static bool
add(struct list *list, const struct ring_test *t, const struct variant *v)
{
	struct run *run = &list->run[list->n];
	char *name;

	if (((t->only | tests_only) & ~has(v)) != 0 || v->size < t->min_size ||
		(t->max_size != 0 && v->size > t->max_size))
		return false;
#ifdef HARNESS_CHECKED
	/* Elsewhere there is nothing to judge, and only the hostile cases need a count. */
	if (!(has(v) & T_LINK) && !(t->only & T_ALL))
		return false;
#endif
	if (list->n == list->room ||
		asprintf(&name, "%s %s %s%s%s %u: %s", list->group,
			format_name(v->packed + 2 * v->in_order), sorts[v->mem].name,
			v->event_idx ? " event" : "", v->indirect ? " indirect" : "", v->size,
			t->name) < 0)
		abort();
	*run = (struct run){.test = t, .variant = *v};
	list->test[list->n++] = (struct CMUnitTest){.name = name,
		.test_func = run_one,
		.setup_func = run_setup,
		.teardown_func = run_teardown,
		.initial_state = run};
	return true;
}

static void
add_variants(struct list *list, const struct ring_test *t)
{
	unsigned int bits, i, k, turn = list->n;

	for (bits = 0; bits < 16; bits++)
		for (i = 0; i < (bits & 1 ? DIM(packed_sizes) : DIM(split_sizes)); i++) {
			struct variant v = {
				.packed = bits & 1,
				.in_order = bits & 2,
				.indirect = bits & 4,
				.event_idx = bits & 8,
				.coherent = t->only & T_COHERENT,
				.size = bits & 1 ? packed_sizes[i] : split_sizes[i],
			};

			for (k = 0; k < MEM_SORTS; k++) {
				v.mem = (turn + k) % MEM_SORTS;
				if (add(list, t, &v) && !(t->only & T_ALL))
					break;
			}
			turn = v.mem + 1;
		}
}

int
run_group(const char *group, const struct ring_test *tests, unsigned int nb_tests,
	const struct CMUnitTest *plain, unsigned int nb_plain)
{
	struct list list = {.group = group,
		.room = nb_plain +
			nb_tests * 8 * MEM_SORTS * (DIM(split_sizes) + DIM(packed_sizes))};
	unsigned int i;
	int ret;

	list.test = calloc(list.room, sizeof(*list.test));
	list.run = calloc(list.room, sizeof(*list.run));
	if (list.test == NULL || list.run == NULL)
		abort();
	for (i = 0; i < nb_plain; i++) {
		list.test[i] = plain[i];
		if (asprintf((char **)&list.test[i].name, "%s: %s", group, plain[i].name) < 0)
			abort();
		list.n++;
	}
	for (i = 0; i < nb_tests; i++)
		add_variants(&list, &tests[i]);
	/* What cmocka_run_group_tests() calls; the macro wants an array of known length. */
	ret = _cmocka_run_group_tests(group, list.test, list.n, NULL, NULL);
	for (i = 0; i < list.n; i++)
		free((char *)list.test[i].name);
	free(list.test);
	free(list.run);
	/* As an exit status 256 failures would be none. */
	return ret != 0;
}
