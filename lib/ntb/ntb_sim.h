/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * A simulated bridge between two processes, which meet at the path of a socket: whichever comes
 * first waits there for the other, and again when that has ended.
 *
 * It is as incoherent as a link can be, so that who forgets to flush or to invalidate is found out:
 * both windows are private memory. A flush copies from there to the peer's memory, in the end, and
 * leaves NTB_SIM_POISON behind; an invalidate copies from our memory to the window in.
 */

#ifndef NTB_SIM_H
#define NTB_SIM_H

#include "ntb.h"

/** What is read of the window out once it was flushed, and is flushed if it was not written anew.
 */
#define NTB_SIM_POISON 0xdb

/** Windows are multiples of this. */
#define NTB_SIM_ALIGN 4096u
#define NTB_SIM_MAX   (UINT64_C(1) << 32)

/** How one side is made. */
struct ntb_sim_params {
	const char *name; /**< For messages; copied. */
	const char *path; /**< Of the socket; copied. */
	uint64_t bus;	  /**< First bus address of the window in. */
	uint64_t size;	  /**< Of it; what the peer gets to write at most. */
	uint64_t limit;	  /**< Of the window out; 0: NTB_SIM_MAX / 4. The peer's may be smaller. */
	uint32_t latency_us; /**< Between a flush and its arrival. */
	/**
	 * Not a private copy but the memory itself, as where real windows are mapped: flushes and
	 * invalidates are barriers only. For measurements; not with latency_us.
	 */
	bool mapped;
	/** What happens to the link, in words. Called by a thread of the bridge's; may be NULL. */
	void (*log)(void *arg, const char *text);
	void *log_arg;
};

/**
 * Make one side. The link is down until ntb_link_enable().
 *
 * @param why
 *   Gets the reason of a failure, in words.
 * @return
 *   0; -EINVAL, -ENAMETOOLONG; or a negative errno value of the system's.
 */
int ntb_sim_open(const struct ntb_sim_params *params, struct ntb **ntb, char *why, size_t size);

/** What can get lost. */
enum ntb_sim_loss {
	NTB_SIM_LOSE_DOORBELL,
	NTB_SIM_LOSE_FLUSH,
	NTB_SIM_LOSE_SCRATCHPAD,
	NTB_SIM_NB_LOSSES
};

/** Have the next n of these never arrive; UINT32_MAX: all. For tests. */
void ntb_sim_lose(struct ntb *ntb, enum ntb_sim_loss what, uint32_t n);

#endif /* NTB_SIM_H */
