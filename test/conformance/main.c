/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * One list of checks of virtio 1.3, over any link:
 *
 *	conformance KIND [NAME]    run them, or the one of that name
 *	conformance --list         print them: section and name
 *
 * doc/conformance.md has what each of them is for.
 */

#include "device.h"

/* Of the driver tests' harness. */
int fn_eal_init(const char *first, ...);

struct run {
	const struct check *check;
	uint64_t format;
};

static const struct check *const files[] = {caps_checks, status_checks, queue_checks, split_checks,
	packed_checks, ring_checks, irq_checks, config_checks, notify_checks, parts_checks};

static void
run_one(void **state)
{
	const struct run *run = *state;

	run->check->run(dev_open(&run->check->conf), run->format);
}

static int
run_all(const char *only)
{
	static const struct {
		unsigned int on;
		uint64_t feature;
		const char *name;
	} formats[] = {{0, 0, ""}, {ON_SPLIT, 0, ", split"}, {ON_PACKED, PACKED, ", packed"}};
	static struct CMUnitTest list[256];
	static struct run run[DIM(list)];
	unsigned int i, n = 0, f;
	const struct check *c;
	int ret;

	for (i = 0; i < DIM(files); i++)
		for (c = files[i]; c->name != NULL; c++)
			for (f = 0; f < DIM(formats) && n < DIM(list); f++) {
				if (formats[f].on != (c->formats & formats[f].on) ||
					(formats[f].on == 0) != (c->formats == 0) ||
					(only != NULL && strcmp(only, c->name) != 0))
					continue;
				run[n] = (struct run){c, formats[f].feature};
				list[n].test_func = run_one;
				list[n].teardown_func = dev_close_all;
				list[n].initial_state = &run[n];
				if (asprintf((char **)&list[n].name, "%s: %s %s%s", link_kind,
					    c->section, c->name, formats[f].name) < 0)
					abort();
				n++;
			}
	if (n == 0) {
		fprintf(stderr, "conformance: there is no check %s\n", only);
		return 2;
	}
	ret = _cmocka_run_group_tests("conformance", list, n, NULL, NULL);
	while (n-- > 0)
		free((char *)list[n].name);
	return ret;
}

int
main(int argc, char **argv)
{
	const struct check *c;
	unsigned int i;

	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (i = 0; i < DIM(files); i++)
			for (c = files[i]; c->name != NULL; c++)
				printf("%s %s\n", c->section, c->name);
		return 0;
	}
	for (i = 0; argc >= 2 && link_kind_name(i) != NULL; i++)
		if (strcmp(argv[1], link_kind_name(i)) == 0)
			link_kind = link_kind_name(i);
	if (link_kind == NULL || argc > 3) {
		fprintf(stderr, "usage: conformance --list | KIND [NAME], KIND one of:");
		for (i = 0; link_kind_name(i) != NULL; i++)
			fprintf(stderr, " %s", link_kind_name(i));
		fprintf(stderr, "\n");
		return 2;
	}
	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_all(argc == 3 ? argv[2] : NULL);
}
