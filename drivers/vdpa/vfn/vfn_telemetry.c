/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Telemetry: what the devices, their queues and their migration are doing. On telemetry's threads,
 * under the device's lock.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_net.h>

#include <rte_common.h>
#include <rte_string_fns.h>
#include <rte_telemetry.h>
#include <rte_version.h>

#include <vfn_ntb_link.h>

#include "vfn_drv.h"
#include "vfn_telemetry.h"

/* Of the 16 KiB that an answer of telemetry's has, each takes up to 350 bytes. */
#define POLLERS_TOLD 40

/* Of the 16 KiB that an answer of telemetry's has, see max_output_len in its greeting. */
#define LIST_BYTES (15 * 1024)
/* What has a name in an answer is never more than fits: nothing can be refused. */
_Static_assert(VFN_STATS_MAX + 32 <= RTE_TEL_MAX_DICT_ENTRIES, "entries of /vfn/queue");

/* "NAME[,REST]": the device, locked, and REST, which is empty if there is none. */
struct vfn_dev *
vfn_telemetry_dev(const char *params, const char **rest)
{
	size_t len = params != NULL ? strcspn(params, ",") : 0;
	char name[VFN_NAME_SIZE];
	struct vfn_dev *dev;

	if (len == 0 || len >= sizeof(name)) {
		vfn_telemetry_refuse(NULL, 0, "the name of a device is missing");
		return NULL;
	}
	rte_strscpy(name, params, len + 1);
	*rest = params[len] == ',' ? params + len + 1 : params + len;
	dev = vfn_dev_lock_by_name(name);
	if (dev == NULL)
		vfn_telemetry_refuse(NULL, 0, "there is no device %s", name);
	return dev;
}

/* Names from a number on. What there is no room for is not left out without a word. */
static int
tell_list(const char *cmd, const char *params, struct rte_tel_data *d)
{
	unsigned int first = 0, i = 0, end = 0, nb_devs = 0;
	char more[RTE_TEL_MAX_STRING_LEN];
	struct vfn_dev *dev = NULL;
	size_t room = LIST_BYTES;
	bool full = false;
	char *stop;

	if (params != NULL) {
		first = strtoul(params, &stop, 10);
		if (*params < '0' || *params > '9' || *stop != '\0') {
			return vfn_telemetry_refuse(
				NULL, -EINVAL, "\"%s\" is no number to begin with", params);
		}
	}
	rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
	while ((dev = vfn_dev_get_next(dev)) != NULL)
		nb_devs++;
	while ((dev = vfn_dev_get_next(dev)) != NULL) {
		size_t len = strlen(dev->name) + 3; /* quotes and a comma */

		if (i++ < first || full)
			continue;
		/* One entry may be needed to say that it goes on. */
		full = len > room || (i < nb_devs && i - first == RTE_TEL_MAX_ARRAY_ENTRIES) ||
			rte_tel_data_add_array_string(d, dev->name) != 0;
		if (full)
			continue;
		room -= len;
		end = i;
	}
	if (end >= nb_devs || first >= nb_devs)
		return 0;
	snprintf(more, sizeof(more), "... and %u more: %s,%u", nb_devs - end, cmd, end);
	return rte_tel_data_add_array_string(d, more);
}

static void
add_argument(void *data, const char *key, const char *value)
{
	char name[32];
	char *c;

	/* Telemetry's names have no "-". */
	rte_strscpy(name, key, sizeof(name));
	for (c = name; *c != '\0'; c++)
		if (*c == '-')
			*c = '_';
	vfn_tell_string(data, name, value);
}

/* Device arguments, those that were not given too. */
static int
add_arguments(struct rte_tel_data *d, const struct vfn_dev *dev)
{
	const struct rte_devargs *devargs = rte_dev_devargs(dev->device);
	struct rte_tel_data *arguments = rte_tel_data_alloc();

	if (arguments == NULL)
		return -ENOMEM;
	rte_tel_data_start_dict(arguments);
	vfn_args_show(devargs != NULL ? devargs->args : "", add_argument, arguments);
	if (rte_tel_data_add_dict_container(d, "arguments", arguments, 0) == 0)
		return 0;
	rte_tel_data_free(arguments);
	return -ENOSPC;
}

/* What went over it since it was connected. */
static void
tell_bridge(struct vfn_dev *dev, struct rte_tel_data *d)
{
	struct ntb_stats stats;

	if (!dev->remote->bridged)
		return;
	ntb_stats(vfn_ntb_bridge(dev->pci.link), &stats);
	vfn_tell_uint(d, "bridge_flushes", stats.flushes);
	vfn_tell_uint(d, "bridge_bytes", stats.flushed_bytes);
	vfn_tell_uint(d, "bridge_doorbells", stats.doorbells);
	vfn_tell_uint(d, "bridge_reads_across", stats.reads_across);
}

static int
tell_info(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	struct vfn_dev *dev = vfn_telemetry_dev(params, &rest);
	unsigned int q, started = 0;
	int ret;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return -ENODEV;
	for (q = 0; q < dev->pci.nb_queues; q++)
		started += dev->started[q];
	rte_tel_data_start_dict(d);
	vfn_tell_string(d, "name", dev->name);
	vfn_tell_string(d, "class", dev->class->name);
	vfn_tell_string(d, "state", vfn_state_name(dev->state));
	vfn_tell_int(d, "vid", dev->guest != NULL ? dev->guest->vid : -1);
	vfn_tell_string(d, "failure", dev->pci.failed ? dev->pci.reason : "none");
	vfn_tell_uint(d, "failures", dev->pci.failures);
	if (dev->remote != NULL) {
		vfn_tell_string(d, "endpoint", dev->remote->path);
		vfn_tell_string(
			d, "endpoint_why", vfn_remote_gone(dev) ? dev->remote->why : "connected");
		vfn_tell_uint(d, "endpoint_links", dev->remote->links);
		tell_bridge(dev, d);
	}
	vfn_tell_hex(d, "features", dev->pci.features);
	vfn_tell_hex(d, "negotiated", dev->guest != NULL ? vfn_vpci_negotiated(&dev->pci) : 0);
	vfn_tell_int(d, "queues_running", started);
	dev->class->tell(dev, d);
	if (dev->iommu.on) {
		vfn_tell_uint(d, "iotlb_misses", dev->iommu.misses);
		vfn_tell_uint(d, "iotlb_unsent", dev->iommu.unsent);
		vfn_tell_uint(d, "iotlb_updates", dev->iommu.updates);
		vfn_tell_uint(d, "iotlb_invalidations", dev->iommu.invalidations);
		vfn_tell_uint(d, "iotlb_refused", dev->iommu.refused);
	}
	vfn_tell_int(d, "stops", dev->stops);
	vfn_tell_int(d, "stop_us_last", dev->stop_us[0]);
	vfn_tell_int(d, "stop_us_max", dev->stop_us[1]);
	ret = add_arguments(d, dev);
	vfn_dev_release(dev);
	return ret;
}

static int
tell_queue(const char *cmd, const char *params, struct rte_tel_data *d)
{
	uint64_t stats[VFN_STATS_MAX];
	struct vfn_vpci_queue info;
	const char *rest;
	struct vfn_dev *dev = vfn_telemetry_dev(params, &rest);
	unsigned long queue;
	unsigned int i;
	char *end;
	int ret;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return -ENODEV;
	queue = strtoul(rest, &end, 10);
	if (*rest < '0' || *rest > '9' || *end != '\0' || queue >= dev->pci.nb_queues) {
		ret = vfn_telemetry_refuse(dev, -EINVAL, "there is no queue \"%s\", only 0 to %u",
			rest, dev->pci.nb_queues - 1);
		vfn_dev_release(dev);
		return ret;
	}
	vfn_vpci_queue_info(&dev->pci, queue, &info);
	ret = vfn_stats_all(dev, queue, stats);
	rte_tel_data_start_dict(d);
	vfn_tell_int(d, "queue", queue);
	vfn_tell_string(d, "role", dev->class->role(dev, queue));
	vfn_tell_int(d, "started", dev->started[queue]);
	vfn_tell_int(d, "shadowed", dev->shadow[queue] != NULL);
	vfn_tell_int(d, "enabled", info.enabled);
	vfn_tell_int(d, "suspended", info.suspended);
	vfn_tell_int(d, "error", info.error);
	vfn_tell_string(d, "doorbell", vfn_notify_state(dev, queue));
	vfn_tell_int(d, "size", info.ring.size);
	vfn_tell_hex(d, "desc", info.ring.desc);
	vfn_tell_hex(d, "driver", info.ring.driver);
	vfn_tell_hex(d, "device", info.ring.device);
	vfn_tell_int(d, "avail", info.ring.avail);
	vfn_tell_int(d, "used", info.ring.used);
	for (i = 0; i < vfn_nb_stats(dev) && ret == 0; i++)
		vfn_tell_uint(d, vfn_stat_name(dev, i), stats[i] - dev->stats_base[queue][i]);
	vfn_dev_release(dev);
	return ret;
}

static int
tell_lm(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	struct vfn_dev *dev = vfn_telemetry_dev(params, &rest);

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return -ENODEV;
	rte_tel_data_start_dict(d);
	vfn_tell_string(d, "mode", vfn_lm_name(dev->lm));
	vfn_tell_string(d, "state",
		!dev->dirty.wanted    ? "off" :
			dev->dirty.on ? "logging" :
					"no log");
	vfn_tell_uint(d, "log_bytes", dev->dirty.on ? dev->dirty.map->len : 0);
	vfn_tell_int(d, "starts", dev->dirty.starts);
	vfn_tell_int(d, "refusals", dev->dirty.refusals);
	vfn_tell_int(d, "announced", dev->dirty.announced);
	vfn_dev_release(dev);
	return 0;
}

static int
add_poller(struct rte_tel_data *d, const struct vfn_poller_stats *stats)
{
	struct rte_tel_data *poller = rte_tel_data_alloc();
	char key[24];

	if (poller == NULL)
		return -ENOMEM;
	rte_tel_data_start_dict(poller);
	vfn_tell_string(poller, "name", stats->name);
	vfn_tell_int(poller, "cpu", stats->cpu);
	vfn_tell_uint(poller, "hz", stats->hz);
	vfn_tell_uint(poller, "iterations", stats->iterations);
	vfn_tell_uint(poller, "busy_iterations", stats->busy_iterations);
	vfn_tell_uint(poller, "busy_cycles", stats->busy_cycles);
	vfn_tell_uint(poller, "idle_cycles", stats->idle_cycles);
	vfn_tell_uint(poller, "packets", stats->chains);
	vfn_tell_uint(poller, "sleeps", stats->sleeps);
	/* The name may have a "-", and so be none that telemetry takes for a key. */
	snprintf(key, sizeof(key), "%" PRIu64, stats->id);
	if (rte_tel_data_add_dict_container(d, key, poller, 0) == 0)
		return 0;
	rte_tel_data_free(poller);
	return -ENOSPC;
}

static int
tell_poller(const char *cmd, const char *params, struct rte_tel_data *d)
{
	uint64_t seen[RTE_TEL_MAX_DICT_ENTRIES];
	unsigned int nb_seen = 0, i, j;
	int ret = 0;
	struct vfn_poller_stats stats;
	bool found = false;
	struct vfn_dev *dev = NULL;

	RTE_SET_USED(cmd);
	rte_tel_data_start_dict(d);
	while ((dev = vfn_dev_get_next(dev)) != NULL) {
		if (params != NULL && strcmp(params, dev->name) != 0)
			continue;
		found = true;
		if (dev->function == NULL && params != NULL) {
			ret = vfn_telemetry_refuse(dev, -ENOTSUP,
				"the function is behind an endpoint, %s: ask there",
				dev->remote->path);
			vfn_dev_put(dev);
			return ret;
		}
		for (i = 0; dev->function != NULL && nb_seen < RTE_DIM(seen) &&
			vfn_manage_poller_stats(dev->function, i, &stats) == 0;
			i++) {
			for (j = 0; j < nb_seen && seen[j] != stats.id; j++)
				;
			if (j < nb_seen)
				continue;
			seen[nb_seen++] = stats.id;
			if (nb_seen <= POLLERS_TOLD && ret == 0)
				ret = add_poller(d, &stats);
		}
	}
	if (nb_seen > POLLERS_TOLD)
		vfn_tell_string(d, "more", "there are more pollers: ask for those of a device");
	if (found || params == NULL)
		return ret;
	return vfn_telemetry_refuse(NULL, -ENODEV, "there is no device %s", params);
}

void
vfn_telemetry_register(void)
{
	vfn_telemetry_command("/vfn/list", tell_list,
		"Names of the vfn devices. Parameter: number of the first one, or none for 0");
	vfn_telemetry_command("/vfn/info", tell_info, "State of a device. Parameter: device name");
	vfn_telemetry_command("/vfn/queue", tell_queue,
		"Position and statistics of a virtqueue. Parameters: device name, queue number");
	vfn_telemetry_command(
		"/vfn/lm", tell_lm, "Live migration of a device. Parameter: device name");
	vfn_telemetry_command("/vfn/poller", tell_poller,
		"Who moves the packets, and how busy it is. Parameter: device name, or none for "
		"all");
}
