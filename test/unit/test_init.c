/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Which rings vringh_init() refuses, and that a refused queue is harmless. */

#include <limits.h>

#include "harness.h"

static const struct variant kinds[] = {
	{.packed = false, .event_idx = true, .size = 8, .mem = VRINGH_MEM_REGION},
	{.packed = true, .event_idx = true, .size = 8, .mem = VRINGH_MEM_REGION},
};

/* init refuses; the queue can still be passed to every function. */
static void
refused(struct queue *q, const struct vringh_config *cfg, enum vringh_error error)
{
	struct vringh_chain chain = {.slots = 1};
	int ret = vringh_init(&q->vr, cfg);

	if (ret != -(int)error)
		fail_msg("'%s' instead of '%s'", vringh_strerror(ret), vringh_strerror(error));
	assert_int_equal(vringh_broken(&q->vr), error);
	assert_int_equal(fetch(q, 1), -(int)error);
	vringh_complete(&q->vr, &chain, 1);
	assert_false(vringh_pending(&q->vr));
	assert_false(vringh_need_notify(&q->vr));
	assert_false(vringh_notify_enable(&q->vr));
	vringh_notify_disable(&q->vr);
	vringh_get_state(&q->vr);
	vringh_discard(&q->vr, &chain, 0);
	assert_int_equal(vringh_set_mem(&q->vr, cfg->mem), -(int)error);
}

static void
accepted(struct queue *q, const struct vringh_config *cfg)
{
	assert_int_equal(vringh_init(&q->vr, cfg), VRINGH_OK);
	assert_int_equal(vringh_broken(&q->vr), VRINGH_OK);
}

static void
size(void **state)
{
	static const uint32_t bad[2][6] = {
		{0, 3, 7, 65536, 32769, UINT32_MAX},
		{0, 32769, 65535, 65536, 0x10001, UINT32_MAX},
	};
	unsigned int k, i;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);
		struct vringh_config cfg = q->cfg;

		for (i = 0; i < DIM(bad[k]); i++) {
			cfg.size = bad[k][i];
			refused(q, &cfg, VRINGH_E_SIZE);
		}
		for (cfg.size = 1; cfg.size <= 8; cfg.size++)
			if (kinds[k].packed || (cfg.size & (cfg.size - 1)) == 0)
				accepted(q, &cfg);
		queue_close(q);
	}
}

static void
alignment(void **state)
{
	static const uint32_t align[2][3] = {{16, 2, 4}, {16, 4, 4}};
	unsigned int k, i, off;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);

		/* So much memory that nothing but the alignment can be wrong. */
		mock_mem_add(&q->mem, FREE_AT, 0x10000, VRINGH_PERM_RW);
		for (i = 0; i < 3; i++)
			for (off = 0; off < 16; off++) {
				struct vringh_config cfg = q->cfg;
				uint64_t *at[3] = {&cfg.desc, &cfg.driver, &cfg.device};

				cfg.mem = mock_mem_view(&q->mem);
				*at[i] = FREE_AT + off;
				if (off % align[k][i] == 0)
					accepted(q, &cfg);
				else
					refused(q, &cfg, VRINGH_E_ALIGN);
			}
		queue_close(q);
	}
}

static void
overlap(void **state)
{
	unsigned int k, i, j;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);
		bool packed = kinds[k].packed;
		/* With the event index; the last bytes of each count. */
		uint32_t len[3] = {128, packed ? 4 : 4 + 2 * 8 + 2, packed ? 4 : 4 + 8 * 8 + 2};
		uint32_t align[3] = {16, packed ? 4 : 2, 4};

		mock_mem_add(&q->mem, FREE_AT, 0x10000, VRINGH_PERM_RW);
		for (i = 0; i < 3; i++)
			for (j = 0; j < 3; j++) {
				struct vringh_config cfg = q->cfg;
				uint64_t *at[3] = {&cfg.desc, &cfg.driver, &cfg.device};

				if (i == j)
					continue;
				cfg.mem = mock_mem_view(&q->mem);
				*at[i] = FREE_AT + 0x100;
				*at[j] = *at[i];
				refused(q, &cfg, VRINGH_E_OVERLAP);
				/* j on the last bytes of i, then right behind it. */
				*at[j] = (*at[i] + len[i] - 1) / align[j] * align[j];
				refused(q, &cfg, VRINGH_E_OVERLAP);
				*at[j] += align[j];
				accepted(q, &cfg);
				/* j in front of i, as near as it gets. */
				*at[j] = (*at[i] - len[j]) / align[j] * align[j];
				accepted(q, &cfg);
				*at[j] += align[j];
				refused(q, &cfg, VRINGH_E_OVERLAP);
			}
		queue_close(q);
	}
}

static void
area(void **state)
{
	unsigned int k, i;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);
		bool packed = kinds[k].packed;
		uint32_t len[3] = {128, packed ? 4 : 22, packed ? 4 : 70};
		uint64_t place[3] = {DESC_AT, DRIVER_AT, DEVICE_AT};
		uint32_t need[3] = {packed ? VRINGH_PERM_RW : VRINGH_PERM_READ, VRINGH_PERM_READ,
			VRINGH_PERM_WRITE};
		struct vringh_mem none = {.kind = VRINGH_MEM_REGION};
		struct vringh_config cfg = q->cfg;

		cfg.mem = &none;
		refused(q, &cfg, VRINGH_E_AREA);
		/* Two regions whose border is 16 bytes behind. */
		mock_mem_add(&q->mem, FREE_AT, 0x100, VRINGH_PERM_RW);
		mock_mem_add(&q->mem, FREE_AT + 0x100, 0x100, VRINGH_PERM_RW);
		for (i = 0; i < 3; i++) {
			uint64_t *at[3] = {&cfg.desc, &cfg.driver, &cfg.device};
			unsigned int perm;

			cfg = q->cfg;
			cfg.mem = mock_mem_view(&q->mem);
			*at[i] = FREE_AT - 0x10000; /* unmapped */
			refused(q, &cfg, VRINGH_E_AREA);
			*at[i] = UINT64_MAX - 15; /* unmapped, wraps */
			refused(q, &cfg, VRINGH_E_AREA);
			*at[i] = FREE_AT + 0x100 - 16; /* across two */
			if (len[i] > 16)
				refused(q, &cfg, VRINGH_E_AREA);
			else
				accepted(q, &cfg);
			*at[i] = FREE_AT + 0x200 - (len[i] & ~15u); /* the last bytes, or not all */
			if (len[i] % 16 == 0)
				accepted(q, &cfg);
			else if (len[i] > 16)
				refused(q, &cfg, VRINGH_E_AREA);
			*at[i] = place[i];
			for (perm = 0; perm <= VRINGH_PERM_RW; perm++) {
				mock_mem_permit(&q->mem, place[i], perm);
				mock_mem_view(&q->mem);
				if ((perm & need[i]) == need[i])
					accepted(q, &cfg);
				else
					refused(q, &cfg, VRINGH_E_AREA);
			}
			mock_mem_permit(&q->mem, place[i], need[i]);
		}
		/* Exactly as long as needed was enough all the time; without the event index
		 * two bytes less are.
		 */
		if (!packed) {
			cfg = q->cfg;
			cfg.driver = FREE_AT + 0x100 - 20;
			cfg.mem = mock_mem_view(&q->mem);
			refused(q, &cfg, VRINGH_E_AREA);
			cfg.event_idx = false;
			accepted(q, &cfg);
			cfg.driver = DRIVER_AT;
			cfg.device = FREE_AT + 0x200 - 68;
			accepted(q, &cfg);
			cfg.event_idx = true;
			refused(q, &cfg, VRINGH_E_AREA);
		}
		queue_close(q);
	}
}

/*
 * A front-end chooses bus and host addresses. Where they differ in alignment the ring would be
 * read with misaligned atomic accesses: undefined, and a SIGBUS on some processors.
 */
static void
host_alignment(void **state)
{
	unsigned int k, i, off;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);
		uint8_t *host = mock_mem_add(&q->mem, FREE_AT, 0x1000, VRINGH_PERM_RW);

		for (i = 0; i < 3; i++)
			for (off = 1; off < 8; off += 2) {
				struct vringh_region table[4];
				struct vringh_mem mem = {
					.kind = VRINGH_MEM_REGION, .table = table, .nb_regions = 4};
				struct vringh_config cfg = q->cfg;
				uint64_t *at[3] = {&cfg.desc, &cfg.driver, &cfg.device};

				memcpy(table, q->mem.region, 3 * sizeof(table[0]));
				table[3] = (struct vringh_region){.iova = FREE_AT,
					.len = 0x800,
					.host = host + off,
					.perm = VRINGH_PERM_RW};
				cfg.mem = &mem;
				*at[i] = FREE_AT + 0x100;
				refused(q, &cfg, VRINGH_E_ALIGN);
			}
		queue_close(q);
	}
}

static void
split_state(void **state)
{
	static const uint16_t used[] = {0, 1, 7, 0x7fff, 0x8000, 0xfff8, 0xffff};
	struct queue *q = queue_open(&kinds[0]);
	struct vringh_config cfg = q->cfg;
	uint32_t i, d;

	(void)state;
	for (i = 0; i < DIM(used); i++)
		for (d = 0; d <= UINT16_MAX; d++) {
			cfg.state.used = used[i];
			cfg.state.avail = used[i] + d;
			if (vringh_init(&q->vr, &cfg) != (d <= 8 ? 0 : -VRINGH_E_STATE))
				fail_msg("used %u, avail %u", used[i], cfg.state.avail);
		}
	cfg.state.avail = 100;
	cfg.state.used = 91;
	refused(q, &cfg, VRINGH_E_STATE);
	queue_close(q);
}

/* Every pair on small rings, against positions counted along two laps. */
static void
packed_state(void **state)
{
	uint32_t n, a, u;

	(void)state;
	for (n = 1; n <= 5; n++) {
		struct variant v = {.packed = true, .size = n, .mem = VRINGH_MEM_REGION};
		struct queue *q = queue_open(&v);
		struct vringh_config cfg = q->cfg;

		for (a = 0; a < 2 * 8; a++)
			for (u = 0; u < 2 * 8; u++) {
				uint32_t sa = a % 8, su = u % 8;
				/* Distance along a circle of two laps. */
				uint32_t pa = sa + (a < 8) * n, pu = su + (u < 8) * n;
				bool ok = sa < n && su < n && (pa + 2 * n - pu) % (2 * n) <= n;

				cfg.state.avail = sa | (a < 8 ? 0x8000 : 0);
				cfg.state.used = su | (u < 8 ? 0x8000 : 0);
				if (vringh_init(&q->vr, &cfg) != (ok ? 0 : -VRINGH_E_STATE))
					fail_msg("size %u, avail %#x, used %#x", n, cfg.state.avail,
						cfg.state.used);
				if (ok) {
					struct vringh_state s = vringh_get_state(&q->vr);

					assert_int_equal(s.avail, cfg.state.avail);
					assert_int_equal(s.used, cfg.state.used);
				}
			}
		cfg.state = (struct vringh_state){.avail = n | 0x8000, .used = 0x8000};
		refused(q, &cfg, VRINGH_E_STATE);
		cfg.state = (struct vringh_state){.avail = 0x7fff, .used = 0x7fff};
		refused(q, &cfg, VRINGH_E_STATE);
		queue_close(q);
	}
}

static void
strerror_text(void **state)
{
	int e, f;

	(void)state;
	for (e = 0; e < VRINGH_E_MAX; e++) {
		assert_non_null(vringh_strerror(e));
		assert_true(strlen(vringh_strerror(e)) > 0);
		assert_ptr_equal(vringh_strerror(-e), vringh_strerror(e));
		for (f = 0; f < e; f++)
			assert_string_not_equal(vringh_strerror(e), vringh_strerror(f));
	}
	assert_non_null(vringh_strerror(VRINGH_E_MAX));
	assert_non_null(vringh_strerror(INT_MIN));
}

/* An area may be made of several ranges, if they are one piece here. */
static void
in_pieces(void **state)
{
	unsigned int k, i, gap;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);
		uint8_t *host = mock_mem_add(&q->mem, FREE_AT, 0x1000, VRINGH_PERM_RW);

		for (i = 0; i < 3; i++)
			for (gap = 0; gap < 3; gap++) {
				struct vringh_region table[5];
				struct vringh_mem mem = {.kind = VRINGH_MEM_REGION,
					.table = table,
					.nb_regions = gap == 2 ? 4 : 5};
				struct vringh_config cfg = q->cfg;
				uint64_t *at[3] = {&cfg.desc, &cfg.driver, &cfg.device};

				memcpy(table, q->mem.region, 3 * sizeof(table[0]));
				table[3] = (struct vringh_region){.iova = FREE_AT,
					.len = 2,
					.host = host,
					.perm = VRINGH_PERM_RW};
				table[4] = (struct vringh_region){.iova = FREE_AT + 2,
					.len = 0x100,
					.host = host + 2 + gap,
					.perm = VRINGH_PERM_RW};
				cfg.mem = &mem;
				*at[i] = FREE_AT;
				if (gap == 0)
					accepted(q, &cfg);
				else
					refused(q, &cfg, VRINGH_E_AREA);
			}
		queue_close(q);
	}
}

/* Each area is looked for in its own memory, and only there. */
static void
own_memory(void **state)
{
	unsigned int k, i;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);

		for (i = 0; i < 3; i++) {
			struct vringh_region table[8], area;
			struct vringh_mem rest = {.kind = VRINGH_MEM_REGION, .table = table};
			struct vringh_mem one = {
				.kind = VRINGH_MEM_DIRECT, .table = &area, .nb_regions = 1};
			struct vringh_config cfg = q->cfg;
			struct vringh_mem **own[3] = {
				&cfg.desc_mem, &cfg.driver_mem, &cfg.device_mem};
			unsigned int r;

			for (r = 0; r < q->mem.nb_regions; r++)
				if (r != i)
					table[rest.nb_regions++] = q->mem.view.table[r];
			area = q->mem.view.table[i];
			cfg.mem = &rest;
			refused(q, &cfg, VRINGH_E_AREA);
			*own[i] = &one;
			accepted(q, &cfg);
			/* New memory is for buffers and for the areas that have none of their own.
			 */
			assert_int_equal(vringh_set_mem(&q->vr, cfg.mem), VRINGH_OK);
			assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
			assert_int_equal(vringh_set_mem(&q->vr, &one), -VRINGH_E_AREA);
			accepted(q, &cfg);
			area.len--;
			assert_int_equal(vringh_set_mem(&q->vr, NULL), -VRINGH_E_AREA);
		}
		queue_close(q);
	}
}

/* What has the same address in two memories is not the same. */
static void
same_address(void **state)
{
	unsigned int k, i;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);

		for (i = 0; i < 2; i++) {
			struct vringh_region region = mock_mem_region(&q->mem, DEVICE_AT);
			struct vringh_mem other = {
				.kind = VRINGH_MEM_DIRECT, .table = &region, .nb_regions = 1};
			struct vringh_config cfg = q->cfg;

			region.iova = cfg.device = i == 0 ? cfg.desc : cfg.driver;
			cfg.device_mem = cfg.mem; /* the same, told twice */
			refused(q, &cfg, VRINGH_E_OVERLAP);
			cfg.device_mem = &other;
			accepted(q, &cfg);
		}
		queue_close(q);
	}
}

/* A window is a limit: no byte of a ring may lie outside. */
static void
window(void **state)
{
	unsigned int k, i;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct variant v = kinds[k];
		struct queue *q;

		v.mem = VRINGH_MEM_DIRECT;
		q = queue_open(&v);
		for (i = 0; i < 3; i++) {
			struct vringh_config cfg = q->cfg;
			uint64_t *at[3] = {&cfg.desc, &cfg.driver, &cfg.device};

			if (i > 0)
				cfg.desc = FREE_AT;
			*at[i] = WINDOW_AT - 16;
			refused(q, &cfg, VRINGH_E_AREA);
			*at[i] = NOWHERE;
			refused(q, &cfg, VRINGH_E_AREA);
			*at[i] = UINT64_MAX - 15;
			refused(q, &cfg, VRINGH_E_AREA);
			*at[i] = WINDOW_END - (mock_area_len(&q->drv.cfg, i) & ~15u);
			if (*at[i] + mock_area_len(&q->drv.cfg, i) <= WINDOW_END)
				*at[i] += 16;
			refused(q, &cfg, VRINGH_E_AREA);
			*at[i] = WINDOW_END - (mock_area_len(&q->drv.cfg, i) + 15) / 16 * 16;
			accepted(q, &cfg);
		}
		queue_close(q);
	}
}

/* "Nothing is written to the ring." */
static void
untouched(void **state)
{
	unsigned int k, i, b;

	(void)state;
	for (k = 0; k < DIM(kinds); k++) {
		struct queue *q = queue_open(&kinds[k]);

		for (i = 0; i < 3; i++)
			memset(q->mem.region[i].host, 0x5a, q->mem.region[i].len);
		accepted(q, &q->cfg);
		for (i = 0; i < 3; i++)
			for (b = 0; b < q->mem.region[i].len; b++)
				assert_int_equal(q->mem.region[i].host[b], 0x5a);
		queue_close(q);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		{.name = "size out of range or no power of two", .test_func = size},
		{.name = "misaligned area", .test_func = alignment},
		{.name = "overlapping areas", .test_func = overlap},
		{.name = "area unmapped, across regions, without rights", .test_func = area},
		{.name = "host memory misaligned", .test_func = host_alignment},
		{.name = "impossible split indices", .test_func = split_state},
		{.name = "impossible packed positions", .test_func = packed_state},
		{.name = "a reason without text", .test_func = strerror_text},
		{.name = "area in several ranges", .test_func = in_pieces},
		{.name = "area found in another's memory", .test_func = own_memory},
		{.name = "areas at one address in two memories", .test_func = same_address},
		{.name = "area beyond the only window", .test_func = window},
		{.name = "init writes to the ring", .test_func = untouched},
	};

	return run_group("init", NULL, 0, tests, DIM(tests));
}
