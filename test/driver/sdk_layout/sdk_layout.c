/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Sizes and offsets of the SDK's structures as one set of headers declares them. Compiled twice
 * (see meson.build): plain it uses ours, with VFN_REAL_SDK DPDK's. Types, which no table can hold,
 * are asserted here and so hold for both.
 */

#include <rte_common.h>
#include <rte_version.h>

#include <vfn_sdk.h>

#include "sdk_layout.h"

#define STRUCTS(X) \
	X(struct rte_driver) \
	X(struct rte_device) \
	X(struct rte_vdev_device) \
	X(struct rte_vdev_driver) \
	X(struct rte_vdpa_dev_ops)

#define LINKS(X) \
	X(struct rte_driver, next) \
	X(struct rte_device, next) \
	X(struct rte_vdev_device, next) \
	X(struct rte_vdev_driver, next)

#define FIELDS(X) \
	X(struct rte_driver, name, const char *) \
	X(struct rte_driver, alias, const char *) \
	X(struct rte_device, name, const char *) \
	X(struct rte_device, bus_info, const char *) \
	X(struct rte_device, driver, const struct rte_driver *) \
	X(struct rte_device, bus, const struct rte_bus *) \
	X(struct rte_device, numa_node, int) \
	X(struct rte_device, devargs, struct rte_devargs *) \
	X(struct rte_vdev_device, device, struct rte_device) \
	X(struct rte_vdev_driver, driver, struct rte_driver) \
	X(struct rte_vdev_driver, probe, int (*)(struct rte_vdev_device *)) \
	X(struct rte_vdev_driver, remove, int (*)(struct rte_vdev_device *)) \
	X(struct rte_vdev_driver, dma_map, \
		int (*)(struct rte_vdev_device *, void *, uint64_t, size_t)) \
	X(struct rte_vdev_driver, dma_unmap, \
		int (*)(struct rte_vdev_device *, void *, uint64_t, size_t)) \
	X(struct rte_vdev_driver, drv_flags, uint32_t) \
	X(struct rte_vdpa_dev_ops, get_queue_num, int (*)(struct rte_vdpa_device *, uint32_t *)) \
	X(struct rte_vdpa_dev_ops, get_features, int (*)(struct rte_vdpa_device *, uint64_t *)) \
	X(struct rte_vdpa_dev_ops, get_protocol_features, \
		int (*)(struct rte_vdpa_device *, uint64_t *)) \
	X(struct rte_vdpa_dev_ops, dev_conf, int (*)(int)) \
	X(struct rte_vdpa_dev_ops, dev_close, int (*)(int)) \
	X(struct rte_vdpa_dev_ops, dev_cleanup, int (*)(int)) \
	X(struct rte_vdpa_dev_ops, set_vring_state, int (*)(int, int, int)) \
	X(struct rte_vdpa_dev_ops, set_features, int (*)(int)) \
	X(struct rte_vdpa_dev_ops, migration_done, int (*)(int)) \
	X(struct rte_vdpa_dev_ops, get_vfio_group_fd, int (*)(int)) \
	X(struct rte_vdpa_dev_ops, get_vfio_device_fd, int (*)(int)) \
	X(struct rte_vdpa_dev_ops, get_notify_area, int (*)(int, int, uint64_t *, uint64_t *)) \
	X(struct rte_vdpa_dev_ops, get_stats_names, \
		int (*)(struct rte_vdpa_device *, struct rte_vdpa_stat_name *, unsigned int)) \
	X(struct rte_vdpa_dev_ops, get_stats, \
		int (*)(struct rte_vdpa_device *, int, struct rte_vdpa_stat *, unsigned int)) \
	X(struct rte_vdpa_dev_ops, reset_stats, int (*)(struct rte_vdpa_device *, int)) \
	X(struct rte_vdpa_dev_ops, get_config, int (*)(int, uint8_t *, uint32_t)) \
	X(struct rte_vdpa_dev_ops, set_config, \
		int (*)(int, uint8_t *, uint32_t, uint32_t, uint32_t)) \
	X(struct rte_vdpa_dev_ops, get_dev_type, int (*)(struct rte_vdpa_device *, uint32_t *))

#define FUNCTIONS(X) \
	X(rte_vdev_device_name, const char *(const struct rte_vdev_device *)) \
	X(rte_vdev_device_args, const char *(const struct rte_vdev_device *)) \
	X(rte_vdev_register, void(struct rte_vdev_driver *)) \
	X(rte_vdev_unregister, void(struct rte_vdev_driver *)) \
	X(rte_vdpa_register_device, \
		struct rte_vdpa_device *(struct rte_device *, struct rte_vdpa_dev_ops *)) \
	X(rte_vdpa_unregister_device, int(struct rte_vdpa_device *)) \
	X(rte_vdpa_relay_vring_used, int(int, uint16_t, void *)) \
	X(rte_vhost_host_notifier_ctrl, int(int, uint16_t, bool))

#define CONSTANTS(X) \
	X(RTE_VHOST_QUEUE_ALL) \
	X(RTE_VDEV_DRV_NEED_IOVA_AS_VA)

#define FIELD_TYPE(s, m, ...) \
	_Static_assert(__builtin_types_compatible_p(__typeof__(((s *)NULL)->m), __VA_ARGS__), \
		#s "." #m " has another type");
#define FUNCTION_TYPE(f, ...) \
	_Static_assert(__builtin_types_compatible_p(__typeof__(f), __VA_ARGS__), \
		#f "() has another type");
FIELDS(FIELD_TYPE)
FUNCTIONS(FUNCTION_TYPE)

#define STRUCT_ROW(s)	     {#s, 0, sizeof(s)},
#define FIELD_ROW(s, m, ...) {#s "." #m, offsetof(s, m), sizeof(((s *)NULL)->m)},
#define CONSTANT_ROW(c)	     {#c, 0, (c)},
static const struct sdk_layout_row rows[] = {
	STRUCTS(STRUCT_ROW) LINKS(FIELD_ROW) FIELDS(FIELD_ROW) CONSTANTS(CONSTANT_ROW)};

/* Names differ between the two, because from DPDK 25.07 on the exported symbols are global. */
#ifdef VFN_REAL_SDK
#define LAYOUT	sdk_layout_real
#define HEADERS "DPDK's"
static struct rte_vdev_driver real_driver;
RTE_PMD_REGISTER_VDEV(vdpa_sdk_real, real_driver);
RTE_PMD_REGISTER_PARAM_STRING(vdpa_sdk_real, "declared=<dpdk>");
#define DRIVER real_driver
#else
#define LAYOUT	sdk_layout_ours
#define HEADERS "ours"
static struct rte_vdev_driver our_driver;
RTE_PMD_REGISTER_VDEV(vdpa_sdk_ours, our_driver);
RTE_PMD_REGISTER_PARAM_STRING(vdpa_sdk_ours, "declared=<vfn>");
#define DRIVER	our_driver
#endif

const struct sdk_layout LAYOUT = {
	.headers = HEADERS,
	.version = RTE_VERSION,
	.nb_rows = RTE_DIM(rows),
	.rows = rows,
	.driver = &DRIVER,
	.name = &DRIVER.driver.name,
};
