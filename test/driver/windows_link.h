/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A link whose function reaches nothing but windows, in place of the one that vfn_function_open()
 * makes: with VFN_POSTED=windows in the environment there are both sides of a simulated bridge in
 * this process. Registers, interrupts and doorbells are the function's own.
 */

#ifndef WINDOWS_LINK_H
#define WINDOWS_LINK_H

#include <stdint.h>

#include <ntb_sim.h>
#include <vfn_link.h>

/* Of the bridges of links that are made from now on. */
extern uint64_t windows_size;

struct vfn_link *windows_link(struct vfn_link *real);

/* The sides of the driver and of the function. */
struct ntb *windows_host(struct vfn_link *link);
struct ntb *windows_end(struct vfn_link *link);

#endif /* WINDOWS_LINK_H */
