/* SPDX-License-Identifier: BSD-3-Clause */

/**
 * @file
 * Declarations of DPDK's device, driver and virtual-bus structures for a libdpdk without SDK
 * headers.
 *
 * Include vfn_sdk.h, not this file. The layout is the same in every release from 22.11 to 25.11.
 */

#ifndef VFN_SDK_VDEV_H
#define VFN_SDK_VDEV_H

#include <stddef.h>
#include <stdint.h>

#include <rte_common.h>
#include <rte_compat.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_version.h>

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "vfn: DPDK older than 22.11 has other driver structures; use DPDK 22.11 or later"
#endif
#if RTE_VERSION >= RTE_VERSION_NUM(26, 3, 0, 0)
#error "vfn: our SDK declarations end at DPDK 25.11; build DPDK with -Denable_driver_sdk=true"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** What every kind of driver has in common. */
struct rte_driver {
	RTE_TAILQ_ENTRY(rte_driver) next; /**< Link owned by the bus. */
	const char *name;		  /**< Name that devices are matched with. */
	const char *alias;		  /**< Second name, or NULL. */
};

/** What every kind of device has in common. */
struct rte_device {
	RTE_TAILQ_ENTRY(rte_device) next; /**< Link owned by the bus. */
	const char *name;		  /**< Unique on its bus. */
	const char *bus_info;		  /**< Free text from the bus, or NULL. */
	const struct rte_driver *driver;  /**< NULL until a probe function has returned 0. */
	const struct rte_bus *bus;	  /**< Bus that found the device; opaque here. */
	int numa_node;			  /**< Node, or SOCKET_ID_ANY. */
	struct rte_devargs *devargs;	  /**< Arguments of the last probe. */
};

/** A device on the virtual bus. */
struct rte_vdev_device {
	RTE_TAILQ_ENTRY(rte_vdev_device) next; /**< Link owned by the bus. */
	struct rte_device device;	       /**< The generic part. */
};

/** Virtual-bus device around a generic device. */
#define RTE_DEV_TO_VDEV(ptr) container_of(ptr, struct rte_vdev_device, device)

/** The same for a pointer to const. */
#define RTE_DEV_TO_VDEV_CONST(ptr) container_of(ptr, const struct rte_vdev_device, device)

/** Name of a device, NULL if it has none. */
static inline const char *
rte_vdev_device_name(const struct rte_vdev_device *dev)
{
	return dev != NULL ? dev->device.name : NULL;
}

/** Arguments of a device as the user wrote them, "" if there are none. */
static inline const char *
rte_vdev_device_args(const struct rte_vdev_device *dev)
{
	return dev != NULL && dev->device.devargs != NULL ? dev->device.devargs->args : "";
}

/** Take over a device; 0, or a negative errno to leave it alone. */
typedef int(rte_vdev_probe_t)(struct rte_vdev_device *dev);

/** Give a device back; 0 on success. */
typedef int(rte_vdev_remove_t)(struct rte_vdev_device *dev);

/** Show the device len bytes at addr under iova; negative with rte_errno set on failure. */
typedef int(rte_vdev_dma_map_t)(struct rte_vdev_device *dev, void *addr, uint64_t iova, size_t len);

/** Undo rte_vdev_dma_map_t. */
typedef int(rte_vdev_dma_unmap_t)(
	struct rte_vdev_device *dev, void *addr, uint64_t iova, size_t len);

/** A driver of the virtual bus; it gets each device whose name starts with its own. */
struct rte_vdev_driver {
	RTE_TAILQ_ENTRY(rte_vdev_driver) next; /**< Link owned by the bus. */
	struct rte_driver driver;	       /**< The generic part. */
	rte_vdev_probe_t *probe;
	rte_vdev_remove_t *remove;
	rte_vdev_dma_map_t *dma_map;	 /**< NULL if the device sees all memory. */
	rte_vdev_dma_unmap_t *dma_unmap; /**< Goes with dma_map. */
	uint32_t drv_flags;		 /**< RTE_VDEV_DRV_*. */
};

/** Refuse to probe when IOVAs are physical addresses. */
#define RTE_VDEV_DRV_NEED_IOVA_AS_VA 0x0001

/** Add a driver to the virtual bus; devices that are there already are probed by EAL, not here. */
__rte_internal void rte_vdev_register(struct rte_vdev_driver *driver);

/** Take a driver off the virtual bus; none of its devices may be left. */
__rte_internal void rte_vdev_unregister(struct rte_vdev_driver *driver);

/*
 * The export macros leave symbols behind that pmdinfo.py reads. They moved in DPDK 25.07 from the
 * public rte_dev.h, where RTE_PMD_EXPORT_NAME takes a number as well, to the SDK.
 */
#ifdef RTE_PMD_EXPORT_NAME
#define VFN_SDK_EXPORT_NAME(nm) RTE_PMD_EXPORT_NAME(nm, __COUNTER__)
#else
#define RTE_PMD_EXPORT_SYMBOL(type, name) __attribute__((used)) type name
#define RTE_PMD_EXPORT_NAME(name) \
	RTE_PMD_EXPORT_SYMBOL(const char, this_pmd_name##name)[] = RTE_STR(name)
#define DRV_EXP_TAG(name, tag) __##name##_##tag
#define RTE_PMD_REGISTER_PARAM_STRING(name, str) \
	RTE_PMD_EXPORT_SYMBOL(const char, DRV_EXP_TAG(name, param_string_export))[] = str
#define RTE_PMD_REGISTER_KMOD_DEP(name, str) \
	RTE_PMD_EXPORT_SYMBOL(const char, DRV_EXP_TAG(name, kmod_dep_export))[] = str
#define VFN_SDK_EXPORT_NAME(nm) RTE_PMD_EXPORT_NAME(nm)
#endif

/** Register driver vdrv under the name nm when the object is loaded. */
#define RTE_PMD_REGISTER_VDEV(nm, vdrv) \
	static const char *vdrvinit_##nm##_alias; \
	RTE_INIT(vdrvinitfn_##vdrv) \
	{ \
		(vdrv).driver.name = RTE_STR(nm); \
		(vdrv).driver.alias = vdrvinit_##nm##_alias; \
		rte_vdev_register(&vdrv); \
	} \
	VFN_SDK_EXPORT_NAME(nm)

/** Give driver nm a second name; to be written before or after RTE_PMD_REGISTER_VDEV. */
#define RTE_PMD_REGISTER_ALIAS(nm, alias) static const char *vdrvinit_##nm##_alias = RTE_STR(alias)

#ifdef __cplusplus
}
#endif

#endif /* VFN_SDK_VDEV_H */
