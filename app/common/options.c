/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the programs' options have in common, and what is said of those that are wrong. On the main
 * thread.
 */

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <rte_version.h>

#include "common.h"

void
show_help(void)
{
	fputs(usage, stdout);
	exit(EXIT_OK);
}

void
show_version(void)
{
	printf("%s " VFN_VERSION ", with %s\n", program, rte_version());
	exit(EXIT_OK);
}

int
options_split(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0)
			show_help();
		else if (strcmp(argv[i], "--version") == 0)
			show_version();
	return i;
}

void
option_wrong(int opt, char **argv)
{
	if (opt == ':')
		report("option %s needs a value", argv[optind - 1]);
	else if (optopt > 0 && optopt < OPTION_LONG)
		report("unknown option -%c, see --help", optopt);
	else
		report("unknown option %s, see --help", argv[optind - 1]);
	exit(EXIT_USAGE);
}

void
options_end(int argc, char **argv)
{
	if (optind >= argc)
		return;
	report("unexpected argument %s, see --help", argv[optind]);
	exit(EXIT_USAGE);
}
