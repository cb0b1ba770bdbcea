/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The operator's face of the functions in this process: making one, and changing it while its
 * guest runs. None of this is in a register, so no guest reaches it. What belongs to a class is in
 * the class's own header (class/net/vfn_net_function.h).
 *
 * Threads: any but a poller. Calls for one function are serialised by it.
 */

#ifndef VFN_FUNCTION_FACE_H
#define VFN_FUNCTION_FACE_H

#include <stdbool.h>
#include <stdint.h>

#include <vfn_link.h>
#include <vfn_platform.h>

#define VFN_MAX_POLLERS 16
#define VFN_NAME_SIZE	64

struct vfn_function;
struct vfn_class;

/** Faults that a function commits on demand, for tests. */
enum vfn_fault {
	VFN_FAULT_NO_DIRTY = 1 << 0,	  /**< Says that it logs, and does not. */
	VFN_FAULT_NO_USED_DIRTY = 1 << 1, /**< Logs buffers, but not what it writes to rings. */
	VFN_FAULT_NO_SUSPEND = 1 << 2,	  /**< Never answers that it is suspended. */
	VFN_FAULT_NO_RETRY = 1 << 3,	  /**< Refuses chains that miss a translation. */
	VFN_FAULT_NO_FLUSH = 1 << 4,	  /**< Forgets to flush what it writes to windows. */
};

/** How a function reaches its guest's memory. */
enum vfn_dma_mode {
	/** All that is mapped; VIRTIO_F_ACCESS_PLATFORM is not offered, else it is. */
	VFN_DMA_PLAIN,
	/** The same. */
	VFN_DMA_DIRECT,
	/** What its IOMMU translates, where a guest has one. */
	VFN_DMA_IOMMU,
	/** What is mapped of a pool; descriptors and rings elsewhere are refused. */
	VFN_DMA_BOUNCE,
};

/** Who moves a function's data. */
struct vfn_pollers {
	bool sleep;			   /**< When quiet, else they busy-poll. */
	unsigned int nb_cpus;		   /**< Entries of cpu; 0: service cores, else any CPU. */
	unsigned int cpu[VFN_MAX_POLLERS]; /**< A poller thread is pinned to each. */
};

/** What every function has. */
struct vfn_function_params {
	char name[VFN_NAME_SIZE];      /**< Unique. */
	const struct vfn_class *class; /**< Its class, such as vfn_net_class. */
	const void *class_params;      /**< Of the class: struct vfn_net_params. Copied. */
	struct vfn_pollers pollers;
	enum vfn_dma_mode dma;
	struct vfn_pool pool; /**< VFN_DMA_BOUNCE. */
	bool no_msix;	      /**< It has no MSI-X: its interrupt pin is all. */
	unsigned int faults;  /**< enum vfn_fault. */
};

/**
 * Make a function in this process and link to it.
 *
 * @param fn
 *   Set on success, for the calls below; valid until the link is closed.
 * @param link
 *   Set on success; vfn_link_ops.close() ends the function.
 * @return
 *   0; -EEXIST if the name is taken; -EBUSY if what it is to be wired to is taken; -ENOMEM; or
 *   the error of starting a poller.
 */
int vfn_function_open(
	const struct vfn_function_params *params, struct vfn_function **fn, struct vfn_link **link);

/** Counters of a poller, all of one moment. */
struct vfn_poller_stats {
	uint64_t id;   /**< The same in all functions that share the poller, and in no other. */
	char name[16]; /**< Of its thread or service. */
	int64_t cpu;   /**< It is pinned to, -1: none, or a service. */
	uint64_t hz;   /**< Cycles per second. */
	uint64_t iterations;	  /**< Looks at its queues. */
	uint64_t busy_iterations; /**< Those that moved something. */
	uint64_t busy_cycles;	  /**< That those took. */
	uint64_t idle_cycles;	  /**< All others since it was made, sleep included. */
	uint64_t chains;	  /**< That it took from queues. */
	uint64_t sleeps;
};

/**
 * Counters of one of a function's pollers.
 *
 * @return
 *   0, or -ENOENT: it has fewer.
 */
int vfn_manage_poller_stats(
	struct vfn_function *fn, unsigned int poller, struct vfn_poller_stats *stats);

/**
 * Have other pollers move the function's data. Nothing is lost; what the queues have waits
 * meanwhile. Those that are new are started before those that are old are left.
 *
 * @return
 *   0; -EINVAL for more CPUs than VFN_MAX_POLLERS; or the error of starting a poller, and nothing
 *   has changed.
 */
int vfn_manage_pollers(struct vfn_function *fn, const struct vfn_pollers *pollers);

/**
 * Have a platform decide what the function reaches of each map of VFN_DMA_GUEST that its driver
 * makes from now on, and how: not at all, a part, with fewer rights, as a window, elsewhere. In
 * place of the one before, also of the one that VFN_DMA_BOUNCE has. As without platforms, all that
 * is mapped at a time must have the same window hooks, or none. The map as the driver made it is
 * what it takes back.
 *
 * @param platform
 *   Stays the caller's, and in use until another one is set or the function is gone. Called with
 *   the function locked: it must not call the function. NULL: that of params.dma.
 * @return
 *   0; -EBUSY while something is mapped there, and nothing has changed.
 */
int vfn_manage_platform(struct vfn_function *fn, struct vfn_platform *platform);

/** Have the function commit faults: enum vfn_fault, in place of those before. */
void vfn_manage_faults(struct vfn_function *fn, unsigned int faults);

#endif /* VFN_FUNCTION_FACE_H */
