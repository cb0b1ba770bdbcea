/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Descriptors that strangers hand over: what they are, and how to be rid of them. Looking at one
 * asks no file system that somebody else might answer for.
 */

#ifndef GATE_FD_H
#define GATE_FD_H

#include <vfn_closer.h>

#include "gate_judge.h"

/** What a descriptor is. Never waits for anybody. */
void gate_fd_look(int fd, struct gate_fd *out);

/**
 * Close a descriptor. Never waits for anybody: what might is closed on the closer's thread, of
 * which each socket has one.
 */
void gate_fd_close(struct vfn_closer *closer, const struct gate_fd *fd);

#endif /* GATE_FD_H */
