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

static const char *const queue_names[] = {
#define X(symbol, name) [VFN_STAT_##symbol] = name,
	VFN_QUEUE_STATS(X)
#undef X
};

unsigned int
vfn_nb_stats(const struct vfn_dev *dev)
{
	return VFN_STAT_CLASS + dev->class->nb_stats;
}

const char *
vfn_stat_name(const struct vfn_dev *dev, unsigned int stat)
{
	return stat < VFN_STAT_CLASS ? queue_names[stat] : dev->class->stats[stat - VFN_STAT_CLASS];
}

/* What is told first: what the queue is for. */
static unsigned int
order(const struct vfn_dev *dev, unsigned int i)
{
	return i < dev->class->nb_stats ? VFN_STAT_CLASS + i : i - dev->class->nb_stats;
}

/* Beside the function's counters: how often it has failed, the same for all of its queues. */
static unsigned int
nb_told(const struct vfn_dev *dev)
{
	return vfn_nb_stats(dev) + 1;
}

int
vfn_stats_names(struct rte_vdpa_device *vdpa, struct rte_vdpa_stat_name *names, unsigned int size)
{
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(vdpa);
	unsigned int i;
	int n;

	if (dev == NULL)
		return -ENODEV;
	n = nb_told(dev);
	if (names != NULL)
		for (i = 0; i < RTE_MIN(size, (unsigned int)n); i++)
			rte_strscpy(names[i].name,
				i < vfn_nb_stats(dev) ? vfn_stat_name(dev, order(dev, i)) :
							"failures",
				sizeof(names[i].name));
	vfn_dev_put(dev);
	return n;
}

/*
 * Counters of a queue that there is. Behind an endpoint that does not tell: as they were read last.
 * dev->lock held.
 */
int
vfn_stats_all(struct vfn_dev *dev, uint16_t queue, uint64_t value[VFN_STATS_MAX])
{
	const size_t size = vfn_nb_stats(dev) * sizeof(value[0]);
	int ret = -ENODEV;

	if (!vfn_remote_gone(dev))
		ret = vfn_vpci_stats(&dev->pci, queue, value, vfn_nb_stats(dev));
	if (ret < 0 && dev->remote == NULL)
		return ret;
	if (ret < 0) {
		vfn_remote_check(dev);
		memcpy(value, dev->stats_last[queue], size);
	} else {
		memcpy(dev->stats_last[queue], value, size);
	}
	vfn_shadow_stats(dev, queue, value);
	return 0;
}

/* Another function counts from 0, and what was told so far goes on. dev->lock held. */
void
vfn_stats_go_on(struct vfn_dev *dev)
{
	unsigned int q, i;

	for (q = 0; q < VFN_MAX_QUEUES; q++)
		for (i = 0; i < VFN_STATS_MAX; i++) {
			dev->stats_base[q][i] -= dev->stats_last[q][i];
			dev->stats_last[q][i] = 0;
		}
}

/* dev->lock held. */
static int
read_all(struct vfn_dev *dev, int queue, uint64_t value[VFN_STATS_MAX])
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
	uint64_t value[VFN_STATS_MAX] = {0};
	unsigned int i;
	int ret;

	if (dev == NULL)
		return -ENODEV;
	n = RTE_MIN(n, nb_told(dev));
	vfn_dev_lock(dev);
	ret = read_all(dev, queue, value);
	for (i = 0; i < n && ret == 0; i++) {
		stats[i].id = i;
		stats[i].value = i < vfn_nb_stats(dev) ?
			value[order(dev, i)] - dev->stats_base[queue][order(dev, i)] :
			dev->pci.failures - dev->failures_base[queue];
	}
	vfn_dev_release(dev);
	return ret < 0 ? ret : (int)n;
}

int
vfn_stats_reset(struct rte_vdpa_device *vdpa, int queue)
{
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(vdpa);
	uint64_t value[VFN_STATS_MAX] = {0};
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
