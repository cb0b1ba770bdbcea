/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Mutations that keep records whole: bytes that are inserted or taken out elsewhere would shift
 * all that follows. Runs on the target's thread.
 */

#include <string.h>

#include "fuzz_input.h"

#define HEAD sizeof(struct fuzz_head)
#define OP   sizeof(struct fuzz_op)

/* Values at which something changes: of opcodes, lengths, indices. */
static uint32_t
interesting(uint64_t *seed)
{
	static const uint32_t value[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 255, 256, 4095, 4096,
		0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};

	return value[fuzz_random(seed) % DIM(value)];
}

static void
change_field(struct fuzz_op *op, uint64_t *seed)
{
	uint32_t v = fuzz_random(seed) % 2 ? interesting(seed) : fuzz_random(seed);

	switch (fuzz_random(seed) % 8) {
	case 0:
		op->op = v;
		break;
	case 1:
		op->a = v;
		break;
	case 2:
		op->b = v;
		break;
	case 3:
		op->e = v;
		break;
	case 4:
		op->f ^= 1u << v % 16;
		break;
	case 5:
		op->c = v;
		break;
	case 6:
		op->d = AT(fuzz_random(seed), v & ((1u << AT_SHIFT) - 1));
		break;
	case 7: /* a buffer that ends about where its region does */
		op->c = v % 64;
		op->d = AT(AT_END, (fuzz_random(seed) % 16) << 16) |
			((op->c + fuzz_random(seed) % 3 - 1) & 0xffff);
		break;
	}
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed32)
{
	uint64_t seed = seed32;
	size_t n, i, k, len;
	struct fuzz_op op;

	if (size < HEAD || max_size < HEAD + OP || fuzz_random(&seed) % 16 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	if (fuzz_random(&seed) % 16 == 0) {
		LLVMFuzzerMutate(data, HEAD, HEAD);
		data[0] = FUZZ_VERSION;
		return size;
	}
	n = (size - HEAD) / OP;
	i = n > 0 ? fuzz_random(&seed) % n : 0;
	k = n > 0 ? fuzz_random(&seed) % n : 0;
	/* Runs of records that belong together stay so. */
	len = 1 + fuzz_random(&seed) % 4;
	data += HEAD;
	switch (fuzz_random(&seed) % 6) {
	case 0: /* insert a copy of records, or a new one */
		if (HEAD + (n + len) * OP > max_size || k + len > n) {
			if (HEAD + (n + 1) * OP > max_size)
				return size;
			for (k = 0; k < OP; k++)
				((uint8_t *)&op)[k] = fuzz_random(&seed);
			memmove(data + (i + 1) * OP, data + i * OP, (n - i) * OP);
			memcpy(data + i * OP, &op, OP);
			return HEAD + (n + 1) * OP;
		}
		memmove(data + (i + len) * OP, data + i * OP, (n - i) * OP);
		/* What was at k may have moved: any records will do. */
		memmove(data + i * OP, data + k * OP, len * OP);
		return HEAD + (n + len) * OP;
	case 1: /* take out */
		if (i + len > n)
			return size;
		memmove(data + i * OP, data + (i + len) * OP, (n - i - len) * OP);
		return HEAD + (n - len) * OP;
	case 2: /* exchange */
		if (n == 0)
			return size;
		memcpy(&op, data + i * OP, OP);
		memcpy(data + i * OP, data + k * OP, OP);
		memcpy(data + k * OP, &op, OP);
		return size;
	case 3:
		if (n > 0)
			LLVMFuzzerMutate(data + i * OP, OP, OP);
		return size;
	default:
		if (n > 0) {
			memcpy(&op, data + i * OP, OP);
			change_field(&op, &seed);
			memcpy(data + i * OP, &op, OP);
		}
		return size;
	}
}

/* The head and the first records of one, the last ones of the other. */
size_t
LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
	uint8_t *out, size_t max_size, unsigned int seed32)
{
	uint64_t seed = seed32;
	size_t n1, n2;

	if (size1 < HEAD || size2 < HEAD || max_size < size1)
		return 0;
	n1 = fuzz_random(&seed) % ((size1 - HEAD) / OP + 1) * OP;
	n2 = fuzz_random(&seed) % ((size2 - HEAD) / OP + 1) * OP;
	memcpy(out, data1, HEAD + n1);
	if (n2 > max_size - HEAD - n1)
		n2 = (max_size - HEAD - n1) / OP * OP;
	memcpy(out + HEAD + n1, data2 + size2 - n2, n2);
	return HEAD + n1 + n2;
}
