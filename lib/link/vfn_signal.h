/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Signalling eventfds that somebody else shares, without ever being blocked by them.
 *
 * Whether a write to a full eventfd or pipe blocks is a property of the open file, which its
 * other holders can change at any time, like how full it is: whatever is checked before the
 * write may be different when it is done. So a watchdog looks after the threads that signal: one
 * that is inside the same write for too long is interrupted, and told not to use this fd again.
 */

#ifndef VFN_SIGNAL_H
#define VFN_SIGNAL_H

#include <stdbool.h>

/** A write is interrupted after one to two of these, in milliseconds. */
#define VFN_SIGNAL_BOUND_MS 5

/**
 * Have the watchdog. Pairs with vfn_signal_fini(); calls are counted. Any thread.
 *
 * @return
 *   0, or a negative errno.
 */
int vfn_signal_init(void);

/** Whoever had the watchdog needs it no more. No thread signals for it any more. Any thread. */
void vfn_signal_fini(void);

/**
 * Signal an eventfd, or a pipe, that a peer shares. Any thread, while it has the watchdog: that
 * thread takes the signal of vfn_signal_number() from then on, and no SIGPIPE.
 *
 * One that is full has a signal pending, and one that nobody can read from needs none: nothing
 * is written then.
 *
 * @param fd
 *   To be written to.
 * @return
 *   False if the write blocked and was interrupted: the fd is not to be signalled again.
 */
bool vfn_signal(int fd);

/**
 * A real-time signal that does nothing but interrupt what a thread waits in. Any thread.
 *
 * @return
 *   Its number, 0: the application has taken all of them.
 */
int vfn_signal_number(void);

#endif /* VFN_SIGNAL_H */
