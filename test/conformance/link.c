/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The links that the checks go over. A kind is a line in the table. */

#include <errno.h>

#include <vfn_net_function.h>

#include "device.h"

/* posted_link.c stands before vfn_function_open(), and looks at the environment for the kind. */
static int
open_here(const char *posted, const struct target_conf *conf, struct target *t)
{
	struct vfn_net_params net = {
		.max_pairs = 2,
		.mac = {0x02, 'v', 'f', 'n', 0, 1},
		.mtu = 1500,
		.offloads = conf->plain ? VFN_OFFLOADS_OFF : VFN_OFFLOADS_ALL,
	};
	struct vfn_function_params params = {
		.name = "conformance",
		.class = &vfn_net_class,
		.class_params = &net,
		.pollers.sleep = conf->sleep,
	};

	if (posted != NULL)
		setenv("VFN_POSTED", posted, 1);
	else
		unsetenv("VFN_POSTED");
	return vfn_function_open(&params, &t->fn, &t->link);
}

static int
open_local(const struct target_conf *conf, struct target *t)
{
	return open_here(NULL, conf, t);
}

static int
open_posted(const struct target_conf *conf, struct target *t)
{
	return open_here("all", conf, t);
}

static int
open_endpoint(const struct target_conf *conf, struct target *t)
{
	return open_here("endpoint", conf, t);
}

static int
open_ntb(const struct target_conf *conf, struct target *t)
{
	return open_here("ntb", conf, t);
}

static int
open_iommu(const struct target_conf *conf, struct target *t)
{
	return open_here("iommu", conf, t);
}

static const struct {
	const char *name;
	int (*open)(const struct target_conf *conf, struct target *t);
} kinds[] = {
	{"local", open_local},
	{"posted", open_posted},
	{"endpoint", open_endpoint},
	{"ntb", open_ntb},
	{"iommu", open_iommu},
};

const char *
link_kind_name(unsigned int i)
{
	return i < DIM(kinds) ? kinds[i].name : NULL;
}

int
open_link(const char *kind, const struct target_conf *conf, struct target *t)
{
	unsigned int i;

	for (i = 0; i < DIM(kinds); i++)
		if (strcmp(kinds[i].name, kind) == 0)
			return kinds[i].open(conf, t);
	return -EINVAL;
}
