/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The pace of messages. Any thread. */

#include <time.h>

#include <rte_log.h>

#include "log.h"

bool
vfn_log_may(struct vfn_log_pace *pace, uint32_t level)
{
	const uint64_t cost = UINT64_C(1000000000) / VFN_LOG_PER_S, room = VFN_LOG_BURST * cost;
	uint64_t now, empty;
	struct timespec ts;

	if (level > RTE_LOG_NOTICE)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	/* The clock may have begun just now. */
	now = ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec + room;
	empty = __atomic_load_n(&pace->empty, __ATOMIC_RELAXED);
	if (empty + room < now)
		empty = now - room;
	if (empty + cost > now)
		return false;
	__atomic_store_n(&pace->empty, empty + cost, __ATOMIC_RELAXED);
	return true;
}
