/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The rows that there are, and their table. Runs on the main thread. */

#include <stdlib.h>
#include <string.h>

#include "rows.h"

static const char *const memory_names[] = {
	[VRINGH_MEM_DIRECT] = "direct",
	[VRINGH_MEM_REGION] = "region",
	[VRINGH_MEM_IOTLB] = "iotlb",
	[VRINGH_MEM_IOMEM] = "iomem",
	[VRINGH_MEM_MAX] = NULL,
};
static const char *const shape_names[] = {
	"direct1", "direct4", "indirect1", "indirect4", "pull64", "push64", "push1500", NULL};
static const char *const complete_names[] = {"each", "batch", NULL};
static const char *const variant_names[] = {"inline", "pointer", "handwritten", "inline-retpoline",
	"pointer-retpoline", "handwritten-retpoline", NULL};
static const char *const log_names[] = {"off", "on", NULL};

const char *const dimension_names[] = {"format", "memory", "shape", "complete", "variant", "log"};
const char *const *const value_names[] = {
	format_names, memory_names, shape_names, complete_names, variant_names, log_names};

const struct shape shapes[] = {
	[DIRECT1] = {.nb_bufs = 1, .len = 64},
	[DIRECT4] = {.nb_bufs = 4, .len = 64},
	[INDIRECT1] = {.nb_bufs = 1, .len = 64, .indirect = true},
	[INDIRECT4] = {.nb_bufs = 4, .len = 64, .indirect = true},
	[PULL64] = {.nb_bufs = 1, .len = 64, .work = WORK_PULL},
	[PUSH64] = {.nb_bufs = 1, .len = 64, .write = true, .work = WORK_PUSH},
	[PUSH1500] = {.nb_bufs = 1, .len = 1500, .write = true, .work = WORK_PUSH},
};

extern const struct bench_variant inline_bench_variant, pointer_bench_variant,
	handwritten_bench_variant, inline_retpoline_bench_variant, pointer_retpoline_bench_variant,
	handwritten_retpoline_bench_variant;

const struct bench_variant *const variants[] = {
	[INLINE] = &inline_bench_variant,
	[POINTER] = &pointer_bench_variant,
	[HANDWRITTEN] = &handwritten_bench_variant,
#ifdef BENCH_RETPOLINE
	[INLINE_RETPOLINE] = &inline_retpoline_bench_variant,
	[POINTER_RETPOLINE] = &pointer_retpoline_bench_variant,
	[HANDWRITTEN_RETPOLINE] = &handwritten_retpoline_bench_variant,
#else
	[HANDWRITTEN_RETPOLINE] = NULL,
#endif
};

static bool
row_exists(const uint8_t *at)
{
	bool hand = at[BY_VARIANT] == HANDWRITTEN || at[BY_VARIANT] == HANDWRITTEN_RETPOLINE;

	if (variants[at[BY_VARIANT]] == NULL)
		return false;
	if (hand && (at[BY_FORMAT] != SPLIT || at[BY_MEMORY] != VRINGH_MEM_DIRECT))
		return false;
	/* Writable chains show what the dirty log costs, and nothing else. */
	if (shapes[at[BY_SHAPE]].write)
		return at[BY_FORMAT] <= PACKED && at[BY_MEMORY] == VRINGH_MEM_DIRECT &&
			at[BY_COMPLETE] == BATCH && at[BY_VARIANT] == INLINE;
	return at[BY_LOG] == LOG_OFF;
}

/* Count through all values, the last dimension fastest. False at the end. */
static bool
next(uint8_t *at)
{
	int by;

	for (by = NB_DIMENSIONS - 1; by >= 0; by--) {
		if (value_names[by][++at[by]] != NULL)
			return true;
		at[by] = 0;
	}
	return false;
}

struct table
rows_select(const struct settings *set)
{
	struct table t = {.set = *set};
	uint8_t at[NB_DIMENSIONS] = {0};
	uint32_t total = 1;
	unsigned int by, i;

	for (by = 0; by < NB_DIMENSIONS; by++) {
		for (i = 0; value_names[by][i] != NULL; i++)
			;
		total *= i;
	}
	t.row = calloc(total, sizeof(*t.row));
	if (t.row == NULL)
		return t;
	do {
		for (by = 0; by < NB_DIMENSIONS && set->mask[by] & 1u << at[by]; by++)
			;
		if (by == NB_DIMENSIONS && row_exists(at))
			memcpy(t.row[t.nb_rows++].at, at, sizeof(at));
	} while (next(at));
	return t;
}

const struct row *
rows_find(const struct table *t, const uint8_t *at)
{
	uint32_t i;

	for (i = 0; i < t->nb_rows; i++)
		if (memcmp(t->row[i].at, at, sizeof(t->row[i].at)) == 0)
			return &t->row[i];
	return NULL;
}

static void
print_names(const struct row *row)
{
	static const int width[NB_DIMENSIONS] = {16, 7, 10, 9, 22, 4};
	unsigned int by;

	for (by = 0; by < NB_DIMENSIONS; by++)
		printf("%-*s", width[by], row == NULL ? dimension_names[by] : row_name(row, by));
}

void
rows_list(const struct table *t)
{
	uint32_t i;

	for (i = 0; i < t->nb_rows; i++) {
		print_names(&t->row[i]);
		putchar('\n');
	}
}

void
rows_print(const struct table *t)
{
	uint32_t i;

	print_names(NULL);
	printf("%8s %8s %8s %9s\n", "ns/chain", "min", "max", "to inline");
	for (i = 0; i < t->nb_rows; i++) {
		const struct row *row = &t->row[i], *other;
		uint8_t at[NB_DIMENSIONS];

		print_names(row);
		printf("%8.2f %8.2f %8.2f", row->ns, row->min, row->max);
		memcpy(at, row->at, sizeof(at));
		at[BY_VARIANT] = INLINE;
		other = rows_find(t, at);
		if (other != NULL && other != row)
			printf(" %+8.1f%%", 100 * (row->ns / other->ns - 1));
		putchar('\n');
	}
}
