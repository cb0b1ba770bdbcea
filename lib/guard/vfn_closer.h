/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Descriptors that strangers hand over. Whoever waits for a file, or closes it, may wait for who
 * serves it: close() does for the flush of a file system in user space, or for a socket that
 * lingers, and it can be the end of much memory. A closer has a thread for that, while there is
 * something to close: one for each whom nobody else is to wait for.
 *
 * Every function may be called on any thread.
 */

#ifndef VFN_CLOSER_H
#define VFN_CLOSER_H

#include <stdbool.h>

/** Is it an eventfd, or a pipe, as some front-ends have? Nobody else is asked. */
bool vfn_is_event(int fd);

struct vfn_closer;

/** NULL: no memory. */
struct vfn_closer *vfn_closer_new(void);

/** What is still being closed is so by a thread that is left to itself. NULL is allowed. */
void vfn_closer_free(struct vfn_closer *closer);

/** How many descriptors wait to be closed. */
unsigned int vfn_closer_waiting(struct vfn_closer *closer);

/** Close a descriptor on the thread. Never waits, unless there is no memory. */
void vfn_close_later(struct vfn_closer *closer, int fd);

#endif /* VFN_CLOSER_H */
