/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The link between a driver and a virtio function: register access, DMA maps, interrupts and
 * doorbells, whatever carries them. Nothing above a link knows where the function runs.
 *
 * Threads: calls for one link are serialised by the function; they may come from any thread but
 * a poller. No call returns before the function acts on it: after dma_unmap(), a reset or a
 * suspend that reads back done, no memory concerned is touched any more.
 */

#ifndef VFN_LINK_H
#define VFN_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Address spaces of a function. */
enum vfn_dma_space {
	VFN_DMA_GUEST, /**< Descriptors and rings. */
	VFN_DMA_OWN,   /**< What only registers name: dirty log, in-flight regions. */
};

/** Memory that the function may reach. */
struct vfn_dma_map {
	enum vfn_dma_space space;
	uint64_t iova;	 /**< Bus address. */
	uint64_t len;	 /**< Bytes, at least 1; the last one is at most at 2^64 - 1. */
	void *host;	 /**< Mapping in this process, for links inside it. */
	int fd;		 /**< The memory as a file for links to other processes, or -1. */
	uint64_t offset; /**< Of the range in fd. */
	bool readable;	 /**< By the function. */
	bool writable;	 /**< By the function. */
};

struct vfn_link;

/** Work of a driver that is done where one of the function's queues is polled. */
struct vfn_job {
	/** One round of it; returns how much was moved. */
	unsigned int (*run)(struct vfn_job *job);
	/**
	 * Nothing moved for a while: have the queue's doorbell rung for what comes next. True if
	 * there is something to do already. The next thing called is run().
	 */
	bool (*arm)(struct vfn_job *job);
};

/** What a transport implements. All return 0 or a negative errno value. */
struct vfn_link_ops {
	/** Read registers; region is enum vfn_region. -EINVAL outside the region. */
	int (*read)(
		struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len);
	/** Write registers. -EINVAL outside the region or for a width that no register has. */
	int (*write)(struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf,
		size_t len);
	/** Let the function reach memory. -EEXIST if the range overlaps a mapped one. */
	int (*dma_map)(struct vfn_link *link, const struct vfn_dma_map *map);
	/** Take back all maps inside the range; 0, 0: all. -EINVAL if it would cut one in two. */
	int (*dma_unmap)(
		struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len);
	/** Eventfd that an MSI-X vector signals, -1 for none. The link keeps a duplicate. */
	int (*set_irq)(struct vfn_link *link, unsigned int vector, int fd);
	/** Eventfd that stands for a queue's doorbell, -1 for none. Duplicated too. */
	int (*set_doorbell)(struct vfn_link *link, unsigned int queue, int fd);
	/**
	 * A region as a file of *size bytes that others can map: what they write there the function
	 * can read, and nothing is raised by it. The fd stays the link's, and is closed by a reset
	 * of the function. -ENOTSUP: the region has none.
	 */
	int (*get_region_fd)(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size);
	/**
	 * Have a job done by whoever polls the queue, between two looks at it, while the queue
	 * runs: not before it is enabled, and not while it is suspended. NULL ends that; it is not
	 * being done any more on return. The op is NULL where nobody can: the driver needs a thread
	 * then.
	 */
	int (*set_job)(struct vfn_link *link, unsigned int queue, struct vfn_job *job);
	/** Detach: the function is gone when it returns. */
	void (*close)(struct vfn_link *link);
};

struct vfn_link {
	const struct vfn_link_ops *ops;
};

/** Faults that a function commits on demand, for tests. */
enum vfn_fault {
	VFN_FAULT_NO_LOG = 1 << 0,	/**< Says that it logs, and does not. */
	VFN_FAULT_NO_USED_LOG = 1 << 1, /**< Logs buffers, but not what it writes to rings. */
	VFN_FAULT_NO_SUSPEND = 1 << 2,	/**< Never answers that it is suspended. */
};

/** What a function's network side is wired to. */
enum vfn_port_kind {
	VFN_PORT_LOOPBACK, /**< What the guest sends comes back on the same queue pair. */
	VFN_PORT_WIRE,	   /**< What the guest sends the peer receives. */
	VFN_PORT_SINK,	   /**< What the guest sends is counted and gone. */
	VFN_PORT_ETHDEV,   /**< What the guest sends goes to a DPDK port, and the other way. */
	VFN_PORT_GEN,	   /**< The same, and the guest receives as much as it can. */
};

/** What a function offers to do for its driver, and to leave to it. */
enum vfn_offloads {
	VFN_OFFLOADS_ALL,  /**< Checksums and segmentation. */
	VFN_OFFLOADS_CSUM, /**< Checksums. */
	VFN_OFFLOADS_OFF,  /**< Nothing: every frame is whole. */
};

/** Bytes of the largest frame, without FCS, that needs no segmentation offload. */
#define VFN_MAX_PLAIN_FRAME 65534u

#define VFN_MAX_POLLERS 16
#define VFN_NAME_SIZE	64

/** Properties of a function simulated in this process. */
struct vfn_function_params {
	char name[VFN_NAME_SIZE]; /**< Unique. */
	uint16_t max_pairs;	  /**< 1 to VFN_MAX_PAIRS. */
	uint8_t mac[6];
	uint16_t mtu; /**< 68 to 65535, or 0: not offered. */
	enum vfn_port_kind port;
	char peer[VFN_NAME_SIZE];   /**< Wire: name of the other end, or "" if that one names us. */
	char ethdev[VFN_NAME_SIZE]; /**< Ethdev: name of the port. */
	enum vfn_offloads offloads;
	uint32_t gen;	      /**< Gen: bytes of each frame, 14 to VFN_MAX_PLAIN_FRAME. */
	uint32_t rate_mbps;   /**< Of what the guest sends, at most; 0: no limit. */
	unsigned int faults;  /**< enum vfn_fault. */
	bool sleep;	      /**< Pollers sleep when quiet, else they busy-poll. */
	unsigned int nb_cpus; /**< Entries of cpu; 0: service cores, else any CPU. */
	unsigned int cpu[VFN_MAX_POLLERS]; /**< A poller thread is pinned to each. */
};

/**
 * Make a function in this process and link to it.
 *
 * @param link
 *   Set on success; vfn_link_ops.close() ends the function.
 * @return
 *   0; -EEXIST if the name is taken; -EBUSY if the peer is wired, or the ethdev given, to
 *   another one already; -ENOMEM; or the
 *   error of starting a poller.
 */
int vfn_link_local_open(const struct vfn_function_params *params, struct vfn_link **link);

#endif /* VFN_LINK_H */
