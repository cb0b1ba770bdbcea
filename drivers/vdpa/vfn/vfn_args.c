/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Device arguments: "--vdev vdpa_vfn0,queues=4,idle=sleep". Runs when a device is probed.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_kvargs.h>

#include <vfn_blk_args.h>
#include <vfn_net_args.h>
#include <vfn_vduse.h>

#include "vfn_drv.h"

/* One argument, beside those of every net function. */
struct arg {
	const char *key;
	const char *values; /* for the error message */
	/* False if it is none of its values. */
	bool (*parse)(const char *value, struct vfn_args *args);
	const char *none; /* what is in force without it */
};

static bool
parse_lm(const char *value, struct vfn_args *args)
{
	if (strcmp(value, "hw") == 0)
		args->lm = VFN_LM_HW;
	else if (strcmp(value, "shadow") == 0)
		args->lm = VFN_LM_SHADOW;
	else if (strcmp(value, "off") == 0)
		args->lm = VFN_LM_OFF;
	else
		return false;
	return true;
}

static bool
parse_drain_ms(const char *value, struct vfn_args *args)
{
	unsigned long v;
	char *end;

	v = strtoul(value, &end, 10);
	args->drain_ms = v;
	return *value >= '0' && *value <= '9' && *end == '\0' && v >= 1 && v <= 60000;
}

static bool
parse_doorbell(const char *value, struct vfn_args *args)
{
	args->doorbell = strcmp(value, "on") == 0;
	return args->doorbell || strcmp(value, "off") == 0;
}

static bool
parse_inflight(const char *value, struct vfn_args *args)
{
	if (*value == '\0' || strlen(value) >= sizeof(args->inflight))
		return false;
	strcpy(args->inflight, value);
	return true;
}

static bool
parse_vduse(const char *value, struct vfn_args *args)
{
	if (*value == '\0' || strlen(value) >= sizeof(args->vduse) || strchr(value, '/') != NULL)
		return false;
	strcpy(args->vduse, value);
	return true;
}

static bool
parse_vduse_timeout(const char *value, struct vfn_args *args)
{
	unsigned long v;
	char *end;

	v = strtoul(value, &end, 10);
	args->vduse_timeout = v;
	return *value >= '0' && *value <= '9' && *end == '\0' && v >= 1 && v <= 3600;
}

static bool
parse_vduse_packed(const char *value, struct vfn_args *args)
{
	args->vduse_packed = strcmp(value, "on") == 0;
	return args->vduse_packed || strcmp(value, "off") == 0;
}

/* What tells vfn-vhost where to serve the device is not the driver's business. */
static bool
parse_socket(const char *value, struct vfn_args *args)
{
	RTE_SET_USED(args);
	return *value != '\0';
}

static bool
parse_link(const char *value, struct vfn_args *args)
{
	args->ntb = strcmp(value, "ntb") == 0;
	args->endpoint = args->ntb || strcmp(value, "endpoint") == 0;
	return args->endpoint || strcmp(value, "inproc") == 0;
}

static bool
parse_path(const char *value, struct vfn_args *args)
{
	if (*value == '\0' || strlen(value) >= sizeof(args->path))
		return false;
	strcpy(args->path, value);
	return true;
}

static bool
parse_number(const char *value, unsigned long least, unsigned long most, uint32_t *to)
{
	char *end;
	unsigned long v = strtoul(value, &end, 10);

	*to = v;
	return *value >= '0' && *value <= '9' && *end == '\0' && v >= least && v <= most;
}

static bool
parse_ntb_size(const char *value, struct vfn_args *args)
{
	return parse_number(value, 1, 4096, &args->ntb_mb);
}

static bool
parse_ntb_latency(const char *value, struct vfn_args *args)
{
	return parse_number(value, 0, 1000000, &args->ntb_us);
}

static bool
parse_control(const char *value, struct vfn_args *args)
{
	args->control = strcmp(value, "host") == 0;
	return args->control || strcmp(value, "endpoint") == 0;
}

static bool
parse_class(const char *value, struct vfn_args *args)
{
	args->is_blk = strcmp(value, "blk") == 0;
	return args->is_blk || strcmp(value, "net") == 0;
}

static const struct arg args_known[] = {
	{"class", "net or blk", parse_class, "net"},
	{"link", "inproc, endpoint or ntb", parse_link, "inproc"},
	{"path", "the path of an endpoint's socket", parse_path, "none"},
	{"ntb-size", "1 to 4096", parse_ntb_size, "64"},
	{"ntb-latency", "0 to 1000000", parse_ntb_latency, "0"},
	{"control", "endpoint or host", parse_control, "endpoint"},
	{"lm", "hw, shadow or off", parse_lm, "hw"},
	{"drain-ms", "1 to 60000", parse_drain_ms, "100"},
	{"doorbell", "on or off", parse_doorbell, "off"},
	{"inflight", "a directory for what crash recovery needs", parse_inflight, "none"},
	{"socket", "the path of a socket", parse_socket, "none"},
	{"socket-mode", "an octal mode", parse_socket, "none"},
	{"socket-owner", "USER, USER:GROUP or :GROUP", parse_socket, "none"},
	{"vduse", "the name of a device of the kernel's", parse_vduse, "none"},
	{"vduse-packed", "on or off", parse_vduse_packed, "on"},
	{"vduse-timeout", "1 to 3600", parse_vduse_timeout, "10"},
};

/* All arguments, one behind the other: what the net class knows, our own, what the block class. */
#define OWN_AT vfn_nb_net_args
#define BLK_AT (OWN_AT + RTE_DIM(args_known))
#define NB_ALL (BLK_AT + vfn_nb_blk_args)

static bool
is_own(unsigned int i)
{
	return i >= OWN_AT && i < BLK_AT;
}

static const char *
key_of(unsigned int i)
{
	return i < OWN_AT ? vfn_net_args_known[i].key :
		is_own(i) ? args_known[i - OWN_AT].key :
			    vfn_blk_args_known[i - BLK_AT].key;
}

/* Of a class; NB_ALL if it has none such. */
static unsigned int
find(const char *key, bool is_blk)
{
	unsigned int i;

	for (i = 0; i < RTE_DIM(args_known); i++)
		if (strcmp(key, args_known[i].key) == 0)
			return OWN_AT + i;
	for (i = 0; i < vfn_nb_blk_args && is_blk; i++)
		if (strcmp(key, vfn_blk_args_known[i].key) == 0)
			return BLK_AT + i;
	for (i = 0; i < vfn_nb_net_args; i++)
		if (strcmp(key, vfn_net_args_known[i].key) == 0 &&
			(!is_blk || vfn_net_args_known[i].any_class))
			return i;
	return NB_ALL;
}

/* What it can be, if it is none of that; else NULL. */
static const char *
parse_value(unsigned int i, const char *value, struct vfn_args *args, struct vfn_net_args *function)
{
	const char *values;
	bool good;

	if (i < OWN_AT) {
		values = vfn_net_args_known[i].values;
		good = value != NULL && vfn_net_args_known[i].parse(value, function);
	} else if (is_own(i)) {
		values = args_known[i - OWN_AT].values;
		good = value != NULL && args_known[i - OWN_AT].parse(value, args);
	} else {
		values = vfn_blk_args_known[i - BLK_AT].values;
		good = value != NULL && vfn_blk_args_known[i - BLK_AT].parse(value, &args->blk);
	}
	return good ? NULL : values;
}

/* seen: which came before. */
static int
parse_one(const struct rte_kvargs_pair *pair, struct vfn_args *args, struct vfn_net_args *function,
	uint64_t *seen)
{
	const char *name = function->function.name, *value = pair->value, *values;
	unsigned int i = find(pair->key, args->is_blk);

	if (i == NB_ALL) {
		DRV_LOG(ERR, "%s: unknown device argument \"%s\"%s", name, pair->key,
			args->is_blk				? " of class=blk" :
				find(pair->key, true) != NB_ALL ? ", which needs class=blk" :
								  "");
		return -EINVAL;
	}
	if (*seen & UINT64_C(1) << i) {
		DRV_LOG(ERR, "%s: device argument \"%s\" is given twice", name, pair->key);
		return -EINVAL;
	}
	*seen |= UINT64_C(1) << i;
	values = parse_value(i, value, args, function);
	if (values != NULL) {
		DRV_LOG(ERR, "%s: device argument \"%s=%s\": expected %s", name, pair->key,
			value != NULL ? value : "", values);
		return -EINVAL;
	}
	return 0;
}

static bool
is_given(uint64_t seen, const char *key)
{
	return seen & UINT64_C(1) << find(key, false);
}

/* Arguments of a function in this process that an endpoint's client may decide, too. */
static bool
is_control(const char *key)
{
	return strcmp(key, "mac") == 0 || strcmp(key, "mtu") == 0 || strcmp(key, "queues") == 0 ||
		strcmp(key, "offloads") == 0;
}

/* What the driver itself reaches, and lets a function reach, wherever that is. */
static bool
is_platform(const char *key)
{
	return strcmp(key, "dma") == 0 || strcmp(key, "pool") == 0;
}

/* Whether the function is in this process, and else who decides what it is. */
static int
check_link(const struct vfn_args *args, const char *name, enum vfn_dma_mode dma, uint64_t seen)
{
	unsigned int i;

	if (!args->ntb && (is_given(seen, "ntb-size") || is_given(seen, "ntb-latency"))) {
		DRV_LOG(ERR, "%s: device argument \"%s\" needs link=ntb", name,
			is_given(seen, "ntb-size") ? "ntb-size" : "ntb-latency");
		return -EINVAL;
	}
	if (!args->endpoint) {
		if (!is_given(seen, "path") && !is_given(seen, "control"))
			return 0;
		DRV_LOG(ERR, "%s: device argument \"%s\" needs link=endpoint or link=ntb", name,
			is_given(seen, "path") ? "path" : "control");
		return -EINVAL;
	}
	if (!is_given(seen, "path")) {
		DRV_LOG(ERR, "%s: device argument \"link=%s\" needs \"path\"", name,
			args->ntb ? "ntb" : "endpoint");
		return -EINVAL;
	}
	if (args->is_blk && args->control) {
		DRV_LOG(ERR, "%s: device argument \"control=host\" is for class=net", name);
		return -EINVAL;
	}
	if (args->ntb && args->lm == VFN_LM_HW && is_given(seen, "lm")) {
		DRV_LOG(ERR,
			"%s: device argument \"lm=hw\": with link=ntb the function has no dirty "
			"log",
			name);
		return -EINVAL;
	}
	if (dma == VFN_DMA_IOMMU) {
		DRV_LOG(ERR, "%s: device argument \"dma=iommu\" needs link=inproc", name);
		return -EINVAL;
	}
	for (i = 0; i < NB_ALL; i++) {
		const char *key = key_of(i);

		if (!(seen & UINT64_C(1) << i) || is_own(i) || is_platform(key) ||
			(args->control && is_control(key)))
			continue;
		DRV_LOG(ERR, "%s: device argument \"%s\": with link=%s %s", name, key,
			args->ntb ? "ntb" : "endpoint",
			!args->is_blk && is_control(key) ?
				"the endpoint decides, unless control=host" :
				"it is for the endpoint's operator to say");
		return -EINVAL;
	}
	return 0;
}

int
vfn_args_parse(const char *name, const char *text, struct vfn_args *args)
{
	struct vfn_net_args function;
	struct rte_kvargs *kvlist;
	const char *value;
	uint64_t seen = 0;
	unsigned int i;
	char why[128];
	int ret = 0;

	*args = (struct vfn_args){.lm = VFN_LM_HW,
		.drain_ms = 100,
		.vduse_timeout = 10,
		.vduse_packed = true,
		.ntb_mb = 64};
	if (vfn_net_args_init(&function, name) < 0) {
		DRV_LOG(ERR, "%s: name is longer than %zu", name, sizeof(args->function.name) - 1);
		return -EINVAL;
	}
	kvlist = rte_kvargs_parse(text, NULL);
	if (kvlist == NULL) {
		DRV_LOG(ERR, "%s: malformed device arguments \"%s\"", name, text);
		return -EINVAL;
	}
	/* Which arguments there are depends on it, wherever it is. */
	value = rte_kvargs_get(kvlist, "class");
	args->is_blk = value != NULL && strcmp(value, "blk") == 0;
	vfn_blk_args_init(&args->blk);
	/* rte_kvargs_process() gives up on keys without a value, unnamed, from DPDK 24.11 on. */
	for (i = 0; i < kvlist->count && ret == 0; i++)
		ret = parse_one(&kvlist->pairs[i], args, &function, &seen);
	rte_kvargs_free(kvlist);
	if (ret < 0)
		return -EINVAL;
	if (check_link(args, name, function.function.dma, seen) < 0)
		return -EINVAL;
	if (args->ntb && args->lm == VFN_LM_HW)
		args->lm = VFN_LM_SHADOW;
	if (args->is_blk)
		function.function.class = &vfn_blk_class;
	ret = vfn_any_args_check(&function.function, why, sizeof(why));
	if (ret == 0 && !args->is_blk)
		ret = vfn_net_args_check(&function, why, sizeof(why));
	else if (ret == 0 && !args->endpoint)
		ret = vfn_blk_args_check(&args->blk, why, sizeof(why));
	if (ret < 0) {
		DRV_LOG(ERR, "%s: device argument %s", name, why);
		return -EINVAL;
	}
	args->function = function.function;
	args->net = function.net;
	if (args->vduse[0] != '\0' && args->function.dma == VFN_DMA_BOUNCE) {
		DRV_LOG(ERR,
			"%s: device argument \"vduse\" excludes dma=bounce: the kernel shows only "
			"its "
			"own pool",
			name);
		return -EINVAL;
	}
	if (args->vduse[0] != '\0' && args->is_blk &&
		(args->endpoint || args->blk.queues != VFN_VDUSE_QUEUES)) {
		DRV_LOG(ERR,
			"%s: device argument \"vduse\" needs queues=%d of class=blk, and "
			"link=inproc",
			name, VFN_VDUSE_QUEUES);
		return -EINVAL;
	}
	if (args->vduse[0] != '\0' && !args->is_blk && args->net.max_pairs > 1) {
		DRV_LOG(ERR,
			"%s: device argument \"vduse\" needs queues=1: the kernel lets no control "
			"queue pass",
			name);
		return -EINVAL;
	}
	return 0;
}

void
vfn_args_show(
	const char *text, void (*show)(void *data, const char *key, const char *value), void *data)
{
	struct rte_kvargs *kvlist = rte_kvargs_parse(text, NULL);
	const char *key, *value, *none;
	struct vfn_args args = {0};
	unsigned int i;

	value = kvlist != NULL ? rte_kvargs_get(kvlist, "link") : NULL;
	if (value != NULL)
		parse_link(value, &args);
	value = kvlist != NULL ? rte_kvargs_get(kvlist, "control") : NULL;
	if (value != NULL)
		parse_control(value, &args);
	value = kvlist != NULL ? rte_kvargs_get(kvlist, "class") : NULL;
	if (value != NULL)
		parse_class(value, &args);
	for (i = 0; i < NB_ALL; i++) {
		key = key_of(i);
		none = i < OWN_AT ? vfn_net_args_known[i].none :
			is_own(i) ? args_known[i - OWN_AT].none :
				    vfn_blk_args_known[i - BLK_AT].none;
		/* One of the other class. */
		if (find(key, args.is_blk) != i)
			continue;
		if (args.endpoint && !is_own(i) && !is_platform(key) &&
			!(args.control && is_control(key)))
			none = "the endpoint's";
		if (args.ntb && strcmp(key, "lm") == 0)
			none = "shadow";
		value = kvlist != NULL ? rte_kvargs_get(kvlist, key) : NULL;
		/* These two select the port, see vfn_net_args_check(). */
		if (value == NULL && strcmp(key, "port") == 0 && kvlist != NULL)
			value = rte_kvargs_get(kvlist, "gen") != NULL	 ? "gen" :
				rte_kvargs_get(kvlist, "ethdev") != NULL ? "ethdev" :
									   NULL;
		show(data, key, value != NULL ? value : none);
	}
	rte_kvargs_free(kvlist);
}
