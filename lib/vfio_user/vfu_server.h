/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The server's end of vfio-user: judges a client's messages and turns those that are right into
 * calls of the device. It knows no device; what a guest can do to one is up to that.
 *
 * A client is not trusted. A message that is not one (its size, type or a length in it is wrong)
 * ends the connection with the reason in the log; one that is refused is answered with an error.
 * All descriptors of either are closed.
 */

#ifndef VFU_SERVER_H
#define VFU_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vfu_proto.h"

#define VFU_MAX_AREAS 8

/** A region of the device ("VFIO_USER_DEVICE_GET_REGION_INFO"). */
struct vfu_region {
	uint64_t size;	 /**< Bytes; 0: there is no such region. */
	uint32_t flags;	 /**< VFIO_REGION_INFO_FLAG_READ, _WRITE. */
	int fd;		 /**< To be mapped, -1: every access is a message. */
	uint64_t offset; /**< Of the region in fd. */
	/** The parts of the region that can be mapped; none: all of it. */
	unsigned int nb_areas;
	struct {
		uint64_t offset;
		uint64_t size;
	} area[VFU_MAX_AREAS];
};

/** An eventfd that stands for writes to a part of a region. */
struct vfu_ioeventfd {
	uint64_t offset;
	uint64_t size; /**< Of an access, 0: any. */
	int fd;
};

/** Memory of the client. */
struct vfu_dma {
	uint64_t address;
	uint64_t size;	/**< Not 0; the last byte is at most at 2^64 - 1. */
	uint32_t flags; /**< VFIO_DMA_MAP_FLAG_READ, _WRITE. */
	int fd;		/**< The library's; -1: only vfu_server_dma_read() and _write() reach it. */
	uint64_t offset; /**< Of the memory in fd. */
};

/**
 * The device. All that return int return 0 or a negative errno value, which the client gets. Calls
 * are made by vfu_serve() on its thread, one at a time. NULL: -ENOTSUP, or nothing to do.
 */
struct vfu_device_ops {
	/** A client has negotiated the version; nothing is known of it before. */
	void (*attached)(void *device);
	/**
	 * It is gone: no descriptor or memory of it is used any more on return ("Client
	 * Disconnection").
	 */
	void (*detached)(void *device);
	/** Describe a region; region->fd stays the device's. */
	void (*region)(void *device, unsigned int index, struct vfu_region *region);
	/** Up to VFU_MAX_FDS ioeventfds of a region; returns how many. The fds stay the device's.
	 */
	int (*ioeventfds)(void *device, unsigned int index, struct vfu_ioeventfd *fds);
	/** How many interrupts an index has; *flags are VFIO_IRQ_INFO_*. */
	uint32_t (*irqs)(void *device, unsigned int index, uint32_t *flags);
	/** Within the region's size, and what its flags allow. */
	int (*read)(void *device, unsigned int index, uint64_t offset, void *buf, size_t len);
	int (*write)(
		void *device, unsigned int index, uint64_t offset, const void *buf, size_t len);
	/** Overlaps no other map. To keep dma->fd, duplicate it. */
	int (*dma_map)(void *device, const struct vfu_dma *dma);
	/** One that was mapped, exactly. It is not touched any more on return. */
	int (*dma_unmap)(void *device, const struct vfu_dma *dma);
	/** The interrupt's eventfd, -1: none. The device keeps a duplicate. */
	int (*irq_fd)(void *device, unsigned int index, unsigned int irq, int fd);
	/** Mask or unmask it; only of an index that is VFIO_IRQ_INFO_MASKABLE. */
	int (*irq_mask)(void *device, unsigned int index, unsigned int irq, bool mask);
	/**
	 * An eventfd with which the client will unmask the interrupt, -1: none; duplicated too.
	 * Only of an index that is VFIO_IRQ_INFO_MASKABLE.
	 */
	int (*irq_unmask_fd)(void *device, unsigned int index, unsigned int irq, int fd);
	/** Raise it, as if the device had. */
	int (*irq_trigger)(void *device, unsigned int index, unsigned int irq);
	/** As after power-on. Maps and interrupts stay. Where it fails: VFIO_DEVICE_STATE_ERROR. */
	int (*reset)(void *device);
	/**
	 * Make one move ("Direct State Transitions"). From RUNNING to STOP and back, from STOP to
	 * STOP_COPY, RESUMING and back. Where one fails and the device is not as before, it
	 * returns -EIO: VFIO_DEVICE_STATE_ERROR, until a reset. NULL: no migration.
	 */
	int (*migrate)(
		void *device, enum vfio_device_mig_state from, enum vfio_device_mig_state to);
	/** Bytes of state, in STOP_COPY; fewer than len: that was all. Or a negative errno value.
	 */
	ssize_t (*state_read)(void *device, void *buf, size_t len);
	/** Bytes of state, in RESUMING. */
	int (*state_write)(void *device, const void *buf, size_t len);
	/**
	 * Log the pages that the device writes, of *page_size bytes, a power of two, or of what it
	 * is set to.
	 */
	int (*log_start)(void *device, uint64_t *page_size, const struct vfu_log_range *ranges,
		unsigned int nb_ranges);
	int (*log_stop)(void *device);
	/**
	 * Move the log of a range into a bitmap, one bit per page_size bytes from iova on, which is
	 * zeroed before.
	 */
	int (*log_report)(
		void *device, uint64_t iova, uint64_t length, uint64_t page_size, uint64_t *bitmap);
	/** What is worth telling the operator: errors of a client, refusals. No newline. */
	void (*log)(void *device, bool error, const char *text);
};

/** What the device is ("VFIO_USER_DEVICE_GET_INFO"). */
struct vfu_device {
	const struct vfu_device_ops *ops;
	void *priv; /**< First argument of every operation. */
	unsigned int nb_regions;
	unsigned int nb_irqs; /**< Types of interrupts. */
};

struct vfu_server;

/**
 * Any thread.
 *
 * @return
 *   A server for one client at a time, or NULL: no memory.
 */
struct vfu_server *vfu_server_new(const struct vfu_device *device);

/** Not being served. NULL: nothing. */
void vfu_server_free(struct vfu_server *server);

/**
 * Serve clients, one after the other, until told to stop. Others that connect meanwhile are
 * answered with EBUSY.
 *
 * @param listen_fd
 *   A socket that listens; stays the caller's. -1: none.
 * @param fd
 *   A connected socket to be served first, and closed; -1: none.
 * @param stop_fd
 *   Readable: return.
 * @return
 *   0: told to stop, or, without listen_fd, the client has left. Or a negative errno value of the
 *   listening socket.
 */
int vfu_serve(struct vfu_server *server, int listen_fd, int fd, int stop_fd);

/**
 * Read or write memory of the client by messages ("VFIO_USER_DMA_READ", "VFIO_USER_DMA_WRITE"). On
 * the thread of vfu_serve(), in an operation. The client's commands wait meanwhile.
 *
 * @param len
 *   Bytes, within one map; larger ones are cut up.
 * @return
 *   0; -EFAULT: not in one map, or not with that access; or what the client said. -ETIMEDOUT: it
 * has not answered all of it within 5 s, -EPROTO: with something else, -ENOBUFS: with too many
 * commands, -EPIPE: it has left; then the connection ends.
 */
int vfu_server_dma_read(struct vfu_server *server, uint64_t address, void *buf, size_t len);
int vfu_server_dma_write(struct vfu_server *server, uint64_t address, const void *buf, size_t len);

/** A client's process, by its socket; 0: nobody is attached. On the thread of vfu_serve(). */
pid_t vfu_server_client(const struct vfu_server *server);

#endif /* VFU_SERVER_H */
