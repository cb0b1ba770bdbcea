/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What `vfn-bench vring` can measure, what of it was asked for, and what came out. Runs on the
 * main thread.
 */

#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include "bench.h"
#include "clock.h"
#include "queue.h"

/** What rows differ in. A row of the table is one value of each. */
enum dimension { BY_FORMAT, BY_MEMORY, BY_SHAPE, BY_COMPLETE, BY_VARIANT, BY_LOG, NB_DIMENSIONS };

/** Values of dimensions that are named in code; BY_FORMAT is enum format. */
enum { DIRECT1, DIRECT4, INDIRECT1, INDIRECT4, PULL64, PUSH64, PUSH1500, NB_SHAPES };
enum { EACH, BATCH };
enum { INLINE, POINTER, HANDWRITTEN, INLINE_RETPOLINE, POINTER_RETPOLINE, HANDWRITTEN_RETPOLINE };
enum { LOG_OFF, LOG_ON };

/** Option names and, NULL-terminated, names of the values. */
extern const char *const dimension_names[NB_DIMENSIONS];
extern const char *const *const value_names[NB_DIMENSIONS];

extern const struct shape shapes[NB_SHAPES];

/** NULL where the compiler can't build it. */
extern const struct bench_variant *const variants[];

struct row {
	uint8_t at[NB_DIMENSIONS];
	double *window; /**< Median lap of each window, ns per chain; sorted when measured. */
	double ns, min, max;
};

struct settings {
	uint32_t mask[NB_DIMENSIONS]; /**< Rows asked for. */
	uint32_t ring_size;
	uint32_t burst;
	uint32_t windows;
	uint32_t laps;
	int cpu; /**< -1: any. */
};

struct table {
	struct settings set;
	struct clock clock;
	struct row *row; /**< Those that share a queue follow each other. */
	uint32_t nb_rows;
};

static inline const char *
row_name(const struct row *row, enum dimension by)
{
	return value_names[by][row->at[by]];
}

/** Rows that exist and were asked for. NULL row: no memory. */
struct table rows_select(const struct settings *set);

/** The row with these values, NULL if it was not measured. */
const struct row *rows_find(const struct table *t, const uint8_t *at);

/** Print what --list shows. */
void rows_list(const struct table *t);

/** Print every row. */
void rows_print(const struct table *t);

/** Print the targets and how far they were met. */
/** Print what was meant to be reached, and whether it was. How many targets were missed. */
unsigned int targets_print(const struct table *t);

/** Write the rows and the facts behind them. */
void json_write(const struct table *t, FILE *out);

#endif /* BENCH_ROWS_H */
