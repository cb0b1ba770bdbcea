/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Does the running libdpdk lay a device out as this build does? Runs on the thread that probes.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_bus.h>
#include <rte_log.h>
#include <rte_version.h>

#include <vfn_sdk.h>

RTE_LOG_REGISTER(vfn_sdk_logtype, pmd.vdpa.vfn.sdk, NOTICE)

#if !defined(VFN_REAL_SDK) && UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(struct rte_driver) == 32, "rte_driver of DPDK 22.11 to 25.11");
_Static_assert(sizeof(struct rte_device) == 64, "rte_device of DPDK 22.11 to 25.11");
_Static_assert(sizeof(struct rte_vdev_device) == 80, "rte_vdev_device of DPDK 22.11 to 25.11");
_Static_assert(sizeof(struct rte_vdev_driver) == 88, "rte_vdev_driver of DPDK 22.11 to 25.11");
_Static_assert(sizeof(struct rte_vdpa_dev_ops) == 144, "rte_vdpa_dev_ops of DPDK 22.11 to 25.11");
#endif

/*
 * The accessors start from &vdev->device, which is itself a matter of layout: were the list link
 * before it of another size, both sides would read the same wrong words and agree. The address of
 * the bus comes from elsewhere and settles it, so it is looked at first.
 */
static bool
bus_agrees(const struct rte_device *dev)
{
	const struct rte_bus *vdev_bus = rte_bus_find_by_name("vdev");

	return vdev_bus != NULL && dev->bus == vdev_bus && rte_dev_bus(dev) == vdev_bus;
}

/* NULL in a first probe: the virtual bus sets it after the probe function has returned. */
static bool
driver_agrees(const struct rte_device *dev)
{
	const struct rte_driver *driver = rte_dev_driver(dev);

	return dev->driver == driver && (driver == NULL || driver->name == rte_driver_name(driver));
}

static int
refuse(const char *field)
{
	rte_log(RTE_LOG_ERR, vfn_sdk_logtype,
		"VFN_SDK: rte_device.%s is not where %s has it (driver built for %d.%02d)\n", field,
		rte_version(), RTE_VER_YEAR, RTE_VER_MONTH);
	return -EPROTO;
}

int
vfn_sdk_check(const struct rte_vdev_device *vdev)
{
	const struct rte_device *dev = &vdev->device;
	int ret = 0;

	if (!bus_agrees(dev))
		return refuse("bus");
	if (dev->name != rte_dev_name(dev))
		ret = refuse("name");
	if (dev->devargs != rte_dev_devargs(dev))
		ret = refuse("devargs");
	if (!driver_agrees(dev))
		ret = refuse("driver");
	if (dev->bus_info != rte_dev_bus_info(dev))
		ret = refuse("bus_info");
	if (dev->numa_node != rte_dev_numa_node(dev))
		ret = refuse("numa_node");
	return ret;
}
