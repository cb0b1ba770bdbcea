/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Telemetry: what the endpoints and their queues are doing. On telemetry's threads.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>

#include <rte_common.h>
#include <rte_telemetry.h>
#include <rte_version.h>

#include <ntb.h>

#include "app.h"

#if RTE_VERSION < RTE_VERSION_NUM(23, 3, 0, 0)
#define rte_tel_data_add_dict_uint rte_tel_data_add_dict_u64
#endif

/* Every command has an answer in words: telemetry itself says no more than null. */
static int
refuse(struct rte_tel_data *d, const char *fmt, ...)
{
	char text[RTE_TEL_MAX_STRING_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	rte_tel_data_start_dict(d);
	return rte_tel_data_add_dict_string(d, "error", text);
}

static bool
is_served(const struct served *s)
{
	return s->endpoint != NULL || s->ntb_server != NULL;
}

/* "NAME[,REST]": the endpoint, with the lock held, and REST. NULL: it is said that there is none.
 */
static struct served *
find(const char *params, const char **rest, struct rte_tel_data *d)
{
	size_t len = params != NULL ? strcspn(params, ",") : 0;
	unsigned int i;

	pthread_mutex_lock(&served_lock);
	for (i = 0; i < nb_served && len > 0; i++) {
		if (strlen(served[i].args.function.name) == len &&
			strncmp(served[i].args.function.name, params, len) == 0 &&
			is_served(&served[i])) {
			*rest = params[len] == ',' ? params + len + 1 : params + len;
			return &served[i];
		}
	}
	pthread_mutex_unlock(&served_lock);
	refuse(d, len == 0 ? "the name of a function is missing" : "there is no function %.*s",
		(int)len, params);
	return NULL;
}

static int
tell_list(const char *cmd, const char *params, struct rte_tel_data *d)
{
	unsigned int i;

	RTE_SET_USED(cmd);
	RTE_SET_USED(params);
	rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
	pthread_mutex_lock(&served_lock);
	for (i = 0; i < nb_served; i++)
		if (is_served(&served[i]))
			rte_tel_data_add_array_string(d, served[i].args.function.name);
	pthread_mutex_unlock(&served_lock);
	return 0;
}

/* A register that has no side effects. */
static uint64_t
get(struct served *s, uint64_t offset, size_t len)
{
	uint64_t v = 0;

	return s->link->ops->read(s->link, VFN_REGION_BAR0, offset, &v, len) == 0 ? v : 0;
}

static void
tell_net(struct served *s, struct rte_tel_data *d)
{
	struct virtio_net_config config = {0};
	char text[32];

	s->link->ops->read(s->link, VFN_REGION_BAR0, VFN_OFF_DEVICE, &config, sizeof(config));
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", config.mac[0], config.mac[1],
		config.mac[2], config.mac[3], config.mac[4], config.mac[5]);
	rte_tel_data_add_dict_string(d, "mac", text);
	rte_tel_data_add_dict_int(d, "mtu", config.mtu);
	rte_tel_data_add_dict_int(d, "queue_pairs", config.max_virtqueue_pairs);
	rte_tel_data_add_dict_string(
		d, "link", config.status & VIRTIO_NET_S_LINK_UP ? "up" : "down");
}

static void
tell_blk(struct served *s, struct rte_tel_data *d)
{
	struct virtio_blk_config config = {0};

	s->link->ops->read(s->link, VFN_REGION_BAR0, VFN_OFF_DEVICE, &config, sizeof(config));
	rte_tel_data_add_dict_int(d, "queues", config.num_queues);
	rte_tel_data_add_dict_uint(d, "capacity_bytes", config.capacity * VFN_BLK_SECTOR);
	rte_tel_data_add_dict_int(d, "block_size", config.blk_size);
	rte_tel_data_add_dict_string(d, "cache", config.wce ? "writeback" : "writethrough");
}

static void
tell_socket(struct served *s, struct rte_tel_data *d)
{
	struct vfn_endpoint_info info;

	vfn_endpoint_info(s->endpoint, &info);
	rte_tel_data_add_dict_string(d, "socket", s->socket.path);
	rte_tel_data_add_dict_int(d, "client", info.client);
	rte_tel_data_add_dict_uint(d, "clients", info.clients);
	rte_tel_data_add_dict_string(d, "state", info.state);
	rte_tel_data_add_dict_int(d, "maps", info.maps);
	rte_tel_data_add_dict_uint(d, "map_bytes", info.map_bytes);
	rte_tel_data_add_dict_int(d, "maps_without_fd", info.unreachable);
	rte_tel_data_add_dict_int(d, "logging", info.logging);
	rte_tel_data_add_dict_uint(d, "accesses", info.accesses);
	rte_tel_data_add_dict_uint(d, "slowed", info.slowed);
	rte_tel_data_add_dict_uint(d, "refused", info.refused);
}

static void
tell_bridge(struct served *s, struct rte_tel_data *d)
{
	struct vfn_ntb_info info;
	struct ntb_stats stats;

	vfn_ntb_server_info(s->ntb_server, &info);
	ntb_stats(s->ntb, &stats);
	rte_tel_data_add_dict_string(d, "bridge", s->ntb_path);
	rte_tel_data_add_dict_int(d, "driver", info.driver);
	rte_tel_data_add_dict_uint(d, "drivers", info.drivers);
	rte_tel_data_add_dict_uint(d, "messages", info.messages);
	rte_tel_data_add_dict_uint(d, "refused", info.refused);
	rte_tel_data_add_dict_uint(d, "notified", info.notified);
	rte_tel_data_add_dict_uint(d, "bridge_flushes", stats.flushes);
	rte_tel_data_add_dict_uint(d, "bridge_bytes", stats.flushed_bytes);
	rte_tel_data_add_dict_uint(d, "bridge_doorbells", stats.doorbells);
	rte_tel_data_add_dict_uint(d, "bridge_reads_across", stats.reads_across);
}

static int
tell_info(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	struct served *s = find(params, &rest, d);
	char text[32];

	RTE_SET_USED(cmd);
	if (s == NULL)
		return 0;
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_string(d, "name", s->args.function.name);
	rte_tel_data_add_dict_string(d, "class", s->is_blk ? "blk" : "net");
	rte_tel_data_add_dict_string(d, "control", s->host_control ? "host" : "endpoint");
	snprintf(text, sizeof(text), "0x%02x",
		(unsigned int)get(s, offsetof(struct vfn_common_cfg, device_status), 1));
	rte_tel_data_add_dict_string(d, "device_status", text);
	if (s->is_blk)
		tell_blk(s, d);
	else
		tell_net(s, d);
	if (s->endpoint != NULL)
		tell_socket(s, d);
	else
		tell_bridge(s, d);
	pthread_mutex_unlock(&served_lock);
	return 0;
}

static int
tell_queue(const char *cmd, const char *params, struct rte_tel_data *d)
{
	/* clang-format off */
#define X(symbol, name) [VFN_STAT_##symbol] = name,
	static const char *const net_names[VFN_NET_STAT_MAX] = {
		VFN_QUEUE_STATS(X)
		VFN_NET_STATS(X)
	};
	static const char *const blk_names[VFN_BLK_STAT_MAX] = {
		VFN_QUEUE_STATS(X)
		VFN_BLK_STATS(X)
	};
#undef X
	/* clang-format on */
	uint64_t stats[VFN_STATS_MAX];
	const char *const *names;
	const char *rest;
	struct served *s = find(params, &rest, d);
	unsigned long queue, nb_queues;
	unsigned int i, n;
	char *end;

	RTE_SET_USED(cmd);
	if (s == NULL)
		return 0;
	names = s->is_blk ? blk_names : net_names;
	n = s->is_blk ? (unsigned int)VFN_BLK_STAT_MAX : VFN_NET_STAT_MAX;
	queue = strtoul(rest, &end, 10);
	nb_queues = get(s, offsetof(struct vfn_common_cfg, num_queues), 2);
	if (*rest < '0' || *rest > '9' || *end != '\0' || queue >= nb_queues) {
		pthread_mutex_unlock(&served_lock);
		return refuse(d, "there is no queue \"%s\", only 0 to %lu", rest, nb_queues - 1);
	}
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_int(d, "queue", queue);
	if (s->link->ops->read(s->link, VFN_REGION_BAR0, VFN_OFF_STATS + queue * VFN_STATS_STEP,
		    stats, n * sizeof(stats[0])) == 0)
		for (i = 0; i < n; i++)
			rte_tel_data_add_dict_uint(d, names[i], stats[i]);
	pthread_mutex_unlock(&served_lock);
	return 0;
}

static int
ask_removal(const char *cmd, const char *params, struct rte_tel_data *d)
{
	const char *rest;
	struct served *s = find(params, &rest, d);
	int ret;

	RTE_SET_USED(cmd);
	if (s == NULL)
		return 0;
	ret = s->endpoint != NULL ? vfn_endpoint_ask_removal(s->endpoint) : -ENOTSUP;
	pthread_mutex_unlock(&served_lock);
	if (ret < 0)
		return refuse(d, "%s",
			ret == -ENOTCONN ? "there is no client" :
					   "the client does not listen to that");
	rte_tel_data_start_dict(d);
	return rte_tel_data_add_dict_string(d, "asked", "to let go of the device");
}

RTE_INIT(register_commands)
{
	rte_telemetry_register_cmd("/vfn_endpoint/list", tell_list, "Names of the functions");
	rte_telemetry_register_cmd("/vfn_endpoint/info", tell_info,
		"A function, its client and what that asks for. Parameter: name");
	rte_telemetry_register_cmd("/vfn_endpoint/queue", tell_queue,
		"Statistics of a virtqueue. Parameters: name, queue number");
	rte_telemetry_register_cmd("/vfn_endpoint/remove", ask_removal,
		"Ask the client to let go of the device. Parameter: name");
}
