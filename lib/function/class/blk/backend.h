/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What is behind a disk: a table of operations for each kind, in a file of its own. A poller never
 * waits for one.
 */

#ifndef VFN_BLK_BACKEND_H
#define VFN_BLK_BACKEND_H

#include <sys/uio.h>

#include <linux/virtio_blk.h>

#include <vringh.h>

#include "vfn_blk_function.h"

struct vfn_blk;
struct vfn_blk_queue;

/* A range of the disk, checked: whole blocks, before its end. */
struct vfn_blk_range {
	uint64_t offset; /* bytes */
	uint64_t len;
	bool unmap;
};

/* Ranges of one request to discard, or write zeroes. */
#define VFN_BLK_MAX_RANGES 16

/* Segments that a request has room for; with more it has a block of its own. */
#define VFN_BLK_SEGS 8

/* A request. The class's, but for what is under "back-end". */
struct vfn_blk_req {
	struct vringh_chain chain; /* seg: the poller's until it is kept, then room */
	struct vringh_iter data;   /* in the chain */
	uint64_t offset;	   /* IN, OUT: bytes on the disk */
	uint64_t len;
	uint32_t type; /* VIRTIO_BLK_T_*, one that has passed all checks */
	uint8_t status;
	uint8_t nb_ranges;
	bool sync;     /* OUT and the like: durable when it ends */
	uint64_t born; /* TSC */
	struct vfn_blk_range *range;
	void *block; /* segments that do not fit here, to be freed */

	/* Back-end, 0 when it is submitted. */
	struct vfn_blk_req *next;
	uint64_t done;	   /* bytes, or ranges */
	uint64_t zeroed;   /* bytes of a range */
	struct iovec *iov; /* of the data, where it may be accessed in place; else nb_iov is 0 */
	uint32_t nb_iov;
	uint32_t at_iov;
	uint8_t *bounce;
	uint32_t bounce_at; /* in it, of the byte at done */
	uint64_t filled;    /* writes: the data up to here is, or was, in it */
	uint8_t how;	    /* the operation in progress */
	bool cached;	    /* around the page cache it was tried in vain */

	struct vringh_seg room[VFN_BLK_SEGS];
	struct iovec iov_room[VFN_BLK_SEGS];
};

/* What became of a request that was submitted. */
enum vfn_blk_out {
	VFN_BLK_DONE, /* its status is set */
	VFN_BLK_OUT,  /* vfn_blk_done() will be called */
};

struct vfn_blk_backend {
	const char *name;
	bool can_discard;
	bool keeps_order; /* requests end in the order of submit() */
	/*
	 * Control. Open what params name, and set capacity, in bytes, and block_size. 0; or a
	 * negative errno, with the reason in the log.
	 */
	int (*open)(struct vfn_blk *blk);
	void (*close)(struct vfn_blk *blk);
	/*
	 * Have it for itself, which open() may have put off, and let go of it. 0; -EBUSY; or
	 * another negative errno, with the reason in the log. NULL: nobody else can have it.
	 */
	int (*claim)(struct vfn_blk *blk);
	void (*release)(struct vfn_blk *blk);
	/* Of a queue; NULL: there is nothing. 0 or a negative errno. */
	int (*queue_open)(struct vfn_blk_queue *bq);
	void (*queue_close)(struct vfn_blk_queue *bq);
	/* While nothing is out. 0: look. Sets capacity, or returns a negative errno. */
	int (*resize)(struct vfn_blk *blk, uint64_t size);

	/*
	 * Poller, or control in its place. Will this one be out, so that it has to be kept and iov
	 * be set, before it is submitted? NULL: none is.
	 *
	 * The status is OK. If it is another one there is nothing to do but to wait for those
	 * before it, where the order is kept.
	 */
	bool (*keeps)(const struct vfn_blk_queue *bq, const struct vfn_blk_req *r);
	enum vfn_blk_out (*submit)(struct vfn_blk_queue *bq, struct vfn_blk_req *r);
	/* What was submitted is to be begun; NULL: it is. */
	void (*kick)(struct vfn_blk_queue *bq);
	/* Call vfn_blk_done() for what has ended, for at most a burst; NULL: nothing is ever out.
	 */
	void (*poll)(struct vfn_blk_queue *bq);
	/*
	 * From now on wake_fd is written to when something ends. True: something has. NULL: as
	 * long as something is out it is polled.
	 */
	bool (*arm)(struct vfn_blk_queue *bq);
	int (*wake_fd)(const struct vfn_blk_queue *bq); /* NULL: none */
};

/* request.c. Poller: status is set. */
void vfn_blk_done(struct vfn_blk_queue *bq, struct vfn_blk_req *r);
/* The status that stands for a negative errno, which is counted. */
uint8_t vfn_blk_failed(struct vfn_blk_queue *bq, int error);

#endif /* VFN_BLK_BACKEND_H */
