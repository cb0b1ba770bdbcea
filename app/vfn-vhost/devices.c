/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What was asked for on EAL's command line, against what there is: of a function that was refused
 * the guest would get none, or another's. Runs on the main thread.
 */

#include <string.h>

#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_ethdev.h>
#include <rte_kvargs.h>

#include "app.h"

#define OPTION "--vdev"

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

	RTE_EAL_DEVARGS_FOREACH(bus, asked) {
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
		const struct rte_devargs *devargs = rte_dev_devargs(dev);
		struct rte_kvargs *args =
			devargs != NULL ? rte_kvargs_parse(devargs->args, NULL) : NULL;

		if (args != NULL)
			warn(rte_dev_name(dev), args);
		rte_kvargs_free(args);
	}
}
