/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Registers that do not trap: a page of the window in, where plain writes arrive, is compared with
 * a shadow copy, and what has changed goes to the handler of trapped writes. On the server's
 * thread.
 */

#include "ntb.h"

void
ns_poll_notify(struct vfn_ntb_server *s)
{
	const uint8_t *page = s->ntb->in.host + VFN_NTB_NOTIFY_AT;
	union {
		uint64_t word;
		struct vfn_ntb_notify notify;
	} now, seen;
	unsigned int i;

	for (i = 0; i < s->nb_queues; i++) {
		const uint64_t *at = (const uint64_t *)page + i;

		ntb_invalidate(s->ntb, at, sizeof(*at));
		now.word = __atomic_load_n(at, __ATOMIC_ACQUIRE);
		seen.notify = s->seen[i];
		if (now.word == seen.word)
			continue;
		s->seen[i] = now.notify;
		ns_notify(s, i, now.notify.value, now.notify.len);
	}
}
