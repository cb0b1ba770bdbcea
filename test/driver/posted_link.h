/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A link as bad as a link may be, around the one that vfn_function_open() makes, by the linker's
 * --wrap. With VFN_POSTED=writes in the environment register writes are posted: a thread applies
 * them later, and whatever comes after waits for that. With VFN_POSTED=all every completion is
 * late, too: a register that starts something reads as before for a while; maps need a file, and
 * the function has its own mapping of that; and a completion is lost on request.
 */

#ifndef POSTED_LINK_H
#define POSTED_LINK_H

#include <stdbool.h>

#include <vfn_link.h>

/*
 * From now on n completions are lost, UINT32_MAX: all; the function is not told what was written.
 * Which: reset, features_ok, driver_ok, queue_enable, queue_reset, queue_suspend, queue_resume,
 * suspend, dirty_start, dirty_stop, parts. Or an operation fails, without effect: dma_unmap,
 * set_irq, set_job.
 */
void posted_lose(struct vfn_link *link, const char *what, unsigned int n);

/* Nobody is at the other end: registers read as all ones. */
void posted_gone(struct vfn_link *link, bool gone);

#endif /* POSTED_LINK_H */
