/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A virtio function as a device of the host's kernel: the adaptor between /dev/vduse/NAME
 * (<linux/vduse.h>) and a function behind any link. Whoever owns the function makes one of these
 * for it; `vdpa dev add name NAME mgmtdev vduse` then gives the kernel's own virtio driver, such as
 * virtio_net, a device whose rings the function has.
 *
 * The kernel says what it wants by messages: a thread of each adaptor reads, does and answers them.
 * It maps what the kernel lists in its IOTLB as the function's DMA maps. Kicks go from the kernel
 * to the function by eventfds. Interrupts go to the kernel by an ioctl each: of whoever raises them
 * in the function, where the link takes a call back, else of the thread.
 *
 * What comes through /dev/vduse/NAME may be a stranger's: who has vhost-vdpa on the device says
 * which memory there is, where rings are, and what the status is.
 *
 * Threads: those of the caller, one at a time for an adaptor. The function's driver
 * (vfn_vpci.h) is used between the owner's lock() and unlock() only.
 */

#ifndef VFN_VDUSE_H
#define VFN_VDUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <vfn_map.h>
#include <vfn_vpci.h>

/** One pair: the kernel lets no control queue pass, which would switch more of them on. */
#define VFN_VDUSE_QUEUES 2

struct vfn_vduse;

/** How a ring comes to be started. */
enum vfn_vduse_start {
	VFN_VDUSE_NEW,	   /**< The kernel's driver has just set it up. */
	VFN_VDUSE_RESUMED, /**< It was in use while nobody served it. */
};

/** Of a ring, for its owner. */
struct vfn_vduse_area {
	uint64_t dev, ino; /**< Whose it is, the same in every process until the device is gone. */
	uint64_t iova;	   /**< The memory that its descriptors are in. */
	struct vfn_map *map;
	bool packed;
	enum vfn_vduse_start how;
};

/** Whose the function is. Called on the adaptor's thread, and from vfn_vduse_stop(). */
struct vfn_vduse_owner {
	/** Nobody else uses the function's driver from here on. */
	void (*lock)(void *data);
	void (*unlock)(void *data);
	/**
	 * A driver is about to have the function, which nothing was asked of before. Locked.
	 *
	 * @return
	 *   0, or a negative errno: it cannot have it.
	 */
	int (*begin)(void *data, uint64_t features);
	/** The driver's memory is mapped, and rings are about to start. Locked. */
	void (*mapped)(void *data);
	/**
	 * A ring is about to start. ring is where the kernel says, or of a split one that is
	 * resumed where its used index says; the owner may know better, and may have an in-flight
	 * region for it. Locked.
	 *
	 * @return
	 *   0; -ENOENT: nobody knows where it stands; or another negative errno. Then it stays off.
	 */
	int (*ring)(void *data, uint16_t queue, struct vfn_vpci_ring *ring,
		const struct vfn_vduse_area *area);
	/**
	 * The function refused a ring. The owner may change where it stands. Locked.
	 *
	 * @return
	 *   True: try again.
	 */
	bool (*refused)(void *data, uint16_t queue, struct vfn_vpci_ring *ring,
		const struct vfn_vduse_area *area);
	/** DRIVER_OK, and the rings that are ready run. Locked. */
	void (*running)(void *data);
	/** A queue stopped here. Locked. */
	void (*stopped)(void *data, uint16_t queue, const struct vfn_vpci_ring *ring);
	/**
	 * All stand still, in front of the function's reset. exact: it did what it was told.
	 * Locked.
	 */
	void (*end)(void *data, bool exact);
	/** The function is reset and has no maps any more. Locked. */
	void (*released)(void *data);
};

/** System calls, so that tests can play the kernel. */
struct vfn_vduse_sys {
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long request, void *arg);
	ssize_t (*read)(int fd, void *buf, size_t len);
	ssize_t (*write)(int fd, const void *buf, size_t len);
};

struct vfn_vduse_params {
	const char *name;     /**< Below /dev/vduse; of at most 255 bytes, no "/". */
	struct vfn_vpci *pci; /**< The function's driver, initialised. */
	uint16_t device_id;   /**< Of the class (virtio 1.3, 5). */
	uint16_t config_size; /**< Bytes of its device configuration. */
	/** Features of the class that the kernel's end cannot have. */
	uint64_t hidden;
	uint32_t msg_timeout; /**< Seconds after which the kernel gives up on us; 0: never. */
	uint32_t ready_ms;    /**< So long a queue may take to be ready; 0: 5000. */
	bool event_irqs;      /**< Interrupts by the thread, though the link takes a call back. */
	const struct vfn_vduse_owner *owner;
	void *data;			 /**< For the owner. */
	const struct vfn_vduse_sys *sys; /**< NULL: the kernel's. */
};

/**
 * Make the device, if the kernel does not have it yet. Nobody serves it. Needs CAP_NET_ADMIN for a
 * new one.
 *
 * @param vduse
 *   Set on success.
 * @return
 *   0; -ENOENT: this kernel has no VDUSE; or another negative errno, with the reason in the log.
 */
int vfn_vduse_create(const struct vfn_vduse_params *params, struct vfn_vduse **vduse);

/**
 * Be the one who serves the device; nobody else can from here on.
 *
 * @param wait_ms
 *   So long another process may take to let go of it, in milliseconds.
 * @return
 *   0; -EBUSY: another process serves it; or another negative errno, with the reason in the log.
 */
int vfn_vduse_open(struct vfn_vduse *vduse, uint32_t wait_ms);

/**
 * Serve the device. If a driver had it running it goes on.
 *
 * @return
 *   0, or a negative errno, with the reason in the log.
 */
int vfn_vduse_start(struct vfn_vduse *vduse);

/**
 * Stop serving, in an orderly way, and let go of the device: it stays, its driver waits for who
 * serves it next. Not locked. In any state.
 */
void vfn_vduse_stop(struct vfn_vduse *vduse);

/**
 * Free the adaptor, which is stopped.
 *
 * @param for_good
 *   The device goes, too, unless a driver has it: then the log says how to get rid of it.
 */
void vfn_vduse_close(struct vfn_vduse *vduse, bool for_good);

/** The device configuration changed: tell the kernel. Locked. */
void vfn_vduse_config_changed(struct vfn_vduse *vduse);

/** What an adaptor does, and has done. */
struct vfn_vduse_info {
	uint8_t status;	       /**< Device status, as the driver knows it. */
	uint64_t features;     /**< Of the driver. */
	const char *phase;     /**< In words. */
	uint32_t regions;      /**< Mapped. */
	uint64_t bytes;	       /**< In these. */
	uint64_t messages;     /**< Answered. */
	uint64_t refused;      /**< Of these, with a failure. */
	uint64_t interrupts;   /**< Of queues. */
	uint64_t irqs_refused; /**< Which the kernel did not take. */
};

/** Locked, or while nobody serves. */
void vfn_vduse_info(const struct vfn_vduse *vduse, struct vfn_vduse_info *info);

#endif /* VFN_VDUSE_H */
