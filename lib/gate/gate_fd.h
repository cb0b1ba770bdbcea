/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Descriptors that strangers hand over: what they are, and how to be rid of them. Looking at one
 * asks no file system that somebody else might answer for.
 */

#ifndef GATE_FD_H
#define GATE_FD_H

#include "gate_judge.h"

/** What a descriptor is. Never waits for anybody. */
void gate_fd_look(int fd, struct gate_fd *out);

/** Closes the descriptors of one socket, on a thread that is there while there are any. */
struct gate_closer;

/** NULL: no memory. */
struct gate_closer *gate_closer_new(void);

/** What is still being closed is so by a thread that is left to itself. */
void gate_closer_free(struct gate_closer *closer);

/** How many wait to be closed. */
unsigned int gate_closer_waiting(struct gate_closer *closer);

/**
 * Close a descriptor. Never waits for anybody: what might (the flush of a file system in user
 * space, a socket that lingers, the last reference to much memory) is closed on the thread.
 */
void gate_fd_close(struct gate_closer *closer, const struct gate_fd *fd);

#endif /* GATE_FD_H */
