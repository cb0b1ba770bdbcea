/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Arguments of the subcommands, checked. Runs on the main thread. */

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

const char *const format_names[] = {"split", "packed", "split-in-order", "packed-in-order", NULL};

bool
arg_number(const char *option, const char *arg, uint32_t min, uint32_t max, uint32_t *value)
{
	unsigned long v;
	char *end;

	v = strtoul(arg, &end, 10);
	/* strtoul() takes signs and spaces. */
	if (arg[0] < '0' || arg[0] > '9' || *end != '\0' || v < min || v > max) {
		report("--%s: '%s' is not a number from %u to %u", option, arg, min, max);
		return false;
	}
	*value = v;
	return true;
}

bool
arg_ring_size(const char *arg, uint32_t *value)
{
	if (!arg_number("ring-size", arg, 4, VRINGH_MAX_SIZE, value))
		return false;
	if ((*value & (*value - 1)) == 0)
		return true;
	report("--ring-size: %s is not a power of two", arg);
	return false;
}

bool
arg_cpus(const char *option, const char *arg, unsigned int nb, int *cpus)
{
	cpu_set_t allowed;
	char *copy = strdup(arg), *rest = copy;
	bool ok = copy != NULL && sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
	unsigned int i;

	for (i = 0; ok && i < nb; i++) {
		const char *word = strsep(&rest, ",");
		uint32_t cpu = 0;

		if (word == NULL || (i + 1 == nb && rest != NULL)) {
			report("--%s: '%s' is not %s", option, arg,
				nb == 1 ? "one CPU" : "two CPUs with a comma between them");
			ok = false;
			break;
		}
		ok = arg_number(option, word, 0, CPU_SETSIZE - 1, &cpu);
		if (ok && !CPU_ISSET(cpu, &allowed)) {
			report("--%s: this process may not run on CPU %u", option, cpu);
			ok = false;
		}
		cpus[i] = cpu;
	}
	free(copy);
	return ok;
}

bool
arg_names(const char *option, const char *arg, const char *const *names, uint32_t *mask)
{
	char *copy = strdup(arg), *rest = copy;
	const char *word;
	unsigned int i;

	*mask = 0;
	while ((word = strsep(&rest, ",")) != NULL) {
		for (i = 0; names[i] != NULL && strcmp(names[i], word) != 0; i++)
			;
		if (names[i] == NULL) {
			fprintf(stderr, "vfn-bench: --%s: '%s' is none of", option, word);
			for (i = 0; names[i] != NULL; i++)
				fprintf(stderr, "%s %s", i > 0 ? "," : "", names[i]);
			fputc('\n', stderr);
			*mask = 0;
			break;
		}
		*mask |= 1u << i;
	}
	free(copy);
	return *mask != 0;
}

bool
pin(int cpu)
{
	cpu_set_t set;
	int ret;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	ret = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	if (ret != 0)
		report("--cpu: cannot run on CPU %d: %s", cpu, strerror(ret));
	return ret == 0;
}
