/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A block function as people write it down, key by key. */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>

#include "vfn_blk_args.h"

/* A whole number, and K, M, G or T behind it. */
static bool
parse_size(const char *value, uint64_t *size)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)*value))
		return false;
	errno = 0;
	*size = strtoull(value, &end, 10);
	if (errno != 0)
		return false;
	if (*end == '\0')
		return *size > 0;
	unit = strchr(units, *end);
	if (unit == NULL || end[1] != '\0' ||
		*size > (uint64_t)INT64_MAX >> 10 * (unit - units + 1))
		return false;
	*size <<= 10 * (unit - units + 1);
	return *size > 0;
}

/* One back-end, once. */
static bool
choose(struct vfn_blk_params *blk, const struct vfn_blk_backend *backend)
{
	bool first = blk->backend == NULL;

	blk->backend = backend;
	return first;
}

static bool
parse_file(const char *value, struct vfn_blk_params *blk)
{
	if (*value == '\0' || strlen(value) >= sizeof(blk->path))
		return false;
	strcpy(blk->path, value);
	return choose(blk, &vfn_blk_file);
}

static bool
parse_mem(const char *value, struct vfn_blk_params *blk)
{
	return parse_size(value, &blk->size) && choose(blk, &vfn_blk_mem);
}

static bool
parse_null(const char *value, struct vfn_blk_params *blk)
{
	return parse_size(value, &blk->size) && choose(blk, &vfn_blk_null);
}

static bool
parse_queues(const char *value, struct vfn_blk_params *blk)
{
	uint64_t v;

	if (!parse_size(value, &v) || v > VFN_BLK_MAX_QUEUES)
		return false;
	blk->queues = v;
	return true;
}

static bool
parse_on(const char *value, bool *on)
{
	*on = strcmp(value, "on") == 0;
	return *on || strcmp(value, "off") == 0;
}

static bool
parse_readonly(const char *value, struct vfn_blk_params *blk)
{
	return parse_on(value, &blk->read_only);
}

static bool
parse_share(const char *value, struct vfn_blk_params *blk)
{
	return parse_on(value, &blk->share);
}

static bool
parse_serial(const char *value, struct vfn_blk_params *blk)
{
	if (*value == '\0' || strlen(value) >= sizeof(blk->serial))
		return false;
	strcpy(blk->serial, value);
	return true;
}

static bool
parse_block_size(const char *value, struct vfn_blk_params *blk)
{
	uint64_t v;

	if (!parse_size(value, &v) || v < VFN_BLK_SECTOR || v > 65536 || (v & (v - 1)) != 0)
		return false;
	blk->block_size = v;
	return true;
}

static bool
parse_cache(const char *value, struct vfn_blk_params *blk)
{
	blk->writethrough = strcmp(value, "writethrough") == 0;
	return blk->writethrough || strcmp(value, "writeback") == 0;
}

static bool
parse_iops(const char *value, struct vfn_blk_params *blk)
{
	return parse_size(value, &blk->rate.ops);
}

static bool
parse_bps(const char *value, struct vfn_blk_params *blk)
{
	return parse_size(value, &blk->rate.bytes);
}

static bool
parse_group(const char *value, struct vfn_blk_params *blk)
{
	if (*value == '\0' || strlen(value) >= sizeof(blk->rate.group))
		return false;
	strcpy(blk->rate.group, value);
	return true;
}

#define SIZES "a number, or one of K, M, G or T"

const struct vfn_blk_arg vfn_blk_args_known[] = {
	{"file", "the path of a file or a block device, and no other back-end", parse_file, "none"},
	{"mem", SIZES " of bytes, and no other back-end", parse_mem, "none"},
	{"null", SIZES " of bytes, and no other back-end", parse_null, "none"},
	{"queues", "1 to " RTE_STR(VFN_BLK_MAX_QUEUES) " queues", parse_queues, "1"},
	{"readonly", "on or off", parse_readonly, "off"},
	{"share", "on or off", parse_share, "off"},
	{"serial", "at most 20 characters", parse_serial, "none"},
	{"block-size", "a power of two from 512 to 65536", parse_block_size,
		"512, or the device's"},
	{"cache", "writeback or writethrough", parse_cache, "writeback"},
	{"iops", SIZES " of requests per second", parse_iops, "none"},
	{"bps", SIZES " of bytes per second", parse_bps, "none"},
	{"rate-group", "a name", parse_group, "none"},
};
const unsigned int vfn_nb_blk_args = RTE_DIM(vfn_blk_args_known);

void
vfn_blk_args_init(struct vfn_blk_params *blk)
{
	*blk = (struct vfn_blk_params){.queues = 1};
}

int
vfn_blk_args_check(const struct vfn_blk_params *blk, char *why, size_t size)
{
	if (blk->backend == NULL)
		snprintf(why, size, "\"class=blk\" needs \"file\", \"mem\" or \"null\"");
	else if (blk->share && blk->backend != &vfn_blk_file)
		snprintf(why, size, "\"share\" needs \"file\"");
	else
		return 0;
	return -EINVAL;
}
