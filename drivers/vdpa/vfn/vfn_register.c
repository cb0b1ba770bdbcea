/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the driver registers with EAL when it is loaded: nothing at all if another copy of it is
 * there. An installed driver is loaded from DPDK's directory of drivers, whatever -d names beside
 * it, and EAL does not start with two tracepoints of one name. On the thread that loads the driver.
 */

#include <dlfcn.h>

#include <rte_trace_point_register.h>

#include "vfn_drv.h"
#include "vfn_telemetry.h"
#include "vfn_trace.h"

RTE_LOG_REGISTER(vfn_drv_logtype, pmd.vdpa.vfn.driver, NOTICE);

/* The macros make functions for the loader to call; vfn_register() calls them instead. */
#undef RTE_INIT
#define RTE_INIT(function) static void function(void)

RTE_TRACE_POINT_REGISTER(vfn_trace_state, pmd.vdpa.vfn.state)
RTE_TRACE_POINT_REGISTER(vfn_trace_queue, pmd.vdpa.vfn.queue)
RTE_TRACE_POINT_REGISTER(vfn_trace_doorbell, pmd.vdpa.vfn.doorbell)
RTE_TRACE_POINT_REGISTER(vfn_trace_lm, pmd.vdpa.vfn.lm)
RTE_TRACE_POINT_REGISTER(vfn_trace_config, pmd.vdpa.vfn.config)
RTE_PMD_REGISTER_VDEV(vdpa_vfn, vfn_driver);

static const char *
file_of(const void *address)
{
	Dl_info info;

	return dladdr(address, &info) != 0 ? info.dli_fname : "?";
}

RTE_INIT_PRIO(vfn_register, LAST)
{
	const rte_trace_point_t *other = rte_trace_point_lookup("pmd.vdpa.vfn.state");

	if (other != NULL) {
		DRV_LOG(NOTICE, "%s is loaded: its copy %s does nothing", file_of(other),
			file_of(&vfn_driver));
		return;
	}
	vfn_trace_state_init();
	vfn_trace_queue_init();
	vfn_trace_doorbell_init();
	vfn_trace_lm_init();
	vfn_trace_config_init();
	vfn_blk_trace_register();
	vfn_telemetry_register();
	vfn_config_register();
	vfn_blk_register();
	vfn_saved_register();
	vfn_kernel_register();
	vdrvinitfn_vfn_driver();
}
