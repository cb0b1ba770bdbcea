/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * What the vfn driver offers to applications beside the operations of every vDPA driver.
 *
 * An application that does not link with the driver finds these functions in the library that
 * holds the device's driver: dladdr() of rte_dev_driver(), then dlsym().
 */

#ifndef RTE_VDPA_VFN_H
#define RTE_VDPA_VFN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Save the parts of a device (its state, see doc/parts.md) to a file, which is replaced at once or
 * not at all.
 *
 * While a guest uses the device, its parts of this moment, and traffic goes on; else those that
 * the last guest left. Any thread.
 *
 * @return
 *   Bytes in the file; -ENODEV if there is no such device; or another negative errno, with the
 *   reason in the log.
 */
int rte_vdpa_vfn_snapshot(const char *device, const char *path);

/**
 * Have the next guest of a device go on with the parts in a file. Any thread.
 *
 * The file may be anything: it is checked, and refused without any effect. Where a ring of that
 * guest is not the saved one, it starts as its front-end says.
 *
 * @param path
 *   NULL: no file, but the parts as the last guest left the device, if there are any; what
 *   rte_vdpa_vfn_release() let go of is taken back.
 * @return
 *   0; -ENODEV; -EBUSY while a guest uses the device; -ENOTSUP if the parts need what the
 *   function does not have; or another negative errno, with the reason in the log.
 */
int rte_vdpa_vfn_restore(const char *device, const char *path);

/**
 * Let go of the function of a device, for another process that takes the device over: of one behind
 * an endpoint, which has one client at a time, and of a disk's file, which is locked. Nothing
 * happens to others in this process. It is had again by rte_vdpa_vfn_restore() without a file, a
 * disk's file with the next guest. Any thread.
 *
 * @return
 *   0; -ENODEV if there is no such device; -EBUSY while a guest uses it.
 */
int rte_vdpa_vfn_release(const char *device);

/**
 * Have the driver judge the messages of a connection from the first one on. Without this it hears
 * of a connection with SET_FEATURES, and of what librte_vhost did until then nothing.
 *
 * For rte_vhost_device_ops.new_connection of an application, which is to hand on what it returns.
 *
 * @return
 *   0; -ENODEV if the connection's device is none of this driver's, or is being removed; -ENOMEM.
 */
int rte_vdpa_vfn_new_connection(int vid);

/**
 * Make the kernel's device of a device that has the argument vduse=NAME, unless it is there: as
 * root, or with CAP_NET_ADMIN. This and the following: any thread, one at a time for a device.
 *
 * @return
 *   0; -ENODEV if there is no such device, or it has no such argument; -ENOENT: the kernel has no
 *   VDUSE; or another negative errno, with the reason in the log.
 */
int rte_vdpa_vfn_kernel_create(const char *device);

/**
 * Have the kernel's device, which nobody else serves from here on.
 *
 * @param wait_ms
 *   So long another process may take to let go of it, in milliseconds.
 * @return
 *   0; -EBUSY: another process serves it; or another negative errno, with the reason in the log.
 */
int rte_vdpa_vfn_kernel_open(const char *device, unsigned int wait_ms);

/** Serve it. 0, or a negative errno, with the reason in the log. */
int rte_vdpa_vfn_kernel_start(const char *device);

/**
 * Stop, in an orderly way, and let go of the kernel's device, whose driver waits for whom serves it
 * next: this process, by rte_vdpa_vfn_kernel_open(), or another one. 0 or -ENODEV.
 */
int rte_vdpa_vfn_kernel_stop(const char *device);

/**
 * The same, for good.
 *
 * @param keep
 *   Not 0: the kernel's device stays, else it goes, unless a driver has it.
 */
int rte_vdpa_vfn_kernel_end(const char *device, int keep);

/**
 * Features of virtio that the driver offers to its connections beside what
 * rte_vhost_driver_get_features() says: those of the control queue that librte_vhost leaves out.
 * Only connections told of by rte_vdpa_vfn_new_connection() have them. Any thread.
 *
 * @return
 *   The bits; 0 if there is no such device.
 */
uint64_t rte_vdpa_vfn_features(const char *device);

/**
 * As rte_vhost_get_negotiated_features(), with those of rte_vdpa_vfn_features() that the front-end
 * has accepted. Any thread, but for that function's reasons none while it may be closed.
 *
 * @return
 *   0; -ENODEV if the connection is of no device of this driver.
 */
int rte_vdpa_vfn_negotiated(int vid, uint64_t *features);

/**
 * The number of the virtqueue that is the control queue, if the guest's front-end passes that on
 * (user-mode Linux does; QEMU and virtio-user answer its commands themselves). Any thread.
 *
 * @return
 *   The number; -ENOENT if the function has no control queue of a guest's now; -ENODEV if there is
 *   no such device.
 */
int rte_vdpa_vfn_control_queue(const char *device);

#ifdef __cplusplus
}
#endif

#endif /* RTE_VDPA_VFN_H */
