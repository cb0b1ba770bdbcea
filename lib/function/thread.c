/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Threads of our own. Any thread. */

#include <signal.h>

#include <rte_common.h>

#include "thread.h"

cpu_set_t vfn_cpus_at_start;

RTE_INIT(remember_cpus)
{
	sched_getaffinity(0, sizeof(vfn_cpus_at_start), &vfn_cpus_at_start);
}

int
vfn_thread_start(pthread_t *id, const char *name, void *(*run)(void *arg), void *arg)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(id, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret != 0)
		return -ret;
	/* Where it may not run anywhere else it stays. */
	pthread_setaffinity_np(*id, sizeof(vfn_cpus_at_start), &vfn_cpus_at_start);
	pthread_setname_np(*id, name);
	return 0;
}
