/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Memory of a pretended guest. Runs on any one thread. */

#include <stdlib.h>
#include <string.h>

#include "mock_mem.h"

#define PAGE 4096

static uint8_t *
block_new(uint64_t iova, uint64_t len)
{
	uint64_t total = (iova % PAGE) + len;
	void *block;

	if (posix_memalign(&block, PAGE, total > 0 ? total : 1) != 0)
		return NULL;
	memset(block, 0, total);
	return block;
}

uint8_t *
mock_mem_add(struct mock_mem *mem, uint64_t iova, uint64_t len, uint32_t perm)
{
	uint32_t i = 0, behind;
	uint8_t *block;

	while (i < mem->nb_regions && mem->region[i].iova < iova)
		i++;
	if (mem->nb_regions == MOCK_MAX_REGIONS ||
		(i < mem->nb_regions && mem->region[i].iova - iova < len) ||
		(i > 0 && iova - mem->region[i - 1].iova < mem->region[i - 1].len))
		return NULL;
	block = block_new(iova, len);
	if (block == NULL)
		return NULL;
	behind = mem->nb_regions - i;
	memmove(&mem->region[i + 1], &mem->region[i], behind * sizeof(mem->region[0]));
	memmove(&mem->block[i + 1], &mem->block[i], behind * sizeof(mem->block[0]));
	mem->block[i] = block;
	mem->region[i] = (struct vringh_region){
		.iova = iova,
		.len = len,
		.host = block + iova % PAGE,
		.perm = perm,
	};
	mem->nb_regions++;
	return mem->region[i].host;
}

void
mock_mem_remove(struct mock_mem *mem, uint64_t iova)
{
	uint32_t i, behind;

	for (i = 0; i < mem->nb_regions; i++) {
		if (mem->region[i].iova != iova)
			continue;
		free(mem->block[i]);
		behind = --mem->nb_regions - i;
		memmove(&mem->region[i], &mem->region[i + 1], behind * sizeof(mem->region[0]));
		memmove(&mem->block[i], &mem->block[i + 1], behind * sizeof(mem->block[0]));
		return;
	}
}

void
mock_mem_permit(struct mock_mem *mem, uint64_t iova, uint32_t perm)
{
	uint32_t i;

	for (i = 0; i < mem->nb_regions; i++)
		if (mem->region[i].iova == iova)
			mem->region[i].perm = perm;
}

void
mock_mem_move(struct mock_mem *mem)
{
	uint32_t i;

	for (i = 0; i < mem->nb_regions; i++) {
		struct vringh_region *r = &mem->region[i];
		uint8_t *block = block_new(r->iova, r->len);

		if (block == NULL)
			abort();
		memcpy(block + r->iova % PAGE, r->host, r->len);
		memset(r->host, 0xa5, r->len);
		free(mem->block[i]);
		mem->block[i] = block;
		r->host = block + r->iova % PAGE;
	}
}

/* Longest piece at an address, at most *len. */
static uint8_t *
piece(const struct mock_mem *mem, uint64_t iova, uint64_t *len)
{
	uint32_t i;

	for (i = 0; i < mem->nb_regions; i++) {
		const struct vringh_region *r = &mem->region[i];
		uint64_t off = iova - r->iova;

		if (off >= r->len)
			continue;
		if (*len > r->len - off)
			*len = r->len - off;
		return r->host + off;
	}
	return NULL;
}

uint8_t *
mock_mem_at(const struct mock_mem *mem, uint64_t iova, uint64_t len)
{
	uint64_t n = len;
	uint8_t *host = piece(mem, iova, &n);

	return n == len ? host : NULL;
}

bool
mock_mem_write(struct mock_mem *mem, uint64_t iova, const void *src, uint64_t len)
{
	const uint8_t *from = src;

	while (len > 0) {
		uint64_t n = len;
		uint8_t *host = piece(mem, iova, &n);

		if (host == NULL)
			return false;
		memcpy(host, from, n);
		iova += n;
		from += n;
		len -= n;
	}
	return true;
}

bool
mock_mem_read(const struct mock_mem *mem, uint64_t iova, void *dst, uint64_t len)
{
	uint8_t *to = dst;

	while (len > 0) {
		uint64_t n = len;
		const uint8_t *host = piece(mem, iova, &n);

		if (host == NULL)
			return false;
		memcpy(to, host, n);
		iova += n;
		to += n;
		len -= n;
	}
	return true;
}

void
mock_mem_free(struct mock_mem *mem)
{
	while (mem->nb_regions > 0)
		free(mem->block[--mem->nb_regions]);
}
