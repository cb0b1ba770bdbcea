/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * vfn-bench vring: time of lib/vring per chain, by format, memory, chain and variant, with the
 * driver and the device on one thread, the main one.
 */

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"

static const char usage[] =
	"Usage: vfn-bench vring [options]\n"
	"Measure lib/vring on one CPU: nanoseconds per chain, medians over windows.\n"
	"\n"
	"  --format LIST     split, packed, split-in-order, packed-in-order\n"
	"  --memory LIST     direct, region, iotlb, iomem\n"
	"  --shape LIST      direct1, direct4, indirect1, indirect4, pull64; push64 and\n"
	"                    push1500, which are measured with and without dirty log\n"
	"  --complete LIST   each, batch\n"
	"  --variant LIST    inline, pointer, handwritten, and each with -retpoline\n"
	"  --log LIST        off, on\n"
	"  --list            show the rows that this selects, measure nothing\n"
	"  --ring-size N     ring entries, a power of two (default 256)\n"
	"  --batch N         most chains per fetch (default 32)\n"
	"  --windows N       windows per row (default 11)\n"
	"  --laps N          laps, of a full ring each, per window (default 200)\n"
	"  --quick           3 windows of 15 laps: a look, no measurement\n"
	"  --cpu N           run on this CPU\n"
	"  --json FILE       also write the rows to a file\n"
	"  --targets         exit status 3 if a target is missed\n"
	"  -h, --help        this text\n"
	"\n"
	"A LIST has commas; without an option all of its kind are measured.\n"
	"Exit status: 0 measured, 1 failure or a wrong result, 2 wrong usage, 3 see --targets\n";

/* One window of one row; a lap that was interrupted does not move the median. */
static bool
run_window(struct table *t, struct queue *q, const struct row *row, uint32_t window, double *laps)
{
	const struct bench_variant *variant = variants[row->at[BY_VARIANT]];
	bool log = row->at[BY_LOG] == LOG_ON;
	uint32_t i;

	if (!queue_give(q, variant, row->at[BY_COMPLETE] == EACH, log))
		return false;
	for (i = 0; i < t->set.laps; i++) {
		uint64_t ticks = queue_lap(q, variant);

		if (ticks == 0)
			return false;
		laps[i] = (ticks - t->clock.empty) / t->clock.per_ns / q->nb_chains;
	}
	row->window[window] = median(laps, t->set.laps);
	return !log || queue_check_dirty(q);
}

static bool
same_queue(const struct row *a, const struct row *b)
{
	return a->at[BY_FORMAT] == b->at[BY_FORMAT] && a->at[BY_MEMORY] == b->at[BY_MEMORY] &&
		a->at[BY_SHAPE] == b->at[BY_SHAPE];
}

/*
 * One window of every row. Passes over all rows instead of rows one after the other: what
 * disturbs the machine for a while disturbs the same windows of all rows. Rows that differ only
 * in what runs on the ring share its memory, too.
 */
static bool
run_pass(struct table *t, uint32_t window, double *laps)
{
	uint32_t i, k;

	for (i = 0; i < t->nb_rows; i = k) {
		const struct row *row = &t->row[i];
		struct queue q;
		bool ok = queue_open(&q, row->at[BY_FORMAT], row->at[BY_MEMORY],
			&shapes[row->at[BY_SHAPE]], t->set.ring_size, t->set.burst);

		for (k = i; ok && k < t->nb_rows && same_queue(row, &t->row[k]); k++)
			ok = run_window(t, &q, &t->row[k], window, laps);
		queue_close(&q);
		if (!ok) {
			row = &t->row[k > i ? k - 1 : i];
			report("%s %s %s %s %s: %s", row_name(row, BY_FORMAT),
				row_name(row, BY_MEMORY), row_name(row, BY_SHAPE),
				row_name(row, BY_COMPLETE), row_name(row, BY_VARIANT), q.fault);
			return false;
		}
	}
	return true;
}

static bool
run(struct table *t)
{
	double *laps = calloc(t->set.laps, sizeof(*laps));
	double *windows = calloc((size_t)t->nb_rows * t->set.windows, sizeof(*windows));
	bool ok = laps != NULL && windows != NULL;
	uint32_t i;

	if (!ok)
		report("no memory for %u rows", t->nb_rows);
	for (i = 0; ok && i < t->nb_rows; i++)
		t->row[i].window = windows + (size_t)i * t->set.windows;
	t->clock = clock_calibrate();
	for (i = 0; ok && i < t->set.windows; i++)
		ok = run_pass(t, i, laps);
	for (i = 0; ok && i < t->nb_rows; i++) {
		struct row *row = &t->row[i];

		row->ns = median(row->window, t->set.windows);
		row->min = row->window[0];
		row->max = row->window[t->set.windows - 1];
		row->window = NULL;
	}
	free(windows);
	free(laps);
	return ok;
}

/* Measure and print; the file is opened first, for that may fail. */
static enum exit_code
measure(struct table *t, const char *path, bool targets)
{
	unsigned int missed = 0;
	FILE *json = NULL;
	bool ok;

	if (path != NULL) {
		json = fopen(path, "w");
		if (json == NULL) {
			report("--json: %s: %s", path, strerror(errno));
			return EXIT_RUNTIME;
		}
	}
	ok = run(t);
	if (ok) {
		rows_print(t);
		missed = targets_print(t);
	}
	if (ok && json != NULL)
		json_write(t, json);
	if (json != NULL && (fflush(json) != 0 || fclose(json) != 0)) {
		report("--json: %s: %s", path, strerror(errno));
		ok = false;
	}
	if (!ok)
		return EXIT_RUNTIME;
	return targets && missed > 0 ? EXIT_MISSED : EXIT_OK;
}

int
vring_main(int argc, char **argv)
{
	enum { RING_SIZE = NB_DIMENSIONS, BURST, WINDOWS, LAPS, QUICK, CPU, JSON, LIST, TARGETS };
	static const struct option names[] = {
		{"format", required_argument, NULL, BY_FORMAT},
		{"memory", required_argument, NULL, BY_MEMORY},
		{"shape", required_argument, NULL, BY_SHAPE},
		{"complete", required_argument, NULL, BY_COMPLETE},
		{"variant", required_argument, NULL, BY_VARIANT},
		{"log", required_argument, NULL, BY_LOG},
		{"ring-size", required_argument, NULL, RING_SIZE},
		{"batch", required_argument, NULL, BURST},
		{"windows", required_argument, NULL, WINDOWS},
		{"laps", required_argument, NULL, LAPS},
		{"quick", no_argument, NULL, QUICK},
		{"cpu", required_argument, NULL, CPU},
		{"json", required_argument, NULL, JSON},
		{"list", no_argument, NULL, LIST},
		{"targets", no_argument, NULL, TARGETS},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct settings set = {
		.ring_size = 256, .burst = 32, .windows = 11, .laps = 200, .cpu = -1};
	const char *json = NULL;
	enum exit_code ret;
	bool list = false, targets = false, ok = true;
	struct table t;
	int opt, at;

	memset(set.mask, 0xff, sizeof(set.mask));
	while (ok && (opt = getopt_long(argc, argv, "h", names, &at)) != -1) {
		switch (opt) {
		case RING_SIZE:
			ok = arg_ring_size(optarg, &set.ring_size);
			break;
		case BURST:
			ok = arg_number("batch", optarg, 1, VRINGH_MAX_SIZE, &set.burst);
			break;
		case WINDOWS:
			ok = arg_number("windows", optarg, 1, 1000, &set.windows);
			break;
		case LAPS:
			ok = arg_number("laps", optarg, 1, 1000000, &set.laps);
			break;
		case QUICK:
			set.windows = 3;
			set.laps = 15;
			break;
		case CPU:
			ok = arg_cpus("cpu", optarg, 1, &set.cpu);
			break;
		case JSON:
			json = optarg;
			break;
		case LIST:
			list = true;
			break;
		case TARGETS:
			targets = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_OK;
		case '?':
			return EXIT_USAGE;
		default:
			ok = arg_names(
				dimension_names[opt], optarg, value_names[opt], &set.mask[opt]);
		}
	}
	if (ok && optind < argc) {
		report("unexpected argument %s", argv[optind]);
		ok = false;
	}
	if (!ok)
		return EXIT_USAGE;
	if (set.cpu >= 0 && !pin(set.cpu))
		return EXIT_RUNTIME;
	t = rows_select(&set);
	if (t.row == NULL) {
		report("no memory for the rows");
		return EXIT_RUNTIME;
	}
	if (variants[INLINE_RETPOLINE] == NULL)
		report("built by a compiler without retpolines, their variants are left out");
	if (t.nb_rows == 0)
		report("no row has all of these; see --list without the other options");
	if (list)
		rows_list(&t);
	ret = t.nb_rows == 0 ? EXIT_USAGE : list ? EXIT_OK : measure(&t, json, targets);
	free(t.row);
	return ret;
}
