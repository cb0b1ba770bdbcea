/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Telemetry: what the endpoints and their queues are doing. On telemetry's threads.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_net.h>

#include <rte_common.h>
#include <rte_telemetry.h>
#include <rte_version.h>

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

/* "NAME[,REST]": the endpoint, with the lock held, and REST. NULL: it is said that there is none. */
static struct served *
find(const char *params, const char **rest, struct rte_tel_data *d)
{
	size_t len = params != NULL ? strcspn(params, ",") : 0;
	unsigned int i;

	pthread_mutex_lock(&served_lock);
	for (i = 0; i < nb_served && len > 0; i++) {
		if (strlen(served[i].args.function.name) == len &&
			strncmp(served[i].args.function.name, params, len) == 0 &&
			served[i].endpoint != NULL) {
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
		if (served[i].endpoint != NULL)
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

static int
tell_info(const char *cmd, const char *params, struct rte_tel_data *d)
{
	struct virtio_net_config config = {0};
	struct vfn_endpoint_info info;
	const char *rest;
	struct served *s = find(params, &rest, d);
	char text[32];

	RTE_SET_USED(cmd);
	if (s == NULL)
		return 0;
	vfn_endpoint_info(s->endpoint, &info);
	s->link->ops->read(s->link, VFN_REGION_BAR0, VFN_OFF_DEVICE, &config, sizeof(config));
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_string(d, "name", s->args.function.name);
	rte_tel_data_add_dict_string(d, "socket", s->socket.path);
	rte_tel_data_add_dict_string(d, "control", s->host_control ? "host" : "endpoint");
	rte_tel_data_add_dict_int(d, "client", info.client);
	rte_tel_data_add_dict_uint(d, "clients", info.clients);
	rte_tel_data_add_dict_string(d, "state", info.state);
	snprintf(text, sizeof(text), "0x%02x",
		(unsigned int)get(s, offsetof(struct vfn_common_cfg, device_status), 1));
	rte_tel_data_add_dict_string(d, "device_status", text);
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", config.mac[0], config.mac[1],
		config.mac[2], config.mac[3], config.mac[4], config.mac[5]);
	rte_tel_data_add_dict_string(d, "mac", text);
	rte_tel_data_add_dict_int(d, "mtu", config.mtu);
	rte_tel_data_add_dict_int(d, "queue_pairs", config.max_virtqueue_pairs);
	rte_tel_data_add_dict_string(
		d, "link", config.status & VIRTIO_NET_S_LINK_UP ? "up" : "down");
	rte_tel_data_add_dict_int(d, "maps", info.maps);
	rte_tel_data_add_dict_uint(d, "map_bytes", info.map_bytes);
	rte_tel_data_add_dict_int(d, "maps_without_fd", info.unreachable);
	rte_tel_data_add_dict_int(d, "logging", info.logging);
	rte_tel_data_add_dict_uint(d, "accesses", info.accesses);
	rte_tel_data_add_dict_uint(d, "slowed", info.slowed);
	rte_tel_data_add_dict_uint(d, "refused", info.refused);
	pthread_mutex_unlock(&served_lock);
	return 0;
}

static int
tell_queue(const char *cmd, const char *params, struct rte_tel_data *d)
{
	/* clang-format off */
	static const char *const names[VFN_NET_STAT_MAX] = {
#define X(symbol, name) [VFN_STAT_##symbol] = name,
		VFN_QUEUE_STATS(X)
		VFN_NET_STATS(X)
#undef X
	};
	/* clang-format on */
	uint64_t stats[VFN_NET_STAT_MAX];
	const char *rest;
	struct served *s = find(params, &rest, d);
	unsigned long queue, nb_queues;
	unsigned int i;
	char *end;

	RTE_SET_USED(cmd);
	if (s == NULL)
		return 0;
	queue = strtoul(rest, &end, 10);
	nb_queues = get(s, offsetof(struct vfn_common_cfg, num_queues), 2);
	if (*rest < '0' || *rest > '9' || *end != '\0' || queue >= nb_queues) {
		pthread_mutex_unlock(&served_lock);
		return refuse(d, "there is no queue \"%s\", only 0 to %lu", rest, nb_queues - 1);
	}
	rte_tel_data_start_dict(d);
	rte_tel_data_add_dict_int(d, "queue", queue);
	if (s->link->ops->read(s->link, VFN_REGION_BAR0, VFN_OFF_STATS + queue * VFN_STATS_STEP,
		    stats, sizeof(stats)) == 0)
		for (i = 0; i < VFN_NET_STAT_MAX; i++)
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
	ret = vfn_endpoint_ask_removal(s->endpoint);
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
