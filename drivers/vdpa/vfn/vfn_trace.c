/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

#include <rte_trace_point_register.h>

#include "vfn_trace.h"

RTE_TRACE_POINT_REGISTER(vfn_trace_state, pmd.vdpa.vfn.state)
RTE_TRACE_POINT_REGISTER(vfn_trace_queue, pmd.vdpa.vfn.queue)
RTE_TRACE_POINT_REGISTER(vfn_trace_doorbell, pmd.vdpa.vfn.doorbell)
RTE_TRACE_POINT_REGISTER(vfn_trace_lm, pmd.vdpa.vfn.lm)
RTE_TRACE_POINT_REGISTER(vfn_trace_config, pmd.vdpa.vfn.config)
