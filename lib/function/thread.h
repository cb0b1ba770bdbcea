/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Threads of our own: they handle no signals, and run where the process may. Any thread. */

#ifndef VFN_THREAD_H
#define VFN_THREAD_H

#include <pthread.h>
#include <sched.h>

/* What the process may run on: known only before EAL ties the thread that others come from. */
extern cpu_set_t vfn_cpus_at_start;

/* 0 or a negative errno value. */
int vfn_thread_start(pthread_t *id, const char *name, void *(*run)(void *arg), void *arg);

#endif /* VFN_THREAD_H */
