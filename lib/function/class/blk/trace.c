/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Tracepoints, for one copy of this library in a process: EAL takes no two of the same name. */

#include <rte_trace_point_register.h>

#include "trace.h"
#include "vfn_blk_function.h"

/* The macros make functions for the loader to call; vfn_blk_trace_register() calls them instead. */
#undef RTE_INIT
#define RTE_INIT(function) static void function(void)

RTE_TRACE_POINT_REGISTER(vfn_trace_blk_begin, pmd.vdpa.vfn.blk.begin)
RTE_TRACE_POINT_REGISTER(vfn_trace_blk_end, pmd.vdpa.vfn.blk.end)

void
vfn_blk_trace_register(void)
{
	vfn_trace_blk_begin_init();
	vfn_trace_blk_end_init();
}
