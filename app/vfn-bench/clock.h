/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Time stamps around a lap. Any thread, start and stop on the same one.
 *
 * A lap takes a microsecond or two, and clock_gettime() 20 to 40 ns with a spread of its own: the
 * time stamp counter costs a third of that and spreads by a few cycles. It is calibrated once
 * against the monotonic clock, and what an empty lap takes is subtracted. Where there is none the
 * monotonic clock itself has to do.
 */

#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t
clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#ifdef __x86_64__

#include <x86intrin.h>

/* The fences keep the lap's instructions from moving out over either stamp. */
static inline uint64_t
clock_start(void)
{
	uint64_t t;

	_mm_lfence();
	t = __rdtsc();
	_mm_lfence();
	return t;
}

static inline uint64_t
clock_stop(void)
{
	unsigned int cpu;
	uint64_t t = __rdtscp(&cpu);

	_mm_lfence();
	return t;
}

#else

#define clock_start() clock_now_ns()
#define clock_stop()  clock_now_ns()

#endif

/* What a stamp counts in, and how much of it an empty lap takes. */
struct clock {
	double per_ns;
	double empty;
};

struct clock clock_calibrate(void);

#endif /* BENCH_CLOCK_H */
