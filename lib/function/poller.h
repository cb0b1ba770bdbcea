/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What a poller is, for poller.c (control) and poller_loop.c (poller) only. */

#ifndef VFN_POLLER_H
#define VFN_POLLER_H

#include "function.h"

#define ANY_CPU -1

struct vfn_poller_request {
	void (*fn)(struct vfn_poller *poller, void *arg);
	void *arg;
};

struct vfn_poller {
	/* Shared between control and the poller. */
	struct vfn_poller_request *request; /* posted with release, set to NULL when done */
	bool running;			    /* somebody is inside vfn_poller_iterate() */
	bool quit;

	/* Poller. */
	struct vfn_work **work;
	unsigned int nb_work;
	unsigned int max_work;
	bool may_sleep;
	uint64_t last_progress;
	bool busy;	/* the last iteration moved something */
	uint64_t stamp; /* TSC up to which stats counts cycles */
	struct vfn_poller_stats stats;
	struct vringh_batch batch[2];
	int epoll_fd;
	int wake_fd;

	/* Control. */
	TAILQ_ENTRY(vfn_poller) next;
	unsigned int users;
	int cpu;	     /* ANY_CPU: not pinned, or a service */
	unsigned int number; /* among those with the same cpu */
	bool is_service;
	bool numa_told;
	uint32_t service_id;
	pthread_t thread;

	uint8_t scratch[VFN_NET_MAX_FRAME]; /* poller */
};

/* poller_loop.c */
int vfn_poller_iterate(struct vfn_poller *p);
void *vfn_poller_thread(void *poller);
int32_t vfn_poller_service(void *poller);
void vfn_poller_disarm(struct vfn_work *w);
void vfn_poller_count_idle(struct vfn_poller *p);

#endif /* VFN_POLLER_H */
