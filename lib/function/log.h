/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The pace of messages that a guest can bring about as often as it likes. Any thread; threads that
 * speak at the same moment may have a message more.
 */

#ifndef VFN_LOG_H
#define VFN_LOG_H

#include <stdbool.h>
#include <stdint.h>

/* So many at once, then so many a second. */
#define VFN_LOG_BURST 40
#define VFN_LOG_PER_S 4

struct vfn_log_pace {
	uint64_t empty; /* atomic: the time at which the bucket was empty, in ns */
};

/* What is below NOTICE is up to the log level alone. */
bool vfn_log_may(struct vfn_log_pace *pace, uint32_t level);

#endif /* VFN_LOG_H */
