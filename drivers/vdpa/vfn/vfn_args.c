/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Device arguments: "--vdev vdpa_vfn0,queues=4,idle=sleep". Runs when a device is probed.
 */

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_ether.h>
#include <rte_kvargs.h>

#include "vfn_drv.h"

/* One argument; returns false if the value is not one of its values. */
struct arg {
	const char *key;
	const char *values; /* for the error message */
	bool (*parse)(const char *value, struct vfn_args *args);
	const char *none; /* what is in force without it */
};

/* A whole decimal number; *end points behind it. */
static bool
number(const char *s, const char **end, unsigned long min, unsigned long max, unsigned long *v)
{
	char *stop;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	*v = strtoul(s, &stop, 10);
	*end = stop;
	return errno == 0 && *v >= min && *v <= max;
}

static bool
parse_queues(const char *value, struct vfn_args *args)
{
	unsigned long v;

	if (!number(value, &value, 1, VFN_MAX_PAIRS, &v) || *value != '\0')
		return false;
	args->net.max_pairs = v;
	return true;
}

static bool
parse_mtu(const char *value, struct vfn_args *args)
{
	unsigned long v;

	if (!number(value, &value, 68, UINT16_MAX, &v) || *value != '\0')
		return false;
	args->net.mtu = v;
	return true;
}

static bool
parse_mac(const char *value, struct vfn_args *args)
{
	struct rte_ether_addr addr;

	if (rte_ether_unformat_addr(value, &addr) != 0 || !rte_is_valid_assigned_ether_addr(&addr))
		return false;
	memcpy(args->net.mac, addr.addr_bytes, sizeof(args->net.mac));
	return true;
}

static const char *const wiring_names[] = {
	[VFN_WIRING_LOOPBACK] = "loopback",
	[VFN_WIRING_WIRE] = "wire",
	[VFN_WIRING_SINK] = "sink",
	[VFN_WIRING_ETHDEV] = "ethdev",
	[VFN_WIRING_GEN] = "gen",
};

static bool
parse_wiring(const char *value, struct vfn_args *args)
{
	unsigned int i;

	for (i = 0; i < RTE_DIM(wiring_names) && strcmp(value, wiring_names[i]) != 0; i++)
		;
	args->wiring_given = true;
	args->net.wiring.kind = i;
	return i < RTE_DIM(wiring_names);
}

static bool
parse_gen(const char *value, struct vfn_args *args)
{
	unsigned long v;

	if (!number(value, &value, RTE_ETHER_HDR_LEN, VFN_MAX_PLAIN_FRAME, &v) || *value != '\0')
		return false;
	args->net.wiring.gen = v;
	return true;
}

static bool
parse_ethdev(const char *value, struct vfn_args *args)
{
	if (*value == '\0' || strlen(value) >= sizeof(args->net.wiring.ethdev))
		return false;
	strcpy(args->net.wiring.ethdev, value);
	return true;
}

static bool
parse_offloads(const char *value, struct vfn_args *args)
{
	static const char *const names[] = {
		[VFN_OFFLOADS_ALL] = "all",
		[VFN_OFFLOADS_CSUM] = "csum",
		[VFN_OFFLOADS_OFF] = "off",
	};
	unsigned int i;

	for (i = 0; i < RTE_DIM(names) && strcmp(value, names[i]) != 0; i++)
		;
	args->net.offloads = i;
	return i < RTE_DIM(names);
}

static bool
parse_rate(const char *value, struct vfn_args *args)
{
	unsigned long v;

	if (!number(value, &value, 1, 1000000, &v) || *value != '\0')
		return false;
	args->net.rate_mbps = v;
	return true;
}

static bool
parse_peer(const char *value, struct vfn_args *args)
{
	if (*value == '\0' || strlen(value) >= sizeof(args->net.wiring.peer) ||
		strcmp(value, args->function.name) == 0)
		return false;
	strcpy(args->net.wiring.peer, value);
	return true;
}

static bool
parse_idle(const char *value, struct vfn_args *args)
{
	args->function.pollers.sleep = strcmp(value, "sleep") == 0;
	return args->function.pollers.sleep || strcmp(value, "busy") == 0;
}

/* "3", or a list with ranges in brackets, as EAL has them: "[1,4-6]". */
static bool
parse_poll_cpu(const char *value, struct vfn_args *args)
{
	bool list = *value == '[';
	unsigned int i;

	value += list;
	args->function.pollers.nb_cpus = 0;
	do {
		unsigned long first, last;

		if (!number(value, &value, 0, CPU_SETSIZE - 1, &first))
			return false;
		last = first;
		if (*value == '-' && !number(value + 1, &value, first, CPU_SETSIZE - 1, &last))
			return false;
		for (; first <= last; first++) {
			for (i = 0; i < args->function.pollers.nb_cpus; i++)
				if (args->function.pollers.cpu[i] == first)
					return false;
			if (args->function.pollers.nb_cpus == VFN_MAX_POLLERS)
				return false;
			args->function.pollers.cpu[args->function.pollers.nb_cpus++] = first;
		}
	} while (list && *value++ == ',');
	return list ? value[-1] == ']' && *value == '\0' : *value == '\0';
}

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

	if (!number(value, &value, 1, 60000, &v) || *value != '\0')
		return false;
	args->drain_ms = v;
	return true;
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
parse_fault(const char *value, struct vfn_args *args)
{
	static const struct {
		const char *name;
		enum vfn_fault fault;
	} faults[] = {
		{"no-log", VFN_FAULT_NO_DIRTY},
		{"no-used-log", VFN_FAULT_NO_USED_DIRTY},
		{"no-suspend", VFN_FAULT_NO_SUSPEND},
	};
	unsigned int i;

	for (i = 0; i < RTE_DIM(faults) && strcmp(value, faults[i].name) != 0; i++)
		;
	if (i == RTE_DIM(faults))
		return false;
	args->function.faults = faults[i].fault;
	return true;
}

/* What tells vfn-vhost where to serve the device is not the driver's business. */
static bool
parse_socket(const char *value, struct vfn_args *args)
{
	RTE_SET_USED(args);
	return *value != '\0';
}

static const struct arg args_known[] = {
	{"queues", "1 to " RTE_STR(VFN_MAX_PAIRS) " queue pairs", parse_queues, "1"},
	{"mac", "a unicast address such as 02:00:00:00:00:01", parse_mac, "by the name"},
	{"mtu", "68 to 65535", parse_mtu, "none"},
	{"port", "loopback, wire, sink, ethdev or gen", parse_wiring, "loopback"},
	{"peer", "the name of another device", parse_peer, "none"},
	{"ethdev", "the name of a DPDK port", parse_ethdev, "none"},
	{"gen", "14 to 65534", parse_gen, "none"},
	{"offloads", "off, csum or all", parse_offloads, "all"},
	{"rate-mbps", "1 to 1000000", parse_rate, "none"},
	{"poll-cpu", "a CPU or a list such as [2,4-6], at most " RTE_STR(VFN_MAX_POLLERS),
		parse_poll_cpu, "any"},
	{"idle", "busy or sleep", parse_idle, "busy"},
	{"lm", "hw, shadow or off", parse_lm, "hw"},
	{"drain-ms", "1 to 60000", parse_drain_ms, "100"},
	{"doorbell", "on or off", parse_doorbell, "off"},
	{"inflight", "a directory for what crash recovery needs", parse_inflight, "none"},
	{"socket", "the path of a socket", parse_socket, "none"},
	{"socket-mode", "an octal mode", parse_socket, "none"},
	{"socket-owner", "USER, USER:GROUP or :GROUP", parse_socket, "none"},
	{"fault", "no-log, no-used-log or no-suspend", parse_fault, "none"},
};

/* seen: which of args_known came before. */
static int
parse_one(const struct rte_kvargs_pair *pair, struct vfn_args *args, bool *seen)
{
	unsigned int i;

	for (i = 0; i < RTE_DIM(args_known); i++)
		if (strcmp(pair->key, args_known[i].key) == 0)
			break;
	if (i == RTE_DIM(args_known)) {
		DRV_LOG(ERR, "%s: unknown device argument \"%s\"", args->function.name, pair->key);
		return -EINVAL;
	}
	if (seen[i]) {
		DRV_LOG(ERR, "%s: device argument \"%s\" is given twice", args->function.name,
			pair->key);
		return -EINVAL;
	}
	seen[i] = true;
	if (pair->value == NULL || !args_known[i].parse(pair->value, args)) {
		DRV_LOG(ERR, "%s: device argument \"%s=%s\": expected %s", args->function.name,
			pair->key, pair->value != NULL ? pair->value : "", args_known[i].values);
		return -EINVAL;
	}
	return 0;
}

/* An argument that is for one kind of port selects that, and cannot be had with another one. */
static bool
select_wiring(struct vfn_args *args, const char *key, bool given, enum vfn_wiring port)
{
	const char *name = args->function.name;

	if (given && !args->wiring_given) {
		args->net.wiring.kind = port;
		args->wiring_given = true;
	}
	if (given && args->net.wiring.kind != port) {
		DRV_LOG(ERR, "%s: device argument \"%s\" needs port=%s", name, key,
			wiring_names[port]);
		return false;
	}
	if (!given && args->net.wiring.kind == port) {
		DRV_LOG(ERR, "%s: device argument \"port=%s\" needs \"%s\"", name,
			wiring_names[port], key);
		return false;
	}
	return true;
}

int
vfn_args_parse(const char *name, const char *text, struct vfn_args *args)
{
	bool seen[RTE_DIM(args_known)] = {false};
	struct rte_kvargs *kvlist;
	uint32_t hash = 5381;
	const char *c;
	unsigned int i;
	int ret = 0;

	*args = (struct vfn_args){
		.function.class = &vfn_net_class,
		.net.max_pairs = 1,
		.lm = VFN_LM_HW,
		.drain_ms = 100,
	};
	if (strlen(name) >= sizeof(args->function.name)) {
		DRV_LOG(ERR, "%s: name is longer than %zu", name, sizeof(args->function.name) - 1);
		return -EINVAL;
	}
	strcpy(args->function.name, name);
	/* A locally administered address that stays the same for a name. */
	for (c = name; *c != '\0'; c++)
		hash = hash * 33 + (unsigned char)*c;
	args->net.mac[0] = 0x02;
	args->net.mac[1] = 'v';
	memcpy(args->net.mac + 2, &hash, sizeof(hash));

	kvlist = rte_kvargs_parse(text, NULL);
	if (kvlist == NULL) {
		DRV_LOG(ERR, "%s: malformed device arguments \"%s\"", name, text);
		return -EINVAL;
	}
	/* rte_kvargs_process() gives up on keys without a value, unnamed, from DPDK 24.11 on. */
	for (i = 0; i < kvlist->count && ret == 0; i++)
		ret = parse_one(&kvlist->pairs[i], args, seen);
	rte_kvargs_free(kvlist);
	if (ret < 0)
		return -EINVAL;
	if (args->net.wiring.peer[0] != '\0' && args->net.wiring.kind != VFN_WIRING_WIRE) {
		DRV_LOG(ERR, "%s: device argument \"peer\" needs port=wire", name);
		return -EINVAL;
	}
	if (!select_wiring(args, "gen", args->net.wiring.gen != 0, VFN_WIRING_GEN) ||
		!select_wiring(
			args, "ethdev", args->net.wiring.ethdev[0] != '\0', VFN_WIRING_ETHDEV))
		return -EINVAL;
	return 0;
}

void
vfn_args_show(
	const char *text, void (*show)(void *data, const char *key, const char *value), void *data)
{
	struct rte_kvargs *kvlist = rte_kvargs_parse(text, NULL);
	const char *value, *port = NULL;
	unsigned int i;

	for (i = 0; i < RTE_DIM(args_known); i++) {
		value = kvlist != NULL ? rte_kvargs_get(kvlist, args_known[i].key) : NULL;
		/* These two select the port, see select_wiring(). */
		if (value == NULL && strcmp(args_known[i].key, "port") == 0 && kvlist != NULL) {
			port = rte_kvargs_get(kvlist, "gen") != NULL	 ? "gen" :
				rte_kvargs_get(kvlist, "ethdev") != NULL ? "ethdev" :
									   NULL;
			value = port;
		}
		show(data, args_known[i].key, value != NULL ? value : args_known[i].none);
	}
	rte_kvargs_free(kvlist);
}
