/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What a device reaches of its guest's memory, part by part, and the platform that bounces. */

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "vfn_platform.h"

void
vfn_dma_map_cut(struct vfn_dma_map *map, uint64_t iova, uint64_t len)
{
	const uint64_t skip = iova - map->iova;

	map->iova = iova;
	map->len = len;
	map->offset += skip;
	if (map->host != NULL)
		map->host = (uint8_t *)map->host + skip;
}

int
vfn_platform_next(struct vfn_platform *platform, struct vfn_dma_map *rest, struct vfn_dma_map *part)
{
	uint64_t skip;
	int ret = 1;

	if (rest->len == 0)
		return 0;
	*part = *rest;
	if (platform != NULL)
		ret = platform->map(platform, part);
	if (ret <= 0)
		return ret;
	skip = part->iova - rest->iova;
	if (part->len == 0 || skip >= rest->len || part->len > rest->len - skip)
		return -EINVAL;
	skip += part->len;
	vfn_dma_map_cut(rest, rest->iova + skip, rest->len - skip);
	return 1;
}

static int
pool_map(struct vfn_platform *platform, struct vfn_dma_map *map)
{
	const struct vfn_pool *pool = (const struct vfn_pool *)platform;
	const uint64_t map_last = map->iova + (map->len - 1);
	unsigned int i;

	/* They are sorted. */
	for (i = 0; i < pool->nb_ranges; i++) {
		const struct vfn_pool_range *r = &pool->range[i];
		const uint64_t range_last = r->iova + (r->len - 1);
		const uint64_t first = r->iova > map->iova ? r->iova : map->iova;
		const uint64_t last = range_last < map_last ? range_last : map_last;

		if (first > last)
			continue;
		vfn_dma_map_cut(map, first, last - first + 1);
		return 1;
	}
	return 0;
}

/* *text moves behind it. */
static bool
parse_number(const char **text, uint64_t *v)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)**text))
		return false;
	errno = 0;
	*v = strtoull(*text, &end, 0);
	unit = *end != '\0' ? strchr(units, *end) : NULL;
	*text = end + (unit != NULL);
	if (errno != 0 || (unit != NULL && *v > UINT64_MAX >> 10 * (unit - units + 1)))
		return false;
	if (unit != NULL)
		*v <<= 10 * (unit - units + 1);
	return true;
}

static bool
parse_range(const char **text, struct vfn_pool_range *r)
{
	if (!parse_number(text, &r->iova) || *(*text)++ != '+')
		return false;
	return parse_number(text, &r->len) && r->len > 0 && r->iova + (r->len - 1) >= r->iova;
}

/* In its place; false if it overlaps another. */
static bool
pool_add(struct vfn_pool *pool, const struct vfn_pool_range *new)
{
	unsigned int at = 0;

	while (at < pool->nb_ranges && pool->range[at].iova < new->iova)
		at++;
	if ((at > 0 && new->iova - pool->range[at - 1].iova < pool->range[at - 1].len) ||
		(at < pool->nb_ranges && pool->range[at].iova - new->iova < new->len))
		return false;
	memmove(&pool->range[at + 1], &pool->range[at],
		(pool->nb_ranges - at) * sizeof(pool->range[0]));
	pool->range[at] = *new;
	pool->nb_ranges++;
	return true;
}

bool
vfn_pool_parse(const char *text, struct vfn_pool *pool)
{
	const bool list = *text == '[';
	struct vfn_pool_range range;

	_Static_assert(offsetof(struct vfn_pool, platform) == 0, "pool_map()");
	*pool = (struct vfn_pool){.platform.map = pool_map};
	text += list;
	do {
		if (pool->nb_ranges == VFN_POOL_RANGES || !parse_range(&text, &range) ||
			!pool_add(pool, &range))
			return false;
	} while (list && *text++ == ',');
	return list ? text[-1] == ']' && *text == '\0' : *text == '\0';
}
