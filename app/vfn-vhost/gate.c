/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The gate (lib/gate) in front of librte_vhost: its directory, what it is told of a device, what
 * telemetry is told of it. Runs on the main thread, but for what it logs and what telemetry asks.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_telemetry.h>
#include <rte_vhost.h>

#include "app.h"
#include "gate.h"

#define PATIENCE_MS 500 /* for the library to close the connections of all sockets */
#define OWN_FDS	    256 /* of the process without front-ends, and some to spare */

static struct gate *gate;
static char directory[128];

static void
say(enum gate_log_level level, const char *line)
{
	(void)level;
	report("%s", line);
}

/* As many descriptors as one may have: front-ends bring theirs. */
static unsigned int
raise_fds(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return 0;
	return limit.rlim_cur > 2 * OWN_FDS ? limit.rlim_cur - OWN_FDS : limit.rlim_cur / 2;
}

static int
make_directory(const char *parent)
{
	snprintf(directory, sizeof(directory), "%s/gate.XXXXXX", parent);
	return mkdtemp(directory) != NULL ? 0 : -1; /* mode 0700 */
}

/* ---- telemetry ---- */

static int
add_reasons(struct rte_tel_data *d, const struct gate_stats *s)
{
	struct rte_tel_data *reasons = rte_tel_data_alloc();
	char name[RTE_TEL_MAX_STRING_LEN];
	uint32_t i;
	char *c;

	if (reasons == NULL)
		return -ENOMEM;
	rte_tel_data_start_dict(reasons);
	for (i = 0; i < s->nb_reasons; i++) {
		/* Names in telemetry have no spaces and the like. */
		snprintf(name, sizeof(name), "%s", s->reasons[i].reason);
		for (c = name; *c != '\0'; c++)
			if (strchr(" ,'", *c) != NULL)
				*c = '_';
		if (rte_tel_data_add_dict_u64(reasons, name, s->reasons[i].count) != 0)
			break; /* as many as there is room for */
	}
	return rte_tel_data_add_dict_container(d, "reasons", reasons, 0);
}

/* A socket's number; without one: 0. */
static int
asked(const char *cmd, const char *params, struct rte_tel_data *d)
{
	struct gate_stats s;
	char *end = NULL;
	long sock = params != NULL ? strtol(params, &end, 10) : 0;

	(void)cmd;
	if (end != NULL && (end == params || *end != '\0'))
		return -EINVAL;
	if (sock < 0 || sock > UINT16_MAX || gate_get_stats(gate, sock, &s) != 0)
		return -ENOENT;
	rte_tel_data_start_dict(d);
	if (rte_tel_data_add_dict_u64(d, "connections", s.connections) != 0 ||
		rte_tel_data_add_dict_u64(d, "accepted", s.accepted) != 0 ||
		rte_tel_data_add_dict_u64(d, "messages", s.messages) != 0 ||
		rte_tel_data_add_dict_u64(d, "passed", s.passed) != 0 ||
		rte_tel_data_add_dict_u64(d, "answered", s.answered) != 0 ||
		rte_tel_data_add_dict_u64(d, "refused", s.refused) != 0 ||
		rte_tel_data_add_dict_u64(d, "held_back", s.held_back) != 0 ||
		rte_tel_data_add_dict_u64(d, "descriptors_closing", s.waiting) != 0 ||
		rte_tel_data_add_dict_u64(d, "address_space", s.space) != 0)
		return -ENOSPC;
	return add_reasons(d, &s);
}

/* ---- what the rest of the program calls ---- */

int
gate_start(void)
{
	struct gate_conf conf = {.log = say, .fds_max = raise_fds()};

	/* EAL's directory may be missing with --no-shconf. */
	if (make_directory(rte_eal_get_runtime_dir()) != 0 && make_directory("/tmp") != 0) {
		report("cannot create a directory for private sockets in %s or /tmp: %s",
			rte_eal_get_runtime_dir(), strerror(errno));
		directory[0] = '\0';
		return -1;
	}
	gate = gate_open(&conf);
	if (gate == NULL) {
		report("cannot start the gate: %s", strerror(errno));
		return -1;
	}
	rte_telemetry_register_cmd("/vfn_vhost/gate", asked,
		"What the gate lets pass and refuses. Parameter: number of the socket");
	return 0;
}

void
gate_stop(void)
{
	gate_close(gate);
	gate = NULL;
	if (directory[0] != '\0' && rmdir(directory) != 0)
		report("cannot remove %s: %s", directory, strerror(errno));
	directory[0] = '\0';
}

void
gate_private_path(char *path, size_t size, unsigned int sock)
{
	int n = snprintf(path, size, "%s/%u", directory, sock);

	if (n < 0 || (size_t)n >= size)
		report("%s is too long a path for private sockets", directory);
}

static bool
is_blk(const char *path)
{
	uint32_t type;

	return rte_vhost_driver_get_vdpa_dev_type(path, &type) == 0 &&
		type == RTE_VHOST_VDPA_DEVICE_TYPE_BLK;
}

int
gate_serve(const char *path, const char *private_path, struct rte_vdpa_device *dev, int listen_fd)
{
	uint64_t (*own_features)(const char *device);
	struct gate_socket_conf conf = {.name = vdpa_name(dev),
		.path = path,
		.private_path = private_path,
		.listen_fd = listen_fd};
	uint32_t queues;
	int ret;

	/* What the library would answer itself. */
	if (rte_vhost_driver_get_features(private_path, &conf.features) != 0 ||
		rte_vhost_driver_get_protocol_features(private_path, &conf.protocol_features) !=
			0 ||
		rte_vhost_driver_get_queue_num(private_path, &queues) != 0) {
		report("%s does not say what it offers", vdpa_name(dev));
		return -1;
	}
	/* And what its driver answers. */
	if (driver_function(dev, "rte_vdpa_vfn_features", &own_features, sizeof(own_features)))
		conf.features |= own_features(vdpa_name(dev));
	conf.queues = queues;
	/*
	 * Net devices count in pairs. Behind those may come the control queue, or two more rings
	 * for data of a front-end that counts more pairs: the driver has to see both to know which.
	 */
	conf.rings = is_blk(private_path) ? queues : 2 * queues + 2;
	/* libblkio needs them; QEMU 7.2 loses dirty pages of net devices with several queues. */
	conf.slots = is_blk(private_path);
	ret = gate_add_socket(gate, &conf);
	if (ret < 0) {
		report("cannot serve %s: %s", path, strerror(-ret));
		return -1;
	}
	return ret;
}

int64_t
gate_patience(void)
{
	return now_ms() + PATIENCE_MS;
}

void
gate_shut(int handle, int64_t until)
{
	int64_t left = until - now_ms();

	if (gate_remove_socket(gate, handle, left > 0 ? left : 0) == -ETIMEDOUT)
		report("librte_vhost is slow to let go of socket %d", handle);
}
