/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What is at the other end of a function: a table of operations for each kind, in a file of its
 * own. Control with the function locked, and while it is quiet unless they say otherwise.
 */

#ifndef VFN_WIRING_H
#define VFN_WIRING_H

#include "vfn_net_function.h"

struct vfn_net;
struct vfn_net_work;
struct vfn_receivers;

struct vfn_net_wiring {
	/*
	 * Take what params (vfn_net.params.wiring) name; the list is locked. 0, or a negative
	 * errno: -EBUSY if another one has it.
	 */
	int (*open)(struct vfn_net *net);
	/* Let it go; the list is locked. */
	void (*close)(struct vfn_net *net);
	/* Why nothing can pass there. NULL: it always can. Not quiet. */
	enum vfn_link_down (*down)(const struct vfn_net *net);
	/* Queues may be active that were not. NULL: no matter. Not quiet. */
	void (*activated)(struct vfn_net *net);
	/*
	 * Only while the link is up: who receives what the guest sends, and work for what comes to
	 * it from there (vfn_work_add()). NULL: nobody, and nothing.
	 */
	void (*start)(struct vfn_net *net, struct vfn_receivers *to);
	/* Where frames of pair i go, only while the link is up. NULL: to the receivers. */
	void (*send)(struct vfn_net *net, unsigned int i, struct vfn_net_work *w);
	/* It takes, and makes, no frames to be segmented. */
	bool whole_frames;
};

/* By enum vfn_wiring. */
extern const struct vfn_net_wiring vfn_wiring_loopback, vfn_wiring_wire, vfn_wiring_sink,
	vfn_wiring_gen, vfn_wiring_ethdev;

#endif /* VFN_WIRING_H */
