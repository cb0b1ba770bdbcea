/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Sockets: one vDPA device served on one vhost-user socket. Created and destroyed on the main
 * thread; the connect and disconnect callbacks run on librte_vhost's event thread (or the main
 * thread while a socket is destroyed). Front-ends come through the gate, which owns the socket:
 * gate.c.
 */

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_vhost.h>

#include "app.h"

#define MAX_SOCKETS 1024 /* librte_vhost's own limit */
#define NO_VID	    -1

struct served {
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct socket_spec socket;
	char private_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct rte_vdpa_device *dev;
	struct listener listener;
	int gate;			/**< handle */
	atomic_int vid;			/**< of the connected front-end; written by the callbacks */
	int (*new_connection)(int vid); /**< of the driver, or NULL */
	bool started;
};

static struct served all[MAX_SOCKETS];
static atomic_uint
	nb_served; /* raised once the new entry is complete: callbacks search the table */

const char *
vdpa_name(struct rte_vdpa_device *dev)
{
	return rte_dev_name(rte_vdpa_get_rte_device(dev));
}

unsigned int
serving_count(void)
{
	return nb_served;
}

static struct served *
find_by_vid(int vid)
{
	char path[sizeof(all->private_path)];
	unsigned int i;

	if (rte_vhost_get_ifname(vid, path, sizeof(path)) != 0)
		return NULL;
	for (i = 0; i < nb_served; i++)
		if (strcmp(all[i].private_path, path) == 0)
			return &all[i];
	return NULL;
}

static struct served *
find_by_dev(const struct rte_vdpa_device *dev)
{
	unsigned int i;

	for (i = 0; i < nb_served; i++)
		if (all[i].dev == dev)
			return &all[i];
	return NULL;
}

/* A driver that can is to see the connection's messages from the first one on. */
static int
new_connection(int vid)
{
	struct served *s = find_by_vid(vid);

	return s == NULL ? -1 : s->new_connection != NULL ? s->new_connection(vid) : 0;
}

static int
new_device(int vid)
{
	struct served *s = find_by_vid(vid);
	int (*negotiated)(int vid, uint64_t *features);
	uint64_t features = 0;

	if (s == NULL)
		return -1;
	if (!driver_function(s->dev, "rte_vdpa_vfn_negotiated", &negotiated, sizeof(negotiated)) ||
		negotiated(vid, &features) < 0)
		rte_vhost_get_negotiated_features(vid, &features);
	s->vid = vid;
	printf("socket %td: %s connected, features 0x%" PRIx64 ", %u rings\n", s - all,
		vdpa_name(s->dev), features, rte_vhost_get_vring_num(vid));
	return 0;
}

static void
destroy_device(int vid)
{
	struct served *s = find_by_vid(vid);

	if (s == NULL)
		return;
	/* A front-end that came back quickly may already be here under another vid. */
	atomic_compare_exchange_strong(&s->vid, &vid, NO_VID);
	printf("socket %td: %s disconnected\n", s - all, vdpa_name(s->dev));
}

static const struct rte_vhost_device_ops device_ops = {
	.new_connection = new_connection,
	.new_device = new_device,
	.destroy_device = destroy_device,
};

const char *
served_path(const struct rte_vdpa_device *dev)
{
	const struct served *s = find_by_dev(dev);

	return s != NULL ? s->path : NULL;
}

uint16_t
served_rings(const struct rte_vdpa_device *dev)
{
	const struct served *s = find_by_dev(dev);
	int vid = s != NULL ? s->vid : NO_VID;

	return vid != NO_VID ? rte_vhost_get_vring_num(vid) : 0;
}

/* The library listens where only the gate comes, or is on its own. */
static int
start(struct served *s)
{
	const char *path = s->private_path;
	uint64_t protocol, features, flags = 0;
	uint32_t type;

	if (options.no_gate) {
		strcpy(s->private_path, s->path);
		flags = options.client ? RTE_VHOST_USER_CLIENT : 0;
	} else {
		gate_private_path(s->private_path, sizeof(s->private_path), s - all);
	}
	if (rte_vhost_driver_register(path, flags) != 0 ||
		rte_vhost_driver_callback_register(path, &device_ops) != 0 ||
		rte_vhost_driver_attach_vdpa_device(path, s->dev) != 0) {
		report("cannot register socket %s with librte_vhost", path);
		return -1;
	}
	driver_function(s->dev, "rte_vdpa_vfn_new_connection", &s->new_connection,
		sizeof(s->new_connection));
	nb_served++;
	/* Without this librte_vhost takes every device for its own net device, bit by bit. */
	if (rte_vhost_driver_get_vdpa_dev_type(path, &type) == 0 &&
		type != RTE_VHOST_VDPA_DEVICE_TYPE_NET &&
		(rte_vdpa_get_features(s->dev, &features) != 0 ||
			rte_vhost_driver_set_features(path, features) != 0))
		report("%s: features are librte_vhost's own", s->path);
	/* Without this librte_vhost holds back what it does not offer by itself, such as CONFIG. */
	if (rte_vdpa_get_protocol_features(s->dev, &protocol) != 0 ||
		rte_vhost_driver_set_protocol_features(path, protocol) != 0)
		report("%s: protocol features are librte_vhost's own", s->path);
	/*
	 * A socket that fails here stays in the table, unusable, and is never unregistered: that
	 * would close its descriptor again.
	 */
	if (rte_vhost_driver_start(path) != 0) {
		report("cannot start socket %s", path);
		return -1;
	}
	s->started = true;
	return 0;
}

/* Of a socket that no front-end was let in to. */
static void
unlisten(struct served *s)
{
	if (s->listener.fd < 0)
		return;
	socket_remove(s->path, &s->listener);
	close(s->listener.fd);
	s->listener.fd = -1;
}

/* Everything but letting front-ends in. */
static int
prepare(const struct socket_spec *sock, struct rte_vdpa_device *dev)
{
	struct served *s = &all[nb_served];
	const char *path = sock->path;
	char name[256];
	unsigned int i;

	if (device_vduse(rte_vdpa_get_rte_device(dev), name, sizeof(name))) {
		report("%s is the kernel's: /dev/vduse/%s", vdpa_name(dev), name);
		return -1;
	}
	if (nb_served == MAX_SOCKETS) {
		report("no more than %d sockets", MAX_SOCKETS);
		return -1;
	}
	for (i = 0; i < nb_served; i++) {
		if (all[i].dev == dev || strcmp(all[i].path, path) == 0) {
			report("socket %u already serves %s on %s", i, vdpa_name(all[i].dev),
				all[i].path);
			return -1;
		}
	}
	if (!socket_path_fits(path))
		return -1;
	s->listener.fd = -1;
	if (!options.client && socket_listen(sock, &s->listener) != 0)
		return -1;
	strcpy(s->path, path);
	s->socket = *sock;
	s->dev = dev;
	s->vid = NO_VID;
	s->gate = -1;
	/* A trial: librte_vhost cannot take back a socket whose bind failed. */
	if (options.no_gate)
		unlisten(s);
	if (start(s) != 0) {
		unlisten(s);
		return -1;
	}
	return 0;
}

/* Let front-ends in, who may wait at the socket already. */
static int
let_in(struct served *s)
{
	if (!options.no_gate) {
		s->gate = gate_serve(s->path, s->private_path, s->dev, s->listener.fd);
		if (s->gate < 0)
			return -1;
	}
	printf("socket %td: %s on %s (%s)\n", s - all, vdpa_name(s->dev), s->path,
		options.client ? "client" : "server");
	return 0;
}

int
serve_device(const struct socket_spec *sock, struct rte_vdpa_device *dev)
{
	unsigned int number = nb_served;

	return prepare(sock, dev) != 0 ? -1 : let_in(&all[number]);
}

int
serving_prepare(const char *prefix)
{
	struct socket_spec sock;
	struct rte_dev_iterator it;
	struct rte_device *dev;
	int ret;

	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it) {
		ret = device_socket(dev, prefix, &sock);
		if (ret > 0)
			ret = prepare(&sock, rte_vdpa_find_device_by_name(rte_dev_name(dev)));
		if (ret < 0)
			return -1;
	}
	return vduse_prepare();
}

int
serving_begin(void)
{
	unsigned int i;

	for (i = 0; i < nb_served; i++)
		if (all[i].gate < 0 && let_in(&all[i]) != 0)
			return -1;
	return vduse_begin();
}

int
serving_resume(void)
{
	unsigned int i, n = nb_served;
	struct socket_spec sock;
	int ret = 0;

	nb_served = 0;
	for (i = 0; i < n; i++) {
		sock = all[i].socket;
		if (serve_device(&sock, all[i].dev) != 0)
			ret = -1;
	}
	if (vduse_resume() != 0)
		ret = -1;
	return ret;
}

void
serving_suspend(void)
{
	const int64_t until = gate_patience();
	unsigned int i;

	vduse_suspend();
	/* The front-ends first, so that the library finds nobody to wait for. */
	for (i = nb_served; i-- > 0;) {
		if (all[i].gate < 0) {
			unlisten(&all[i]);
			continue;
		}
		if (all[i].listener.fd >= 0)
			socket_remove(all[i].path, &all[i].listener);
		gate_shut(all[i].gate, until);
		all[i].gate = -1;
		all[i].listener.fd = -1;
	}
	for (i = nb_served; i-- > 0;) {
		if (all[i].started && rte_vhost_driver_unregister(all[i].private_path) != 0)
			report("cannot unregister socket %s", all[i].private_path);
		all[i].started = false;
	}
}

void
serving_end(void)
{
	vduse_end();
	serving_suspend();
	nb_served = 0;
}
