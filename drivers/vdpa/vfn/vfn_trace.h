/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Tracepoints of the driver: every change of state. See rte_trace.h; --trace=pmd.vdpa.vfn.*
 * records them.
 */

#ifndef VFN_TRACE_H
#define VFN_TRACE_H

#include <rte_trace_point.h>

/* clang-format off */
RTE_TRACE_POINT(
	vfn_trace_state,
	RTE_TRACE_POINT_ARGS(const char *dev, const char *from, const char *to),
	rte_trace_point_emit_string(dev);
	rte_trace_point_emit_string(from);
	rte_trace_point_emit_string(to);
)

RTE_TRACE_POINT(
	vfn_trace_queue,
	RTE_TRACE_POINT_ARGS(const char *dev, uint16_t queue, bool on, uint16_t avail,
		uint16_t used),
	rte_trace_point_emit_string(dev);
	rte_trace_point_emit_u16(queue);
	rte_trace_point_emit_u8(on);
	rte_trace_point_emit_u16(avail);
	rte_trace_point_emit_u16(used);
)

RTE_TRACE_POINT(
	vfn_trace_doorbell,
	RTE_TRACE_POINT_ARGS(const char *dev, uint16_t queue, const char *state),
	rte_trace_point_emit_string(dev);
	rte_trace_point_emit_u16(queue);
	rte_trace_point_emit_string(state);
)

RTE_TRACE_POINT(
	vfn_trace_lm,
	RTE_TRACE_POINT_ARGS(const char *dev, const char *state),
	rte_trace_point_emit_string(dev);
	rte_trace_point_emit_string(state);
)

RTE_TRACE_POINT(
	vfn_trace_config,
	RTE_TRACE_POINT_ARGS(const char *dev, const char *change),
	rte_trace_point_emit_string(dev);
	rte_trace_point_emit_string(change);
)
/* clang-format on */

#endif /* VFN_TRACE_H */
