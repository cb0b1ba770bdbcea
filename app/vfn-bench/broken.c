/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Negative control: linked into a vfn-bench of its own, where VFN_BENCH_BREAK says what lib/vring
 * (ringtest), or the variant inline of it (vring), does wrong. Its measurements have to fail. Runs
 * on the device's thread.
 */

#include <stdlib.h>
#include <string.h>

#include "vringh.h"

#define STALL_AFTER 1000 /* fetches */

static bool
breaks(const char *what)
{
	const char *chosen = getenv("VFN_BENCH_BREAK");

	return chosen != NULL && strcmp(chosen, what) == 0;
}

/* The linker's --wrap: calls go to __wrap_, the function itself is __real_. */
#define WRAP_BOTH(prefix) \
	int __real_##prefix##vringh_fetch( \
		struct vringh *vr, struct vringh_batch *batch, unsigned int max); \
	int __wrap_##prefix##vringh_fetch( \
		struct vringh *vr, struct vringh_batch *batch, unsigned int max); \
	int __wrap_##prefix##vringh_fetch( \
		struct vringh *vr, struct vringh_batch *batch, unsigned int max) \
	{ \
		static unsigned int calls; \
		int n; \
\
		if (breaks("stall") && calls++ > STALL_AFTER) \
			return 0; \
		n = __real_##prefix##vringh_fetch(vr, batch, max); \
		if (n > 0 && breaks("segment")) \
			batch->chain[n - 1].seg->len--; \
		return n; \
	} \
	void __real_##prefix##vringh_complete( \
		struct vringh *vr, const struct vringh_chain *chain, unsigned int n); \
	void __wrap_##prefix##vringh_complete( \
		struct vringh *vr, const struct vringh_chain *chain, unsigned int n); \
	void __wrap_##prefix##vringh_complete( \
		struct vringh *vr, const struct vringh_chain *chain, unsigned int n) \
	{ \
		struct vringh_chain changed = chain[n - 1]; \
\
		if (breaks("bytes")) \
			changed.seg->addr[0] ^= 1; \
		if (breaks("length")) \
			changed.written++; \
		if (breaks("order") && n > 1) { \
			changed = chain[0]; \
			__real_##prefix##vringh_complete(vr, &chain[1], n - 1); \
		} else if (n > 1) { \
			__real_##prefix##vringh_complete(vr, chain, n - 1); \
		} \
		if (!breaks("lost")) \
			__real_##prefix##vringh_complete(vr, &changed, 1); \
	}

WRAP_BOTH()
WRAP_BOTH(inline_)

int __real_inline_vringh_set_dirty_log(struct vringh *vr, const struct vringh_dirty_log *log);
int __wrap_inline_vringh_set_dirty_log(struct vringh *vr, const struct vringh_dirty_log *log);
int
__wrap_inline_vringh_set_dirty_log(struct vringh *vr, const struct vringh_dirty_log *log)
{
	return breaks("log") ? 0 : __real_inline_vringh_set_dirty_log(vr, log);
}
