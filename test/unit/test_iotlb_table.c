/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The translation table itself, and the bytes of chains in flight when it changes. What is
 * unmapped is freed at once, so that any use of it is seen by a sanitizer.
 */

#include "harness.h"

#define NB    6	   /* ranges that a buffer lies in */
#define PART  0x40 /* bytes of each */
#define SPACE 64   /* addresses of the model */
#define ROOM  5	   /* of its table */

static struct vringh_region
range(uint64_t iova, uint64_t len)
{
	static uint8_t host[SPACE];

	return (struct vringh_region){
		.iova = iova, .len = len, .host = host, .perm = VRINGH_PERM_RW};
}

static int
map(struct vringh_mem *mem, uint64_t iova, uint64_t len)
{
	struct vringh_region r = range(iova, len);

	return vringh_iotlb_map(mem, &r);
}

static void
map_errors(void **state)
{
	struct vringh_region table[3];
	struct vringh_mem mem = {.kind = VRINGH_MEM_IOTLB, .table = table, .max_regions = 3};
	uint32_t gen;

	(void)state;
	assert_int_equal(map(&mem, 0x1000, 0), -VRINGH_E_RANGE);
	assert_int_equal(map(&mem, UINT64_MAX, 2), -VRINGH_E_RANGE);
	assert_int_equal(map(&mem, 1, UINT64_MAX), 0); /* all but the first byte */
	assert_int_equal(map(&mem, 2, UINT64_MAX), -VRINGH_E_RANGE);
	assert_int_equal(map(&mem, 0, 1), 0);
	assert_int_equal(map(&mem, 0, 1), -VRINGH_E_OVERLAP);
	assert_int_equal(map(&mem, UINT64_MAX, 1), -VRINGH_E_OVERLAP);
	assert_int_equal(vringh_iotlb_unmap(&mem, 0, 0), 2);
	assert_int_equal(mem.nb_regions, 0);
	assert_int_equal(map(&mem, 0x1000, 0x1000), 0);
	assert_int_equal(map(&mem, 0x1000, 0x1000), -VRINGH_E_OVERLAP);
	assert_int_equal(map(&mem, 0x1fff, 1), -VRINGH_E_OVERLAP);
	assert_int_equal(map(&mem, 0xfff, 2), -VRINGH_E_OVERLAP);
	assert_int_equal(map(&mem, 0, 0x10000), -VRINGH_E_OVERLAP);
	assert_int_equal(map(&mem, 0x1800, 8), -VRINGH_E_OVERLAP);
	assert_int_equal(map(&mem, 0x2000, 1), 0);
	assert_int_equal(map(&mem, 0xfff, 1), 0);
	/* Full; what overlaps is told as such or as full, but not let in. */
	assert_int_equal(map(&mem, 0x8000, 1), -VRINGH_E_FULL);
	assert_true(map(&mem, 0x1000, 1) < 0);
	assert_int_equal(mem.nb_regions, 3);
	assert_int_equal(table[0].iova, 0xfff);
	assert_int_equal(table[1].iova, 0x1000);
	assert_int_equal(table[2].iova, 0x2000);
	gen = mem.gen;
	assert_int_equal(vringh_iotlb_unmap(&mem, 0x2001, 100), 0);
	assert_int_equal(vringh_iotlb_unmap(&mem, 0, 0xfff), 0);
	assert_int_equal(vringh_iotlb_unmap(&mem, 0x1800, 0), 0);
	assert_int_equal(mem.nb_regions, 3);
	assert_int_equal(mem.gen, gen);
	/* One byte of it takes all of a range; up to the top of the address space. */
	assert_int_equal(vringh_iotlb_unmap(&mem, 0x1fff, UINT64_MAX - 0x1ffe), 2);
	assert_int_not_equal(mem.gen, gen);
	assert_int_equal(mem.nb_regions, 1);
	assert_int_equal(map(&mem, 0x8000, 1), 0);
}

/* Any sequence of maps and unmaps against a model that has an owner for each address. */
static void
map_model(void **state)
{
	struct vringh_region table[ROOM];
	struct vringh_mem mem = {.kind = VRINGH_MEM_IOTLB, .table = table, .max_regions = ROOM};
	int owner[SPACE] = {0}, next = 1, nb = 0;
	uint64_t seed = 7;
	uint32_t round, i;

	(void)state;
	for (round = 0; round < 200000; round++) {
		uint32_t at = mock_random(&seed) % SPACE;
		uint32_t len = mock_random(&seed) % (SPACE - at + 1);
		int ret, want = 0;

		if (mock_random(&seed) % 2)
			len = len % 9;
		if (mock_random(&seed) % 3) {
			for (i = at; i < at + len; i++)
				want = owner[i] != 0 ? -VRINGH_E_OVERLAP : want;
			want = len == 0			? -VRINGH_E_RANGE :
				want == 0 && nb == ROOM ? -VRINGH_E_FULL :
							  want;
			ret = map(&mem, at, len);
			assert_int_equal(ret, want);
			if (ret == 0) {
				for (i = at; i < at + len; i++)
					owner[i] = next;
				next++;
				nb++;
			}
		} else if (at != 0 || len != 0) {
			for (i = at; i < at + len; i++) {
				int gone = owner[i];
				uint32_t k;

				for (k = 0; k < SPACE && gone != 0; k++)
					owner[k] = owner[k] == gone ? 0 : owner[k];
				want += gone != 0;
			}
			assert_int_equal(vringh_iotlb_unmap(&mem, at, len), want);
			nb -= want;
		}
		assert_int_equal(mem.nb_regions, nb);
		for (i = 0; i < mem.nb_regions; i++) {
			assert_int_not_equal(owner[table[i].iova], 0);
			assert_int_equal(
				owner[table[i].iova], owner[table[i].iova + table[i].len - 1]);
			assert_true(i == 0 || table[i - 1].iova < table[i].iova);
		}
	}
}

static uint8_t
pattern(uint32_t k)
{
	return k * 7 + k / 251;
}

static void
remove_part(struct queue *q, uint32_t i)
{
	uint64_t iova = FREE_AT + i * PART;

	assert_int_equal(vringh_iotlb_unmap(&q->mem.view, iova, PART), 1);
	mock_mem_remove(&q->mem, iova);
	assert_int_equal(vringh_set_mem(&q->next.vr, NULL), VRINGH_OK);
}

static void
add_part(struct queue *q, uint32_t i, uint32_t perm)
{
	uint64_t iova = FREE_AT + i * PART;
	struct vringh_region r;
	uint8_t byte[PART];
	uint32_t k;

	for (k = 0; k < PART; k++)
		byte[k] = pattern(i * PART + k);
	assert_non_null(mock_mem_add(&q->mem, iova, PART, perm));
	assert_true(mock_mem_write(&q->mem, iova, byte, PART));
	r = mock_mem_region(&q->mem, iova);
	assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
}

/* A chain of one buffer over all parts, fetched; a part goes while an iterator is on its way. */
static struct vringh_iter
under_way(struct queue *q, bool write, uint32_t done)
{
	struct mock_buf buf = {.len = NB * PART, .write = write, .fixed = true, .iova = FREE_AT};
	struct vringh_iter it;
	uint8_t byte[NB * PART];
	uint32_t i;

	for (i = 0; i < NB; i++)
		add_part(q, i, VRINGH_PERM_RW);
	queue_rewind(q, near_end(&q->v, 3));
	post(q, &buf, 1, 0, 1);
	assert_int_equal(fetch(q, 1), 1);
	it = write ? vringh_iter_write(&q->vr, &q->batch.chain[0]) :
		     vringh_iter_read(&q->vr, &q->batch.chain[0]);
	for (i = 0; i < done; i++)
		byte[i] = pattern(i) + 1;
	if (write)
		assert_int_equal(vringh_push(&it, byte, done), done);
	else
		assert_int_equal(vringh_pull(&it, byte, done), done);
	return it;
}

static void
put_away(struct queue *q)
{
	uint32_t i;

	complete(q, 0, 1);
	expect_used(q, 1, 0);
	for (i = 0; i < NB; i++)
		mock_mem_remove(&q->mem, FREE_AT + i * PART);
	assert_int_equal(queue_remap(q), VRINGH_OK);
}

/* Pull, or push and look: what comes of the bytes from done on. */
static uint32_t
moved(struct queue *q, struct vringh_iter *it, bool write, uint32_t done)
{
	uint32_t n, k, want = NB * PART - done;
	uint8_t byte[NB * PART], got;

	for (k = 0; k < want; k++)
		byte[k] = pattern(done + k) + 1;
	n = write ? vringh_push(it, byte, want) : vringh_pull(it, byte, want);
	for (k = 0; k < n; k++) {
		assert_true(mock_mem_read(&q->mem, FREE_AT + done + k, &got, 1));
		assert_int_equal(got, (uint8_t)(pattern(done + k) + write));
		assert_int_equal(byte[k], got);
	}
	return n;
}

/* It ends where the part was, goes on when it is back, elsewhere; from any place in between. */
static void
part_unmapped(struct queue *q)
{
	uint32_t done, part;
	bool write;

	for (write = false;; write = true) {
		for (done = 0; done <= NB * PART; done += 13)
			for (part = 0; part < NB; part++) {
				struct vringh_iter it = under_way(q, write, done);
				uint32_t end = part * PART, n;

				remove_part(q, part);
				end = end + PART <= done ? NB * PART : end < done ? done : end;
				n = moved(q, &it, write, done);
				assert_int_equal(n, end - done);
				assert_int_equal(moved(q, &it, write, done + n), 0);
				add_part(q, part, VRINGH_PERM_RW);
				assert_int_equal(
					moved(q, &it, write, done + n), NB * PART - (done + n));
				assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
				put_away(q);
			}
		if (write)
			break;
	}
}

/* Mapped again without the right: it ends there. Mapped in other pieces: it goes on. */
static void
part_changed(struct queue *q)
{
	bool write;

	for (write = false;; write = true) {
		struct vringh_iter it = under_way(q, write, 70);
		uint32_t k;

		remove_part(q, 2);
		add_part(q, 2, write ? VRINGH_PERM_READ : VRINGH_PERM_WRITE);
		assert_int_equal(moved(q, &it, write, 70), 2 * PART - 70);
		remove_part(q, 2);
		for (k = 0; k < PART; k += 8) {
			uint64_t iova = FREE_AT + 2 * PART + k;
			struct vringh_region r;
			uint8_t byte[8], i;

			for (i = 0; i < 8; i++)
				byte[i] = pattern(2 * PART + k + i);
			assert_non_null(mock_mem_add(&q->mem, iova, 8, VRINGH_PERM_RW));
			assert_true(mock_mem_write(&q->mem, iova, byte, 8));
			r = mock_mem_region(&q->mem, iova);
			assert_int_equal(vringh_iotlb_map(&q->mem.view, &r), 0);
		}
		assert_int_equal(moved(q, &it, write, 2 * PART), (NB - 2) * PART);
		for (k = 8; k < PART; k += 8)
			mock_mem_remove(&q->mem, FREE_AT + 2 * PART + k);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), VRINGH_OK);
		put_away(q);
		if (write)
			break;
	}
}

/* Everything goes, the ring too: only the chain is left, and no byte of it. */
static void
all_unmapped(struct queue *q)
{
	bool write;

	for (write = false;; write = true) {
		struct vringh_iter it = under_way(q, write, 10), other;
		struct vringh_seg seg = {.addr = (uint8_t[8]){0}, .len = 8};
		uint32_t i;

		other = (struct vringh_iter){.seg = &seg, .nb_segs = 1};
		vringh_iotlb_unmap(&q->mem.view, 0, 0);
		for (i = 0; i < NB; i++)
			mock_mem_remove(&q->mem, FREE_AT + i * PART);
		assert_int_equal(vringh_copy(write ? &it : &other, write ? &other : &it, 8), 0);
		assert_int_equal(moved(q, &it, write, 10), 0);
		assert_int_equal(vringh_set_mem(&q->vr, NULL), -VRINGH_E_MISS);
		assert_int_equal(queue_remap(q), VRINGH_OK);
		/* The ring is back, the buffer is not: the chain can be given back. */
		complete(q, 0, 1);
		expect_used(q, 1, 0);
		if (write)
			break;
	}
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
		{.name = "overlapping, empty, wrapping or too many ranges",
			.test_func = map_errors},
		{.name = "maps and unmaps in any order", .test_func = map_model},
	};
	static const struct ring_test tests[] = {
		{"part of a buffer unmapped in flight", part_unmapped, T_ALL | T_IOTLB | T_DIRECT,
			8, 8},
		{"part of a buffer mapped differently in flight", part_changed,
			T_ALL | T_IOTLB | T_DIRECT, 8, 8},
		{"everything unmapped in flight", all_unmapped, T_ALL | T_IOTLB | T_DIRECT, 8, 8},
	};

	return run_group("iotlb table", tests, DIM(tests), plain, DIM(plain));
}
