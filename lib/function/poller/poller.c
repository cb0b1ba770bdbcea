/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Pollers come and go here, and are given work. A poller is a DPDK service where the application
 * gives service cores, else a thread of its own; functions that name the same CPU share one. What
 * it does is in loop.c.
 *
 * Control reaches a poller by request and acknowledgement: it posts a function that the poller
 * runs between two bursts, and waits until it has run. Nobody else touches a poller's work.
 */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <numa.h>
#include <numaif.h>

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_pause.h>
#include <rte_service.h>
#include <rte_service_component.h>

#include "../function.h"
#include "../thread.h"
#include "poller.h"
#include "vfn_guard.h"

/* Segments of a burst: one chain may be as long as the largest queue (2.7.5.3.1). */
#define BATCH_SEGS   (VRINGH_MAX_SIZE + VFN_BURST)
#define BATCH_CHAINS 1024
/* A fetch looks at no more, but for a single chain that is longer. */
#define BATCH_DESCS 512

static TAILQ_HEAD(, vfn_poller) pollers = TAILQ_HEAD_INITIALIZER(pollers);
static uint64_t nb_made;
/* Of the list. Taken with a function locked, or the list of functions. */
static pthread_mutex_t pollers_lock = PTHREAD_MUTEX_INITIALIZER;

int
vfn_cpu_node(unsigned int cpu)
{
	return numa_available() >= 0 ? numa_node_of_cpu(cpu) : SOCKET_ID_ANY;
}

/* Have the poller run fn between two bursts; returns when it did. Control. */
static void
poller_call(struct vfn_poller *p, void (*fn)(struct vfn_poller *, void *), void *arg)
{
	struct vfn_poller_request request = {.fn = fn, .arg = arg};
	struct timespec nap = {.tv_nsec = 20000};
	unsigned int waits;

	pthread_mutex_lock(&p->calls);
	__atomic_store_n(&p->request, &request, __ATOMIC_RELEASE);
	vfn_poller_wake(p);
	/* Pairs with the release that acknowledges. */
	for (waits = 0; __atomic_load_n(&p->request, __ATOMIC_ACQUIRE) != NULL; waits++) {
		if (waits < 1000)
			rte_pause();
		else if (waits < 1100)
			sched_yield();
		else
			nanosleep(&nap, NULL);
		/* A service whose core was stopped never looks: stand in for it. */
		if (p->is_service && waits > 1500)
			vfn_poller_iterate(p);
	}
	pthread_mutex_unlock(&p->calls);
}

/* Nobody would wake us for a queue whose doorbell can't be waited for: it is polled. */
static void
doorbell_add(struct vfn_poller *p, struct vfn_queue *q)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	q->deaf = q->doorbell_fd < 0;
	/* Two queues may wait for one receiver: EEXIST is as good as done. */
	if (p->is_service || q->deaf ||
		epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, q->doorbell_fd, &event) == 0 ||
		errno == EEXIST)
		return;
	q->deaf = true;
	if (q->stats[VFN_STAT_DOORBELL_ERRORS]++ == 0)
		FN_LOG(WARNING, q->fn, "queue %u: cannot wait for its doorbell, it is polled: %s",
			q->index, strerror(errno));
}

static void
doorbell_remove(struct vfn_poller *p, const struct vfn_queue *q)
{
	/* Two queues may have waited for one receiver: it is gone already. */
	if (!p->is_service && q->doorbell_fd >= 0 &&
		epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, q->doorbell_fd, NULL) < 0 &&
		errno != ENOENT && !q->deaf)
		FN_LOG(WARNING, q->fn, "queue %u: its doorbell is not let go: %s", q->index,
			strerror(errno));
}

/* What a work waits for beside its queues' doorbells. */
static void
wake_fd_add(struct vfn_poller *p, const struct vfn_work *w)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	int fd = w->ops->wake_fd != NULL ? w->ops->wake_fd(w) : -1;

	if (fd < 0 || p->is_service || epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
		return;
	w->queue->deaf = true;
	FN_LOG(WARNING, w->fn, "queue %u: cannot wait for what is out, it is polled: %s",
		w->queue->index, strerror(errno));
}

static void
wake_fd_remove(struct vfn_poller *p, const struct vfn_work *w)
{
	int fd = w->ops->wake_fd != NULL ? w->ops->wake_fd(w) : -1;

	if (fd >= 0 && !p->is_service)
		epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static bool
is_deaf(const struct vfn_work *w)
{
	return w->queue->deaf || (w->waits_for != NULL && w->waits_for->deaf);
}

static void
may_sleep(struct vfn_poller *p)
{
	unsigned int i;

	p->may_sleep = true;
	for (i = 0; i < p->nb_work; i++)
		if (!p->work[i]->fn->params.pollers.sleep || is_deaf(p->work[i]))
			p->may_sleep = false;
}

static void
request_add(struct vfn_poller *p, void *arg)
{
	struct vfn_function *fn = arg;
	unsigned int i;

	vfn_guard_unblock();
	for (i = 0; i < fn->nb_work; i++) {
		struct vfn_work *w = fn->work[i];

		if (w->poller != p)
			continue;
		if (vfn_poller_take(p, w) < 0) {
			FN_LOG(ERR, fn, "queue %u: no memory to poll it", w->queue->index);
			break;
		}
		/* Where a function may not sleep its poller never does. */
		if (!fn->params.pollers.sleep)
			continue;
		doorbell_add(p, w->queue);
		if (w->waits_for != NULL)
			doorbell_add(p, w->waits_for);
		wake_fd_add(p, w);
	}
	may_sleep(p);
	p->last_progress = rte_rdtsc();
}

static void
request_remove(struct vfn_poller *p, void *arg)
{
	unsigned int i;

	for (i = 0; i < p->nb_work; i++) {
		struct vfn_work *w = p->work[i];

		if (w->fn != arg || !w->fn->params.pollers.sleep)
			continue;
		doorbell_remove(p, w->queue);
		if (w->waits_for != NULL)
			doorbell_remove(p, w->waits_for);
		wake_fd_remove(p, w);
	}
	vfn_poller_drop(p, arg);
	may_sleep(p);
}

/* Control. The poller has none of fn's work when this returns. */
void
vfn_poller_remove(struct vfn_poller *p, struct vfn_function *fn)
{
	poller_call(p, request_remove, fn);
}

/* A service that no running core has is given to the service core with the least to do. */
static void
service_place(struct vfn_poller *p)
{
	uint32_t lcore[RTE_MAX_LCORE], best = 0;
	int i, n, least = INT32_MAX;

	if (rte_service_may_be_active(p->service_id) == 1)
		return;
	n = rte_service_lcore_list(lcore, RTE_DIM(lcore));
	for (i = 0; i < n; i++) {
		int load = rte_service_lcore_count_services(lcore[i]);

		if (load < least) {
			least = load;
			best = lcore[i];
		}
	}
	if (n <= 0) {
		VFN_LOG(ERR, "poller %u: the application took its service cores away", p->number);
		return;
	}
	rte_service_runstate_set(p->service_id, 1);
	rte_service_map_lcore_set(p->service_id, best, 1);
	rte_service_lcore_start(best);
}

/* Control. The poller gets all of fn's work that names it. */
void
vfn_poller_add(struct vfn_poller *p, struct vfn_function *fn)
{
	if (p->is_service)
		service_place(p);
	poller_call(p, request_add, fn);
}

static void
request_stats(struct vfn_poller *p, void *arg)
{
	vfn_poller_count_idle(p);
	memcpy(arg, &p->stats, sizeof(p->stats));
}

/* Control. Counters of one moment between two bursts. */
void
vfn_poller_stats(struct vfn_poller *p, struct vfn_poller_stats *stats)
{
	poller_call(p, request_stats, stats);
}

void
vfn_poller_wake(struct vfn_poller *p)
{
	if (!p->is_service)
		eventfd_write(p->wake_fd, 1);
}

/* Control. Warns once if the poller's CPU is on another node than the queue's memory. */
void
vfn_poller_numa_check(struct vfn_poller *p, const struct vfn_queue *q)
{
	int node = -1, own;
	void *page;

	if (p->cpu == ANY_CPU || p->numa_told || numa_available() < 0)
		return;
	page = (void *)((uintptr_t)vringh_area(&q->vr, VRINGH_AREA_DESC) &
		~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1));
	own = numa_node_of_cpu(p->cpu);
	if (move_pages(0, 1, &page, NULL, &node, 0) != 0 || node < 0 || node == own)
		return;
	p->numa_told = true;
	FN_LOG(WARNING, q->fn,
		"queue %u is in memory of NUMA node %d, its poller runs on CPU %d of "
		"node %d",
		q->index, node, p->cpu, own);
}

static int
thread_start(struct vfn_poller *p)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	cpu_set_t cpus = vfn_cpus_at_start;
	sigset_t all, old;
	int ret;

	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->epoll_fd < 0 || p->wake_fd < 0 ||
		epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->wake_fd, &event) < 0)
		return -errno;
	/* A poller handles no signal but, with work, that of its own bus errors. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&p->thread, NULL, vfn_poller_thread, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret != 0)
		return -ret;
	if (p->cpu == ANY_CPU) {
		snprintf(p->stats.name, sizeof(p->stats.name), "vfn-poll");
	} else {
		snprintf(p->stats.name, sizeof(p->stats.name), "vfn-poll-%d", p->cpu);
		CPU_ZERO(&cpus);
		CPU_SET(p->cpu, &cpus);
	}
	ret = pthread_setaffinity_np(p->thread, sizeof(cpus), &cpus);
	pthread_setname_np(p->thread, p->stats.name);
	if (p->cpu == ANY_CPU)
		ret = 0; /* where it may not run anywhere else it stays */
	if (ret != 0) {
		VFN_LOG(ERR, "poll-cpu=%d: cannot run there: %s", p->cpu, strerror(ret));
		__atomic_store_n(&p->quit, true, __ATOMIC_RELEASE);
		vfn_poller_wake(p);
		pthread_join(p->thread, NULL);
	}
	return -ret;
}

static int
service_start(struct vfn_poller *p)
{
	struct rte_service_spec spec = {.callback = vfn_poller_service, .callback_userdata = p};
	int ret;

	snprintf(p->stats.name, sizeof(p->stats.name), "vfn-poll-%u", p->number);
	snprintf(spec.name, sizeof(spec.name), "%s", p->stats.name);
	ret = rte_service_component_register(&spec, &p->service_id);
	if (ret == 0)
		ret = rte_service_component_runstate_set(p->service_id, 1);
	return ret;
}

static void
poller_free(struct vfn_poller *p)
{
	unsigned int d;

	for (d = 0; d < 2; d++) {
		rte_free(p->batch[d].chain);
		rte_free(p->batch[d].seg);
	}
	if (p->epoll_fd >= 0)
		close(p->epoll_fd);
	if (p->wake_fd >= 0)
		close(p->wake_fd);
	free(p->work);
	free(p->quiet);
	rte_free(p);
}

/* How many pollers a function has that can make use of so many. */
unsigned int
vfn_poller_count(const struct vfn_pollers *pollers, unsigned int useful)
{
	unsigned int n = pollers->nb_cpus;

	if (n == 0)
		n = rte_service_lcore_count();
	n = RTE_MIN(n, (unsigned int)VFN_MAX_POLLERS);
	n = RTE_MIN(n, useful);
	return RTE_MAX(n, 1u);
}

static int
poller_new(int cpu, unsigned int number, bool is_service, struct vfn_poller **poller)
{
	struct vfn_poller *p;
	int socket, ret = 0;
	unsigned int d;

	socket = cpu != ANY_CPU ? vfn_cpu_node(cpu) : SOCKET_ID_ANY;
	p = rte_zmalloc_socket("vfn_poller", sizeof(*p), RTE_CACHE_LINE_SIZE, socket);
	if (p == NULL)
		return -ENOMEM;
	pthread_mutex_init(&p->calls, NULL);
	p->cpu = cpu;
	p->number = number;
	p->is_service = is_service;
	p->epoll_fd = p->wake_fd = -1;
	p->stamp = rte_rdtsc();
	p->stats.id = ++nb_made;
	p->stats.cpu = cpu;
	p->stats.hz = rte_get_tsc_hz();
	for (d = 0; d < 2; d++) {
		p->batch[d] = (struct vringh_batch){
			.chain = rte_malloc_socket(NULL, BATCH_CHAINS * sizeof(struct vringh_chain),
				RTE_CACHE_LINE_SIZE, socket),
			.seg = rte_malloc_socket(NULL, BATCH_SEGS * sizeof(struct vringh_seg),
				RTE_CACHE_LINE_SIZE, socket),
			.max_chains = BATCH_CHAINS,
			.max_segs = BATCH_SEGS,
			.max_descs = BATCH_DESCS,
		};
		if (p->batch[d].chain == NULL || p->batch[d].seg == NULL)
			ret = -ENOMEM;
	}
	if (ret == 0)
		ret = is_service ? service_start(p) : thread_start(p);
	if (ret < 0) {
		poller_free(p);
		return ret;
	}
	*poller = p;
	return 0;
}

/* The i-th poller of a function: an existing one or a new one. Any control thread. */
int
vfn_poller_get(const struct vfn_pollers *pollers_of, unsigned int i, struct vfn_poller **poller)
{
	bool is_service = pollers_of->nb_cpus == 0 && rte_service_lcore_count() > 0;
	int cpu = pollers_of->nb_cpus > 0 ? (int)pollers_of->cpu[i] : ANY_CPU;
	unsigned int number = cpu == ANY_CPU ? i : 0;
	struct vfn_poller *p;
	int ret = 0;

	pthread_mutex_lock(&pollers_lock);
	TAILQ_FOREACH(p, &pollers, next)
		if (p->cpu == cpu && p->number == number)
			break;
	if (p == NULL) {
		ret = poller_new(cpu, number, is_service, &p);
		if (ret == 0)
			TAILQ_INSERT_TAIL(&pollers, p, next);
	}
	if (ret == 0) {
		p->users++;
		*poller = p;
	}
	pthread_mutex_unlock(&pollers_lock);
	return ret;
}

/* Any control thread. */
void
vfn_poller_put(struct vfn_poller *p)
{
	pthread_mutex_lock(&pollers_lock);
	if (--p->users > 0) {
		pthread_mutex_unlock(&pollers_lock);
		return;
	}
	TAILQ_REMOVE(&pollers, p, next);
	if (p->is_service) {
		/* rte_eal_cleanup() ends the services, and their cores, before the devices. */
		if (rte_service_get_count() > 0) {
			rte_service_component_runstate_set(p->service_id, 0);
			while (rte_service_may_be_active(p->service_id) == 1)
				rte_pause();
			rte_service_component_unregister(p->service_id);
		}
	} else {
		__atomic_store_n(&p->quit, true, __ATOMIC_RELEASE);
		vfn_poller_wake(p);
		pthread_join(p->thread, NULL);
	}
	poller_free(p);
	pthread_mutex_unlock(&pollers_lock);
}
