/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What a poller looks after, whatever it is: a queue whose chains somebody moves, or a job that is
 * done where a queue is polled.
 */

#ifndef VFN_WORK_H
#define VFN_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include <vringh.h>

struct vfn_function;
struct vfn_iommu;
struct vfn_poller;
struct vfn_poller_stats;
struct vfn_pollers;
struct vfn_queue;
struct vfn_work;

/* Chains of a burst. */
#define VFN_BURST 32

/* Bytes of room that a poller has for what does not lie in one piece. */
#define VFN_SCRATCH_SIZE (64 * 1024 + 64)

/*
 * The service that a queue has had from its poller, in TSC: see loop.c. It outlives what control
 * changes.
 */
struct vfn_account {
	uint64_t served;
	uint64_t rests_until; /* 0: it does not */
	bool in_vain;	      /* its last turn moved nothing */
};

/* Poller. */
struct vfn_work_ops {
	/* Move a burst; returns what was moved. */
	unsigned int (*run)(struct vfn_work *work);
	/*
	 * NULL: there is something to do when the queue has chains. Else only run() knows, and
	 * this is called before the poller sleeps: true if there is something to do already.
	 */
	bool (*arm)(struct vfn_work *work);
	/* An eventfd that ends the poller's sleep, beside the queue's doorbell; NULL, or -1: none.
	 */
	int (*wake_fd)(const struct vfn_work *work);
};

/* Whoever makes one sets the first five; the poller has the rest. A class's may be longer. */
struct vfn_work {
	const struct vfn_work_ops *ops;
	struct vfn_function *fn; /* whose it is */
	struct vfn_poller *poller;
	struct vfn_queue *queue;     /* whose chains are moved */
	struct vfn_queue *waits_for; /* whose chains it takes besides, NULL: none */
	bool held;		     /* set by run(): by the rate limit, though there are chains */
	uint64_t stalled_since;	     /* TSC when waits_for ran out of chains, 0: it did not */
	struct vfn_iommu *iommu[2];  /* by which queues translate, or NULL; see vfn_work_add() */
	uint64_t moved_at;	     /* the poller's iteration in which anything was moved last */
};

/* loop.c: the job that a driver has given to a queue. */
extern const struct vfn_work_ops vfn_job_ops;

/* poller.c. Control, of whichever function; each of them waits for the poller. */
int vfn_poller_get(const struct vfn_pollers *pollers, unsigned int i, struct vfn_poller **poller);
void vfn_poller_put(struct vfn_poller *poller);
unsigned int vfn_poller_count(const struct vfn_pollers *pollers, unsigned int useful);
void vfn_poller_remove(struct vfn_poller *poller, struct vfn_function *fn);
void vfn_poller_add(struct vfn_poller *poller, struct vfn_function *fn);
void vfn_poller_stats(struct vfn_poller *poller, struct vfn_poller_stats *stats);
void vfn_poller_wake(struct vfn_poller *poller);
void vfn_poller_numa_check(struct vfn_poller *poller, const struct vfn_queue *q);
/* NUMA node of a CPU, or SOCKET_ID_ANY. */
int vfn_cpu_node(unsigned int cpu);

/* loop.c. Poller: room for one burst of each direction, and for one frame of any size. */
struct vringh_batch *vfn_poller_batch(struct vfn_poller *poller, unsigned int direction);
uint8_t *vfn_poller_scratch(struct vfn_poller *poller);

/* lost.c. Poller: some memory was taken away. */
void vfn_lost_tell(void);

#endif /* VFN_WORK_H */
