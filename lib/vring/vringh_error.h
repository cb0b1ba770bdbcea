/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * How every function of the library tells what is wrong: one convention, one list of reasons.
 *
 * A function that can refuse returns an int, 0 or what it says on success, or a negative
 * reason: -VRINGH_E_..., which vringh_strerror() takes as it is. Nothing sets or returns errno. The
 * reason itself, positive, is what vringh_broken() and vringh_chain.error tell. A bool or a number
 * of bytes is an answer, never an error.
 *
 * Section numbers are those of virtio 1.3. Everything here may be called by any thread.
 */

#ifndef VRINGH_ERROR_H
#define VRINGH_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** Reasons for which a ring, a queue's memory or a chain is refused. */
enum vringh_error {
	VRINGH_OK,
	/* The queue can't be trusted any more. */
	VRINGH_E_AVAIL_IDX, /**< Split: more made available than the queue size. */
	VRINGH_E_HEAD,	    /**< Split: head outside the descriptor table. */
	VRINGH_E_RUNAWAY,   /**< Packed: more made available than the ring has slots. */
	/* The chain is bad; it is completed with length 0. */
	VRINGH_E_NEXT,	   /**< Split: next outside the descriptor table. */
	VRINGH_E_LOOP,	   /**< Chain longer than the queue size. */
	VRINGH_E_ORDER,	   /**< Device-readable descriptor after a device-writable one. */
	VRINGH_E_INDIRECT, /**< Indirect not negotiated, nested, or together with NEXT. */
	VRINGH_E_TABLE,	   /**< Indirect table of length 0, ragged, or longer than the queue. */
	VRINGH_E_ADDR,	   /**< Address outside the memory, or wrapping. */
	VRINGH_E_PERM,	   /**< Memory is not readable, or not writable, for the device. */
	VRINGH_E_LEN,	   /**< Lengths of one direction add up to 2^32 or more. */
	VRINGH_E_SEGS,	   /**< More segments than the whole batch can hold. */
	/* The ring was refused by vringh_init(). */
	VRINGH_E_SIZE,	  /**< Size 0, above 32768, or (split) not a power of two. */
	VRINGH_E_ALIGN,	  /**< An area is not aligned (2.7, 2.8), on the bus or in this process. */
	VRINGH_E_AREA,	  /**< An area is not in one piece with the rights it needs. */
	VRINGH_E_OVERLAP, /**< Areas overlap, or ranges of a translation table. */
	VRINGH_E_STATE,	  /**< Indices that cannot occur on a ring of this size. */
	/* Can be mended by a map: nothing was consumed. */
	VRINGH_E_MISS, /**< An address that the translation table does not know. */
	/* A call was refused: nothing has changed. */
	VRINGH_E_RANGE,	   /**< A range that is empty, or wraps. */
	VRINGH_E_FULL,	   /**< No room in the translation table. */
	VRINGH_E_DIRTY,	   /**< The dirty log is too short. */
	VRINGH_E_INFLIGHT, /**< In-flight region too small, or contradicting the ring or itself. */
	VRINGH_E_MAX,
};

/** Text for an error, without a full stop; of either sign. */
const char *vringh_strerror(int error);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* VRINGH_ERROR_H */
