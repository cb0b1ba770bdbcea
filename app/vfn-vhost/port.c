/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Ports: one vDPA device served on one vhost-user socket. Created and destroyed on the main thread;
 * the connect and disconnect callbacks run on librte_vhost's event thread (its reconnect thread, or
 * the main thread while a port is destroyed).
 */

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_vhost.h>

#include "app.h"

#define MAX_PORTS 1024 /* librte_vhost's own limit */
#define NO_VID	  -1

struct port {
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct port_socket socket;
	struct rte_vdpa_device *dev;
	atomic_int vid; /**< of the connected front-end; written by the callbacks */
	bool started;
};

static struct port ports[MAX_PORTS];
static atomic_uint nb_ports; /* raised once the new entry is complete: callbacks search the table */

const char *
vdpa_name(struct rte_vdpa_device *dev)
{
	return rte_dev_name(rte_vdpa_get_rte_device(dev));
}

unsigned int
ports_count(void)
{
	return nb_ports;
}

static struct port *
find_by_vid(int vid)
{
	char path[sizeof(ports->path)];
	unsigned int i;

	if (rte_vhost_get_ifname(vid, path, sizeof(path)) != 0)
		return NULL;
	for (i = 0; i < nb_ports; i++)
		if (strcmp(ports[i].path, path) == 0)
			return &ports[i];
	return NULL;
}

static struct port *
find_by_dev(const struct rte_vdpa_device *dev)
{
	unsigned int i;

	for (i = 0; i < nb_ports; i++)
		if (ports[i].dev == dev)
			return &ports[i];
	return NULL;
}

static int
new_device(int vid)
{
	struct port *port = find_by_vid(vid);
	uint64_t features = 0;

	if (port == NULL)
		return -1;
	rte_vhost_get_negotiated_features(vid, &features);
	port->vid = vid;
	printf("port %td: %s connected, features 0x%" PRIx64 ", %u rings\n", port - ports,
		vdpa_name(port->dev), features, rte_vhost_get_vring_num(vid));
	return 0;
}

static void
destroy_device(int vid)
{
	struct port *port = find_by_vid(vid);

	if (port == NULL)
		return;
	/* A front-end that came back quickly may already be here under another vid. */
	atomic_compare_exchange_strong(&port->vid, &vid, NO_VID);
	printf("port %td: %s disconnected\n", port - ports, vdpa_name(port->dev));
}

static const struct rte_vhost_device_ops device_ops = {
	.new_device = new_device,
	.destroy_device = destroy_device,
	.new_connection = early_watch,
};

const char *
port_path(const struct rte_vdpa_device *dev)
{
	const struct port *port = find_by_dev(dev);

	return port != NULL ? port->path : NULL;
}

uint16_t
port_rings(const struct rte_vdpa_device *dev)
{
	const struct port *port = find_by_dev(dev);
	int vid = port != NULL ? port->vid : NO_VID;

	return vid != NO_VID ? rte_vhost_get_vring_num(vid) : 0;
}

static int
start(struct port *port)
{
	uint64_t flags = options.client ? RTE_VHOST_USER_CLIENT : 0;
	uint64_t protocol;

	if (rte_vhost_driver_register(port->path, flags) != 0 ||
		rte_vhost_driver_callback_register(port->path, &device_ops) != 0 ||
		rte_vhost_driver_attach_vdpa_device(port->path, port->dev) != 0) {
		report("cannot register socket %s with librte_vhost", port->path);
		return -1;
	}
	nb_ports++;
	/* Without this librte_vhost holds back what it does not offer by itself, such as CONFIG. */
	if (rte_vdpa_get_protocol_features(port->dev, &protocol) != 0 ||
		rte_vhost_driver_set_protocol_features(port->path, protocol) != 0)
		report("%s: protocol features are librte_vhost's own", port->path);
	/*
	 * A port that fails here stays in the table, unusable, and is never unregistered: that
	 * would close its descriptor again and unlink a path which somebody else has bound.
	 */
	if (rte_vhost_driver_start(port->path) != 0) {
		report("cannot start socket %s", port->path);
		return -1;
	}
	port->started = true;
	return 0;
}

int
port_create(const struct port_socket *sock, struct rte_vdpa_device *dev)
{
	struct port *port = &ports[nb_ports];
	const char *path = sock->path;
	unsigned int i;
	int lock = -1, ret;
	mode_t mask;

	if (nb_ports == MAX_PORTS) {
		report("no more than %d ports", MAX_PORTS);
		return -1;
	}
	for (i = 0; i < nb_ports; i++) {
		if (ports[i].dev == dev || strcmp(ports[i].path, path) == 0) {
			report("port %u already serves %s on %s", i, vdpa_name(ports[i].dev),
				ports[i].path);
			return -1;
		}
	}
	if (!socket_path_fits(path))
		return -1;
	if (!options.client) {
		lock = socket_claim(path);
		if (lock < 0)
			return -1;
	}

	strcpy(port->path, path);
	port->dev = dev;
	port->vid = NO_VID;
	port->socket = *sock;
	mask = umask(0);
	umask(sock->mode != 0 ? ~sock->mode & 0777 : mask);
	ret = start(port);
	umask(mask);
	if (ret == 0 && !options.client && chown(path, sock->uid, sock->gid) != 0) {
		report("cannot give socket %s to its owner: %s", path, strerror(errno));
		ret = -1;
	}
	if (lock >= 0)
		close(lock);
	if (ret == 0)
		printf("port %td: %s on %s (%s)\n", port - ports, vdpa_name(dev), path,
			options.client ? "client" : "server");
	return ret;
}

int
ports_create(const char *prefix)
{
	struct port_socket sock;
	struct rte_dev_iterator it;
	struct rte_device *dev;
	int ret;

	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it) {
		ret = device_socket(dev, prefix, &sock);
		if (ret > 0)
			ret = port_create(&sock, rte_vdpa_find_device_by_name(rte_dev_name(dev)));
		if (ret < 0)
			return -1;
	}
	return 0;
}

int
ports_resume(void)
{
	unsigned int i, n = nb_ports;
	int ret = 0;

	nb_ports = 0;
	for (i = 0; i < n; i++)
		if (port_create(&ports[i].socket, ports[i].dev) != 0)
			ret = -1;
	return ret;
}

void
ports_suspend(void)
{
	unsigned int i;
	int lock;

	for (i = nb_ports; i-- > 0;) {
		if (!ports[i].started)
			continue;
		lock = options.client ? -1 : socket_lock(ports[i].path);
		if (rte_vhost_driver_unregister(ports[i].path) != 0)
			report("cannot unregister socket %s", ports[i].path);
		if (lock >= 0)
			close(lock);
		ports[i].started = false;
	}
}

void
ports_destroy(void)
{
	ports_suspend();
	nb_ports = 0;
}
