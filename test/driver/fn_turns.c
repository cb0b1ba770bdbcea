/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A poller iteration by iteration: it is a service whose core was taken away, and the test's thread
 * runs it.
 */

#include <sched.h>

#include <rte_common.h>
#include <rte_lcore.h>
#include <rte_service.h>

#include "fn_harness.h"

#define CORE 1u /* the service core */

static uint32_t service;

int
turns_eal_init(void)
{
	unsigned int first, last;
	char lcores[64];
	cpu_set_t cpus;

	sched_getaffinity(0, sizeof(cpus), &cpus);
	for (first = 0; !CPU_ISSET(first, &cpus); first++)
		;
	for (last = CPU_SETSIZE - 1; !CPU_ISSET(last, &cpus); last--)
		;
	snprintf(lcores, sizeof(lcores), "--lcores=0@%u,1@%u", first, last);
	return fn_eal_init(lcores, "-s", "0x2", NULL);
}

void
turns_take_over(void)
{
	assert_int_equal(rte_service_get_by_name("vfn-poll-0", &service), 0);
	assert_int_equal(rte_service_runstate_set(service, 0), 0);
	while (rte_service_may_be_active(service) == 1)
		nap_us(10);
	assert_int_equal(rte_service_lcore_stop(CORE), 0);
	while (rte_service_lcore_may_be_active(CORE) == 1)
		nap_us(10);
	assert_int_equal(rte_service_lcore_del(CORE), 0);
	assert_int_equal(rte_service_runstate_set(service, 1), 0);
}

int
turns_give_back(void **state)
{
	int ret = guests_close(state);

	if (rte_service_lcore_add(CORE) == 0)
		rte_service_lcore_start(CORE);
	return ret;
}

void
turns(unsigned int n)
{
	while (n-- > 0) {
		int ret = rte_service_run_iter_on_app_lcore(service, 1);

		assert_true(ret == 0 || ret == -EAGAIN);
	}
}
