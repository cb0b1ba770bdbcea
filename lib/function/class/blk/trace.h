/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Tracepoints of the block class: each request as it is taken out of a ring, and as it goes back.
 * They are not there before vfn_blk_trace_register(). See rte_trace.h.
 */

#ifndef VFN_BLK_TRACE_H
#define VFN_BLK_TRACE_H

#include <rte_trace_point.h>

/* clang-format off */
RTE_TRACE_POINT(
	vfn_trace_blk_begin,
	RTE_TRACE_POINT_ARGS(const char *fn, uint16_t queue, uint16_t id, uint32_t type,
		uint64_t offset, uint64_t len),
	rte_trace_point_emit_string(fn);
	rte_trace_point_emit_u16(queue);
	rte_trace_point_emit_u16(id);
	rte_trace_point_emit_u32(type);
	rte_trace_point_emit_u64(offset);
	rte_trace_point_emit_u64(len);
)

RTE_TRACE_POINT(
	vfn_trace_blk_end,
	RTE_TRACE_POINT_ARGS(const char *fn, uint16_t queue, uint16_t id, uint8_t status,
		uint64_t cycles),
	rte_trace_point_emit_string(fn);
	rte_trace_point_emit_u16(queue);
	rte_trace_point_emit_u16(id);
	rte_trace_point_emit_u8(status);
	rte_trace_point_emit_u64(cycles);
)
/* clang-format on */

#endif /* VFN_BLK_TRACE_H */
