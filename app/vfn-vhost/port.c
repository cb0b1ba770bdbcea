/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Ports: one vDPA device served on one vhost-user socket. Created and destroyed on the main thread;
 * the connect and disconnect callbacks run on librte_vhost's event thread (or the main thread while
 * a port is destroyed). Front-ends come through the gate, which owns the socket: gate.c.
 */

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
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
	char private_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct rte_vdpa_device *dev;
	struct listener listener;
	int gate;	/**< handle */
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
	char path[sizeof(ports->private_path)];
	unsigned int i;

	if (rte_vhost_get_ifname(vid, path, sizeof(path)) != 0)
		return NULL;
	for (i = 0; i < nb_ports; i++)
		if (strcmp(ports[i].private_path, path) == 0)
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

/* The library listens where only the gate comes, or is on its own. */
static int
start(struct port *port)
{
	const char *path = port->private_path;
	uint64_t protocol, flags = 0;

	if (options.no_gate) {
		strcpy(port->private_path, port->path);
		flags = options.client ? RTE_VHOST_USER_CLIENT : 0;
	} else {
		gate_private_path(port->private_path, sizeof(port->private_path), port - ports);
	}
	if (rte_vhost_driver_register(path, flags) != 0 ||
		rte_vhost_driver_callback_register(path, &device_ops) != 0 ||
		rte_vhost_driver_attach_vdpa_device(path, port->dev) != 0) {
		report("cannot register socket %s with librte_vhost", path);
		return -1;
	}
	nb_ports++;
	/* Without this librte_vhost holds back what it does not offer by itself, such as CONFIG. */
	if (rte_vdpa_get_protocol_features(port->dev, &protocol) != 0 ||
		rte_vhost_driver_set_protocol_features(path, protocol) != 0)
		report("%s: protocol features are librte_vhost's own", port->path);
	/*
	 * A port that fails here stays in the table, unusable, and is never unregistered: that
	 * would close its descriptor again.
	 */
	if (rte_vhost_driver_start(path) != 0) {
		report("cannot start socket %s", path);
		return -1;
	}
	port->started = true;
	return 0;
}

/* Of a port that no front-end was let in to. */
static void
unlisten(struct port *port)
{
	if (port->listener.fd < 0)
		return;
	socket_remove(port->path, &port->listener);
	close(port->listener.fd);
	port->listener.fd = -1;
}

/* Everything but letting front-ends in. */
static int
prepare(const struct port_socket *sock, struct rte_vdpa_device *dev)
{
	struct port *port = &ports[nb_ports];
	const char *path = sock->path;
	unsigned int i;

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
	port->listener.fd = -1;
	if (!options.client && socket_listen(sock, &port->listener) != 0)
		return -1;
	strcpy(port->path, path);
	port->socket = *sock;
	port->dev = dev;
	port->vid = NO_VID;
	port->gate = -1;
	/* A trial: librte_vhost cannot take back a port whose bind failed. */
	if (options.no_gate)
		unlisten(port);
	if (start(port) != 0) {
		unlisten(port);
		return -1;
	}
	return 0;
}

/* Let front-ends in, who may wait at the socket already. */
static int
open_port(struct port *port)
{
	if (!options.no_gate) {
		port->gate =
			gate_serve(port->path, port->private_path, port->dev, port->listener.fd);
		if (port->gate < 0)
			return -1;
	}
	printf("port %td: %s on %s (%s)\n", port - ports, vdpa_name(port->dev), port->path,
		options.client ? "client" : "server");
	return 0;
}

int
port_create(const struct port_socket *sock, struct rte_vdpa_device *dev)
{
	unsigned int number = nb_ports;

	return prepare(sock, dev) != 0 ? -1 : open_port(&ports[number]);
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
			ret = prepare(&sock, rte_vdpa_find_device_by_name(rte_dev_name(dev)));
		if (ret < 0)
			return -1;
	}
	return 0;
}

int
ports_open(void)
{
	unsigned int i;

	for (i = 0; i < nb_ports; i++)
		if (ports[i].gate < 0 && open_port(&ports[i]) != 0)
			return -1;
	return 0;
}

int
ports_resume(void)
{
	unsigned int i, n = nb_ports;
	struct port_socket sock;
	int ret = 0;

	nb_ports = 0;
	for (i = 0; i < n; i++) {
		sock = ports[i].socket;
		if (port_create(&sock, ports[i].dev) != 0)
			ret = -1;
	}
	return ret;
}

void
ports_suspend(void)
{
	unsigned int i;

	/* The front-ends first, so that the library finds nobody to wait for. */
	for (i = nb_ports; i-- > 0;) {
		if (ports[i].gate < 0) {
			unlisten(&ports[i]);
			continue;
		}
		if (ports[i].listener.fd >= 0)
			socket_remove(ports[i].path, &ports[i].listener);
		gate_shut(ports[i].gate);
		ports[i].gate = -1;
		ports[i].listener.fd = -1;
	}
	for (i = nb_ports; i-- > 0;) {
		if (ports[i].started && rte_vhost_driver_unregister(ports[i].private_path) != 0)
			report("cannot unregister socket %s", ports[i].private_path);
		ports[i].started = false;
	}
}

void
ports_destroy(void)
{
	ports_suspend();
	nb_ports = 0;
}
