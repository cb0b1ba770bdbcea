/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Mutations of lists, see fuzz_list.h.
 */

#include "fuzz_list.h"

#define HEAD	   FUZZ_LIST_HEAD
#define MAX_RECORD 64

size_t
fuzz_list_mutate(uint8_t *data, size_t size, size_t max_size, unsigned int number, size_t record,
	fuzz_change_fn change)
{
	_Alignas(8) uint8_t r[MAX_RECORD];
	uint64_t s = number;
	size_t n, i, k;

	if (size < HEAD)
		return LLVMFuzzerMutate(data, size, max_size);
	n = (size - HEAD) / record;
	i = n > 0 ? fuzz_random(&s) % n : 0;
	k = n > 0 ? fuzz_random(&s) % n : 0;
	switch (n > 0 ? fuzz_random(&s) % 8 : 0) {
	case 0:
		LLVMFuzzerMutate(data + 1, 3, 3);
		break;
	case 1: /* twice, elsewhere */
		if (HEAD + (n + 1) * record > max_size)
			break;
		memcpy(r, data + HEAD + i * record, record);
		memmove(data + HEAD + (k + 1) * record, data + HEAD + k * record, (n - k) * record);
		memcpy(data + HEAD + k * record, r, record);
		n++;
		break;
	case 2: /* left out */
		memmove(data + HEAD + i * record, data + HEAD + (i + 1) * record,
			(n - i - 1) * record);
		n--;
		break;
	case 3: /* exchanged */
		memcpy(r, data + HEAD + i * record, record);
		memcpy(data + HEAD + i * record, data + HEAD + k * record, record);
		memcpy(data + HEAD + k * record, r, record);
		break;
	default:
		memcpy(r, data + HEAD + i * record, record);
		change(r, &s);
		memcpy(data + HEAD + i * record, r, record);
		break;
	}
	return HEAD + n * record;
}

size_t
fuzz_list_cross(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
	uint8_t *out, size_t max_size, unsigned int number, size_t record)
{
	uint64_t s = number;
	size_t n1, n2, a, b;

	if (size1 < HEAD || size2 < HEAD)
		return 0;
	n1 = (size1 - HEAD) / record;
	n2 = (size2 - HEAD) / record;
	a = fuzz_random(&s) % (n1 + 1);
	b = fuzz_random(&s) % (n2 + 1);
	if (HEAD + (a + n2 - b) * record > max_size)
		return 0;
	memcpy(out, data1, HEAD + a * record);
	memcpy(out + HEAD + a * record, data2 + HEAD + b * record, (n2 - b) * record);
	return HEAD + (a + n2 - b) * record;
}
