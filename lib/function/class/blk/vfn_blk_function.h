/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The operator's face of functions of the block class in this process.
 *
 * Threads: any but a poller. Calls for one function are serialised by it.
 */

#ifndef VFN_BLK_FUNCTION_H
#define VFN_BLK_FUNCTION_H

#include <vfn_blk.h>

#include "vfn_function.h"

/** The class, for vfn_function_params.class. */
extern const struct vfn_class vfn_blk_class;

/** What is behind a disk; its operations are private. */
struct vfn_blk_backend;

/** Nothing: writes are gone, and reads leave the guest's buffers as they are. */
extern const struct vfn_blk_backend vfn_blk_null;
/** Memory of this process, hugepages where there are any; all zeros at first. */
extern const struct vfn_blk_backend vfn_blk_mem;
/** A regular file or a block device. */
extern const struct vfn_blk_backend vfn_blk_file;

#define VFN_BLK_PATH_SIZE 1024
#define VFN_BLK_ID_SIZE	  20

/** How much per second, all queues together; 0: no limit. */
struct vfn_blk_rate {
	uint64_t ops;
	uint64_t bytes;
	char group[VFN_NAME_SIZE]; /**< Functions with the same name share the limit; "": none. */
};

/** For vfn_function_params.class_params. */
struct vfn_blk_params {
	const struct vfn_blk_backend *backend;
	void *arg;		      /**< The back-end's; NULL for those above. */
	char path[VFN_BLK_PATH_SIZE]; /**< vfn_blk_file. */
	uint64_t size;		      /**< Bytes; vfn_blk_file: 0, it is the file's. */
	uint32_t block_size; /**< A power of two from 512 to 65536; 0: 512, or the device's. */
	uint16_t queues;     /**< 1 to VFN_BLK_MAX_QUEUES. */
	uint16_t queue_size; /**< The largest of a ring, a power of two; 0: 32768. */
	bool read_only;
	bool writethrough; /**< At first: a write is durable when it ends. */
	bool share;	   /**< The file is not locked: others use it, and know what they do. */
	bool later;	   /**< One that is in use can be opened: vfn_manage_blk_claim(). */
	char serial[VFN_BLK_ID_SIZE + 1];
	struct vfn_blk_rate rate;
};

/** Bytes of the disk now. */
uint64_t vfn_manage_blk_size(struct vfn_function *fn);

/**
 * Another size of the disk. The guest is told; what it has out beyond the new end fails.
 *
 * @param size
 *   Bytes, of which whole blocks count; 0: look how large the file is now.
 * @return
 *   0; -EINVAL for less than a block; -ENOTSUP if the back-end cannot, such as a block device that
 *   is smaller; -EBUSY if what it works on does not end; or the back-end's error.
 */
int vfn_manage_blk_resize(struct vfn_function *fn, uint64_t size);

/**
 * Have what is behind the disk for this process alone, before the first request. As it was opened,
 * it is, unless it was in use then, or was let go of.
 *
 * @return
 *   0; -EBUSY if another process, or function, has it, which is not waited for; or the back-end's
 *   error, with the reason in the log.
 */
int vfn_manage_blk_claim(struct vfn_function *fn);

/** Let go of it, for another process, until it is claimed. No guest has the function. */
void vfn_manage_blk_release(struct vfn_function *fn);

/** Other limits; the group stays. */
void vfn_manage_blk_rate(struct vfn_function *fn, uint64_t ops, uint64_t bytes);

/** Kinds of requests whose latency is kept apart. */
enum vfn_blk_kind {
	VFN_BLK_READ,
	VFN_BLK_WRITE,
	VFN_BLK_FLUSH,
	VFN_BLK_DISCARD, /**< And to write zeroes. */
	VFN_BLK_KINDS,
};

/**
 * A log-linear histogram: eight buckets for each power of two, so that a value is known to an
 * eighth. In nanoseconds, from a request's being fetched to its being completed.
 */
#define VFN_BLK_LATENCY_BITS	3
#define VFN_BLK_LATENCY_BUCKETS (((40 - VFN_BLK_LATENCY_BITS) << VFN_BLK_LATENCY_BITS) + 8)
struct vfn_blk_latency {
	uint64_t count[VFN_BLK_LATENCY_BUCKETS];
};

/** The latencies of a queue, or of all (-1), since the function was made. 0, or -ENOENT. */
int vfn_manage_blk_latency(struct vfn_function *fn, int queue, enum vfn_blk_kind kind,
	struct vfn_blk_latency *latency);

/**
 * A percentile.
 *
 * @param ppm
 *   Of a million requests so many took at most so long: 999900 is p99.99.
 * @return
 *   Nanoseconds, the bucket's upper end; 0 if there was no request.
 */
uint64_t vfn_blk_percentile(const struct vfn_blk_latency *latency, uint32_t ppm);

/** Register the class's tracepoints, pmd.vdpa.vfn.blk.*: once in a process, before EAL is set up.
 */
void vfn_blk_trace_register(void);

#endif /* VFN_BLK_FUNCTION_H */
