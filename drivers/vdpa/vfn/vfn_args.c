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
	args->endpoint = strcmp(value, "endpoint") == 0;
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
	{"link", "inproc or endpoint", parse_link, "inproc"},
	{"path", "the path of an endpoint's socket", parse_path, "none"},
	{"control", "endpoint or host", parse_control, "endpoint"},
	{"lm", "hw, shadow or off", parse_lm, "hw"},
	{"drain-ms", "1 to 60000", parse_drain_ms, "100"},
	{"doorbell", "on or off", parse_doorbell, "off"},
	{"inflight", "a directory for what crash recovery needs", parse_inflight, "none"},
	{"socket", "the path of a socket", parse_socket, "none"},
	{"socket-mode", "an octal mode", parse_socket, "none"},
	{"socket-owner", "USER, USER:GROUP or :GROUP", parse_socket, "none"},
};

/* Those of the net class that every function has. */
static bool
is_common(const char *key)
{
	return strcmp(key, "poll-cpu") == 0 || strcmp(key, "idle") == 0 ||
		strcmp(key, "fault") == 0;
}

/* All arguments, one behind the other: what the net class knows, our own, what the block class. */
#define OWN_AT vfn_nb_net_args
#define BLK_AT (OWN_AT + RTE_DIM(args_known))
#define NB_ALL (BLK_AT + vfn_nb_blk_args)

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
		if (strcmp(key, vfn_net_args_known[i].key) == 0 && (!is_blk || is_common(key)))
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
	} else if (i < BLK_AT) {
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
			args->is_blk				  ? " of class=blk" :
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

/* Whether the function is in this process, and else who decides what it is. */
static int
check_link(const struct vfn_args *args, const char *name, uint64_t seen)
{
	unsigned int i;

	if (!args->endpoint) {
		if (!is_given(seen, "path") && !is_given(seen, "control"))
			return 0;
		DRV_LOG(ERR, "%s: device argument \"%s\" needs link=endpoint", name,
			is_given(seen, "path") ? "path" : "control");
		return -EINVAL;
	}
	if (!is_given(seen, "path")) {
		DRV_LOG(ERR, "%s: device argument \"link=endpoint\" needs \"path\"", name);
		return -EINVAL;
	}
	if (args->is_blk) {
		DRV_LOG(ERR, "%s: device argument \"class=blk\": with link=endpoint net only", name);
		return -EINVAL;
	}
	for (i = 0; i < vfn_nb_net_args; i++) {
		const char *key = vfn_net_args_known[i].key;

		if (!is_given(seen, key) || (args->control && is_control(key)))
			continue;
		DRV_LOG(ERR, "%s: device argument \"%s\": with link=endpoint %s", name, key,
			is_control(key) ? "the endpoint decides, unless control=host" :
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

	*args = (struct vfn_args){.lm = VFN_LM_HW, .drain_ms = 100};
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
	if (check_link(args, name, seen) < 0)
		return -EINVAL;
	if (args->is_blk)
		function.function.class = &vfn_blk_class;
	if ((args->is_blk ? vfn_blk_args_check(&args->blk, why, sizeof(why)) :
			    vfn_net_args_check(&function, why, sizeof(why))) < 0) {
		DRV_LOG(ERR, "%s: device argument %s", name, why);
		return -EINVAL;
	}
	args->function = function.function;
	args->net = function.net;
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
		key = i < OWN_AT ? vfn_net_args_known[i].key :
			i < BLK_AT ? args_known[i - OWN_AT].key :
				     vfn_blk_args_known[i - BLK_AT].key;
		none = i < OWN_AT ? vfn_net_args_known[i].none :
			i < BLK_AT ? args_known[i - OWN_AT].none :
				     vfn_blk_args_known[i - BLK_AT].none;
		/* One of the other class. */
		if (find(key, args.is_blk) != i)
			continue;
		if (args.endpoint && i < OWN_AT && !(args.control && is_control(key)))
			none = "the endpoint's";
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
