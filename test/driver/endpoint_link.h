/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The link of the driver to an endpoint in place of the one that vfn_function_open() makes: with
 * VFN_POSTED=endpoint in the environment the function is served by vfio-user in this process, and
 * reached through a socket. Its operator's calls work as before.
 */

#ifndef ENDPOINT_LINK_H
#define ENDPOINT_LINK_H

#include <stdbool.h>

#include <vfn_link.h>

struct vfn_function;

/* Is it so? What a test asks of other links only it skips then. */
bool over_endpoint(void);

/* Serve the function of a link, and have a link to that instead. */
struct vfn_link *endpoint_link(struct vfn_function *fn, struct vfn_link *real);

#endif /* ENDPOINT_LINK_H */
