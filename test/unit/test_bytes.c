/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Bytes of chains, however they are cut into segments. No ring here. */

#include "harness.h"

#define MAX 40

/* A chain of exact allocations: the first nb_read of the pieces are readable. */
struct cut {
	struct vringh_chain chain;
	struct vringh_seg seg[MAX];
	uint8_t flat[MAX];
	uint32_t len;
};

static void
cut_make(struct cut *c, uint64_t *seed, uint32_t len, bool write)
{
	uint32_t n = 0, done = 0, i;

	memset(c, 0, sizeof(*c));
	/* One segment of the other kind: not to be touched. */
	c->seg[n++] = (struct vringh_seg){.addr = calloc(1, 1), .len = 1};
	while (done < len) {
		uint32_t part = 1 + mock_random(seed) % (len - done);

		if (mock_random(seed) % 2)
			part = 1;
		if (n == MAX - 1)
			part = len - done;
		c->seg[n].addr = malloc(part);
		c->seg[n].len = part;
		for (i = 0; i < part; i++)
			c->seg[n].addr[i] = c->flat[done + i] = mock_random(seed);
		done += part;
		n++;
	}
	c->len = len;
	if (!write) { /* readable ones come first */
		struct vringh_seg other = c->seg[0];

		memmove(&c->seg[0], &c->seg[1], (n - 1) * sizeof(other));
		c->seg[n - 1] = other;
	}
	c->chain.seg = c->seg;
	c->chain.nb_read = write ? 1 : n - 1;
	c->chain.nb_write = write ? n - 1 : 1;
}

/* Its memory is that of this process. */
static const struct vringh own;

static struct vringh_iter
cut_iter(struct cut *c, bool write)
{
	return write ? vringh_iter_write(&own, &c->chain) : vringh_iter_read(&own, &c->chain);
}

/* Content as flat says; the other segment is as it was. */
static void
cut_check(struct cut *c, bool write)
{
	uint32_t n = c->chain.nb_read + c->chain.nb_write, i, k, done = 0;

	for (i = write ? 1 : 0; i < (write ? n : n - 1); i++)
		for (k = 0; k < c->seg[i].len; k++)
			assert_int_equal(c->seg[i].addr[k], c->flat[done++]);
	assert_int_equal(done, c->len);
	assert_int_equal(c->seg[write ? 0 : n - 1].addr[0], 0);
}

static void
cut_free(struct cut *c)
{
	uint32_t i;

	for (i = 0; i < (uint32_t)c->chain.nb_read + c->chain.nb_write; i++)
		free(c->seg[i].addr);
}

static void
pull_push(void **state)
{
	uint64_t seed = 42;
	uint32_t round;

	(void)state;
	for (round = 0; round < 3000; round++) {
		bool write = round % 2;
		uint32_t len = mock_random(&seed) % 31, done = 0, i;
		struct vringh_iter it;
		struct cut c;

		cut_make(&c, &seed, len, write);
		it = cut_iter(&c, write);
		/* In pieces, the last of which asks for more than is left. */
		while (done < len || mock_random(&seed) % 2) {
			uint32_t want = mock_random(&seed) % 9, may = want;
			uint8_t *tmp = malloc(want + 1);

			if (may > len - done)
				may = len - done;
			tmp[want] = 0x77;
			for (i = 0; i < want; i++)
				tmp[i] = mock_random(&seed);
			if (write) {
				assert_int_equal(vringh_push(&it, tmp, want), may);
				memcpy(&c.flat[done], tmp, may);
			} else {
				assert_int_equal(vringh_pull(&it, tmp, want), may);
				assert_memory_equal(&c.flat[done], tmp, may);
			}
			assert_int_equal(tmp[want], 0x77);
			done += may;
			free(tmp);
		}
		cut_check(&c, write);
		cut_free(&c);
	}
}

static void
copy(void **state)
{
	uint64_t seed = 43;
	uint32_t round;

	(void)state;
	for (round = 0; round < 3000; round++) {
		uint32_t from_len = mock_random(&seed) % 31, to_len = mock_random(&seed) % 31;
		uint32_t most = from_len < to_len ? from_len : to_len, done = 0;
		struct vringh_iter from_it, to_it;
		struct cut from, to;

		cut_make(&from, &seed, from_len, false);
		cut_make(&to, &seed, to_len, true);
		from_it = cut_iter(&from, false);
		to_it = cut_iter(&to, true);
		while (done < most || mock_random(&seed) % 2) {
			uint32_t want = mock_random(&seed) % 12;
			uint32_t may = want < most - done ? want : most - done;

			assert_int_equal(vringh_copy(&to_it, &from_it, want), may);
			memcpy(&to.flat[done], &from.flat[done], may);
			done += may;
		}
		cut_check(&from, false);
		cut_check(&to, true);
		/* What is left of each is still there to be had. */
		if (done < to_len) {
			uint8_t byte = 0x99;

			assert_int_equal(vringh_push(&to_it, &byte, 1), 1);
			to.flat[done] = byte;
			cut_check(&to, true);
		}
		if (done < from_len) {
			uint8_t byte;

			assert_int_equal(vringh_pull(&from_it, &byte, 1), 1);
			assert_int_equal(byte, from.flat[done]);
		}
		cut_free(&from);
		cut_free(&to);
	}
}

/* A guest may let source and destination overlap. */
static void
overlap(void **state)
{
	uint8_t mem[64], want[64];
	int from, to;
	unsigned int i;

	(void)state;
	for (from = 0; from < 16; from++)
		for (to = 0; to < 16; to++) {
			struct vringh_seg src = {.addr = mem + from, .len = 48};
			struct vringh_seg dst = {.addr = mem + to, .len = 48};
			struct vringh_iter s = {.seg = &src, .nb_segs = 1};
			struct vringh_iter d = {.seg = &dst, .nb_segs = 1};

			for (i = 0; i < sizeof(mem); i++)
				mem[i] = want[i] = i;
			memmove(want + to, want + from, 48);
			assert_int_equal(vringh_copy(&d, &s, 100), 48);
			assert_memory_equal(mem, want, sizeof(mem));
		}
}

static void
empty(void **state)
{
	struct vringh_chain chain = {.seg = NULL};
	struct vringh_iter r = vringh_iter_read(&own, &chain), w = vringh_iter_write(&own, &chain);
	uint8_t byte = 5;

	(void)state;
	assert_int_equal(vringh_pull(&r, &byte, 1), 0);
	assert_int_equal(vringh_push(&w, &byte, 1), 0);
	assert_int_equal(vringh_copy(&w, &r, 1), 0);
	assert_int_equal(vringh_pull(&r, NULL, 0), 0);
	assert_int_equal(byte, 5);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		{.name = "pull and push lose or invent bytes", .test_func = pull_push},
		{.name = "copy between differently cut chains", .test_func = copy},
		{.name = "copy between overlapping chains", .test_func = overlap},
		{.name = "chain without bytes", .test_func = empty},
	};

	return run_group("bytes", NULL, 0, tests, DIM(tests));
}
