/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Behind an IOMMU, see iommu_link.h: what becomes of requests that are out while the driver unmaps,
 * and how translations are kept. test_frontend_iommu.py has the rest.
 */

#include <iommu.h>

#include <function.h>

#include "blk_harness.h"
#include "iommu_link.h"

#define SIZE (UINT64_C(1) << 20)
#define NB   6u

static struct faulty *f;

static struct guest *
held_open(const struct shape *shape)
{
	f = faulty_new(SIZE);
	return disk_open(&(struct disk_conf){
		.backend = &faulty_backend, .arg = f, .size = SIZE, .shape = shape});
}

/* n reads of a sector each, which stay at the back-end. */
static void
read_sectors(struct guest *g, unsigned int n, int *id)
{
	unsigned int i;

	faulty_set(f, true, 0);
	for (i = 0; i < n; i++) {
		pattern(f->bytes + i * SECTOR, i, SECTOR, 7);
		id[i] = ask_post(g, 0,
			&(struct ask){.type = VIRTIO_BLK_T_IN, .sector = i, .in_len = SECTOR});
		assert_true(id[i] >= 0);
	}
	queue_kick(g, 0);
	faulty_wait(f, n);
}

static void
answers_are_right(struct guest *g, const int *id, unsigned int n) /* of NB */
{
	struct answer answer;
	uint8_t right[SECTOR];
	unsigned int i, k;

	for (i = 0; i < n; i++) {
		assert_true(answer_try(g, 0, &answer, PATIENCE_MS));
		assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
		for (k = 0; k < NB && id[k] != answer.id; k++)
			;
		assert_true(k < NB);
		pattern(right, k, SECTOR, 7);
		assert_memory_equal(answer.in, right, SECTOR);
	}
}

static void *
release_later(void *arg)
{
	(void)arg;
	nap_us(20000);
	faulty_release(f, NB, false);
	return NULL;
}

static void
unmapping_waits_for_what_is_out(const struct shape *shape)
{
	struct guest *g = held_open(shape);
	const struct mock_config *cfg = &g->q[0].drv.cfg;
	pthread_t thread;
	int id[NB];

	read_sectors(g, NB, id);
	pthread_create(&thread, NULL, release_later, NULL);
	assert_int_equal(
		iommu_invalidate(g->link, cfg->bufs, (uint64_t)cfg->size * cfg->buf_len), 0);
	assert_int_equal(f->nb_held, 0);
	pthread_join(thread, NULL);
	answers_are_right(g, id, NB);
	/* and what is unmapped is asked for */
	faulty_set(f, false, 0);
	assert_int_equal(disk_write(g, 3, f->bytes, SECTOR), VIRTIO_BLK_S_OK);
}

/* The driver unmaps the buffers of a request that has ended, and has others out. */
static void
unmapping_something_else_does_not_wait(const struct shape *shape)
{
	struct guest *g = held_open(shape);
	const struct mock_config *cfg = &g->q[0].drv.cfg;
	int id[NB];

	read_sectors(g, NB, id);
	faulty_release(f, 1, false);
	answers_are_right(g, id, 1);
	assert_int_equal(iommu_invalidate(g->link, mock_buf_addr(&g->q[0].drv, id[0], 0) & -4096ull,
				 cfg->buf_len & -4096u),
		0);
	assert_int_equal(f->nb_held, NB - 1);
	faulty_release(f, NB - 1, false);
	answers_are_right(g, id, NB - 1);
}

/* Large pages that adjoin are one translation, in whatever order they come; small ones are not. */
static void
large_pages_are_joined(void **state)
{
	static const unsigned int order[] = {4, 2, 3, 0, 1}, pieces[] = {1, 2, 1, 2, 1};
	const uint64_t page = UINT64_C(2) << 20, at = UINT64_C(1) << 46;
	struct guest *g = held_open(NULL);
	const struct vringh_mem *mem = &g->fn->iommu.mem;
	struct vfn_dma_map map = {.iova = at,
		.len = DIM(order) * page,
		.host = aligned_alloc(4096, DIM(order) * page),
		.fd = -1,
		.readable = true,
		.writable = true};
	struct vfn_translation t = {.readable = true, .writable = true};
	struct vfn_link *link = NULL;
	uint32_t before, i;

	(void)state;
	assert_non_null(map.host);
	link = iommu_real(g->link);
	assert_int_equal(link->ops->dma_map(link, &map), 0);
	before = mem->nb_regions;
	for (i = 0; i < DIM(order); i++) {
		t.iova = at + order[i] * page;
		t.addr = t.iova;
		t.len = page;
		assert_int_equal(link->ops->translate(link, &t), 0);
		assert_int_equal(mem->nb_regions - before, pieces[i]);
	}
	/* a part of it once more changes nothing, other rights do */
	t.iova = t.addr = at + 4096;
	t.len = 4096;
	assert_int_equal(link->ops->translate(link, &t), 0);
	assert_int_equal(mem->nb_regions - before, 1);
	t.writable = false;
	assert_int_equal(link->ops->translate(link, &t), 0);
	assert_int_equal(mem->nb_regions - before, 1);
	t.iova = t.addr = at + 8192;
	assert_int_equal(link->ops->translate(link, &t), 0);
	assert_int_equal(mem->nb_regions - before, 2);
	assert_int_equal(link->ops->dma_unmap(link, VFN_DMA_GUEST, at, map.len), 0);
	free(map.host);
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
		cmocka_unit_test_teardown(large_pages_are_joined, disks_close),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(unmapping_waits_for_what_is_out),
		SHAPED(unmapping_something_else_does_not_wait),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	shaped_teardown = disks_close;
	return run_list("iommu", plain, DIM(plain), shaped, DIM(shaped));
}
