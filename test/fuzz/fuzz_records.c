/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Structured target of one ring format: FUZZ_FORMAT is 0 for split, 1 for packed. The input is a
 * head and records. One thread.
 */

#include <string.h>

#include "fuzz_ring.h"

/* With FUZZ_TRACE in the environment an input is told record by record. */
static void
trace(const struct fuzz *f, const struct fuzz_op *op)
{
	static const char *const name[OP_MAX] = {"desc", "table", "avail", "poke", "fetch",
		"discard", "complete", "pull", "push", "copy", "need_notify", "enable", "disable",
		"set_mem", "map", "unmap", "refuse", "log", "reload"};
	struct vringh_state state = vringh_get_state(&f->vr);

	fprintf(stderr,
		"%#06x/%#06x %s%s: %u held, %u again: %s a=%#x b=%u e=%#x f=%#x c=%#x d=%#x "
		"(%#jx)\n",
		state.avail, state.used, f->ready ? "" : "refused, ",
		vringh_strerror(vringh_broken(&f->vr)), f->nb_held, f->again, name[op->op % OP_MAX],
		op->a, op->b, op->e, op->f, op->c, op->d,
		(uintmax_t)guest_addr(&f->g, op->d, vringh_get_miss(&f->vr).iova));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz f;
	static int told = -1;
	struct fuzz_head head;
	struct fuzz_op op;
	uint32_t i;

	if (told < 0)
		told = getenv("FUZZ_TRACE") != NULL;
	if (size < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	if (head.version != FUZZ_VERSION)
		return 0;
	fuzz_open(&f, &head, FUZZ_FORMAT);
	if (told)
		fprintf(stderr, "flags %#x, kind %u, areas %u %u %u, size %u, batch %u of %u\n",
			head.flags, f.g.space[0].mem.kind, head.area_kind[0], head.area_kind[1],
			head.area_kind[2], f.cfg.size, f.batch.max_chains, f.batch.max_segs);
	for (i = 0; i < FUZZ_MAX_OPS && sizeof(head) + (i + 1) * sizeof(op) <= size; i++) {
		memcpy(&op, data + sizeof(head) + i * sizeof(op), sizeof(op));
		if (told)
			trace(&f, &op);
		fuzz_run(&f, &op);
	}
	fuzz_close(&f);
	return 0;
}
