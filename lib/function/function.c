/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Functions come and go here, and are locked. Control. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_lcore.h>
#include <rte_malloc.h>

#include "function.h"
#include "link/local.h"
#include "vfn_signal.h"

RTE_LOG_REGISTER(vfn_logtype, pmd.vdpa.vfn.function, NOTICE);

/*
 * Partners have one lock, which is that of one of them. So whoever waits for a lock may find that
 * it has become another's, or nobody's: locks are never freed, only given to others.
 */
struct vfn_lock {
	pthread_mutex_t mutex;
	struct vfn_lock *next; /* that nobody has */
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static TAILQ_HEAD(, vfn_function) functions = TAILQ_HEAD_INITIALIZER(functions);
static struct vfn_lock *free_locks; /* under the list's lock */

void
vfn_lock(struct vfn_function *fn)
{
	struct vfn_lock *lock;

	for (;;) {
		lock = __atomic_load_n(&fn->lock, __ATOMIC_ACQUIRE);
		pthread_mutex_lock(&lock->mutex);
		if (lock == __atomic_load_n(&fn->lock, __ATOMIC_RELAXED))
			return;
		pthread_mutex_unlock(&lock->mutex);
	}
}

void
vfn_unlock(struct vfn_function *fn)
{
	pthread_mutex_unlock(&fn->lock->mutex);
}

void
vfn_list_lock(void)
{
	pthread_mutex_lock(&list_lock);
}

void
vfn_list_unlock(void)
{
	pthread_mutex_unlock(&list_lock);
}

struct vfn_function *
vfn_next(const struct vfn_function *fn)
{
	return fn != NULL ? TAILQ_NEXT(fn, next) : TAILQ_FIRST(&functions);
}

void
vfn_foreach(void (*call)(struct vfn_function *fn))
{
	struct vfn_function *fn;

	vfn_list_lock();
	for (fn = vfn_next(NULL); fn != NULL; fn = vfn_next(fn)) {
		vfn_lock(fn);
		call(fn);
		vfn_unlock(fn);
	}
	vfn_list_unlock();
}

void
vfn_join(struct vfn_function *fn, struct vfn_function *partner)
{
	vfn_lock(partner);
	vfn_quiesce(partner);
	fn->partner = partner;
	partner->partner = fn;
	__atomic_store_n(&fn->lock, partner->lock, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&fn->own_lock->mutex);
}

void
vfn_part(struct vfn_function *fn)
{
	struct vfn_function *partner = fn->partner;
	struct vfn_function *guest = fn->lock == fn->own_lock ? partner : fn;

	pthread_mutex_lock(&guest->own_lock->mutex);
	__atomic_store_n(&guest->lock, guest->own_lock, __ATOMIC_RELEASE);
	fn->partner = partner->partner = NULL;
}

static struct vfn_lock *
lock_get(void)
{
	struct vfn_lock *lock = free_locks;

	if (lock != NULL) {
		free_locks = lock->next;
		return lock;
	}
	lock = malloc(sizeof(*lock));
	if (lock != NULL)
		pthread_mutex_init(&lock->mutex, NULL);
	return lock;
}

static void
lock_put(struct vfn_lock *lock)
{
	lock->next = free_locks;
	free_locks = lock;
}

/* The function's memory, poller part included, is on the node of its first poller. */
static void *
function_alloc(const struct vfn_pollers *pollers, size_t size)
{
	int node = pollers->nb_cpus > 0 ? vfn_cpu_node(pollers->cpu[0]) : SOCKET_ID_ANY;

	return rte_zmalloc_socket("vfn_function", size, RTE_CACHE_LINE_SIZE, node);
}

static void
function_free(struct vfn_function *fn)
{
	unsigned int i;

	for (i = 0; i <= VFN_MAX_VECTORS; i++)
		if (fn->irq[i].fd >= 0)
			close(fn->irq[i].fd);
	for (i = 0; fn->queue != NULL && i < fn->nb_queues; i++) {
		if (fn->queue[i].doorbell_fd >= 0)
			close(fn->queue[i].doorbell_fd);
		free(fn->queue[i].resubmit);
	}
	vfn_dma_free(fn);
	free(fn->work);
	rte_free(fn->queue);
	if (fn->own_lock != NULL)
		lock_put(fn->own_lock);
	rte_free(fn);
}

static struct vfn_function *
function_new(const struct vfn_function_params *params)
{
	struct vfn_function *fn = function_alloc(&params->pollers, params->class->size);
	unsigned int i;

	if (fn == NULL)
		return NULL;
	fn->class = params->class;
	fn->params = *params;
	fn->platform = vfn_dma_platform(fn);
	fn->nb_queues = fn->class->nb_queues(params);
	fn->doorbells_fd = -1;
	for (i = 0; i <= VFN_MAX_VECTORS; i++)
		fn->irq[i].fd = -1;
	fn->own_lock = fn->lock = lock_get();
	fn->queue = function_alloc(&params->pollers, fn->nb_queues * sizeof(*fn->queue));
	/* One of each queue for the class, and one for a job. */
	fn->work = calloc(2 * fn->nb_queues, sizeof(*fn->work));
	if (fn->own_lock == NULL || fn->queue == NULL || fn->work == NULL) {
		function_free(fn);
		return NULL;
	}
	for (i = 0; i < fn->nb_queues; i++) {
		fn->queue[i].fn = fn;
		fn->queue[i].index = i;
		fn->queue[i].doorbell_fd = -1;
	}
	return fn;
}

static int
function_create(const struct vfn_function_params *params, struct vfn_function **result)
{
	struct vfn_function *fn;
	int ret;

	for (fn = vfn_next(NULL); fn != NULL; fn = vfn_next(fn))
		if (strcmp(fn->params.name, params->name) == 0)
			return -EEXIST;
	fn = function_new(params);
	if (fn == NULL)
		return -ENOMEM;
	ret = vfn_signal_init();
	if (ret < 0)
		goto free_function;
	ret = vfn_pollers_get(fn);
	if (ret < 0)
		goto end_signals;
	vfn_pci_power_on(fn);
	vfn_lock(fn);
	ret = fn->class->open(fn);
	fn->params.class_params = NULL; /* the caller's */
	if (ret == 0)
		vfn_function_reset(fn);
	vfn_unlock(fn);
	if (ret < 0)
		goto put_pollers;
	TAILQ_INSERT_TAIL(&functions, fn, next);
	FN_LOG(DEBUG, fn, "created, %u queues, %u pollers", fn->nb_queues, fn->nb_pollers);
	*result = fn;
	return 0;

put_pollers:
	vfn_pollers_put(fn);
end_signals:
	vfn_signal_fini();
free_function:
	function_free(fn);
	return ret;
}

int
vfn_function_open(
	const struct vfn_function_params *params, struct vfn_function **fn, struct vfn_link **link)
{
	int ret;

	vfn_list_lock();
	ret = function_create(params, fn);
	vfn_list_unlock();
	if (ret == 0)
		*link = vfn_link_local(*fn);
	return ret;
}

void
vfn_function_close(struct vfn_function *fn)
{
	/* No poller has the function after a reset: what it scheduled can be cancelled. */
	vfn_lock(fn);
	while (!vfn_function_reset(fn))
		FN_LOG(ERR, fn, "cannot go: what it works on does not end");
	vfn_unlock(fn);
	fn->class->cancel(fn);
	vfn_irqs_cancel(fn);
	vfn_iommu_cancel(fn);
	vfn_list_lock();
	TAILQ_REMOVE(&functions, fn, next);
	vfn_lock(fn);
	fn->class->close(fn);
	vfn_unlock(fn);
	vfn_pollers_put(fn);
	vfn_signal_fini();
	function_free(fn);
	vfn_list_unlock();
}
