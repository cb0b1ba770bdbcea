/* SPDX-License-Identifier: BSD-3-Clause */

/**
 * @file
 * The one header through which the driver sees DPDK's driver SDK.
 *
 * DPDK installs its SDK headers only where it was built with -Denable_driver_sdk=true, and Debian's
 * was not, although its libraries export the functions (version node INTERNAL). Where meson finds
 * the headers they are used (VFN_REAL_SDK); elsewhere sdk_vdev.h and sdk_vdpa.h declare what this
 * project needs of them. test/driver/sdk_layout compares the two, vfn_sdk_check() compares with the
 * library in use.
 */

#ifndef VFN_SDK_H
#define VFN_SDK_H

#include <rte_bus_vdev.h>
#include <rte_vdpa.h>
#include <rte_version.h>
#include <rte_vhost.h>

#ifdef VFN_REAL_SDK
#include <bus_vdev_driver.h>
#include <vdpa_driver.h>
#else
#include "sdk_vdev.h"
#include "sdk_vdpa.h"
#endif

/* Their names from DPDK 23.11 on. */
#ifndef VHOST_USER_PROTOCOL_F_BACKEND_REQ
#define VHOST_USER_PROTOCOL_F_BACKEND_REQ 5
#endif
#ifndef VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD
#define VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD 10
#endif
#if RTE_VERSION < RTE_VERSION_NUM(23, 11, 0, 0)
#define rte_vhost_backend_config_change rte_vhost_slave_config_change
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Compare the fields of a device, as this build lays them out, with what the public accessors of
 * the running libdpdk say, and the bus with the address of the virtual bus. What differs is logged
 * as an error (pmd.vdpa.vfn.sdk); if the bus differs, the other fields are not looked at, as
 * nothing read through this pointer can be trusted then.
 *
 * To be called at the top of a vdev probe, on the thread that probes, before any field is used.
 *
 * @param vdev
 *   The device handed to the probe function.
 * @return
 *   0 when all fields agree, -EPROTO when the driver must not touch this device.
 */
int vfn_sdk_check(const struct rte_vdev_device *vdev);

#ifdef __cplusplus
}
#endif

#endif /* VFN_SDK_H */
