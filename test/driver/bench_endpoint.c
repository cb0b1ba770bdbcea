/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * How long a trapped register access takes: of the driver's link to an endpoint, in microseconds.
 *
 * usage: bench_endpoint SOCKET [ACCESSES]
 */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <vfn_endpoint_link.h>
#include <vfn_regs.h>

static double
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int
measure(struct vfn_link *link, const char *what, bool write, double *took, unsigned int n)
{
	const uint64_t at = VFN_OFF_COMMON + offsetof(struct vfn_common_cfg, queue_select);
	uint16_t v = 0;
	unsigned int i;
	double begin;
	int ret = 0;

	for (i = 0; i < n && ret == 0; i++) {
		begin = now_us();
		ret = write ? link->ops->write(link, VFN_REGION_BAR0, at, &v, sizeof(v)) :
			      link->ops->read(link, VFN_REGION_BAR0, at, &v, sizeof(v));
		took[i] = now_us() - begin;
	}
	if (ret < 0) {
		fprintf(stderr, "%s: error %d\n", what, -ret);
		return -1;
	}
	qsort(took, n, sizeof(took[0]), compare);
	printf("%s: median %.1f us, 99%% %.1f us, least %.1f us, of %u\n", what, took[n / 2],
		took[n * 99 / 100], took[0], n);
	return 0;
}

int
main(int argc, char **argv)
{
	unsigned int n = argc > 2 ? strtoul(argv[2], NULL, 10) : 5000;
	struct vfn_link *link;
	char why[192];
	double *took;
	int ret;

	if (argc < 2 || n == 0) {
		fprintf(stderr, "usage: bench_endpoint SOCKET [ACCESSES]\n");
		return 2;
	}
	took = calloc(n, sizeof(*took));
	if (took == NULL)
		return 1;
	if (vfn_endpoint_connect(argv[1], NULL, 5000, NULL, why, sizeof(why), &link) < 0) {
		fprintf(stderr, "%s: %s\n", argv[1], why);
		return 1;
	}
	ret = measure(link, "read", false, took, n);
	if (ret == 0)
		ret = measure(link, "write", true, took, n);
	link->ops->close(link);
	free(took);
	return ret < 0 ? 1 : 0;
}
