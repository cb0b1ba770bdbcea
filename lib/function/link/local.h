/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The link to a function in the same process. */

#ifndef VFN_LOCAL_H
#define VFN_LOCAL_H

struct vfn_function;
struct vfn_link;

/* Closing it closes the function. */
struct vfn_link *vfn_link_local(struct vfn_function *fn);

#endif /* VFN_LOCAL_H */
