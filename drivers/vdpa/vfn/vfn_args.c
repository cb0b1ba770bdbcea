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

static const struct arg args_known[] = {
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

/* Of all arguments, the function's first. */
static unsigned int
find(const char *key)
{
	unsigned int i;

	for (i = 0; i < vfn_nb_net_args; i++)
		if (strcmp(key, vfn_net_args_known[i].key) == 0)
			return i;
	for (i = 0; i < RTE_DIM(args_known) && strcmp(key, args_known[i].key) != 0; i++)
		;
	return vfn_nb_net_args + i;
}

/* seen: which came before. */
static int
parse_one(const struct rte_kvargs_pair *pair, struct vfn_args *args, struct vfn_net_args *function,
	uint64_t *seen)
{
	const char *name = function->function.name, *value = pair->value, *values;
	unsigned int i = find(pair->key), own = i - vfn_nb_net_args;
	bool good;

	if (i == vfn_nb_net_args + RTE_DIM(args_known)) {
		DRV_LOG(ERR, "%s: unknown device argument \"%s\"", name, pair->key);
		return -EINVAL;
	}
	if (*seen & UINT64_C(1) << i) {
		DRV_LOG(ERR, "%s: device argument \"%s\" is given twice", name, pair->key);
		return -EINVAL;
	}
	*seen |= UINT64_C(1) << i;
	if (i < vfn_nb_net_args) {
		values = vfn_net_args_known[i].values;
		good = value != NULL && vfn_net_args_known[i].parse(value, function);
	} else {
		values = args_known[own].values;
		good = value != NULL && args_known[own].parse(value, args);
	}
	if (!good) {
		DRV_LOG(ERR, "%s: device argument \"%s=%s\": expected %s", name, pair->key,
			value != NULL ? value : "", values);
		return -EINVAL;
	}
	return 0;
}

static bool
is_given(uint64_t seen, const char *key)
{
	return seen & UINT64_C(1) << find(key);
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
	/* rte_kvargs_process() gives up on keys without a value, unnamed, from DPDK 24.11 on. */
	for (i = 0; i < kvlist->count && ret == 0; i++)
		ret = parse_one(&kvlist->pairs[i], args, &function, &seen);
	rte_kvargs_free(kvlist);
	if (ret < 0)
		return -EINVAL;
	if (check_link(args, name, seen) < 0)
		return -EINVAL;
	if (vfn_net_args_check(&function, why, sizeof(why)) < 0) {
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
	for (i = 0; i < vfn_nb_net_args + RTE_DIM(args_known); i++) {
		key = i < vfn_nb_net_args ? vfn_net_args_known[i].key :
					    args_known[i - vfn_nb_net_args].key;
		none = i < vfn_nb_net_args ? vfn_net_args_known[i].none :
					     args_known[i - vfn_nb_net_args].none;
		if (args.endpoint && i < vfn_nb_net_args && !(args.control && is_control(key)))
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
