/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * An application like any other that has vDPA devices: a socket for each, registered with
 * librte_vhost directly, and nothing in front of it. So the driver is tested alone.
 *
 *   bare_server EAL-ARGS -- [--early] PREFIX      sockets PREFIX0, PREFIX1, ...
 *
 * --early: it has the driver told of connections when they begin. Ends on SIGTERM.
 */

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_vdpa.h>
#include <rte_vhost.h>

#define MAX_PORTS 16

static char paths[MAX_PORTS][PATH_MAX];
static struct rte_vdpa_device *devs[MAX_PORTS];
static int (*told)(int vid);

static int
new_connection(int vid)
{
	return told != NULL ? told(vid) : 0;
}

static int
new_device(int vid)
{
	printf("vid %d connected\n", vid);
	return 0;
}

static void
destroy_device(int vid)
{
	printf("vid %d disconnected\n", vid);
}

static const struct rte_vhost_device_ops ops = {
	.new_device = new_device,
	.destroy_device = destroy_device,
	.new_connection = new_connection,
};

static int
find_function(struct rte_vdpa_device *dev)
{
	const struct rte_driver *driver = rte_dev_driver(rte_vdpa_get_rte_device(dev));
	void *library, *symbol = NULL;
	Dl_info info;

	if (dladdr(driver, &info) != 0) {
		library = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
		if (library != NULL)
			symbol = dlsym(library, "rte_vdpa_vfn_new_connection");
	}
	memcpy(&told, &symbol, sizeof(told));
	return told != NULL ? 0 : -1;
}

static int
serve(const char *prefix)
{
	unsigned int n;

	for (n = 0; n < MAX_PORTS; n++) {
		char name[32];
		uint64_t protocol;

		snprintf(name, sizeof(name), "vdpa_vfn%u", n);
		devs[n] = rte_vdpa_find_device_by_name(name);
		if (devs[n] == NULL)
			break;
		snprintf(paths[n], sizeof(paths[n]), "%s%u", prefix, n);
		if (rte_vhost_driver_register(paths[n], 0) < 0 ||
			rte_vhost_driver_callback_register(paths[n], &ops) < 0 ||
			rte_vhost_driver_attach_vdpa_device(paths[n], devs[n]) < 0 ||
			rte_vdpa_get_protocol_features(devs[n], &protocol) < 0 ||
			rte_vhost_driver_set_protocol_features(paths[n], protocol) < 0 ||
			rte_vhost_driver_start(paths[n]) < 0)
			return -1;
	}
	return n;
}

int
main(int argc, char **argv)
{
	bool early;
	sigset_t end;
	int args, ports, number, i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	/* For every thread that will be. */
	sigprocmask(SIG_BLOCK, &end, NULL);
	args = rte_eal_init(argc, argv);
	if (args < 0)
		return 1;
	argc -= args;
	argv += args;
	early = argc > 1 && strcmp(argv[1], "--early") == 0;
	if (argc != 2 + early)
		return 2;
	if (early && find_function(rte_vdpa_find_device_by_name("vdpa_vfn0")) < 0)
		return 3;
	ports = serve(argv[1 + early]);
	if (ports <= 0)
		return 4;
	printf("bare_server: ready, %d sockets\n", ports);
	sigwait(&end, &number);
	for (i = 0; i < ports; i++)
		rte_vhost_driver_unregister(paths[i]);
	return rte_eal_cleanup() < 0;
}
