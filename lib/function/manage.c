/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The operator's face, as far as it is every class's: pollers, platform, faults. Control. */

#include <errno.h>
#include <string.h>

#include "function.h"

/* Returns how many, or a negative errno. */
static int
pollers_start(struct vfn_function *fn, const struct vfn_pollers *pollers,
	struct vfn_poller *poller[VFN_MAX_POLLERS])
{
	unsigned int i, n = vfn_poller_count(pollers, fn->nb_queues / fn->class->stride);
	int ret;

	for (i = 0; i < n; i++) {
		ret = vfn_poller_get(pollers, i, &poller[i]);
		if (ret < 0) {
			FN_LOG(ERR, fn, "cannot start a poller: %s", strerror(-ret));
			while (i-- > 0)
				vfn_poller_put(poller[i]);
			return ret;
		}
	}
	return n;
}

int
vfn_pollers_get(struct vfn_function *fn)
{
	int n = pollers_start(fn, &fn->params.pollers, fn->poller);

	if (n < 0)
		return n;
	fn->nb_pollers = n;
	return 0;
}

void
vfn_pollers_put(struct vfn_function *fn)
{
	unsigned int i;

	for (i = 0; i < fn->nb_pollers; i++)
		vfn_poller_put(fn->poller[i]);
}

int
vfn_manage_pollers(struct vfn_function *fn, const struct vfn_pollers *pollers)
{
	struct vfn_poller *other[VFN_MAX_POLLERS], *old;
	int i, n, nb_old;

	if (pollers->nb_cpus > VFN_MAX_POLLERS)
		return -EINVAL;
	n = pollers_start(fn, pollers, other);
	if (n < 0)
		return n;
	vfn_lock(fn);
	vfn_quiesce(fn);
	for (i = 0; i < VFN_MAX_POLLERS; i++) {
		old = fn->poller[i];
		fn->poller[i] = i < n ? other[i] : NULL;
		other[i] = old;
	}
	nb_old = fn->nb_pollers;
	fn->nb_pollers = n;
	fn->params.pollers = *pollers;
	vfn_resume(fn);
	vfn_unlock(fn);
	for (i = 0; i < nb_old; i++)
		vfn_poller_put(other[i]);
	return 0;
}

int
vfn_manage_poller_stats(
	struct vfn_function *fn, unsigned int poller, struct vfn_poller_stats *stats)
{
	int ret = -ENOENT;

	vfn_lock(fn);
	if (poller < fn->nb_pollers) {
		vfn_poller_stats(fn->poller[poller], stats);
		ret = 0;
	}
	vfn_unlock(fn);
	return ret;
}

int
vfn_manage_platform(struct vfn_function *fn, struct vfn_platform *platform)
{
	int ret = -EBUSY;

	vfn_lock(fn);
	if (fn->dma.nb_regions == 0) {
		fn->platform = platform != NULL ? platform : vfn_dma_platform(fn);
		ret = 0;
	}
	vfn_unlock(fn);
	return ret;
}

void
vfn_manage_faults(struct vfn_function *fn, unsigned int faults)
{
	vfn_lock(fn);
	fn->params.faults = faults;
	vfn_unlock(fn);
}
