/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What a poller is, for poller.c (control) and loop.c (poller) only. */

#ifndef VFN_POLLER_H
#define VFN_POLLER_H

#include <pthread.h>
#include <sys/queue.h>

#include "../vfn_function.h"
#include "work.h"

#define ANY_CPU -1

struct vfn_poller_request {
	void (*fn)(struct vfn_poller *poller, void *arg);
	void *arg;
};

/*
 * A queue that had nothing to move for a while, and what it takes to see whether it has: nothing
 * else of it is touched until then.
 */
struct vfn_quiet {
	struct vringh_watch watch;
	bool armed;   /* its driver kicks */
	bool settled; /* for what the queue waits for, so it need not be armed anew */
};

struct vfn_poller {
	/* Shared between control and the poller. */
	struct vfn_poller_request *request; /* posted with release, set to NULL when done */
	bool running;			    /* somebody is inside vfn_poller_iterate() */
	bool quit;

	/* Poller. */
	struct vfn_work **work;	 /* the first nb_active are looked at in every iteration */
	struct vfn_quiet *quiet; /* of those that are not, in turn: same indices as work */
	unsigned int nb_work;
	unsigned int nb_active;
	unsigned int max_work;
	unsigned int turn;   /* next one to be looked at */
	bool look_at_all;    /* in the next iteration */
	uint64_t next_sweep; /* iteration in which the active ones are gone through */
	bool may_sleep;
	uint64_t last_progress;
	uint64_t spin; /* cycles to look for work before it sleeps */
	bool busy;     /* the last iteration moved something */
	/* Fairness, see loop.c; in TSC. */
	uint64_t floor;			  /* what those who want it have been served at least */
	uint64_t next_floor[2];		  /* of whom this iteration has seen, by in_vain */
	struct vfn_account quiet_account; /* of the quiet queues that move nothing, together */
	uint64_t turn_at;		  /* when the current turn began, or the last one ended */
	bool kept_waiting;		  /* somebody, in this iteration */
	/* The last two different ones that moved something, and the iterations in which they did.
	 */
	const struct vfn_account *mover[2];
	uint64_t mover_at[2];
	long preempted; /* so often so far */
	uint64_t stamp; /* TSC up to which stats counts cycles */
	struct vfn_poller_stats stats;
	struct vringh_batch batch[2];
	int epoll_fd;
	int wake_fd;

	/* Control. */
	pthread_mutex_t calls; /* one at a time, of whichever function */
	TAILQ_ENTRY(vfn_poller) next;
	unsigned int users;
	int cpu;	     /* ANY_CPU: not pinned, or a service */
	unsigned int number; /* among those with the same cpu */
	bool is_service;
	bool numa_told;
	uint32_t service_id;
	pthread_t thread;

	uint8_t scratch[VFN_SCRATCH_SIZE]; /* poller */
};

/* loop.c */
int vfn_poller_iterate(struct vfn_poller *p);
/* Cycles to spin before the next sleep, after one of slept cycles; pending: there was work. */
uint64_t vfn_poller_next_spin(const struct vfn_poller *p, uint64_t slept, bool pending);
void *vfn_poller_thread(void *poller);
int32_t vfn_poller_service(void *poller);
int vfn_poller_take(struct vfn_poller *p, struct vfn_work *w);
void vfn_poller_drop(struct vfn_poller *p, const struct vfn_function *fn);
void vfn_poller_count_idle(struct vfn_poller *p);

#endif /* VFN_POLLER_H */
