/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Shared memory that its owner takes away.
 *
 * Memory of a guest is a file of its front-end's, which may be cut off after it was mapped, or
 * find no room when it is written: touching it is then a bus error (SIGBUS), by default the end of
 * the process. Memory that is guarded, and whatever a thread touches while it is on guard, is
 * replaced by zeroes instead, in place, and a flag tells. Other bus errors go to the handler that
 * was there before.
 *
 * Every function may be called on any thread at any time.
 */

#ifndef VFN_GUARD_H
#define VFN_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Guard memory until vfn_guard_remove().
 *
 * The calling thread no longer blocks SIGBUS: on a thread that does a bus error ends the process,
 * so others that touch the memory call vfn_guard_unblock().
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
int vfn_guard_add(const void *start, size_t len, bool *lost);

/**
 * No longer guard it; nothing touches it any more. What was replaced goes with the mapping.
 *
 * @param start
 *   As given to vfn_guard_add().
 * @param lost
 *   As given to vfn_guard_add().
 */
void vfn_guard_remove(const void *start, const bool *lost);

/**
 * Put the calling thread on guard, and no other: also a page that nobody guards is replaced when
 * this thread finds it gone. For code that is not ours and touches memory which it has mapped.
 *
 * @param lost
 *   Set to true when that happened; it has to stay while the thread is on guard. NULL ends it.
 */
void vfn_guard(bool *lost);

/** Have bus errors of the calling thread handled. */
void vfn_guard_unblock(void);

/**
 * Some memory that is guarded was replaced. Whoever looks which one clears it first, atomically.
 */
extern bool vfn_guard_hit;

#endif /* VFN_GUARD_H */
