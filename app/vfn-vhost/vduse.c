/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Devices that the kernel's own driver has instead of a front-end: those with vduse=NAME. The
 * driver does it all; here is when. Runs on the main thread.
 */

#include <errno.h>
#include <limits.h>
#include <string.h>

#include <rte_dev.h>

#include "app.h"

/* So long the process that was taken over from may need to let go. */
#define WAIT_MS 2000

/* May others have them? Then they are neither to be stopped nor to go. */
static bool ours;

/* One of the driver's functions, all of which take a device's name and a number. */
static int
call(struct rte_device *dev, const char *name, int number)
{
	struct rte_vdpa_device *vdpa = rte_vdpa_find_device_by_name(rte_dev_name(dev));
	int (*function)(const char *device, int number);

	if (!driver_function(vdpa, name, &function, sizeof(function))) {
		report("the driver of %s does not know vduse", rte_dev_name(dev));
		return -ENOTSUP;
	}
	return function(rte_dev_name(dev), number);
}

/* Of every one; the last failure counts, the others go on. */
static int
for_each(const char *function, int number)
{
	struct rte_dev_iterator it;
	struct rte_device *dev;
	char name[NAME_MAX + 1];
	int ret = 0, result;

	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it) {
		if (!device_vduse(dev, name, sizeof(name)))
			continue;
		result = call(dev, function, number);
		if (result == 0)
			continue;
		report("%s: /dev/vduse/%s: %s", rte_dev_name(dev), name,
			result == -ENOENT	 ? "this kernel has no VDUSE (modprobe vduse)" :
				result == -EBUSY ? "another process serves it" :
						   strerror(-result));
		ret = -1;
	}
	return ret;
}

/* Also for the process that takes over from us one day, and is that user. */
static int
give_all(void)
{
	struct rte_dev_iterator it;
	struct rte_device *dev;
	char name[NAME_MAX + 1], path[PATH_MAX];
	int ret = 0;

	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it) {
		if (!device_vduse(dev, name, sizeof(name)))
			continue;
		snprintf(path, sizeof(path), "/dev/vduse/%s", name);
		if (user_give(path) != 0)
			ret = -1;
	}
	return ret;
}

int
vduse_create(void)
{
	ours = options.take_over == NULL;
	if (for_each("rte_vdpa_vfn_kernel_create", 0) != 0 || give_all() != 0)
		return -1;
	return ours ? for_each("rte_vdpa_vfn_kernel_open", 0) : 0;
}

int
vduse_prepare(void)
{
	return for_each("rte_vdpa_vfn_kernel_open", WAIT_MS);
}

int
vduse_begin(void)
{
	struct rte_dev_iterator it;
	struct rte_device *dev;
	char name[NAME_MAX + 1];

	ours = true;
	if (for_each("rte_vdpa_vfn_kernel_start", 0) != 0)
		return -1;
	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it)
		if (device_vduse(dev, name, sizeof(name)))
			printf("vduse: %s on /dev/vduse/%s (vdpa dev add name %s mgmtdev vduse)\n",
				rte_dev_name(dev), name, name);
	return 0;
}

void
vduse_suspend(void)
{
	if (ours)
		for_each("rte_vdpa_vfn_kernel_stop", 0);
	ours = false;
}

int
vduse_resume(void)
{
	return vduse_prepare() == 0 ? vduse_begin() : -1;
}

void
vduse_end(void)
{
	if (ours)
		for_each("rte_vdpa_vfn_kernel_end", options.keep);
	ours = false;
}
