/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* File descriptors that are given to the function, and stay the giver's. Any thread. */

#ifndef VFN_FD_H
#define VFN_FD_H

/* *fd is closed, and becomes a duplicate of with; -1: none. 0, or a negative errno value. */
int vfn_fd_replace(int *fd, int with);

#endif /* VFN_FD_H */
