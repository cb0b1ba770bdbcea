/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The link between a driver and a virtio function: register access, DMA maps, interrupts and
 * doorbells, whatever carries them. Nothing above a link knows where the function runs.
 *
 * Threads: calls for one link are serialised by the function; they may come from any thread but
 * a poller.
 *
 * What a driver can rely on, whatever the link: a register write may be posted, that is return
 * before it has arrived; a read comes after all writes before it. What a written register starts
 * may take longer still: it is done once it reads back done, and a driver waits for that with a
 * bound. After dma_unmap(), set_irq(), set_irq_call(), set_doorbell() and set_job() that returned
 * 0, and after a reset or a suspend that reads back done, nothing that they concern is touched any
 * more. Where one of these fails or is not done in time, memory stays mapped.
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

struct vringh_io;

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
	/** Not the guest's, but rings, buffers or windows of who relays: no platform is asked. */
	bool relay;
	/**
	 * A window, or memory behind one, of a link that is not coherent: its hooks, the same ones
	 * for every map of the space. NULL: all see what is written as soon as it is.
	 */
	const struct vringh_io *io;
};

/**
 * Windows between a driver and a function that reach nothing else of each other. Nothing is read
 * across: each side writes the other's memory and reads its own.
 */
struct vfn_windows {
	struct {
		uint8_t *host; /**< As the driver has it. */
		uint64_t iova; /**< Its bus address for the function. */
		uint64_t len;
	} out /**< The function's memory, only written. */, in /**< The driver's, only read. */;
	const struct vringh_io *io; /**< Of both. */
};

struct vfn_link;

/** A translation that descriptors or a ring need and that is not known. */
struct vfn_miss {
	uint16_t queue;
	uint64_t iova;
	bool write; /**< The function wants to write there, else to read. */
	bool read;
};

/** Who is asked for translations. */
struct vfn_miss_call {
	/**
	 * Ask for one, once for many that want it. Any thread, also during other calls of the link:
	 * it must not block, nor use the link. False: not now, it is called again soon.
	 */
	bool (*run)(struct vfn_miss_call *call, const struct vfn_miss *miss);
};

/** What addresses in descriptors and of rings mean. */
struct vfn_translation {
	uint64_t iova;
	uint64_t len;  /**< Bytes, at least 1; the last one is at most at 2^64 - 1. */
	uint64_t addr; /**< Bus address in a map of VFN_DMA_GUEST, which holds all of it. */
	bool readable; /**< Neither: there is none, and it is an error to use it. */
	bool writable;
};

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

/** What is done to interrupt, where writing to an eventfd is not what does it. */
struct vfn_irq_call {
	/**
	 * Interrupt. Any thread, mostly a poller: it must not block. False: it is not to be called
	 * again, until it is set anew.
	 */
	bool (*run)(struct vfn_irq_call *call);
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
	/**
	 * Eventfd that an MSI-X vector (of a queue's interrupts, or the configuration's) signals,
	 * or VFN_VECTOR_INTX the interrupt pin; -1 for none. The link keeps a duplicate. Which of
	 * them are signalled is up to the MSI-X capability and table, and to the command register.
	 */
	int (*set_irq)(struct vfn_link *link, unsigned int vector, int fd);
	/**
	 * The same by a call, in place of an eventfd; NULL ends that, and it is not being called
	 * any more on return. Stays set over a reset. The op is NULL where the function is in
	 * another process: the driver needs an eventfd and a thread then.
	 */
	int (*set_irq_call)(struct vfn_link *link, unsigned int vector, struct vfn_irq_call *call);
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
	/**
	 * The windows that rings and buffers have to be in, for as long as the function is
	 * connected. The op is NULL where the function reaches memory that it is given by
	 * dma_map(). Packed rings have their used descriptors apart then, see struct vringh_config,
	 * and a queue's device area is cleared when it is enabled.
	 */
	int (*get_windows)(struct vfn_link *link, struct vfn_windows *windows);
	/**
	 * Have the addresses in descriptors and of rings translated (VIRTIO_F_ACCESS_PLATFORM):
	 * maps of VFN_DMA_GUEST are what translations lead to then. There are none at first, and
	 * asked for as they are needed; a queue whose ring has none stands still. NULL ends that,
	 * and nobody is asked any more on return. -EBUSY while a queue is enabled. The op is NULL
	 * where the link cannot, as are the next two.
	 */
	int (*set_translated)(struct vfn_link *link, struct vfn_miss_call *call);
	/**
	 * Add a translation, in place of those that it overlaps. -EFAULT: no single map holds what
	 * it leads to.
	 */
	int (*translate)(struct vfn_link *link, const struct vfn_translation *translation);
	/**
	 * Forget all translations that have a byte in the range; 0, 0: all. Nothing is reached
	 * through them any more on return.
	 */
	int (*untranslate)(struct vfn_link *link, uint64_t iova, uint64_t len);
	/** Detach: the function is gone when it returns. */
	void (*close)(struct vfn_link *link);
};

struct vfn_link {
	const struct vfn_link_ops *ops;
};

#endif /* VFN_LINK_H */
