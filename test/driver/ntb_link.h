/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A link over a simulated bridge in place of the one that vfn_function_open() makes: with
 * VFN_POSTED=ntb in the environment the function is served at one side in this process, and reached
 * from the other. Memory that is no window's is mapped past the bridge: this is about control. With
 * VFN_POSTED=bridge the data path goes through its windows, too. VFN_NTB_LATENCY: microseconds.
 */

#ifndef NTB_LINK_H
#define NTB_LINK_H

#include <stdbool.h>

#include <vfn_link.h>

/* Is it so? What a test asks of other links only it skips then. */
bool over_ntb(void);

/* Or so, with data? */
bool over_bridge(void);

/* Serve the function of a link, and have a link to that instead. */
struct vfn_link *ntb_link(struct vfn_link *real);

/* The sides of the driver and of the function. */
struct ntb *ntb_link_host(struct vfn_link *link);
struct ntb *ntb_link_end(struct vfn_link *link);

#endif /* NTB_LINK_H */
