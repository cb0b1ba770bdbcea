/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Compares our declarations of the driver SDK with DPDK's own headers, taken from
 * -Ddpdk_source=DIR or from an installation that has them. Both tables come from sdk_layout.c.
 * No DPDK library is linked: the version of the headers need not be the installed one.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sdk_layout.h"

struct rte_vdev_driver;

/* Stands in for the bus: sdk_layout.c registers its drivers before main() runs. */
void rte_vdev_register(struct rte_vdev_driver *driver);

static const void *registered[4];
static unsigned int nb_registered;

void
rte_vdev_register(struct rte_vdev_driver *driver)
{
	if (nb_registered < 4)
		registered[nb_registered++] = driver;
}

static void
both_were_compiled_as_the_same_version(void **state)
{
	(void)state;
	assert_int_equal(sdk_layout_ours.version, sdk_layout_real.version);
	/* RTE_VERSION holds year and month in its upper bytes */
	assert_int_equal(sdk_layout_real.version >> 16, SDK_LAYOUT_YEAR << 8 | SDK_LAYOUT_MONTH);
	assert_string_equal(sdk_layout_ours.headers, "ours");
	assert_string_equal(sdk_layout_real.headers, "DPDK's");
}

static void
every_size_and_offset_is_the_same(void **state)
{
	const struct sdk_layout_row *ours = sdk_layout_ours.rows;
	const struct sdk_layout_row *real = sdk_layout_real.rows;
	unsigned int differing = 0;
	size_t i;

	(void)state;
	assert_int_equal(sdk_layout_ours.nb_rows, sdk_layout_real.nb_rows);
	for (i = 0; i < sdk_layout_real.nb_rows; i++) {
		assert_string_equal(ours[i].what, real[i].what);
		if (ours[i].offset == real[i].offset && ours[i].size == real[i].size)
			continue;
		print_error("%s: ours has offset %zu size %zu, DPDK's %zu %zu\n", ours[i].what,
			ours[i].offset, ours[i].size, real[i].offset, real[i].size);
		differing++;
	}
	assert_int_equal(differing, 0);
}

static void
registration_macro_registers_the_named_driver(void **state)
{
	unsigned int i;
	int ours = 0, real = 0;

	(void)state;
	assert_int_equal(nb_registered, 2);
	for (i = 0; i < nb_registered; i++) {
		ours += registered[i] == sdk_layout_ours.driver;
		real += registered[i] == sdk_layout_real.driver;
	}
	assert_int_equal(ours, 1);
	assert_int_equal(real, 1);
	assert_string_equal(*sdk_layout_ours.name, "vdpa_sdk_ours");
	assert_string_equal(*sdk_layout_real.name, "vdpa_sdk_real");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_were_compiled_as_the_same_version),
		cmocka_unit_test(every_size_and_offset_is_the_same),
		cmocka_unit_test(registration_macro_registers_the_named_driver),
	};

	return cmocka_run_group_tests_name("driver SDK layout", tests, NULL, NULL);
}
