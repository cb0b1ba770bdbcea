/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Shared memory that its owner takes away.
 *
 * Memory of a guest is a file of its front-end's, which may be cut off after it was mapped:
 * touching what is gone is then a bus error (SIGBUS), by default the end of the process. Memory
 * that is watched, and whatever a thread touches while it is on its guard, is replaced by
 * zeroes instead, in place, and the owner's flag tells. Other bus errors go to the handler that
 * was there before.
 */

#ifndef VFN_FAULT_H
#define VFN_FAULT_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Watch memory until vfn_fault_unwatch(). One thread at a time.
 *
 * @param start
 *   Where it is mapped.
 * @param len
 *   Bytes; not 0.
 * @param lost
 *   Set to true, atomically and from a signal handler, when all of it was replaced.
 * @return
 *   0, or a negative errno.
 */
int vfn_fault_watch(const void *start, size_t len, bool *lost);

/**
 * No longer watch it; nothing touches it any more. What was replaced goes with the mapping.
 *
 * @param start
 *   As given to vfn_fault_watch().
 * @param lost
 *   As given to vfn_fault_watch().
 */
void vfn_fault_unwatch(const void *start, const bool *lost);

/**
 * Put the calling thread on its guard: also a page that nobody watches is replaced when this
 * thread finds it gone. For code that is not ours and touches memory which it just mapped.
 * One thread at a time, which must not be left on its guard by mistake.
 *
 * @param lost
 *   Set to true when that happened; NULL ends it.
 */
void vfn_fault_guard(bool *lost);

#endif /* VFN_FAULT_H */
