/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The operator's face of an endpoint: a function of this process behind a vfio-user socket. Its
 * guest's face is the registers of the function, reached by messages ("vfio-user Protocol
 * Specification"), and what lib/link/vfn_endpoint.h says.
 *
 * Threads: any but a poller, unless a call says otherwise.
 */

#ifndef VFN_ENDPOINT_SERVER_H
#define VFN_ENDPOINT_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vfn_endpoint.h>
#include <vfn_link.h>

struct vfn_endpoint;
struct vfn_function;

/**
 * What a client decides of a function whose operator leaves that to it.
 *
 * @param set
 *   Have these in force; NULL: what the operator has made it with, if now is NULL, too.
 * @param now
 *   Filled with what is in force then; may be NULL.
 * @return
 *   0; -EBUSY: a driver has the function; -EINVAL: more than it can do.
 */
typedef int (*vfn_endpoint_offer)(struct vfn_function *fn, const struct vfn_endpoint_control *set,
	struct vfn_endpoint_control *now);

/** How a function is served. */
struct vfn_endpoint_params {
	const char *name; /**< For the log and the threads; copied. */
	int listen_fd;	  /**< A socket that listens, taken over; -1: none. */
	/** A connected socket, taken over, to be served first; -1: none. */
	int fd;
	/** Doorbells may be rung by a plain store: the function's pollers never sleep. */
	bool busy;
	/** Control is its client's: vfn_manage_net_offer(). NULL: the operator's. */
	vfn_endpoint_offer offer;
};

/**
 * Serve a function, on threads of its own, until vfn_endpoint_close().
 *
 * @param link
 *   To the function. Nobody else uses it meanwhile; it stays the caller's.
 * @param fn
 *   For params->offer. May be NULL without it.
 * @param endpoint
 *   Set on success.
 * @return
 *   0; -ENOMEM; -ENODEV: the link's end is no such function; or the error of starting a thread.
 *   The descriptors are closed on failure, too.
 */
int vfn_endpoint_open(struct vfn_link *link, struct vfn_function *fn,
	const struct vfn_endpoint_params *params, struct vfn_endpoint **endpoint);

/**
 * Hang up. The function is reset, and nothing of the client's is used any more, on return.
 * NULL: nothing.
 */
void vfn_endpoint_close(struct vfn_endpoint *endpoint);

/**
 * Readable once nobody is served any more and nobody will be: the only client that there could be
 * has left, or the socket has failed. Stays the endpoint's.
 */
int vfn_endpoint_ended_fd(const struct vfn_endpoint *endpoint);

/**
 * Ask the client to let go of the device, by the request interrupt of VFIO.
 *
 * @return
 *   0; -ENOTCONN: there is no client; -ENOTSUP: it does not listen to that.
 */
int vfn_endpoint_ask_removal(struct vfn_endpoint *endpoint);

/** How an endpoint is used. */
struct vfn_endpoint_info {
	pid_t client;	      /**< Process of the client, 0: there is none. */
	uint64_t clients;     /**< That there were. */
	uint32_t maps;	      /**< Of its memory that are mapped here. */
	uint64_t map_bytes;   /**< Of those. */
	uint32_t unreachable; /**< Maps without a descriptor: the function does not reach them. */
	uint64_t accesses;    /**< Of registers, and what else the client has asked for. */
	uint64_t slowed;      /**< Of those, that had to wait: see VFN_ENDPOINT_CHANGES_PER_S. */
	uint64_t refused;     /**< Of those, that were no good. */
	bool logging;	      /**< The client has dirty pages logged. */
	const char *state;    /**< Of migration: "running", "stopped" and so on. */
};

void vfn_endpoint_info(struct vfn_endpoint *endpoint, struct vfn_endpoint_info *info);

/**
 * Whatever a client changes in the function (all writes of registers but doorbells, maps,
 * interrupts, masks, resets) may stop pollers for a moment, and other functions with them. So many
 * a second it may do, and so many at once before that counts; further ones are carried out when
 * they are due. Reads and doorbells cost nobody else anything.
 */
#define VFN_ENDPOINT_CHANGES_PER_S 1000u
#define VFN_ENDPOINT_CHANGES_BURST 8192u

#endif /* VFN_ENDPOINT_SERVER_H */
