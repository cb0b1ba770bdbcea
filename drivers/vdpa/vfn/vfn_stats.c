/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Statistics per queue, read from the function's registers. Any thread. librte_vhost checks
 * neither the queue nor the sizes.
 */

#include <errno.h>
#include <string.h>

#include <rte_common.h>
#include <rte_string_fns.h>

#include "vfn_drv.h"

const char *const vfn_stat_names[VFN_NET_STAT_MAX] = {
#define X(symbol, name) [VFN_STAT_##symbol] = name,
	VFN_QUEUE_STATS(X) VFN_NET_STATS(X)
#undef X
};

/* What is told first: what the queue is for. */
static const uint8_t order[VFN_NET_STAT_MAX] = {
#define X(symbol, name) VFN_STAT_##symbol,
	VFN_NET_STATS(X) VFN_QUEUE_STATS(X)
#undef X
};

int
vfn_stats_names(struct rte_vdpa_device *vdpa, struct rte_vdpa_stat_name *names, unsigned int size)
{
	unsigned int i;

	RTE_SET_USED(vdpa);
	if (names != NULL)
		for (i = 0; i < RTE_MIN(size, (unsigned int)VFN_STATS_TOLD); i++)
			rte_strscpy(names[i].name,
				i < VFN_NET_STAT_MAX ? vfn_stat_names[order[i]] : "failures",
				sizeof(names[i].name));
	return VFN_STATS_TOLD;
}

/*
 * Counters of a queue that there is. Behind an endpoint that is gone: as they were read last.
 * dev->lock held.
 */
int
vfn_stats_all(struct vfn_dev *dev, uint16_t queue, uint64_t value[VFN_NET_STAT_MAX])
{
	const size_t size = VFN_NET_STAT_MAX * sizeof(value[0]);
	int ret = 0;

	if (vfn_remote_gone(dev)) {
		memcpy(value, dev->stats_last[queue], size);
		return 0;
	}
	ret = vfn_vpci_stats(&dev->pci, queue, value, VFN_NET_STAT_MAX);
	if (ret < 0)
		return ret;
	memcpy(dev->stats_last[queue], value, size);
	vfn_shadow_stats(dev, queue, value);
	return 0;
}

/* Another function counts from 0, and what was told so far goes on. dev->lock held. */
void
vfn_stats_go_on(struct vfn_dev *dev)
{
	unsigned int q, i;

	for (q = 0; q < VFN_MAX_QUEUES; q++)
		for (i = 0; i < VFN_NET_STAT_MAX; i++) {
			dev->stats_base[q][i] -= dev->stats_last[q][i];
			dev->stats_last[q][i] = 0;
		}
}

/* dev->lock held. */
static int
read_all(struct vfn_dev *dev, int queue, uint64_t value[VFN_NET_STAT_MAX])
{
	if (queue < 0 || queue >= dev->pci.nb_queues) {
		DEV_LOG(ERR, dev, "there is no queue %d, only 0 to %u", queue,
			dev->pci.nb_queues - 1);
		return -EINVAL;
	}
	return vfn_stats_all(dev, queue, value);
}

int
vfn_stats_get(struct rte_vdpa_device *vdpa, int queue, struct rte_vdpa_stat *stats, unsigned int n)
{
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(vdpa);
	uint64_t value[VFN_NET_STAT_MAX];
	unsigned int i;
	int ret;

	if (dev == NULL)
		return -ENODEV;
	n = RTE_MIN(n, (unsigned int)VFN_STATS_TOLD);
	vfn_dev_lock(dev);
	ret = read_all(dev, queue, value);
	for (i = 0; i < n && ret == 0; i++) {
		stats[i].id = i;
		stats[i].value = i < VFN_NET_STAT_MAX ?
			value[order[i]] - dev->stats_base[queue][order[i]] :
			dev->pci.failures - dev->failures_base[queue];
	}
	vfn_dev_release(dev);
	return ret < 0 ? ret : (int)n;
}

int
vfn_stats_reset(struct rte_vdpa_device *vdpa, int queue)
{
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(vdpa);
	uint64_t value[VFN_NET_STAT_MAX];
	int ret;

	if (dev == NULL)
		return -ENODEV;
	vfn_dev_lock(dev);
	ret = read_all(dev, queue, value);
	if (ret == 0) {
		memcpy(dev->stats_base[queue], value, sizeof(value));
		dev->failures_base[queue] = dev->pci.failures;
	}
	vfn_dev_release(dev);
	return ret;
}
