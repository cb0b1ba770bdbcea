/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Inputs that are a head and a list of records of one size, and mutations that keep records whole:
 * bytes that are inserted or taken out elsewhere would shift all that follows. Any one thread.
 */

#ifndef FUZZ_LIST_H
#define FUZZ_LIST_H

#include <string.h>

#include "fuzz_input.h"

#define FUZZ_LIST_HEAD sizeof(struct fuzz_head)

/* Change one thing of a record. */
typedef void (*fuzz_change_fn)(void *record, uint64_t *seed);

/* As LLVMFuzzerCustomMutator(). */
size_t fuzz_list_mutate(uint8_t *data, size_t size, size_t max_size, unsigned int number,
	size_t record, fuzz_change_fn change);
/* As LLVMFuzzerCustomCrossOver(): the beginning of one, the end of the other. */
size_t fuzz_list_cross(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
	uint8_t *out, size_t max_size, unsigned int number, size_t record);

#endif /* FUZZ_LIST_H */
