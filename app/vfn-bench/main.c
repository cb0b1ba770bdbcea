/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* vfn-bench: how fast the parts of vfn are, without EAL. The choice of what to measure. */

#include <string.h>

#include "bench.h"

static const char usage[] =
	"Usage: vfn-bench vring|ringtest|limits [options]\n"
	"\n"
	"  vring       time of lib/vring per chain, by ring format, memory and kind of chain\n"
	"  ringtest    chains between two CPUs: a driver on one, a device on the other\n"
	"  limits      what two CPUs can do at best that pass packets: lines, copies, rte_ring\n"
	"\n"
	"vfn-bench COMMAND --help shows the options of one.\n"
	"vfn-bench --version shows the version of the library.\n";

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*main)(int argc, char **argv);
	} commands[] = {
		{"vring", vring_main}, {"ringtest", ringtest_main}, {"limits", limits_main}};
	const char *name = argc > 1 ? argv[1] : "";
	unsigned int i;

	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
		fputs(usage, stdout);
		return EXIT_OK;
	}
	if (strcmp(name, "--version") == 0) {
		puts(BENCH_VERSION);
		return EXIT_OK;
	}
	for (i = 0; i < DIM(commands); i++) {
		if (strcmp(name, commands[i].name) != 0)
			continue;
		/* Where getopt_long() takes the program's name from. */
		argv[1] = argv[0];
		return commands[i].main(argc - 1, argv + 1);
	}
	if (name[0] == '\0')
		report("what to measure: vring, ringtest or limits? See --help");
	else
		report("%s is neither vring, ringtest nor limits, see --help", name);
	return EXIT_USAGE;
}
