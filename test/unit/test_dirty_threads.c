/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Two queues on two threads share a dirty log: one logs the even pages, one the odd ones, so
 * that they set bits of the same bytes at the same time. Each takes its own bits back, as a
 * migration does, and none may be missing. Nothing keeps the two in step.
 */

#include <pthread.h>
#include <stdio.h>

#include "harness.h"

#define PAGE   4096
#define PAGES  4 /* of each thread, in turns with the other: one byte of the log */
#define ROUNDS 60000
#define FIRST  0x800 /* page in the log, a multiple of 8 */

struct half {
	struct queue *q;
	uint8_t *bitmap;
	unsigned int odd;
	uint32_t lost;
	char fault[160];
};

/* One byte into each page, one chain at a time, as fast as it goes. */
static bool
write_all(struct half *h)
{
	struct queue *q = h->q;
	uint32_t i;

	for (i = 0; i < PAGES; i++) {
		struct mock_buf buf = {
			.len = 1, .write = true, .fixed = true, .iova = FREE_AT + i * PAGE};
		struct vringh_chain *chain = q->batch.chain;
		struct mock_used used;
		struct vringh_iter it;

		q->batch.nb_chains = q->batch.nb_segs = 0;
		if (mock_post(&q->drv, &buf, 1, 0, i) < 0)
			return false;
		mock_publish(&q->drv);
		if (vringh_fetch(&q->vr, &q->batch, 1) != 1)
			return false;
		it = vringh_iter_write(&q->vr, chain);
		chain->written = vringh_push(&it, "x", 1);
		vringh_complete(&q->vr, chain, 1);
		if (mock_collect(&q->drv, &used, 1) != 1)
			return false;
	}
	return true;
}

/* Bits of this half that are not set; all of them are taken back. */
static uint32_t
take_back(struct half *h)
{
	uint32_t i, missing = 0;

	for (i = 0; i < PAGES; i++) {
		uint32_t page = FIRST + 2 * i + h->odd;
		uint8_t bit = 1 << page % 8;

		missing += !(
			__atomic_fetch_and(&h->bitmap[page / 8], (uint8_t)~bit, __ATOMIC_SEQ_CST) &
			bit);
	}
	return missing;
}

static void *
logger(void *arg)
{
	struct half *h = arg;
	uint32_t round;

	for (round = 0; round < ROUNDS; round++) {
		if (!write_all(h)) {
			snprintf(
				h->fault, sizeof(h->fault), "round %u: %s", round, h->q->drv.fault);
			break;
		}
		h->lost += take_back(h);
	}
	return NULL;
}

static struct queue *
half_open(unsigned int format, unsigned int odd, const struct vringh_dirty_log *dirty)
{
	struct variant v = format_variant(format, VRINGH_MEM_IOTLB, 8);
	struct queue *q = queue_open(&v);
	uint32_t i;

	for (i = 0; i < PAGES; i++) {
		struct vringh_region r;

		assert_non_null(mock_mem_add(&q->mem, FREE_AT + i * PAGE, PAGE, VRINGH_PERM_WRITE));
		r = mock_mem_region(&q->mem, FREE_AT + i * PAGE);
		r.dirty = (FIRST + 2 * i + odd) * (uint64_t)PAGE;
		assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
	}
	assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
	assert_int_equal(vringh_set_dirty_log(&q->vr, dirty), 0);
	return q;
}

static void
shared(void **state)
{
	const unsigned int *formats = *state;
	struct vringh_dirty_log dirty = {.len = (WINDOW_END + 0x10000000) / PAGE / 8 + 1,
		.desc = 0x10000,
		.device = 0x20000};
	struct half half[2];
	pthread_t thread[2];
	uint32_t i;

	dirty.bitmap = calloc(1, dirty.len);
	for (i = 0; i < 2; i++) {
		half[i] = (struct half){
			.q = half_open(formats[i], i, &dirty), .bitmap = dirty.bitmap, .odd = i};
		assert_int_equal(pthread_create(&thread[i], NULL, logger, &half[i]), 0);
	}
	for (i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		queue_close(half[i].q);
	}
	for (i = 0; i < 2; i++) {
		if (half[i].fault[0] != '\0')
			fail_msg("%s", half[i].fault);
		assert_int_equal(half[i].lost, 0);
	}
	free(dirty.bitmap);
}

int
main(void)
{
	static unsigned int formats[3][2] = {{0, 0}, {1, 3}, {2, 1}};
	static const struct CMUnitTest tests[] = {
		{.name = "bits lost between two split rings",
			.test_func = shared,
			.initial_state = formats[0]},
		{.name = "bits lost between two packed rings",
			.test_func = shared,
			.initial_state = formats[1]},
		{.name = "bits lost between a split and a packed ring",
			.test_func = shared,
			.initial_state = formats[2]},
	};

	return run_group("dirty log threads", NULL, 0, tests, DIM(tests));
}
