/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What lib/vring is meant to reach on a quiet CPU, beside what was measured. Runs on the main
 * thread.
 */

#include <string.h>

#include "rows.h"

static const struct {
	uint8_t shape;
	uint8_t complete;
	double limit; /* ns per chain, split ring in direct memory */
} absolute[] = {
	{DIRECT1, BATCH, 5},
	{DIRECT4, BATCH, 13},
	{INDIRECT1, BATCH, 9},
	{DIRECT1, EACH, 10},
	{PULL64, BATCH, 9},
};

/* One row against the same with one value changed. */
static const struct {
	const char *text;
	enum dimension by;
	uint8_t value;
	uint8_t than;
	double limit; /* of the ratio; 0: there is no target */
	bool strict;  /* it has to be less */
	bool batch;   /* only where chains are completed in batches */
	bool direct;  /* only in direct memory */
	uint8_t variant;
} relative[] = {
	{"packed, to split", BY_FORMAT, PACKED, SPLIT, 1, .direct = true},
	{"split in-order, to split", BY_FORMAT, SPLIT_IN_ORDER, SPLIT, 1, true, true, true},
	{"split in-order, to packed", BY_FORMAT, SPLIT_IN_ORDER, PACKED, 1, true, true, true},
	{"packed in-order, to split", BY_FORMAT, PACKED_IN_ORDER, SPLIT, 1, true, true, true},
	{"packed in-order, to packed", BY_FORMAT, PACKED_IN_ORDER, PACKED, 1, true, true, true},
	{"region, to direct", BY_MEMORY, VRINGH_MEM_REGION, VRINGH_MEM_DIRECT, 1.10},
	{"iotlb, to direct", BY_MEMORY, VRINGH_MEM_IOTLB, VRINGH_MEM_DIRECT, 1.10},
	{"iomem, to direct", BY_MEMORY, VRINGH_MEM_IOMEM, VRINGH_MEM_DIRECT, 0},
	{"dirty log, to none", BY_LOG, LOG_ON, LOG_OFF, 1.15},
	{"inline, to handwritten", BY_VARIANT, INLINE, HANDWRITTEN, 1.03},
	{"pointer, to inline", BY_VARIANT, POINTER, INLINE, 0, .variant = POINTER},
	{"inline-retpoline, to inline", BY_VARIANT, INLINE_RETPOLINE, INLINE, 0,
		.variant = INLINE_RETPOLINE},
	{"pointer-retpoline, to inline-retpoline", BY_VARIANT, POINTER_RETPOLINE, INLINE_RETPOLINE,
		0, .variant = POINTER_RETPOLINE},
};

/* Whether it was missed. */
static bool
print_absolute(const struct table *t, unsigned int i)
{
	uint8_t at[NB_DIMENSIONS] = {
		SPLIT, VRINGH_MEM_DIRECT, absolute[i].shape, absolute[i].complete, INLINE, LOG_OFF};
	const struct row *row = rows_find(t, at);

	printf("  split direct %-10s %-13s <= %5.2f ", value_names[BY_SHAPE][absolute[i].shape],
		value_names[BY_COMPLETE][absolute[i].complete], absolute[i].limit);
	if (row == NULL)
		puts("not measured");
	else
		printf("%6.2f  %s\n", row->ns, row->ns <= absolute[i].limit ? "met" : "MISSED");
	return row != NULL && row->ns > absolute[i].limit;
}

/* Whether it was missed. */
static bool
print_relative(const struct table *t, unsigned int k)
{
	const struct row *worst = NULL;
	double lowest = 0, highest = 0;
	uint32_t nb = 0, missed = 0, i;

	for (i = 0; i < t->nb_rows; i++) {
		const struct row *row = &t->row[i], *other;
		uint8_t at[NB_DIMENSIONS];
		double ratio;

		memcpy(at, row->at, sizeof(at));
		if (at[relative[k].by] != relative[k].value ||
			at[BY_VARIANT] != relative[k].variant ||
			(relative[k].batch && at[BY_COMPLETE] != BATCH) ||
			(relative[k].direct && at[BY_MEMORY] != VRINGH_MEM_DIRECT))
			continue;
		at[relative[k].by] = relative[k].than;
		other = rows_find(t, at);
		if (other == NULL)
			continue;
		ratio = row->ns / other->ns;
		if (nb++ == 0 || ratio < lowest)
			lowest = ratio;
		if (worst == NULL || ratio > highest) {
			highest = ratio;
			worst = row;
		}
		missed +=
			relative[k].strict ? ratio >= relative[k].limit : ratio > relative[k].limit;
	}
	printf("  %-38s ", relative[k].text);
	if (relative[k].limit > 0)
		printf("%-2s %5.2f ", relative[k].strict ? "<" : "<=", relative[k].limit);
	else
		printf("%8s ", "");
	if (nb == 0) {
		puts("not measured");
		return false;
	}
	printf("%6.3f to %.3f", lowest, highest);
	if (relative[k].limit > 0 && missed == 0)
		printf("  met by %u of %u", nb, nb);
	else if (relative[k].limit > 0)
		printf("  MISSED by %u of %u", missed, nb);
	printf("  (most: %s %s %s %s)\n", row_name(worst, BY_FORMAT), row_name(worst, BY_MEMORY),
		row_name(worst, BY_SHAPE), row_name(worst, BY_COMPLETE));
	return relative[k].limit > 0 && missed > 0;
}

unsigned int
targets_print(const struct table *t)
{
	unsigned int i, missed = 0;

	puts("\nTargets, ns per chain:");
	for (i = 0; i < DIM(absolute); i++)
		missed += print_absolute(t, i);
	puts("Ratios of medians, least and most over all rows that have both:");
	for (i = 0; i < DIM(relative); i++)
		missed += print_relative(t, i);
	if (missed > 0)
		printf("%u targets were missed, as they are where others use the CPU: no "
		       "failure.\n",
			missed);
	return missed;
}
