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

#include "vfn_drv.h"
#include "vfn_telemetry.h"

#if RTE_VERSION < RTE_VERSION_NUM(23, 3, 0, 0)
#define rte_tel_data_add_dict_uint rte_tel_data_add_dict_u64
#endif

/* "NAME[,REST]": the device, locked, and REST, which is empty if there is none. */
struct vfn_dev *
vfn_telemetry_dev(const char *params, const char **rest)
{
	size_t len = params != NULL ? strcspn(params, ",") : 0;
	char name[VFN_NAME_SIZE];
	struct vfn_dev *dev;

	if (len == 0 || len >= sizeof(name)) {
		DRV_LOG(ERR, "telemetry: the name of a device is missing");
		return NULL;
	}
	rte_strscpy(name, params, len + 1);
	*rest = params[len] == ',' ? params + len + 1 : params + len;
	dev = vfn_dev_lock_by_name(name);
	if (dev == NULL)
		DRV_LOG(ERR, "telemetry: there is no device %s", name);
	return dev;
}

void
vfn_telemetry_add_hex(struct rte_tel_data *d, const char *key, uint64_t value)
{
	char text[sizeof("0x0123456789abcdef")];

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	rte_tel_data_add_dict_string(d, key, text);
}

static int
tell_list(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const struct vfn_dev *dev;

	RTE_SET_USED(cmd);
	RTE_SET_USED(params);
	rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
	pthread_mutex_lock(&vfn_devs_lock);
	TAILQ_FOREACH(dev, &vfn_devs, next)
		rte_tel_data_add_array_string(d, dev->name);
	pthread_mutex_unlock(&vfn_devs_lock);
	return 0;
}

static int
tell_info(const char *cmd, const char *params, struct rte_tel_data *d)
{
	struct virtio_net_config config = {0};
	const char *rest;
	struct vfn_dev *dev = vfn_telemetry_dev(params, &rest);
	char mac[sizeof("01:23:45:67:89:ab")];
	unsigned int q, started = 0;

	RTE_SET_USED(cmd);
	if (dev == NULL)
		return -ENODEV;
	for (q = 0; q < dev->nb_queues; q++)
		started += dev->started[q];
	vfn_pci_config(dev, &config);
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", config.mac[0], config.mac[1],
		config.mac[2], config.mac[3], config.mac[4], config.mac[5]);

	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_string(d, "name", dev->name);
	rte_tel_data_add_dict_string(d, "state", vfn_state_name(dev->state));
	rte_tel_data_add_dict_int(d, "vid", dev->state != VFN_IDLE ? dev->guest->vid : -1);
	vfn_telemetry_add_hex(d, "features", dev->features);
	vfn_telemetry_add_hex(
		d, "negotiated", dev->state != VFN_IDLE ? vfn_pci_negotiated(dev) : 0);
	rte_tel_data_add_dict_int(d, "queue_pairs", dev->max_pairs);
	rte_tel_data_add_dict_int(d, "queues_running", started);
	rte_tel_data_add_dict_string(d, "mac", mac);
	rte_tel_data_add_dict_int(d, "mtu", config.mtu);
	rte_tel_data_add_dict_string(
		d, "link", config.status & VIRTIO_NET_S_LINK_UP ? "up" : "down");
	rte_tel_data_add_dict_int(d, "stops", dev->stops);
	rte_tel_data_add_dict_int(d, "stop_us_last", dev->stop_us[0]);
	rte_tel_data_add_dict_int(d, "stop_us_max", dev->stop_us[1]);
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

static int
tell_queue(const char *cmd, const char *params, struct rte_tel_data *d)
{
	uint64_t stats[VFN_STAT_MAX];
	struct vfn_queue_info info;
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
	if (*rest < '0' || *rest > '9' || *end != '\0' || queue >= dev->nb_queues) {
		DEV_LOG(ERR, dev, "telemetry: there is no queue \"%s\", only 0 to %u", rest,
			dev->nb_queues - 1);
		pthread_mutex_unlock(&dev->lock);
		return -EINVAL;
	}
	vfn_pci_queue_info(dev, queue, &info);
	ret = vfn_pci_stats(dev, queue, stats);
	vfn_shadow_stats(dev, queue, stats);
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_int(d, "queue", queue);
	rte_tel_data_add_dict_int(d, "started", dev->started[queue]);
	rte_tel_data_add_dict_int(d, "shadowed", dev->shadow[queue] != NULL);
	rte_tel_data_add_dict_int(d, "enabled", info.enabled);
	rte_tel_data_add_dict_int(d, "suspended", info.suspended);
	rte_tel_data_add_dict_int(d, "error", info.error);
	rte_tel_data_add_dict_string(d, "doorbell", vfn_notify_state(dev, queue));
	rte_tel_data_add_dict_int(d, "size", info.ring.size);
	vfn_telemetry_add_hex(d, "desc", info.ring.desc);
	vfn_telemetry_add_hex(d, "driver", info.ring.driver);
	vfn_telemetry_add_hex(d, "device", info.ring.device);
	rte_tel_data_add_dict_int(d, "avail", info.ring.avail);
	rte_tel_data_add_dict_int(d, "used", info.ring.used);
	for (i = 0; i < VFN_STAT_MAX && ret == 0; i++)
		rte_tel_data_add_dict_uint(
			d, vfn_stat_names[i], stats[i] - dev->stats_base[queue][i]);
	pthread_mutex_unlock(&dev->lock);
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
	rte_tel_data_add_dict_string(d, "mode", vfn_lm_name(dev->lm));
	rte_tel_data_add_dict_string(d, "state",
		!dev->log.wanted    ? "off" :
			dev->log.on ? "logging" :
				      "no log");
	rte_tel_data_add_dict_uint(d, "log_bytes", dev->log.on ? dev->log.len : 0);
	rte_tel_data_add_dict_int(d, "starts", dev->log.starts);
	rte_tel_data_add_dict_int(d, "refusals", dev->log.refusals);
	rte_tel_data_add_dict_int(d, "announced", dev->log.announced);
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

static void
add_poller(struct rte_tel_data *d, const struct vfn_poller_stats *stats)
{
	struct rte_tel_data *poller = rte_tel_data_alloc();
	char key[24];

	if (poller == NULL)
		return;
	rte_tel_data_start_dict(poller);
	rte_tel_data_add_dict_string(poller, "name", stats->name);
	rte_tel_data_add_dict_int(poller, "cpu", stats->cpu);
	rte_tel_data_add_dict_uint(poller, "hz", stats->hz);
	rte_tel_data_add_dict_uint(poller, "iterations", stats->iterations);
	rte_tel_data_add_dict_uint(poller, "busy_iterations", stats->busy_iterations);
	rte_tel_data_add_dict_uint(poller, "busy_cycles", stats->busy_cycles);
	rte_tel_data_add_dict_uint(poller, "idle_cycles", stats->idle_cycles);
	rte_tel_data_add_dict_uint(poller, "packets", stats->packets);
	rte_tel_data_add_dict_uint(poller, "sleeps", stats->sleeps);
	/* The name may have a "-", and so be none that telemetry takes for a key. */
	snprintf(key, sizeof(key), "%" PRIu64, stats->id);
	if (rte_tel_data_add_dict_container(d, key, poller, 0) != 0)
		rte_tel_data_free(poller);
}

static int
tell_poller(const char *cmd, const char *params, struct rte_tel_data *d)
{
	uint64_t seen[RTE_TEL_MAX_DICT_ENTRIES];
	unsigned int nb_seen = 0, i, j;
	struct vfn_poller_stats stats;
	bool found = false;
	struct vfn_dev *dev;

	RTE_SET_USED(cmd);
	rte_tel_data_start_dict(d);
	pthread_mutex_lock(&vfn_devs_lock);
	TAILQ_FOREACH(dev, &vfn_devs, next) {
		if (params != NULL && strcmp(params, dev->name) != 0)
			continue;
		found = true;
		for (i = 0; i < dev->nb_pollers; i++) {
			if (nb_seen == RTE_DIM(seen) || vfn_pci_poller(dev, i, &stats) < 0)
				break;
			for (j = 0; j < nb_seen && seen[j] != stats.id; j++)
				;
			if (j < nb_seen)
				continue;
			seen[nb_seen++] = stats.id;
			add_poller(d, &stats);
		}
	}
	pthread_mutex_unlock(&vfn_devs_lock);
	if (found || params == NULL)
		return 0;
	DRV_LOG(ERR, "telemetry: there is no device %s", params);
	return -ENODEV;
}

void
vfn_telemetry_register(void)
{
	rte_telemetry_register_cmd("/vfn/list", tell_list, "Names of the vfn devices.");
	rte_telemetry_register_cmd(
		"/vfn/info", tell_info, "State of a device. Parameter: device name");
	rte_telemetry_register_cmd("/vfn/queue", tell_queue,
		"Position and statistics of a virtqueue. Parameters: device name, queue number");
	rte_telemetry_register_cmd(
		"/vfn/lm", tell_lm, "Live migration of a device. Parameter: device name");
	rte_telemetry_register_cmd("/vfn/poller", tell_poller,
		"Who moves the packets, and how busy it is. Parameter: device name, or none for "
		"all");
}
