/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What was asked for on EAL's command line, against what there is: of a function that was refused
 * the guest would get none, or another's. Runs on the main thread.
 */

#include <ctype.h>
#include <string.h>
#include <time.h>

#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_ethdev.h>
#include <rte_kvargs.h>

#include "app.h"

#define OPTION "--vdev"

/* A process that has a device's function, and ends or leaves it to us, has that long. */
#define READY_MS 5000

/* What argument i says of a virtual device, NULL: it is another option. */
static const char *
vdev_argument(int argc, char **argv, int i)
{
	const size_t len = sizeof(OPTION) - 1;

	if (strncmp(argv[i], OPTION, len) != 0)
		return NULL;
	if (argv[i][len] == '=')
		return argv[i] + len + 1;
	return argv[i][len] == '\0' && i + 1 < argc ? argv[i + 1] : NULL;
}

/* EAL silently takes the last of those with the same name. */
bool
devices_named_once(int argc, char **argv)
{
	const char *a, *b;
	size_t len;
	int i, j;

	for (i = 1; i < argc; i++) {
		a = vdev_argument(argc, argv, i);
		if (a == NULL)
			continue;
		len = strcspn(a, ",");
		for (j = i + 1; j < argc; j++) {
			b = vdev_argument(argc, argv, j);
			if (b != NULL && strcspn(b, ",") == len && strncmp(a, b, len) == 0) {
				report(OPTION " %.*s is given twice", (int)len, a);
				return false;
			}
		}
	}
	return true;
}

static bool
is_probed(const char *bus, const char *name)
{
	struct rte_dev_iterator it;
	struct rte_device *dev;
	bool found = false;

	RTE_DEV_FOREACH(dev, bus, &it)
		found |= strcmp(rte_dev_name(dev), name) == 0 && rte_dev_is_probed(dev);
	return found;
}

static bool
bus_complete(const char *bus, const char *filter)
{
	struct rte_devargs *asked;
	bool complete = true;

	RTE_EAL_DEVARGS_FOREACH(bus, asked)
	{
		if (asked->policy == RTE_DEV_BLOCKED || is_probed(filter, asked->name))
			continue;
		report("device %s was refused: the reason is in the log above", asked->name);
		complete = false;
	}
	return complete;
}

bool
devices_complete(void)
{
	bool vdev = bus_complete("vdev", "bus=vdev"), pci = bus_complete("pci", "bus=pci");

	return vdev && pci;
}

/* A device whose driver does not know how many queues it has. */
static const char *
not_ready(void)
{
	struct rte_dev_iterator it;
	struct rte_device *dev;
	const char *name = NULL;
	uint32_t queues;

	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it)
		if (rte_vdpa_get_queue_num(
			    rte_vdpa_find_device_by_name(rte_dev_name(dev)), &queues) < 0)
			name = rte_dev_name(dev);
	return name;
}

bool
devices_ready(void)
{
	const struct timespec nap = {.tv_nsec = 10000000};
	const char *name;
	unsigned int i;

	for (i = 0; (name = not_ready()) != NULL && i < READY_MS / 10; i++)
		nanosleep(&nap, NULL);
	if (name != NULL)
		report("device %s is in use by another process, see the log above", name);
	return name == NULL;
}

/* ---- arguments of devices ---- */

/* NULL if it has none. */
static struct rte_kvargs *
arguments(struct rte_device *dev)
{
	const struct rte_devargs *devargs = rte_dev_devargs(dev);

	return devargs != NULL && devargs->args != NULL ? rte_kvargs_parse(devargs->args, NULL) :
							  NULL;
}

/* The number that a name ends in. */
static bool
number_of(const char *name, const char **number)
{
	const char *at = name + strlen(name);

	while (at > name && isdigit((unsigned char)at[-1]))
		at--;
	*number = at;
	return *at != '\0';
}

static int
parse_socket(const char *name, const struct rte_kvargs *args, const char *prefix,
	struct socket_spec *sock)
{
	const char *path = rte_kvargs_get(args, "socket"), *number;
	const char *mode = rte_kvargs_get(args, "socket-mode");
	const char *owner = rte_kvargs_get(args, "socket-owner");
	int n;

	if (path == NULL && prefix == NULL) {
		if (mode == NULL && owner == NULL)
			return 0;
		report("%s: socket-mode and socket-owner need a socket", name);
		return -1;
	}
	if (options.client && (mode != NULL || owner != NULL)) {
		report("%s: with --client the socket's owner and mode are the front-end's", name);
		return -1;
	}
	if (options.no_gate && (mode != NULL || owner != NULL)) {
		report("%s: with --no-gate the socket is librte_vhost's: no mode, no owner", name);
		return -1;
	}
	if (path != NULL) {
		n = snprintf(sock->path, sizeof(sock->path), "%s", path);
	} else if (number_of(name, &number)) {
		n = snprintf(sock->path, sizeof(sock->path), "%s%s", prefix, number);
	} else {
		report("%s: its name has no number for --iface to end in: give it socket=PATH",
			name);
		return -1;
	}
	if ((size_t)n >= sizeof(sock->path)) {
		report("%s: the path of its socket is too long", name);
		return -1;
	}
	if (mode != NULL && !parse_mode(mode, &sock->mode)) {
		report("%s: socket-mode=%s is no octal mode", name, mode);
		return -1;
	}
	if (owner != NULL && !parse_owner(owner, &sock->uid, &sock->gid)) {
		report("%s: socket-owner=%s is no USER, USER:GROUP or :GROUP that is known", name,
			owner);
		return -1;
	}
	return 1;
}

int
device_socket(struct rte_device *dev, const char *prefix, struct socket_spec *sock)
{
	struct rte_kvargs *args = arguments(dev);
	int ret;

	*sock = (struct socket_spec){.uid = -1, .gid = -1};
	ret = parse_socket(rte_dev_name(dev), args, prefix, sock);
	rte_kvargs_free(args);
	return ret;
}

static void
warn(const char *name, const struct rte_kvargs *args)
{
	const char *peer = rte_kvargs_get(args, "peer"), *port = rte_kvargs_get(args, "ethdev");
	uint16_t id;

	if (peer != NULL && rte_vdpa_find_device_by_name(peer) == NULL)
		report("warning: %s: peer=%s names no device: its link is down until there is one",
			name, peer);
	if (port != NULL && rte_eth_dev_get_port_by_name(port, &id) != 0)
		report("warning: %s: ethdev=%s names no port: its link is down until there is one",
			name, port);
}

void
devices_warn(void)
{
	struct rte_dev_iterator it;
	struct rte_device *dev;

	RTE_DEV_FOREACH(dev, "class=vdpa", &it) {
		struct rte_kvargs *args = arguments(dev);

		if (args != NULL)
			warn(rte_dev_name(dev), args);
		rte_kvargs_free(args);
	}
}
