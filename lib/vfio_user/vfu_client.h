/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The client's end of vfio-user: a call per command, which returns when the reply is there.
 *
 * The server is not trusted either: a reply that is not one, or none in time, is the end of the
 * connection, and every later call returns -EPIPE.
 *
 * Threads: any; calls of one client are done one after the other. All that return int return 0 or
 * a negative errno value: what the server said, or -EPIPE.
 */

#ifndef VFU_CLIENT_H
#define VFU_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vfu_proto.h"
#include "vfu_server.h"

struct vfu_client;

/**
 * What a server may cost, over all connections to it; all zeros at first, but for the closer.
 *
 * One that answers each time, but late, would hold the caller's threads for as long as there are
 * calls: so what was waited for counts, a millisecond is forgotten in every VFU_FORGET, and where
 * VFU_PATIENCE times the bound of one reply have come together the connection ends. Replies within
 * VFU_QUICK_MS do not count.
 *
 * Who closes what it sends may have to wait: the closer does that. While there is something to
 * close it is better not to connect again.
 */
struct vfu_patience {
	uint64_t spent_ms;
	uint64_t at_ms;		   /**< When that was. */
	struct vfn_closer *closer; /**< The caller's. NULL: the server is trusted. */
};
#define VFU_PATIENCE 4
#define VFU_FORGET   8
#define VFU_QUICK_MS 10

/** Memory that the server asks for by messages. Within one map and what that allows. */
struct vfu_client_ops {
	/** Fill buf with memory at address. NULL: refused. */
	int (*dma_read)(void *priv, uint64_t address, void *buf, size_t len);
	/** The other way round. */
	int (*dma_write)(void *priv, uint64_t address, const void *buf, size_t len);
};

/**
 * Connect and agree on a version.
 *
 * @param path
 *   Of the server's socket.
 * @param ops
 *   May be NULL, as may be its members: the server gets EOPNOTSUPP. Called by whichever call waits
 *   for a reply then, on its thread.
 * @param timeout_ms
 *   How long any reply may take; all of them: see struct vfu_patience.
 * @param patience
 *   Used for as long as the client; NULL: one of its own, and the server is trusted.
 * @param client
 *   Set on success.
 * @return
 *   Also -EPROTO: the server speaks another version, or nonsense; -EBUSY: it has a client;
 *   -ETIMEDOUT.
 */
int vfu_client_connect(const char *path, const struct vfu_client_ops *ops, void *priv,
	unsigned int timeout_ms, struct vfu_patience *patience, struct vfu_client **client);

/** Count what is waited for there, which may go from one connection to the next. No call is made.
 */
void vfu_client_patience(struct vfu_client *client, struct vfu_patience *patience);

/** NULL: nothing. No call is being made. */
void vfu_client_close(struct vfu_client *client);

/**
 * To be polled for POLLRDHUP only: the server is gone, and has let go of everything, whether it
 * ended or hung up. A connection that is at its end for other reasons has not come to that.
 * Stays the client's.
 */
int vfu_client_fd(const struct vfu_client *client);

int vfu_client_info(struct vfu_client *client, struct vfu_device_info *info);

/** region->fd is the caller's then: shared memory (memfd, tmpfs, hugetlbfs). */
int vfu_client_region(struct vfu_client *client, unsigned int index, struct vfu_region *region);

/** Fills up to VFU_MAX_FDS; returns how many. The fds, eventfds or pipes, are the caller's then. */
int vfu_client_ioeventfds(struct vfu_client *client, unsigned int index, struct vfu_ioeventfd *fds);

int vfu_client_irq_info(struct vfu_client *client, unsigned int index, struct vfu_irq_info *info);

/**
 * Set eventfds of interrupts, from start on.
 *
 * @param action
 *   VFIO_IRQ_SET_ACTION_TRIGGER: they are signalled; _UNMASK: by them the client unmasks.
 * @param fds
 *   They stay the caller's; NULL: those interrupts have none any more.
 * @param count
 *   Any number; more than fit into a message are sent in several.
 */
int vfu_client_irq_fds(struct vfu_client *client, unsigned int index, uint32_t action,
	unsigned int start, const int *fds, unsigned int count);

/** Mask, unmask or trigger: VFIO_IRQ_SET_ACTION_*. */
int vfu_client_irq_action(struct vfu_client *client, unsigned int index, uint32_t action,
	unsigned int start, unsigned int count);

/** No interrupt of the index has an eventfd any more. */
int vfu_client_irqs_off(struct vfu_client *client, unsigned int index);

/** Accesses of a region. Larger ones than a message takes are cut up. */
int vfu_client_read(
	struct vfu_client *client, unsigned int index, uint64_t offset, void *buf, size_t len);
int vfu_client_write(struct vfu_client *client, unsigned int index, uint64_t offset,
	const void *buf, size_t len);

/** dma->fd stays the caller's. */
int vfu_client_dma_map(struct vfu_client *client, const struct vfu_dma *dma);
int vfu_client_dma_unmap(struct vfu_client *client, uint64_t address, uint64_t size);

int vfu_client_reset(struct vfu_client *client);

/** VFIO_MIGRATION_*; -ENOTSUP: it does not migrate. */
int vfu_client_migration(struct vfu_client *client, uint64_t *flags);
int vfu_client_mig_state(struct vfu_client *client, enum vfio_device_mig_state *state);
int vfu_client_set_mig_state(struct vfu_client *client, enum vfio_device_mig_state state);

/** Bytes read; fewer than len: that was all. */
ssize_t vfu_client_state_read(struct vfu_client *client, void *buf, size_t len);
int vfu_client_state_write(struct vfu_client *client, const void *buf, size_t len);

/** *page_size becomes the one that the server has chosen. */
int vfu_client_log_start(struct vfu_client *client, uint64_t *page_size,
	const struct vfu_log_range *ranges, unsigned int nb_ranges);
int vfu_client_log_stop(struct vfu_client *client);

/** bitmap has a bit for each page_size bytes, in whole words. */
int vfu_client_log_report(struct vfu_client *client, uint64_t iova, uint64_t length,
	uint64_t page_size, uint64_t *bitmap);

#endif /* VFU_CLIENT_H */
