/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Frames per second of a queue alone, and right after that next to a hostile one on the same
 * poller, as lines of "name, tab, alone, tab, together". Run by devtools/bench_fair.py: bench_fair
 * FRAME-BYTES MILLISECONDS. The poller is pinned to the last CPU, its guests are played on the
 * first.
 */

#include <dirent.h>
#include <sched.h>

#include "hostile.h"

static double
rate(struct guest *other, struct guest *g, const struct hostile *h, unsigned int ms)
{
	uint64_t start, end, before, napped = 0;

	/* until caches and accounts are what they are going to be */
	for (end = now_ms() + 50; now_ms() < end;) {
		honest_pump(other);
		if (g != NULL)
			hostile_pump(g, h);
	}
	before = stat_of(other, 1, VFN_STAT_PACKETS);
	start = now_ms();
	for (end = start + ms; now_ms() < end;) {
		unsigned int i;

		for (i = 0; i < 16; i++) {
			honest_pump(other);
			if (g != NULL)
				hostile_pump(g, h);
		}
		/* Others need the CPU, too: a ring is full for longer than that. */
		if (now_ms() != napped) {
			nap_us(1);
			napped = now_ms();
		}
	}
	return (stat_of(other, 1, VFN_STAT_PACKETS) - before) * 1000.0 / (now_ms() - start);
}

static unsigned int
cpu_at(bool last)
{
	unsigned int i, n = 0;
	cpu_set_t cpus;

	sched_getaffinity(0, sizeof(cpus), &cpus);
	for (i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &cpus))
			continue;
		n = i;
		if (!last)
			break;
	}
	return n;
}

/* EAL's interrupt thread, which carries out commands, not where the poller spins. */
static void
interrupts_run_on(unsigned int cpu)
{
	DIR *dir = opendir("/proc/self/task");
	char path[64], name[32];
	struct dirent *e;
	cpu_set_t cpus;
	FILE *file;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	while (dir != NULL && (e = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "/proc/self/task/%.16s/comm", e->d_name);
		file = fopen(path, "r");
		if (file == NULL)
			continue;
		if (fgets(name, sizeof(name), file) != NULL &&
			strcmp(name, "eal-intr-thread\n") == 0)
			sched_setaffinity(atoi(e->d_name), sizeof(cpus), &cpus);
		fclose(file);
	}
	if (dir != NULL)
		closedir(dir);
}

int
main(int argc, char **argv)
{
	unsigned int ms = argc > 2 ? atoi(argv[2]) : 300, i;
	uint32_t len = argc > 1 ? atoi(argv[1]) : 64;
	unsigned int last = cpu_at(true), first = cpu_at(false);
	struct guest *other;
	cpu_set_t cpus;

	if (fn_eal_init(NULL) < 0)
		return 1;
	CPU_ZERO(&cpus);
	CPU_SET(first, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	interrupts_run_on(first);
	other = honest_open("other", len, &last);
	for (i = 0; i < nb_hostiles; i++) {
		const struct hostile *h = &hostiles[i];
		double alone = rate(other, NULL, NULL, ms);
		struct guest *g = hostile_open(h, &last);

		printf("%s\t%.0f\t%.0f\n", h->name, alone, rate(other, g, h, ms));
		fflush(stdout);
		guest_close(g);
	}
	guest_close(other);
	return 0;
}
