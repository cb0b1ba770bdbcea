/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What both sides of a bridge say in scratchpads. On the thread that controls the link. */

#include <stdio.h>

#include "vfn_ntb.h"

void
vfn_ntb_say(struct ntb *ntb, uint32_t role)
{
	ntb_set_peer_scratchpad(ntb, VFN_NTB_PAD_MAGIC, VFN_NTB_MAGIC);
	ntb_set_peer_scratchpad(ntb, VFN_NTB_PAD_VERSION, VFN_MSG_VERSION);
	ntb_set_peer_scratchpad(ntb, VFN_NTB_PAD_ROLE, role);
	ntb_set_peer_scratchpad(ntb, VFN_NTB_PAD_MESSAGE, VFN_MSG_MAX);
	ntb_set_peer_scratchpad(ntb, VFN_NTB_PAD_AREA, VFN_NTB_AREA_SIZE);
	ntb_set_peer_scratchpad(ntb, VFN_NTB_PAD_READY, VFN_NTB_MAGIC);
	ntb_ring(ntb, UINT32_C(1) << VFN_NTB_BELL_MESSAGE);
}

static bool
is_too_small(const char *whose, uint64_t window, char *why, size_t size)
{
	if (window >= VFN_NTB_AREA_SIZE)
		return false;
	snprintf(why, size, "%s window of 0x%llx bytes has no room for a control area of 0x%x",
		whose, (unsigned long long)window, VFN_NTB_AREA_SIZE);
	return true;
}

enum vfn_ntb_heard
vfn_ntb_hear(struct ntb *ntb, enum vfn_ntb_role peer, uint32_t *role, char *why, size_t size)
{
	static const struct {
		const char *name;
		enum vfn_ntb_scratchpad pad;
		uint32_t value;
	} same[] = {
		{"magic number", VFN_NTB_PAD_MAGIC, VFN_NTB_MAGIC},
		{"version", VFN_NTB_PAD_VERSION, VFN_MSG_VERSION},
		{"size of messages", VFN_NTB_PAD_MESSAGE, VFN_MSG_MAX},
		{"control area", VFN_NTB_PAD_AREA, VFN_NTB_AREA_SIZE},
	};
	uint64_t out = __atomic_load_n(&ntb->out.size, __ATOMIC_ACQUIRE);
	uint32_t ready = ntb_scratchpad(ntb, VFN_NTB_PAD_READY);
	size_t i;

	/* Down again: it may hang up for the same reason. */
	if (out == 0 || ready == 0)
		return is_too_small("our", ntb->in.size, why, size) ? VFN_NTB_WRONG :
								      VFN_NTB_SILENT;
	if (is_too_small("our", ntb->in.size, why, size) ||
		is_too_small("the peer's", out, why, size))
		return VFN_NTB_WRONG;
	for (i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		uint32_t v = ntb_scratchpad(ntb, same[i].pad);

		if (v == same[i].value)
			continue;
		snprintf(why, size, "the peer's scratchpad %u (%s) is 0x%x, not 0x%x", same[i].pad,
			same[i].name, v, same[i].value);
		return VFN_NTB_WRONG;
	}
	*role = ntb_scratchpad(ntb, VFN_NTB_PAD_ROLE);
	if ((*role & ~VFN_NTB_CONTROL) != peer) {
		snprintf(why, size, "the peer is no %s",
			peer == VFN_NTB_DRIVER ? "driver" : "device");
		return VFN_NTB_WRONG;
	}
	return VFN_NTB_READY;
}
