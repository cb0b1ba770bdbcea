/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Functions come and go here. Control.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_malloc.h>

#include "function.h"
#include "vfn_signal.h"

RTE_LOG_REGISTER(vfn_logtype, pmd.vdpa.vfn.function, NOTICE);

pthread_mutex_t vfn_control_lock = PTHREAD_MUTEX_INITIALIZER;
struct vfn_function_list vfn_functions = TAILQ_HEAD_INITIALIZER(vfn_functions);

/* The function's memory, poller part included, is on the node of its first poller. */
static void *
function_alloc(const struct vfn_function_params *params, size_t size)
{
	int node = params->nb_cpus > 0 ? vfn_cpu_node(params->cpu[0]) : SOCKET_ID_ANY;

	return rte_zmalloc_socket("vfn_function", size, RTE_CACHE_LINE_SIZE, node);
}

int
vfn_function_create(const struct vfn_function_params *params, struct vfn_function **result)
{
	struct vfn_function *fn;
	unsigned int i;
	int ret;

	TAILQ_FOREACH(fn, &vfn_functions, next)
		if (strcmp(fn->params.name, params->name) == 0)
			return -EEXIST;
	fn = function_alloc(params, sizeof(*fn));
	if (fn == NULL)
		return -ENOMEM;
	fn->params = *params;
	fn->nb_queues = 2 * params->max_pairs + 1;
	fn->queue = function_alloc(params, fn->nb_queues * sizeof(*fn->queue));
	if (fn->queue == NULL) {
		rte_free(fn);
		return -ENOMEM;
	}
	for (i = 0; i < fn->nb_queues; i++) {
		fn->queue[i].fn = fn;
		fn->queue[i].index = i;
		fn->queue[i].doorbell_fd = -1;
	}
	for (i = 0; i < VFN_MAX_VECTORS; i++)
		fn->irq_fd[i] = -1;
	fn->bar2_fd = -1;
	fn->device_features = vfn_net_features(params);
	fn->config.max_virtqueue_pairs = params->max_pairs;
	fn->config.mtu = params->mtu;

	ret = vfn_signal_init();
	if (ret == 0) {
		ret = vfn_port_open(fn);
		if (ret < 0)
			vfn_signal_fini();
	}
	if (ret < 0) {
		rte_free(fn->queue);
		rte_free(fn);
		return ret;
	}
	vfn_regs_init(fn);
	TAILQ_INSERT_TAIL(&vfn_functions, fn, next);
	FN_LOG(DEBUG, fn, "created, %u queue pairs, %u pollers", params->max_pairs, fn->nb_pollers);
	*result = fn;
	return 0;
}

/* After a reset. */
void
vfn_function_destroy(struct vfn_function *fn)
{
	unsigned int i;

	TAILQ_REMOVE(&vfn_functions, fn, next);
	vfn_port_close(fn);
	vfn_signal_fini();
	for (i = 0; i < VFN_MAX_VECTORS; i++)
		if (fn->irq_fd[i] >= 0)
			close(fn->irq_fd[i]);
	for (i = 0; i < fn->nb_queues; i++)
		if (fn->queue[i].doorbell_fd >= 0)
			close(fn->queue[i].doorbell_fd);
	for (i = 0; i < fn->nb_queues; i++)
		free(fn->queue[i].resubmit);
	vfn_dma_free(fn);
	rte_free(fn->queue);
	rte_free(fn);
}
