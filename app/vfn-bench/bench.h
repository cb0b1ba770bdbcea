/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the parts of vfn-bench offer each other. Main thread, unless it says otherwise. */

#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vringh.h"

#define DIM(a) (sizeof(a) / sizeof((a)[0]))

enum exit_code {
	EXIT_OK = 0,
	EXIT_RUNTIME = 1, /**< no memory, no file, or a wrong result */
	EXIT_USAGE = 2,	  /**< the command line is wrong */
	EXIT_MISSED = 3,  /**< all was measured, and is not what it is meant to be */
};

#define report(...)	  report_(__VA_ARGS__, "")
#define report_(fmt, ...) fprintf(stderr, "vfn-bench: " fmt "%s\n", __VA_ARGS__)

/* The subcommands: exit codes. */
int vring_main(int argc, char **argv);
int ringtest_main(int argc, char **argv);
int limits_main(int argc, char **argv);

/* Arguments; what is wrong is reported with the option's name. */
bool arg_number(const char *option, const char *arg, uint32_t min, uint32_t max, uint32_t *value);
/** Of --ring-size, a size that every format and shape can have. */
bool arg_ring_size(const char *arg, uint32_t *value);
/** A list of @p nb numbers of CPUs that this process may run on. */
bool arg_cpus(const char *option, const char *arg, unsigned int nb, int *cpus);
/** A comma list of names, NULL-terminated; a bit per name. */
bool arg_names(const char *option, const char *arg, const char *const *names, uint32_t *mask);
/** Run the calling thread on one CPU. */
bool pin(int cpu);

/** Sorts the values. */
double median(double *values, uint32_t nb);

/** Ring formats, common to both subcommands. */
enum format { SPLIT, PACKED, SPLIT_IN_ORDER, PACKED_IN_ORDER, NB_FORMATS };
extern const char *const format_names[NB_FORMATS + 1];

static inline bool
format_packed(enum format format)
{
	return format == PACKED || format == PACKED_IN_ORDER;
}

static inline bool
format_in_order(enum format format)
{
	return format == SPLIT_IN_ORDER || format == PACKED_IN_ORDER;
}

/** What the device does with a chain beside fetching and completing it. */
enum work {
	WORK_NONE,
	WORK_PULL, /**< Copy BENCH_PULL bytes out of it. */
	WORK_PUSH, /**< Write all of it. */
};

#define BENCH_PULL 64

/**
 * The device's side of a queue while it is timed, and what a lap leaves behind to be checked: the
 * chains of the last burst, the bytes pulled from it, and how many chains did not come.
 */
struct bench_device {
	struct vringh_config cfg;
	const struct vringh_dirty_log *dirty; /**< NULL: no dirty log. */
	struct vringh_batch batch;
	uint8_t *scratch; /**< BENCH_PULL bytes per chain of a burst; or what is pushed. */
	uint32_t burst;
	uint32_t push_len;
	enum work work;
	bool each; /**< Complete each chain by itself. */
	uint32_t missing;
	int answer;	  /**< Of the last fetch. */
	struct vringh vr; /* for variants that are copies of lib/vring */
};

/** A copy of the device's side with everything that is compiled with it. */
struct bench_variant {
	const char *name;
	const char *flags; /**< How it is compiled beside the flags of all. */
	/** Take up an empty ring; VRINGH_OK or why not. */
	int (*open)(struct bench_device *dev);
	/** Fetch and complete so many chains; clock ticks. */
	uint64_t (*lap)(struct bench_device *dev, uint32_t nb_chains);
	/** Write the last burst to dev->batch where it is not there already. May be NULL. */
	void (*show)(struct bench_device *dev);
};

#endif /* BENCH_H */
