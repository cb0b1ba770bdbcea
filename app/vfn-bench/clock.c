/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What time stamps are worth, and what many of them say. Runs on the thread that measures. */

#include <stdlib.h>

#include "bench.h"
#include "clock.h"

#define CALIBRATION_NS 50000000
#define NB_EMPTY       1001

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double
median(double *values, uint32_t nb)
{
	qsort(values, nb, sizeof(*values), compare);
	return nb % 2 ? values[nb / 2] : (values[nb / 2 - 1] + values[nb / 2]) / 2;
}

struct clock
clock_calibrate(void)
{
	uint64_t ns = clock_now_ns(), ticks = clock_start(), now;
	double empty[NB_EMPTY];
	struct clock clock;
	unsigned int i;

	do
		now = clock_now_ns();
	while (now - ns < CALIBRATION_NS);
	clock.per_ns = (double)(clock_stop() - ticks) / (double)(now - ns);
	for (i = 0; i < NB_EMPTY; i++) {
		ticks = clock_start();
		empty[i] = clock_stop() - ticks;
	}
	clock.empty = median(empty, NB_EMPTY);
	return clock;
}
